"""Geometry of block grids: regions in raster order, halos, alignment.

A region is one half-open range an axis, ``((z0, z1), (y0, y1), (x0, x1))``, in voxels of the volume.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

#: One half-open range an axis.
Region = tuple[tuple[int, int], ...]


def round_up(value: int, multiple: int) -> int:
    """Return the smallest multiple of `multiple` that is not below `value`."""
    return -(-value // multiple) * multiple


def align(block: Sequence[int], multiple: Sequence[int], shape: Sequence[int]) -> tuple[int, ...]:
    """Grow a block to whole multiples, then cut it to the volume.

    Parameters
    ----------
    block : sequence of int
        Block wanted, voxels an axis.
    multiple : sequence of int
        What the block must divide into (a shard, a chunk), voxels an axis.
    shape : sequence of int
        Volume; a block that reaches its end needs no alignment there.

    Returns
    -------
    tuple of int
    """
    return tuple(
        max(min(round_up(size, step), length), 1)
        for size, step, length in zip(block, multiple, shape, strict=True)
    )


def grid(shape: Sequence[int], block: Sequence[int]) -> list[Region]:
    """Cut a volume into blocks.

    Parameters
    ----------
    shape : sequence of int
        Volume, voxels an axis.
    block : sequence of int
        Block, voxels an axis; the last block of an axis may be smaller.

    Returns
    -------
    list of Region
        In raster order (last axis fastest), without gaps or overlaps; empty for an empty volume.

    Raises
    ------
    ValueError
        Where a block is not at least one voxel an axis.
    """
    if len(block) != len(shape) or min(block) < 1:
        raise ValueError(f"a block needs {len(shape)} sizes of at least 1 voxel, got {tuple(block)}")
    axes = [
        [(start, min(start + step, length)) for start in range(0, length, step)]
        for length, step in zip(shape, block, strict=True)
    ]
    return list(product(*axes))


def region_shape(region: Region) -> tuple[int, ...]:
    """Return the size of a region, voxels an axis."""
    return tuple(stop - start for start, stop in region)


def region_slices(region: Region) -> tuple[slice, ...]:
    """Return the slices that take a region out of its volume."""
    return tuple(slice(start, stop) for start, stop in region)


def scale(region: Region, factors: Sequence[int]) -> Region:
    """Return the region that a region of a block-mean volume covers in the volume it was made from."""
    return tuple(
        (start * factor, stop * factor) for (start, stop), factor in zip(region, factors, strict=True)
    )


def grow(region: Region, halo: Sequence[int], shape: Sequence[int]) -> tuple[Region, tuple[slice, ...]]:
    """Grow a region by a halo, clipped to the volume.

    ::

        volume   |----------------------------|
        region          [=======]
        read         [..|=======|..]             halo on both sides
        inner            slice(halo, halo + size) within what was read

    Parameters
    ----------
    region : Region
        What a unit writes.
    halo : sequence of int
        Voxels an axis, on both sides.
    shape : sequence of int
        Volume.

    Returns
    -------
    read : Region
        What the unit reads.
    inner : tuple of slice
        Where the region lies in what was read.
    """
    read = tuple(
        (max(start - margin, 0), min(stop + margin, length))
        for (start, stop), margin, length in zip(region, halo, shape, strict=True)
    )
    inner = tuple(
        slice(start - low, stop - low) for (start, stop), (low, _) in zip(region, read, strict=True)
    )
    return read, inner
