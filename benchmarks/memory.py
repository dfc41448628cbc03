"""Predicted and measured peak memory of every stage, by running campaigns whose units are large.

Every case is a stack made by tiling a small phantom, run by ``cytomill run`` in a process of its own; the
figures are those of the run's own telemetry, which forgets the peak before each stage.  A stage holds
what was promised where ``measured <= predicted <= 1.25 * measured``.  The promise says something only
where a unit is large against the imports: the stacks make a unit several times the baseline. What rank 0
needs to put the results of all units together has a row of its own where it is large.
"""

from __future__ import annotations

import argparse
import gzip
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cytomill.campaign.run import TELEMETRY
from cytomill.kernels.blocks import grid
from cytomill.nanoparticles.stages import MixtureStage
from cytomill.phantoms.nanoparticles import NanoparticlePhantom
from cytomill.runtime.telemetry import read_events
from cytomill.storage.stores import open_store

#: A prediction may lie this far above what is measured.
SLACK = 1.25

VOXEL_SIZE_NM = (50.0, 10.0, 10.0)
_TILE = 1024


@dataclass(frozen=True)
class Case:
    """One campaign to be run.

    Parameters
    ----------
    name : str
        What is particular about it.
    shape : tuple of int
        Voxels of the stack (Z, Y, X).
    dtype : {"uint8", "uint16"}
        Of the stack.
    chunks : tuple of int
        Of the stack, which is what the slice-wise stages read at once.
    shards : tuple of int
        Of the volumes written.
    block : tuple of int
        Of the labelling stages.
    options : str
        Lines of the campaign's section ``[nanoparticles]``.
    compressed : bool
        Write the stack as ``.mrc.gz``, which has to be converted first.
    load : float
        Share of voxels that are particle.
    single_voxels : bool
        Make one voxel of 27 bright in place of particles, so that there are millions of clusters.
    """

    name: str
    shape: tuple[int, int, int]
    dtype: str = "uint8"
    chunks: tuple[int, int, int] = (20, 1024, 1024)
    shards: tuple[int, int, int] = (5, 8192, 8192)
    block: tuple[int, int, int] = (5, 8192, 8192)
    options: str = ""
    compressed: bool = False
    load: float = 0.02
    single_voxels: bool = False


#: Units of 1 to 3 GB.
CASES = (
    Case("uint8 to float16", (40, 8192, 8192)),
    Case("uint16 to float16", (20, 8192, 8192), "uint16", (10, 1024, 1024)),
    Case("uint8 to uint8", (20, 8192, 8192), options='posterior_dtype = "uint8"'),
    Case("8 % particles", (20, 8192, 8192), load=0.08),
    Case("closing of 30 nm", (20, 8192, 8192), options="closing_nm = 30.0"),
    Case("downsampled", (24, 8192, 8192), shards=(3, 4096, 4096), options="downsample = [2, 2, 2]"),
    Case("compressed MRC", (10, 8192, 8192), "uint16", shards=(5, 8192, 8192), compressed=True),
    Case("as planned", (32, 4096, 4096), chunks=(1, 1024, 1024), shards=(0, 0, 0), block=(0, 0, 0)),
    Case(
        "5 million clusters",
        (33, 2048, 2048),
        chunks=(1, 1024, 1024),
        shards=(0, 0, 0),
        block=(0, 0, 0),
        options="radius = 0\nmin_particle_size = 1",
        single_voxels=True,
    ),
)


@dataclass(frozen=True)
class StagePeak:
    """Peak memory of one stage in one campaign, bytes.

    Parameters
    ----------
    case, stage : str
        Names.
    baseline, predicted, measured : int
        The process after its imports; what the stage said it would need at its peak, imports
        included; what it had.
    """

    case: str
    stage: str
    baseline: int
    predicted: int
    measured: int

    @property
    def unit(self) -> int:
        """Bytes predicted above the baseline."""
        return self.predicted - self.baseline

    @property
    def holds(self) -> bool:
        """Whether ``measured <= predicted <= 1.25 * measured``."""
        return self.measured <= self.predicted <= SLACK * self.measured


def tiled_phantom(case: Case) -> np.ndarray:
    """A few distinct slices that are repeated along every axis: (D, tile, tile)."""
    tile = min(_TILE, *case.shape[1:])
    depth = 3 if case.single_voxels else 4
    load = 0.0 if case.single_voxels else case.load
    phantom = NanoparticlePhantom((depth, tile, tile), seed=11, load=load, dtype=case.dtype)
    stack = np.stack([phantom.slice(z)[0] for z in range(depth)])
    if case.single_voxels:
        stack[1, 1::3, 1::3] = stack[1, 1::3, 1::3] // 2 + 150
    return stack


def _slab(tile: np.ndarray, first: int, stop: int, shape: Sequence[int]) -> np.ndarray:
    slices = tile[np.arange(first, stop) % len(tile)]
    repeats = [-(-n // t) for n, t in zip(shape[1:], tile.shape[1:], strict=True)]
    return np.ascontiguousarray(np.tile(slices, (1, *repeats))[:, : shape[1], : shape[2]])


def write_stack(case: Case, folder: Path) -> Path:
    """Write a case's stack, a slab at a time; returns what the campaign reads."""
    tile = tiled_phantom(case)
    depth = case.shape[0]
    if case.compressed:
        return _write_compressed(case, tile, folder / "stack.mrc.gz")
    chunks = tuple(min(c, n) for c, n in zip(case.chunks, case.shape, strict=True))
    shards = (chunks[0], *case.shape[1:])
    shards = tuple(-(-n // c) * c for n, c in zip(shards, chunks, strict=True))
    store = open_store(folder / "stack.zarr")
    image = store.create("images/50-10-10", case.shape, case.dtype, chunks, shards)
    for (band,) in grid((depth,), (shards[0],)):
        image.write((band,), _slab(tile, *band, case.shape))
    return folder / "stack.zarr"


def _write_compressed(case: Case, tile: np.ndarray, path: Path) -> Path:
    import mrcfile

    plain = path.with_suffix("")
    with mrcfile.new(plain) as file:
        file.set_data(np.zeros((1, 1, 1), case.dtype))
        file.header.nx, file.header.ny, file.header.nz = case.shape[::-1]
        header = file.header.tobytes()
    plain.unlink()
    with gzip.open(path, "wb", compresslevel=1) as stream:
        stream.write(header)
        for z in range(case.shape[0]):
            stream.write(_slab(tile, z, z + 1, case.shape).tobytes())
    return path


def run_case(case: Case, folder: Path, launcher: Sequence[str] = ()) -> list[StagePeak]:
    """Run one campaign and read its peaks.

    Parameters
    ----------
    case : Case
    folder : Path
        Where the stack and the results are written; it must exist.
    launcher : sequence of str
        What is put before the interpreter, for instance ``mpirun -n 2``.

    Returns
    -------
    list of StagePeak
        In the order in which the stages ran; of several ranks the largest.

    Raises
    ------
    RuntimeError
        If the campaign fails; with what it said.
    """
    lines = [
        f'[campaign]\noutput = "{folder / "results"}"',
        f"[run]\nblock = {list(case.block)}",
        "[nanoparticles]",
        f"shard_shape = {list(case.shards)}" if all(case.shards) else "",
        case.options,
        f'[[dataset]]\nname = "stack"\ninput = "{write_stack(case, folder)}"',
        f"voxel_size_nm = {list(VOXEL_SIZE_NM)}\n",
    ]
    (folder / "campaign.toml").write_text("\n".join(lines))
    arguments = [*launcher, sys.executable, "-m", "cytomill", "run", str(folder / "campaign.toml")]
    ran = subprocess.run(
        arguments, env=one_thread(), capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )
    if ran.returncode:
        raise RuntimeError(f"case {case.name!r} ended with {ran.returncode}: {ran.stderr.strip()}")
    return stage_peaks(case.name, folder / "results")


def one_thread() -> dict[str, str]:
    """This process's environment with one thread a rank."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "RAYON_NUM_THREADS")
    return {**os.environ, **dict.fromkeys(names, "1")}


def stage_peaks(case: str, results: Path) -> list[StagePeak]:
    """Peaks of a campaign's stages from its telemetry."""
    found: dict[str, tuple[int, int]] = {}
    baseline = 0
    for event in read_events(results / TELEMETRY):
        if event["kind"] == "reduce" and event["predicted_bytes"] > 2 * baseline > 0:
            name = f"{event['stage']}: rank 0"
        elif event["kind"] == "stage":
            name = ", ".join(event["stages"])
        else:
            continue
        if name == MixtureStage.name:  # it has no units: what is predicted is the baseline
            baseline = max(baseline, event["predicted_bytes"])
            continue
        pair = (event["predicted_bytes"], event["peak_bytes"])
        found[name] = max(found.get(name, (0, 0)), pair, key=lambda p: p[1])
    return [StagePeak(case, name, baseline, *pair) for name, pair in found.items()]


def table(peaks: Sequence[StagePeak]) -> str:
    """The peaks as Markdown, MB."""
    rows = [
        "| case | stage | imports MB | unit MB | predicted MB | measured MB | predicted / measured | holds |",
        "|---|---|--:|--:|--:|--:|--:|---|",
    ]
    for peak in peaks:
        figures = (peak.baseline, peak.unit, peak.predicted, peak.measured)
        cells = " | ".join(f"{value / 1e6:.0f}" for value in figures)
        ratio = peak.predicted / peak.measured
        rows.append(
            f"| {peak.case} | {peak.stage} | {cells} | {ratio:.2f} | {'yes' if peak.holds else '**no**'} |"
        )
    return "\n".join(rows)


def quick(case: Case) -> Case:
    """The case with half the slices and a quarter of the rows, to see whether it runs at all."""
    depth, height, width = case.shape
    return replace(
        case,
        shape=(depth // 2, height // 4, width),
        shards=_quarter(case.shards),
        block=_quarter(case.block),
    )


def _quarter(shape: tuple[int, int, int]) -> tuple[int, int, int]:
    return shape[0], max(shape[1] // 4, 1024) if shape[1] else 0, shape[2]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a quarter of every slice")
    parser.add_argument("--case", action="append", help="run only cases whose name holds this text")
    parser.add_argument("--folder", type=Path, help="where stacks and results lie while a case runs (12 GB)")
    options = parser.parse_args()
    cases = [c for c in CASES if not options.case or any(text in c.name for text in options.case)]
    peaks: list[StagePeak] = []
    for case in cases:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            peaks += run_case(quick(case) if options.quick else case, Path(folder))
        print(f"{case.name}: done", file=sys.stderr, flush=True)
    print(table(peaks))
    return 0 if all(peak.holds for peak in peaks) else 1


if __name__ == "__main__":
    sys.exit(main())
