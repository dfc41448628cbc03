"""Radial partitioning: seconds and peak memory of every method, and of the pipeline on one huge cell.

    python benchmarks/partitioning.py [--quick] [--cases GIP] [--methods edt ray] [--no-pipeline]

Every figure comes from a child process of its own, one thread, kernels compiled before.  The cells are two
real ones where the reference data lie beside the checkout (a size in a name is the downsampling; x2 and x3
repeat the voxels, for the same cell at 8 and 27 times as many), and a phantom otherwise.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import plain_pairs
from memory import one_thread
from timing import copy_rate

from cytomill.phantoms.partitioning import make_cell_phantom
from cytomill.runtime.telemetry import peak_memory_bytes, read_events, reset_peak_memory, resident_bytes

GOLDEN = Path(__file__).resolve().parents[2] / "shared" / "golden" / "partitioning"
#: Name, file of the reference data and how often each voxel is repeated along every axis.
REAL = {
    "GIP f6": ("GIP_30_1535_f6", 1),
    "GIP f3": ("GIP_30_1535_f3", 1),
    "TAK f6": ("TAK_30_2213_f6", 1),
    "TAK f3": ("TAK_30_2213_f3", 1),
    "GIP f3 x2": ("GIP_30_1535_f3", 2),
    "GIP f3 x3": ("GIP_30_1535_f3", 3),
}
#: Phantoms by their scale.
PHANTOMS = {"dent x1": 1.0, "dent x2": 2.0}
VOXEL_SIZE_NM = (30.0, 30.0, 30.0)
SHELLS = 8
#: Cytoplasm voxels up to which a method is run: the slow ones would take hours.
LARGEST = {"plain": 1_500_000, "compat": 1_500_000, "laplace": 5_000_000}
#: A method is run again while all its runs together take less than this, seconds.
ENOUGH_SECONDS, MOST_RUNS = 8.0, 5
#: The huge cell, and the same at the size of a quick look.
HUGE_SCALE, QUICK_SCALE = 1.0, 0.2


@dataclass(frozen=True)
class Cell:
    """A cleaned cell: masks (Z, Y, X) and voxel size."""

    nucleus: np.ndarray
    cell: np.ndarray
    voxel_size_nm: tuple[float, float, float]

    @property
    def cytoplasm_voxels(self) -> int:
        """Voxels to be partitioned."""
        return int(np.count_nonzero(self.cell) - np.count_nonzero(self.nucleus))


def raw_masks(case: str) -> tuple[np.ndarray, np.ndarray]:
    """Masks of nucleus and cell as they are given, not cleaned."""
    if case in PHANTOMS:
        phantom = make_cell_phantom("dent", scale=PHANTOMS[case])
        return phantom.nucleus, phantom.cell
    name, times = REAL[case]
    with np.load(GOLDEN / f"{name}_input.npz") as stored:
        shape = tuple(stored["shape"])
        masks = [
            np.unpackbits(stored[key])[: np.prod(shape)].reshape(shape).astype(bool) for key in ("ne", "pm")
        ]
    for axis in range(3):
        masks = [mask.repeat(times, axis) if times > 1 else mask for mask in masks]
    return masks[0], masks[1]


def load_cell(case: str) -> Cell:
    """A cell, cleaned."""
    from cytomill.partitioning.masks import clean_pair

    nucleus, cell, _ = clean_pair(*raw_masks(case))
    return Cell(nucleus, cell, VOXEL_SIZE_NM)


# Methods import what they need: a child's memory at the start is that of its own method.


def _bare_transforms(cell: Cell) -> Callable[[], object]:
    import edt

    inside, outside = cell.cell, ~cell.nucleus

    def run() -> object:
        size = cell.voxel_size_nm
        return edt.edt(outside, anisotropy=size, parallel=1), edt.edt(inside, anisotropy=size, parallel=1)

    return run


def _shells(cell: Cell, method: str, field: str = "") -> Callable[[], object]:
    from cytomill.partitioning.shells import cell_shells

    return lambda: cell_shells(cell.nucleus, cell.cell, SHELLS, method, field, cell.voxel_size_nm)


def _compat(cell: Cell) -> Callable[[], object]:
    from cytomill.partitioning.pairs_compat import extract_ne_pm_edges, partition_pure

    def run() -> object:
        _, ne, pm = extract_ne_pm_edges(cell.cell, cell.nucleus)
        return partition_pure(ne, pm, cell.cell.shape, SHELLS, cell.cell, cell.nucleus)

    return run


def _plain(cell: Cell) -> Callable[[], object]:
    return lambda: plain_pairs.partition(cell.nucleus, cell.cell, SHELLS)


def _cleaning(cell: Cell) -> Callable[[], object]:
    from cytomill.partitioning.masks import clean_pair

    return lambda: clean_pair(cell.nucleus, cell.cell)


def _rdf(cell: Cell, profile: bool) -> Callable[[], object]:
    from cytomill.partitioning.distances import edt_field, shells_of
    from cytomill.partitioning.rdf import radial_rdf

    t = edt_field(cell.nucleus, cell.cell, cell.voxel_size_nm)
    shells = shells_of(t, SHELLS)
    place = sum(n * along for n, along in zip((7, 13, 29), np.ogrid[tuple(map(slice, t.shape))])) % 97
    organelle = (shells > 0) & ((place == 0) | (place < 3) & (t >= 0.5))
    del place
    return lambda: radial_rdf(organelle, shells, SHELLS, t if profile else None)


METHODS: dict[str, Callable[[Cell], Callable[[], object]]] = {
    "plain": _plain,
    "compat": _compat,
    "pairs": partial(_shells, method="pairs"),
    "pairs_edt": partial(_shells, method="pairs_edt"),
    "bare transforms": _bare_transforms,
    "edt": partial(_shells, method="normalized", field="edt"),
    "ray": partial(_shells, method="normalized", field="ray"),
    "laplace": partial(_shells, method="normalized", field="laplace"),
    "cleaning": _cleaning,
    "RDF": partial(_rdf, profile=False),
    "RDF, profile": partial(_rdf, profile=True),
}


@dataclass(frozen=True)
class Measured:
    """What one method took on one cell.

    Parameters
    ----------
    case, method : str
    voxels, cytoplasm : int
        Of the cell's box, and to be partitioned.
    cpu_seconds, wall_seconds : float
        Of the best run.
    peak_bytes : int
        Above masks, inputs and imports.
    """

    case: str
    method: str
    voxels: int
    cytoplasm: int
    cpu_seconds: float
    wall_seconds: float
    peak_bytes: int


def measure(case: str, method: str) -> Measured:
    """Time one method on one cell in this process, after a small cell has compiled its kernels."""
    small = make_cell_phantom("dent", scale=0.4)
    METHODS[method](Cell(small.nucleus, small.cell, VOXEL_SIZE_NM))()
    cell = load_cell(case)
    run = METHODS[method](cell)
    before = resident_bytes()
    reset_peak_memory()
    cpu, wall = [], []
    while not cpu or (sum(wall) < ENOUGH_SECONDS and len(wall) < MOST_RUNS):
        began = time.process_time(), time.perf_counter()
        result = run()
        cpu.append(time.process_time() - began[0])
        wall.append(time.perf_counter() - began[1])
        del result
    peak = peak_memory_bytes() - before
    return Measured(case, method, cell.cell.size, cell.cytoplasm_voxels, min(cpu), min(wall), peak)


def in_child(case: str, method: str) -> Measured | None:
    """Measure in a process of its own; None, with the reason on the error stream, where it fails."""
    arguments = [sys.executable, str(Path(__file__)), "--measure", case, method]
    ran = subprocess.run(
        arguments, env=one_thread(), capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )
    if ran.returncode:
        last = (ran.stderr.strip().splitlines() or ["no message"])[-1]
        print(f"{case}, {method}: {last}", file=sys.stderr, flush=True)
        return None
    return Measured(**json.loads(ran.stdout.splitlines()[-1]))


def measure_all(cases: list[str], methods: list[str]) -> Iterator[Measured]:
    """Every method on every cell that is not too large for it."""
    for case in cases:
        cytoplasm = 0
        # The quickest first: it says how large the cell is.
        for method in sorted(methods, key=lambda name: (name in LARGEST, list(METHODS).index(name))):
            if cytoplasm > LARGEST.get(method, cytoplasm):
                continue
            found = in_child(case, method)
            if found is not None:
                cytoplasm = found.cytoplasm
                yield found


def speed_table(found: list[Measured]) -> list[str]:
    """Seconds, memory and ratios as Markdown."""
    lines = [
        "| cell | Mvoxel in cytoplasm | method | CPU s | wall s | ns a cytoplasm voxel | peak MB "
        "| bytes a voxel of the box | times faster than plain | bare transforms |",
        "|---|--:|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    by_name = {(m.case, m.method): m for m in found}
    for m in sorted(found, key=lambda m: (m.cytoplasm, list(METHODS).index(m.method))):
        plain, bare = (by_name.get((m.case, name)) for name in ("plain", "bare transforms"))
        cells = (
            m.case,
            f"{m.cytoplasm / 1e6:.3g}",
            m.method,
            f"{m.cpu_seconds:.3g}",
            f"{m.wall_seconds:.3g}",
            f"{1e9 * m.cpu_seconds / m.cytoplasm:.3g}",
            f"{m.peak_bytes / 1e6:.0f}",
            f"{m.peak_bytes / m.voxels:.1f}",
            f"{plain.cpu_seconds / m.cpu_seconds:.1f}" if plain else "",
            f"{m.cpu_seconds / bare.cpu_seconds:.2f}" if bare else "",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def growth_table(found: list[Measured]) -> list[str]:
    """Cost a voxel of one cell at several sizes: linear where it stays the same."""
    cases = sorted({(m.voxels, m.case) for m in found if m.case.startswith(("GIP", "dent"))})
    names = [case for _, case in cases]
    lines = [f"| ns a voxel of the box | {' | '.join(names)} |", f"|---|{'--:|' * len(names)}"]
    for method in METHODS:
        cost = {m.case: 1e9 * m.cpu_seconds / m.voxels for m in found if m.method == method}
        if len(cost) > 1:
            lines.append(f"| {method} | {' | '.join(f'{cost[n]:.3g}' if n in cost else '' for n in names)} |")
    return lines


def run_huge(folder: Path, scale: float) -> list[str]:
    """Partition one huge cell with the pipeline, by slabs on one rank; the stages as Markdown."""
    from cytomill.campaign.run import TELEMETRY
    from cytomill.phantoms.cell_files import write_cell_phantom

    specimen = folder / f"hela-{scale:g}"
    if not (specimen / "phantom.json").is_file():
        write_cell_phantom(specimen, "hela", scale=scale)
    facts = json.loads((specimen / "phantom.json").read_text())
    with tempfile.TemporaryDirectory(dir=folder) as results:
        lines = [
            f'[campaign]\noutput = "{results}"',
            f'[[dataset]]\nname = "cell"\npipeline = "partitioning"\ninput = "{specimen / "cell.zarr"}"',
            f'[partitioning]\nne_labels = [2]\norganelles = ["granules={specimen / "organelle.zarr"}"]\n',
        ]
        if scale < 1:
            # As a cell does that is larger than a rank's share.
            lines.append("largest_crop = 100000\n")
        campaign = Path(results) / "campaign.toml"
        campaign.write_text("\n".join(lines))
        arguments = [sys.executable, "-m", "cytomill", "run", str(campaign)]
        ran = subprocess.run(
            arguments, env=one_thread(), capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
        )
        if ran.returncode:
            raise RuntimeError(f"the pipeline ended with {ran.returncode}: {ran.stderr.strip()}")
        events = [event for event in read_events(Path(results) / TELEMETRY) if event["kind"] == "stage"]
    voxels = np.prod(facts["shape"])
    rows = [
        f"{' x '.join(map(str, facts['shape']))} voxels, "
        f"{facts['cytoplasm_voxels'] / 1e6:.0f} million in cytoplasm:",
        "",
        "| stage | wall s | ns a voxel of the volume | predicted MB | measured MB |",
        "|---|--:|--:|--:|--:|",
    ]
    for event in events:
        seconds = event["seconds"]
        cells = (
            ", ".join(event["stages"]),
            f"{seconds:.3g}",
            f"{1e9 * seconds / voxels:.3g}",
            *(f"{event[name] / 1e6:.0f}" for name in ("predicted_bytes", "peak_bytes")),
        )
        rows.append(f"| {' | '.join(cells)} |")
    rows.append(f"| all | {sum(event['seconds'] for event in events):.3g} | | | |")
    return rows


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the small cells and a small huge one")
    parser.add_argument("--cases", nargs="+", help="only cells whose name holds one of these texts")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--no-pipeline", action="store_true", help="leave the huge cell out")
    parser.add_argument("--folder", type=Path, help="where the huge cell lies, kept for the next run (3 GB)")
    parser.add_argument("--measure", nargs=2, metavar=("CASE", "METHOD"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.measure:
        print(json.dumps(measure(*options.measure).__dict__))
        return 0
    cases = list(REAL) if GOLDEN.is_dir() else list(PHANTOMS)
    if options.quick:
        cases = cases[:2]
    if options.cases:
        cases = [case for case in (*REAL, *PHANTOMS) if any(text in case for text in options.cases)]
    load = os.getloadavg()[0]
    print(f"{os.cpu_count()} cores, load {load:.1f}, copy {copy_rate() / 1e9:.1f} GB/s\n", flush=True)
    found = []
    for one in measure_all(cases, options.methods):
        found.append(one)
        print(f"{one.case}, {one.method}: {one.cpu_seconds:.2f} s", file=sys.stderr, flush=True)
    print("\n".join([*speed_table(found), "", *growth_table(found)]), flush=True)
    if options.no_pipeline:
        return 0
    scale = QUICK_SCALE if options.quick else HUGE_SCALE
    if options.folder:
        options.folder.mkdir(parents=True, exist_ok=True)
        print("\n" + "\n".join(run_huge(options.folder, scale)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        print("\n" + "\n".join(run_huge(Path(folder), scale)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
