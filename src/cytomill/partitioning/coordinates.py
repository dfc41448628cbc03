"""Coordinates of the voxels of shells: all of them or a sample, in one pass over the partition."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from numba import njit

#: Voxels that one step of a pass looks at.
STEP_VOXELS = 4 * 2**20
#: Largest partition id.
MAX_ID = 2**16 - 1


class PartitionCoordinates(dict[int, np.ndarray]):
    """Coordinates by partition id: a dict id → (N, 3) array (Z, Y, X), with what is known about them.

    Attributes
    ----------
    layout : str
        Where they come from: ``"memory"``, or what the loader found: ``"documented"``, ``"reference"``,
        ``"older shells"``, ``"older NE edge"``, ``"older PM edge"``, ``"older NE-PM pairs"``.
    dataid : str
        Identifier of the dataset, empty where unknown.
    voxel_size_nm : tuple of float or None
        (Z, Y, X), where the file states it.
    shells : int or None
        Number of shells, those without a point included; None where unknown.
    centre : (3,) ndarray or None
        Centre (Z, Y, X) of an older NE edge, in voxels.
    stated_positions : mapping of int to float, or None
        Radial positions that follow from the layout; None: (id - ½)/n.
    """

    def __init__(
        self, coords: Mapping[int, Any] = MappingProxyType({}), layout: str = "memory", **known: Any
    ) -> None:
        super().__init__(coords)
        self.layout = layout
        self.dataid: str = known.get("dataid", "")
        self.voxel_size_nm: tuple[float, float, float] | None = known.get("voxel_size_nm")
        self.shells: int | None = known.get("shells")
        self.centre: np.ndarray | None = known.get("centre")
        self.stated_positions: Mapping[int, float] | None = known.get("positions")

    @property
    def radial_positions(self) -> dict[int, float]:
        """Radial position of each id, 0 at the NE and 1 at the PM: (id - ½)/n, n the largest id if unknown.

        The surfaces of the older files lie at t = k/7, an NE edge at 0 and a PM edge at 1.
        """
        if self.stated_positions is not None:
            return dict(self.stated_positions)
        n = max(self.shells or 0, max(self, default=0))
        return {i: (i - 0.5) / n for i in self}


@njit(nogil=True, cache=True)
def _mix(x):
    """Finaliser of SplitMix64: the bits of a counter, shuffled."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@njit(nogil=True, cache=True)
def _take(ids, first, left, wanted, target, keys, out):
    """Each voxel with probability wanted/left of its id: exactly `wanted` of them, in raster order."""
    unit = 1.0 / 9007199254740992.0
    for i in range(ids.size):
        p = ids[i]
        if p == 0:
            continue
        if wanted[p] > 0:
            draw = _mix(keys[p] + np.uint64(left[p]) * np.uint64(0x9E3779B97F4A7C15))
            if np.float64(draw >> np.uint64(11)) * unit * left[p] < wanted[p]:
                out[target[p]] = first + i
                target[p] += 1
                wanted[p] -= 1
        left[p] -= 1


def _steps(partition: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """First flat index and ids of consecutive pieces: no array of indices as large as the volume is made."""
    flat = np.ascontiguousarray(partition).reshape(-1)
    for first in range(0, flat.size, STEP_VOXELS):
        yield first, flat[first : first + STEP_VOXELS]


def check_partition(partition: np.ndarray) -> np.ndarray:
    """Return a partition as an integer array, or say what is wrong with it.

    Parameters
    ----------
    partition : ndarray
        Ids, 0 is background; bool, integers, or floats that are whole numbers.

    Raises
    ------
    ValueError
        If it is not numeric, holds fractions, NaN or negative values, or ids above 65535.
    """
    partition = np.asarray(partition)
    if partition.ndim not in (2, 3):
        raise ValueError(f"a partition is a plane or a volume of ids; found {partition.ndim} axes")
    if partition.dtype == bool:
        return partition.view(np.uint8)
    if partition.dtype.kind not in "iuf":
        raise ValueError(f"a partition holds whole numbers; found {partition.dtype}")
    low, high = (partition.min(), partition.max()) if partition.size else (0, 0)
    if not 0 <= low <= high <= MAX_ID:
        raise ValueError(f"partition ids lie between 0 and {MAX_ID}; found {low} to {high}")
    if partition.dtype.kind == "f":
        whole = partition.astype(np.uint16)
        if not np.array_equal(whole, partition):
            raise ValueError("a partition holds whole numbers; found fractions: round them first")
        return whole
    return partition


def count_ids(partition: np.ndarray) -> np.ndarray:
    """Voxels of each id, (largest id + 1,) int64, in one pass."""
    counts = np.zeros(int(partition.max(initial=0)) + 1, np.int64)
    for _, ids in _steps(partition):
        counts += np.bincount(ids, minlength=counts.size)
    return counts


def sample_coordinates(
    partition: np.ndarray, density: float, seed: int = 0, shells: int | None = None
) -> PartitionCoordinates:
    """Coordinates of a share of each shell's voxels, without replacement.

    Every voxel of a shell is as likely as any other; the sample of a shell depends on its voxels, its id
    and the seed, and on nothing else.  Memory: 12 bytes a voxel taken, 8 more while they are found.

    Parameters
    ----------
    partition : (Z, Y, X) or (Y, X) ndarray
        Ids, 0 is background.
    density : float
        Share of the voxels, in (0, 1]; at least one voxel of every shell is taken, 1 takes all.
    seed : int
    shells : int, optional
        Number of shells, those without a voxel included, where known.

    Returns
    -------
    PartitionCoordinates
        id → (N, 3) int32 (Z, Y, X) in raster order ((N, 2) for a plane), ids ascending.

    Raises
    ------
    ValueError
        If the density is not in (0, 1], or the partition is none.

    Notes
    -----
    Selection sampling (Knuth, The Art of Computer Programming 2, algorithm 3.4.2 S), random numbers by
    SplitMix64 of the seed, the id and the voxel's rank.
    """
    if not 0 < density <= 1:
        raise ValueError(f"the sampling density is a share in (0, 1]; found {density}")
    partition = check_partition(partition)
    left = count_ids(partition)
    left[0] = 0
    wanted = np.where(left > 0, np.maximum(1, (left * float(density)).astype(np.int64)), 0)
    stop = np.cumsum(wanted)
    target = stop - wanted
    sequences = np.random.SeedSequence(seed % 2**64)
    # A key an id from one stream: the keys of the first ids do not depend on how many ids there are.
    keys = sequences.generate_state(left.size, np.uint64)
    flat = np.empty(int(stop[-1]), np.int64)
    pending = wanted.copy()
    for first, ids in _steps(partition):
        _take(ids, first, left, pending, target, keys, flat)
    coords = {}
    for i in np.flatnonzero(wanted):
        taken = np.unravel_index(flat[stop[i] - wanted[i] : stop[i]], partition.shape)
        coords[int(i)] = np.stack(taken, axis=1).astype(np.int32)
    return PartitionCoordinates(coords, shells=shells)


def partition_rows(
    partition: np.ndarray, origin: Sequence[int] = (0, 0, 0)
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield coordinates (N, 3) int64 (Z, Y, X) and ids (N,) of all voxels of shells, in raster order.

    Parameters
    ----------
    partition : (Z, Y, X) integer ndarray
        A volume, or a box of one.
    origin : sequence of int
        The box's first voxel in the volume (Z, Y, X).
    """
    for first, ids in _steps(partition):
        found = np.flatnonzero(ids)
        coords = np.stack(np.unravel_index(found + first, partition.shape), axis=1)
        yield coords + np.asarray(origin), ids[found]
