"""Speed and memory of the nanoparticle stages against a plain rendering of the same definitions, in one run.

One process, one thread.  Everything is measured on the same stack: how fast memory is copied, what the plain
rendering (`plain_nanoparticles.py`) reaches, what the package reaches, with and without reading and writing.
The plain rendering is slow, so it gets the first slices only; all figures are voxels a second.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import cc3d
import numpy as np
import plain_nanoparticles as plain
import zarr
from memory import one_thread
from numcodecs.zstd import Zstd
from timing import Row, Timing, copy_rate, peak_of, rows_table, timed

from cytomill.kernels.binning import Binning
from cytomill.kernels.closing import ball, binary_closing
from cytomill.kernels.components import label_block
from cytomill.kernels.labelling import label_volume, threshold_mask
from cytomill.kernels.lookup import apply_table
from cytomill.nanoparticles.config import NanoparticleSegConfig
from cytomill.nanoparticles.downsample import downsample_posterior
from cytomill.nanoparticles.measurements import measure_unit, merge_measurements, particle_table
from cytomill.nanoparticles.posterior_stages import DownsampleStage
from cytomill.nanoparticles.slabs import slab_backgrounds, slab_histograms
from cytomill.nanoparticles.stages import build_stages
from cytomill.nanoparticles.state import DatasetState
from cytomill.nanoparticles.warming import warm_kernels
from cytomill.phantoms.nanoparticles import NanoparticlePhantom
from cytomill.runtime.arrays import concatenate
from cytomill.runtime.stage import Stage
from cytomill.runtime.startup import prepare_process
from cytomill.runtime.telemetry import peak_memory_bytes, reset_peak_memory, resident_bytes
from cytomill.storage.stores import open_store

SHAPE = (64, 2048, 2048)
QUICK = (16, 1024, 1024)
VOXEL_SIZE_NM = (50.0, 10.0, 10.0)
LOAD = 0.02
FACTORS = (1, 5, 5)

def make_stack(shape: Sequence[int], folder: Path) -> Path:
    """Write a phantom tiled in Y and X, so that large stacks cost little to make; kept if it is there."""
    path = folder / f"stack-{'x'.join(map(str, shape))}.zarr"
    if path.exists():
        return path
    depth, height, width = shape
    tile = (min(height, 1024), min(width, 1024))
    phantom = NanoparticlePhantom((depth, *tile), seed=5, load=LOAD)
    repeats = (-(-height // tile[0]), -(-width // tile[1]))
    slices = [np.tile(phantom.slice(z)[0], repeats)[:height, :width] for z in range(depth)]
    image = open_store(path).create("images/50-10-10", shape, np.uint8, (1, *tile))
    image.write((), np.stack(slices))
    return path


def open_state(stack: Path, folder: Path) -> DatasetState:
    """The dataset as the pipeline sees it; percentiles that fit the phantom's load."""
    config = NanoparticleSegConfig(
        root_path=str(folder),
        spacing_dir="50-10-10",
        estimator="reference",
        percent_th_low=100 * (1 - 1.2 * LOAD),
        percent_th_high=100 * (1 - 0.7 * LOAD),
    )
    return DatasetState("stack", folder, str(stack), VOXEL_SIZE_NM, config)


@dataclass(frozen=True)
class StageRun:
    """How one stage of the pipeline ran: times of all its units, with reading and writing."""

    timing: Timing
    unit_bytes: int
    peak_bytes: int


def run_stage(stage: Stage, voxels: int, repeats: int) -> StageRun:
    """Run a stage's units, several times over, then its reduction."""
    stage.prepare(0)
    units = stage.units()
    parts: list[Any] = []

    def every_unit() -> None:
        parts.clear()
        parts.extend(stage.process(unit).partials for unit in units)

    before = resident_bytes()
    reset_peak_memory()
    timing = timed(voxels, every_unit, repeats)
    peak = peak_memory_bytes() - before
    stage.accept(stage.reduce(concatenate(parts) if parts else {}))
    return StageRun(timing, stage.memory_bytes(units), peak)


@dataclass(frozen=True)
class PlainStore:
    """Volumes written and read by zarr alone, with the package's compression and chunks but no shards."""

    folder: Path

    def write(self, name: str, volume: np.ndarray) -> None:
        """Write a volume, slice by slice."""
        array = zarr.create_array(
            self.folder / name,
            shape=volume.shape,
            dtype=volume.dtype,
            chunks=(1, *(min(n, 1024) for n in volume.shape[1:])),
            compressors=zarr.codecs.ZstdCodec(level=1, checksum=True),
            overwrite=True,
        )
        for z, plane in enumerate(volume):
            array[z] = plane

    def read(self, name: str) -> np.ndarray:
        """Read a whole volume."""
        return zarr.open_array(self.folder / name, mode="r")[:]


def encode_rate(posterior: np.ndarray, repeats: int) -> float:
    """Voxels a second at which zstd-1 alone encodes the posterior's chunks."""
    codec = Zstd(level=1, checksum=True)
    height, width = (min(n, 1024) for n in posterior.shape[1:])
    chunks = [np.ascontiguousarray(plane[:height, :width]) for plane in posterior]
    voxels = len(chunks) * height * width
    return timed(voxels, lambda: [len(codec.encode(chunk)) for chunk in chunks], repeats).rate


def slice_rows(image: np.ndarray, state: DatasetState, few: int, repeats: int) -> list[Row]:
    """Kernels of the stages that work slice by slice, in memory, on both sides."""
    found = state.results["histograms"]["hist_slices"]
    thresholds, tables = state.thresholds, state.results["mixture"]["tables"]
    low, high = thresholds.of_slice(0)
    some = image[:few]
    slices = range(len(image))
    target = np.zeros(image[0].shape, tables.dtype)
    return [
        Row(
            "histogram",
            timed(some.size, lambda: plain.histograms(some), repeats),
            timed(image.size, lambda: slab_histograms(image, Binning()), repeats),
            1200,
            "histogram in C, 2100",
            2100,
        ),
        Row(
            "background",
            timed(some.size, lambda: [plain.background_histogram(i, low, high) for i in some], 2),
            timed(
                image.size,
                lambda: slab_backgrounds(image, 0, Binning(), found, thresholds, 20, 20),
                repeats,
            ),
            500,
            "histogram in C, 2100",
            2100,
        ),
        Row(
            "posterior, gather alone",
            timed(some.size, lambda: [tables[z][some[z]] for z in range(few)], repeats),
            # Into memory that is used again: page faults of fresh memory are not the kernel's.
            timed(image.size, lambda: [apply_table(image[z], tables[z], target) for z in slices], repeats),
            2000,
            "table gather, 2000 to 6000",
            6000,
        ),
    ]


def label_rows(
    image: np.ndarray, posterior: np.ndarray, threshold: float, few: int, repeats: int
) -> list[Row]:
    """Kernels of labelling and measuring, in memory, on both sides; and the components against cc3d."""
    some = np.ascontiguousarray(posterior[:few])
    mask = binary_closing(threshold_mask(posterior, threshold), ball(1))
    labels = label_volume(posterior, threshold)
    region = tuple((0, n) for n in labels.shape)
    few_labels = label_volume(some, threshold)

    def measured() -> Any:
        sums = merge_measurements(measure_unit(labels, region, posterior, image))
        return particle_table(sums, VOXEL_SIZE_NM)

    return [
        Row(
            "downsampled posterior in memory",
            timed(some.size, lambda: plain.downsampled(some, FACTORS), 2),
            timed(posterior.size, lambda: downsample_posterior(posterior, FACTORS), repeats),
        ),
        Row(
            "labels in memory",
            timed(some.size, lambda: plain.labels(some, threshold), 2),
            timed(posterior.size, lambda: label_volume(posterior, threshold), repeats),
        ),
        Row(
            "components alone (plain: cc3d)",
            timed(mask.size, lambda: cc3d.connected_components(mask, connectivity=18), repeats),
            timed(mask.size, lambda: label_block(mask, 2), repeats),
        ),
        Row(
            "measurements in memory",
            timed(some.size, lambda: plain.measurements(few_labels, some, image[:few], VOXEL_SIZE_NM), 1),
            timed(posterior.size, measured, repeats),
        ),
    ]


def stored_rows(
    image: np.ndarray,
    posterior: np.ndarray,
    state: DatasetState,
    ran: dict[str, StageRun],
    few: int,
    folder: Path,
) -> tuple[list[Row], dict[str, int]]:
    """Whole stages, reading, decoding, encoding and writing included; and the plain rendering's peaks."""
    store = PlainStore(folder)
    store.write("image", image[:few])
    mixture, threshold = state.mixture, state.config.posterior_th
    peaks: dict[str, int] = {}

    def fitted() -> None:
        histograms = plain.histograms(store.read("image"))
        low, high = state.thresholds.of_slice(0)
        background = sum(plain.background_histogram(i, low, high) for i in store.read("image"))
        plain.fit(histograms.sum(axis=0), background, low)

    def predict() -> None:
        slices = [plain.posterior_slice(i, mixture.p_np, mixture.p_bg) for i in store.read("image")]
        store.write("posterior", np.stack(slices))

    def downsample() -> None:
        store.write("reduced", plain.downsampled(store.read("posterior"), FACTORS))

    def label() -> None:
        found = plain.labels(store.read("posterior"), threshold)
        store.write("labels", found)
        plain.measurements(found, store.read("posterior"), store.read("image"), VOXEL_SIZE_NM)

    voxels = few * image[0].size
    seconds: dict[str, Timing] = {}

    def time_once(name: str, run: Callable[[], None]) -> None:
        seconds[name] = timed(voxels, run, 1)

    for name, run in (("fit", fitted), ("predict", predict), ("downsample", downsample), ("label", label)):
        peaks[name] = peak_of(partial(time_once, name, run))

    def together(*stages: str) -> Timing:
        times = zip(*(ran[stage].timing.seconds for stage in stages))
        return Timing(image.size, tuple(sum(parts) for parts in times))

    zstd = encode_rate(posterior[: max(few, 4)], 3) / 1e6
    return [
        Row("fit: histograms, background (read)", seconds["fit"], together("histograms", "background")),
        Row(
            "predict: posterior (read, encode, write)",
            seconds["predict"],
            together("posterior"),
            70,
            f"zstd-1 float16 encode, {zstd:.0f} in this run",
            zstd,
        ),
        Row(
            "downsample (read, encode, write)",
            seconds["downsample"],
            together("downsample"),
        ),
        Row(
            "label: components, masks, measurements (read, encode, write)",
            seconds["label"],
            together("components", "masks"),
            48.5,
        ),
    ], peaks


def measure(
    shape: Sequence[int], few: int, repeats: int, folder: Path
) -> tuple[list[Row], list[str], float]:
    """Measure everything.

    Parameters
    ----------
    shape : sequence of int
        Of the stack.
    few : int
        Slices that the plain rendering gets.
    repeats : int
        Runs of each measurement of the package.
    folder : Path
        Where the stack is kept and results lie for a while.

    Returns
    -------
    rows : list of Row
    memory : list of str
        Lines of the table of memory.
    copy : float
        Bytes a second at which memory is copied.
    """
    warm_kernels()
    stack = make_stack(shape, folder)
    copy = copy_rate()
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        state = open_state(stack, Path(scratch) / "results")
        voxels = int(np.prod(shape))
        ran = {}
        for stage in build_stages(state):
            ran[stage.name] = run_stage(stage, voxels, repeats)
        # Beside the labels, which are made at the image's spacing here.
        coarse = replace(state, config=replace(state.config, downsample=FACTORS))
        ran[DownsampleStage.name] = run_stage(DownsampleStage(coarse), voxels, repeats)
        image = state.image.read()
        posterior = state.store.open("labels/nps/posterior/50-10-10").read()
        rows = slice_rows(image, state, few, repeats)
        rows += label_rows(image, posterior, state.config.posterior_th, few, repeats)
        stored, peaks = stored_rows(image, posterior, state, ran, few, Path(scratch))
    return rows + stored, memory_table(ran, peaks, few * shape[1] * shape[2], voxels), copy


def memory_table(ran: dict[str, StageRun], plain_peaks: dict[str, int], few: int, voxels: int) -> list[str]:
    """Peaks above what the process held before, in Markdown."""
    lines = [
        "| stage | peak of a unit MB | predicted MB | bytes a voxel of the stack |",
        "|---|--:|--:|--:|",
    ]
    for name, run in ran.items():
        if run.unit_bytes:
            megabytes = f"{run.peak_bytes / 1e6:.0f} | {run.unit_bytes / 1e6:.0f}"
            lines.append(f"| {name} | {megabytes} | {run.peak_bytes / voxels:.2f} |")
    for name, peak in plain_peaks.items():
        lines.append(f"| plain {name}, {few / 1e6:.0f} Mvoxel | {peak / 1e6:.0f} | | {peak / few:.1f} |")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", type=int, nargs=3, default=None, metavar=("Z", "Y", "X"))
    parser.add_argument("--quick", action="store_true", help="a small stack, fewer runs")
    parser.add_argument("--plain-slices", type=int, default=8, help="slices for the plain rendering")
    parser.add_argument("--repeats", type=int, default=0, help="runs of each (default 5; quick: 3)")
    parser.add_argument("--folder", type=Path, help="keep the stack here for the next run")
    options = parser.parse_args()
    prepare_process()
    shape = tuple(options.shape or (QUICK if options.quick else SHAPE))
    repeats = options.repeats or (3 if options.quick else 5)
    few = min(options.plain_slices, shape[0])
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        load = os.getloadavg()[0]
        rows, memory, copy = measure(shape, few, repeats, folder)
    print(
        f"{shape[0]}×{shape[1]}×{shape[2]} uint8, one thread, best (median) of {repeats} runs; the plain "
        f"rendering on the first {few} slices, all in Mvoxel/s (1 Mvoxel/s of the image is 1 MB/s). Memory "
        f"is copied at {copy / 1e9:.1f} GB/s. {os.cpu_count()} cores, load {load:.1f} at the start.\n"
    )
    print("\n".join(rows_table(rows, copy)), "\n")
    print("\n".join(memory))
    return 0


if __name__ == "__main__":
    # The libraries read their number of threads when they are imported, which is before this line.
    if any(os.environ.get(name) != value for name, value in one_thread().items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], one_thread())
    sys.exit(main())
