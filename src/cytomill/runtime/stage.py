"""What a pipeline tells the runtime: stages, cut into units that are pure.

A stage belongs to one dataset. Its units read a region, compute, write shards that no other unit
writes, and return small partial results whose rows belong to fixed granules (a slice, a block),
never to units: the engine concatenates them along axis 0 in the order of the frozen unit table,
so that the reduction sees the same arrays whatever ranks, order or unit size made them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from cytomill.kernels.blocks import Region, region_shape

#: A named set of arrays: partial results, reduced results. Never object arrays.
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Unit:
    """One piece of work: a region of a dataset.

    Parameters
    ----------
    index : int
        Position in the stage's unit table; tables list units in raster order of their regions.
    region : tuple of (int, int)
        Half-open range an axis, (Z, Y, X); a slab gives Z alone.
    cost : float
        Relative cost; the costliest units are handed out first.
    """

    index: int
    region: tuple[tuple[int, int], ...]
    cost: float

    @classmethod
    def boxes(cls, regions: Iterable[Region]) -> list[Unit]:
        """Units that are boxes of a volume, as costly as they have voxels."""
        return [cls(i, region, float(prod(region_shape(region)))) for i, region in enumerate(regions)]


@dataclass
class UnitOutput:
    """What `process` returns: partial results and the shards written.

    Parameters
    ----------
    partials : dict of str to ndarray
        Rows (axis 0) belong to granules in raster order.
    shards : list of Path
        Every shard file that the unit owns, whether or not the writer left a file (all-fill shards
        have none); the engine makes them durable and lists them in the ledger.
    """

    partials: Arrays = field(default_factory=dict)
    shards: list[Path] = field(default_factory=list)


class DatasetRefused(Exception):
    """A stage cannot go on with its dataset; the message is one sentence for the user, "dataset NAME: …".

    Raised by `prepare` (rank 0) or `reduce`, it sets the dataset aside and lets the others finish; any other
    exception there ends the job.
    """


def check_blocks(stage: str, units: Sequence[Unit], shards: Sequence[int], shape: Sequence[int]) -> None:
    """Raise ValueError if a unit does not consist of whole shards of a volume of this shape.

    A unit that is a slab, whose region is along Z alone, has whole slices of shards.
    """
    for unit in units:
        for (start, stop), shard, length in zip(unit.region, shards, shape):
            if start % shard or (stop % shard and stop != length):
                raise ValueError(
                    f"{stage}: unit {unit.index} covers {unit.region}, but shards are {tuple(shards)} "
                    "voxels: two ranks would write one shard; "
                    "make block (of a slab, slices_per_unit) a multiple of it"
                )


def largest_block(units: Sequence[Unit], otherwise: tuple[int, ...]) -> tuple[int, ...]:
    """Extent along each axis of a block that holds any unit of the table; `otherwise` where it is empty."""
    shapes = [region_shape(unit.region) for unit in units]
    return tuple(map(max, zip(*shapes, strict=True))) if shapes else otherwise


class Stage(ABC):
    """One step of a pipeline for one dataset.

    Attributes
    ----------
    name : str
        The stage's name, unique in its pipeline.
    dataset : str
        The dataset's name, unique in its campaign.
    """

    name: str
    dataset: str

    @abstractmethod
    def fields(self) -> dict[str, Any]:
        """Everything that the stage's values depend on, JSON-able, flat; upstream digests too.

        A difference from what the ledger holds is what makes a stage run again, and the names
        that differ are what the user is told.
        """

    @abstractmethod
    def units(self) -> Sequence[Unit]:
        """The unit table; asked on rank 0 at the stage's first launch only, then frozen."""

    @abstractmethod
    def memory_bytes(self, units: Sequence[Unit]) -> int:
        """Peak bytes that one unit of a table needs above the process's import baseline.

        Parameters
        ----------
        units : sequence of Unit
            The table that will be run. It may be one that an earlier launch froze, cut otherwise than
            :meth:`units` would cut it now.
        """

    def partial_bytes(self) -> int:
        """Bytes of all units' partial results, which the ranks hold until the reduction; 0 where few."""
        return 0

    def reduce_bytes(self) -> int:
        """Peak bytes of the reduction above the import baseline, partial results included; 0 where few.

        Both are asked before the first unit, and by a plan, when there are no results of earlier stages.
        """
        return 0

    def requires(self) -> Sequence[str | tuple[str, str]]:
        """Names of earlier stages whose shards this stage reads; (dataset, name) where of another dataset."""
        return ()

    def prepare(self, rank: int) -> None:
        """Called on every rank before the first unit, rank 0 first, the others after it returned."""

    def check_unit_table(self, units: Sequence[Unit]) -> None:
        """Raise ValueError if a unit is not aligned to the shards that it writes."""

    @abstractmethod
    def process(self, unit: Unit) -> UnitOutput:
        """Compute one unit. An exception here is an attempt, not the end of the job."""

    def reduce(self, partials: Arrays) -> Arrays:
        """Merge all granules, on rank 0; never called over gaps. The result goes to every rank."""
        return {}

    def files(self) -> Sequence[Path]:
        """Files that `reduce` wrote; the engine makes them durable and lists them in the ledger."""
        return ()

    def releases(self) -> Sequence[str]:
        """Names of earlier stages of its dataset whose shards nobody reads once this stage is complete.

        Where a stage that reads them has to run again, their units are done again first.
        """
        return ()

    def remove_released(self) -> None:
        """Remove these shards, on rank 0; called whenever a launch finds the stage complete."""

    def accept(self, result: Arrays) -> None:
        """Take the reduced result, on every rank (also when it comes from the ledger)."""
