"""What the stages of a nanoparticle dataset will need, from its input's header and its configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from cytomill.kernels.blocks import Region
from cytomill.nanoparticles.downsample import source_slices
from cytomill.nanoparticles.intensity_stages import ConvertStage, SlabStage
from cytomill.nanoparticles.label_stages import RUN_BYTES_A_VOXEL, ComponentStage, MaskStage
from cytomill.nanoparticles.posterior_stages import DownsampleStage, PosteriorStage
from cytomill.nanoparticles.state import IMAGES, DatasetState
from cytomill.runtime.needs import Interval, StageNeeds, VolumeNeeds, amplification, steps, volume_needs
from cytomill.runtime.stage import Stage
from cytomill.storage.volumes import Volume

#: Voxels a second of one core, reading, coding and making durable included; of the volume that the stage
#: works on, of the image where the posterior is reduced. Measured on one core of a shared machine with a
#: phantom at 2 % load, and rounded down.
VOXELS_PER_SECOND: Mapping[str, float] = {
    "convert": 35e6,
    "grey levels": 350e6,
    "histograms": 400e6,
    "background": 250e6,
    "posterior": 30e6,
    "downsample": 40e6,
    "components": 25e6,
    "masks": 33e6,
}

#: Seconds that the fit takes a slice, and at the least (one process, whatever the ranks).
FIT_SECONDS_A_SLICE, FIT_SECONDS = 0.005, 1.0

#: Raw bytes over bytes on disk at zstd level 1, each the worst that phantoms at 0.2 to 2 % load gave: a
#: float16 posterior 7 (reference) to 22 (robust, which writes small posteriors as 0), labels 400 to 2600,
#: grey levels of an electron microscope 1.3.
POSTERIOR_RATIO, COARSE_POSTERIOR_RATIO, LABEL_RATIO, IMAGE_RATIO = 6.0, 2.5, 400.0, 1.25


class PlannedCopy(Volume):
    """The converted copy of an input, before it exists: what its header will say."""

    def __init__(self, source: Volume, chunks: tuple[int, ...]) -> None:
        self.path, self.format = source.path, "OME-Zarr"
        self.shape, self.dtype, self.voxel_size_nm = source.shape, source.dtype, source.voxel_size_nm
        self.chunks = chunks

    def identity(self) -> dict[str, Any]:
        return {}

    def close(self) -> None:
        """Nothing is open."""

    def _read(self, region: Region) -> np.ndarray:
        raise ValueError(f"{self.path} is not converted yet")


def expect(state: DatasetState, stages: Sequence[Stage]) -> list[StageNeeds]:
    """What each stage of a dataset will need; no voxel is read.

    Parameters
    ----------
    state : DatasetState
        With its input opened. Its results and its source are used up: open it again for a run.
    stages : sequence of Stage
        Of :func:`cytomill.nanoparticles.stages.build_stages`.
    """
    if not state.source.region_readable:
        chunks, _ = state.layout_of(state.shape, state.source.dtype)
        state.source = PlannedCopy(state.source, chunks)
    if state.source.dtype != np.uint8:
        # The levels are not known yet: all of them is the worst.
        state.results["grey levels"] = {"binning": np.array([0, np.iinfo(state.source.dtype).max])}
    return [_needs(state, stage) for stage in stages]


def _needs(state: DatasetState, stage: Stage) -> StageNeeds:
    # The masks' units are those of the components, which the ledger only knows later.
    units = (ComponentStage(state) if isinstance(stage, MaskStage) else stage).units()
    cost = sum(unit.cost for unit in units)
    if units:
        seconds = cost / VOXELS_PER_SECOND[stage.name]
    else:
        seconds = FIT_SECONDS + FIT_SECONDS_A_SLICE * state.shape[0]
    largest = max((unit.region for unit in units), key=_voxels, default=())
    return StageNeeds(
        dataset=stage.dataset,
        stage=stage.name,
        units=len(units),
        unit=tuple(stop - start for start, stop in largest),
        cost=cost,
        largest_cost=max((unit.cost for unit in units), default=0.0),
        memory_bytes=stage.memory_bytes(units),
        partial_bytes=stage.partial_bytes(),
        reduce_bytes=stage.reduce_bytes(),
        read_amplification=_amplification(state, stage),
        seconds=seconds,
        volumes=_volumes(state, stage),
    )


#: Headers of one file of runs.
RUN_FILE_BYTES = 2048


def _voxels(region: Sequence[Interval]) -> int:
    return prod(stop - start for start, stop in region)


def _volumes(state: DatasetState, stage: Stage) -> tuple[VolumeNeeds, ...]:
    """Volumes that the stage writes."""
    if isinstance(stage, ConvertStage):
        name, shape, dtype, ratio = f"{IMAGES}/{state.spacing}", state.shape, state.source.dtype, IMAGE_RATIO
    elif isinstance(stage, PosteriorStage):
        name, shape, dtype, ratio = stage.volume, state.shape, state.config.posterior_dtype, POSTERIOR_RATIO
    elif isinstance(stage, DownsampleStage):
        name, shape, dtype = stage.volume, state.label_shape, state.config.posterior_dtype
        ratio = COARSE_POSTERIOR_RATIO
    elif isinstance(stage, ComponentStage):
        files = len(stage.units())
        size = int(prod(state.label_shape) * RUN_BYTES_A_VOXEL) + files * RUN_FILE_BYTES
        return (VolumeNeeds("runs between the passes", size, size, files),)
    elif isinstance(stage, MaskStage):
        name, shape, dtype, ratio = stage.volume, state.label_shape, np.int32, LABEL_RATIO
    else:
        return ()
    _, shards = state.layout_of(shape, dtype)
    return (volume_needs(name, shape, np.dtype(dtype).itemsize, shards, ratio),)


def _amplification(state: DatasetState, stage: Stage) -> float:
    """Voxels decoded over voxels of the volume that the stage reads most of."""
    shape, label_shape = state.shape, state.label_shape
    if isinstance(stage, SlabStage):
        slabs = steps(shape[0], stage.depth())
        reads = [(a + z0, a + z1) for a, b in slabs for z0, z1 in steps(b - a, stage.read_depth())]
        rows = stage.band_height() if isinstance(stage, PosteriorStage) else shape[1]
        return amplification((reads, steps(shape[1], rows), [(0, shape[2])]), state.image.chunks, shape)
    chunks, _ = state.layout_of(shape, state.config.posterior_dtype)
    whole = ([(0, shape[1])], [(0, shape[2])])
    if isinstance(stage, DownsampleStage):
        factor, sigma = state.config.downsample[0], state.config.downsample_sigma[0]
        slabs = [source_slices(*unit.region[0], shape[0], factor, sigma) for unit in stage.units()]
        return amplification((slabs, *whole), chunks, shape)
    if isinstance(stage, (ComponentStage, MaskStage)):
        halo = stage.element.halo if isinstance(stage, ComponentStage) else (0, 0, 0)
        block = ComponentStage(state).block()
        reads_an_axis = [
            [(max(a - h, 0), min(b + h, n)) for a, b in steps(n, size)]
            for n, size, h in zip(label_shape, block, halo)
        ]
        chunks, _ = state.layout_of(label_shape, state.config.posterior_dtype)
        return amplification(reads_an_axis, chunks, label_shape)
    return 1.0
