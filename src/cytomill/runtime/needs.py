"""What a stage will need before any of it has run: units, memory, reading, writing, time.

Predictions come from headers and the unit table alone, so that a plan costs no reading of voxels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import prod

from cytomill.runtime.memory import Demand

Interval = tuple[int, int]


@dataclass(frozen=True)
class VolumeNeeds:
    """A volume that a stage writes.

    Parameters
    ----------
    name : str
        Its name in the dataset's store.
    raw_bytes : int
        Voxels times bytes a voxel.
    disk_bytes : int
        Estimate after compression.
    files : int
        Shard files at the most (a shard of fill values has none).
    """

    name: str
    raw_bytes: int
    disk_bytes: int
    files: int


@dataclass(frozen=True)
class StageNeeds:
    """What one stage of one dataset will need.

    Parameters
    ----------
    dataset, stage : str
        Whose.
    units : int
        Units of work.
    unit : tuple of int
        Largest unit, voxels along its axes from Z on; a slab gives Z alone.
    cost : float
        Sum of the units' costs.
    largest_cost : float
        Cost of the costliest unit, which bounds the stage's wall time from below.
    memory_bytes : int
        Bytes of a unit above the import baseline.
    partial_bytes, reduce_bytes : int
        Bytes of the partial results of all units, and what their reduction needs on rank 0.
    read_amplification : float
        Voxels decoded over voxels of the volume that is read: chunks that a read cuts are decoded
        whole, halos more than once.
    seconds : float
        Time on one core.
    volumes : tuple of VolumeNeeds
        What it writes.
    """

    dataset: str
    stage: str
    units: int
    unit: tuple[int, ...]
    cost: float
    largest_cost: float
    memory_bytes: int
    partial_bytes: int = 0
    reduce_bytes: int = 0
    read_amplification: float = 1.0
    seconds: float = 0.0
    volumes: tuple[VolumeNeeds, ...] = field(default=())


def demand_of(needs: Iterable[StageNeeds], ranks: int) -> Demand:
    """Memory that stages need, those of one name together and the names one after another."""
    waves: dict[str, list[tuple[int, int, int]]] = {}
    for stage in needs:
        bytes_needed = (stage.memory_bytes, stage.partial_bytes, stage.reduce_bytes)
        waves.setdefault(stage.stage, []).append(bytes_needed)
    demand = Demand()
    for wave in waves.values():
        demand |= Demand.of_wave(wave, ranks)
    return demand


def volume_needs(
    name: str, shape: Sequence[int], itemsize: int, shards: Sequence[int], ratio: float
) -> VolumeNeeds:
    """Needs of a volume of `shape` in shards of `shards`, compressed `ratio` to 1."""
    raw = prod(shape) * itemsize
    files = prod(-(-length // shard) for length, shard in zip(shape, shards, strict=True))
    return VolumeNeeds(name, raw, int(raw / ratio), files)


def steps(length: int, step: int) -> list[Interval]:
    """Cut an axis into pieces of `step`, the last one shorter."""
    return [(start, min(start + step, length)) for start in range(0, length, max(step, 1))]


def amplification(reads: Sequence[Iterable[Interval]], chunks: Sequence[int], shape: Sequence[int]) -> float:
    """Voxels decoded over voxels of the volume, for reads that are a product of intervals an axis.

    ::

        chunks  |-------|-------|-------|      a read of the middle
        read          [====]                   decodes two chunks
        decoded [==============]

    Parameters
    ----------
    reads : sequence of iterables of (int, int)
        Half-open intervals read along each axis, halos included.
    chunks, shape : sequence of int
        Of the volume that is read.
    """
    factor = 1.0
    for intervals, chunk, length in zip(reads, chunks, shape, strict=True):
        decoded = sum(
            min(-(-stop // chunk) * chunk, length) - start // chunk * chunk for start, stop in intervals
        )
        factor *= decoded / length
    return factor
