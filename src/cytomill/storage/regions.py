"""Regions of a volume that are read or written, and the cells of its grid that they touch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

from cytomill.kernels.blocks import Region


def complete_region(region: Sequence[Sequence[int]] | None, shape: Sequence[int]) -> Region:
    """Return `region` with every axis given: axes that it leaves out are taken whole.

    Parameters
    ----------
    region : sequence of (int, int), or None
        Half-open ranges of the first axes of `shape`; None is the whole volume.
    shape : sequence of int
        Extent of every axis.

    Raises
    ------
    ValueError
        If there are more ranges than axes, or a range is empty or leaves the volume.
    """
    ranges = tuple((int(start), int(stop)) for start, stop in region or ())
    if len(ranges) > len(shape):
        raise ValueError(f"A region of {len(ranges)} axes does not fit a volume of shape {tuple(shape)}.")
    whole = ranges + tuple((0, int(extent)) for extent in shape[len(ranges) :])
    for (start, stop), extent in zip(whole, shape):
        if not 0 <= start < stop <= extent:
            raise ValueError(
                f"Region {whole} is not inside a volume of shape {tuple(int(n) for n in shape)}, "
                "or is empty along an axis."
            )
    return whole


def grid_cells(region: Region, cell: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Yield, in raster order, the indices of the cells of a regular grid that `region` touches."""
    return product(*(range(start // n, -(-stop // n)) for (start, stop), n in zip(region, cell)))


def cell_region(index: Sequence[int], cell: Sequence[int], shape: Sequence[int]) -> Region:
    """Return the region of one grid cell, cut at the edge of the volume."""
    return tuple((i * n, min((i + 1) * n, extent)) for i, n, extent in zip(index, cell, shape))
