"""Painting cells into a block of the volumes, where their surroundings overlap."""

from __future__ import annotations

import numpy as np
from numba import njit

from cytomill.kernels.blocks import Region, region_shape, region_slices
from cytomill.kernels.cell_codes import CYTOPLASM, MARGIN, OUTSIDE, SATURATED
from cytomill.partitioning.cell import CellFields

#: Bytes a voxel of :class:`Block`.
BLOCK_BYTES_A_VOXEL = 12


class Block:
    """The fields of all cells in one block.

    Inside a cell its own fields hold; in the margin between cells those of the cell whose membrane is
    nearer. Of two that claim a voxel alike the one that is painted first has it: paint in the order of
    the roster.

    Parameters
    ----------
    region : Region
        The block, in the volume.

    Attributes
    ----------
    territory : (Z, Y, X) int32 ndarray
        Cell id, its margin included; 0 elsewhere.
    fields : CellFields
        As of the cell that has the voxel; distances are 65535 where none has.
    """

    def __init__(self, region: Region) -> None:
        shape = region_shape(region)
        self.region = region
        self.territory = np.zeros(shape, np.int32)
        self.fields = CellFields(
            np.zeros(shape, np.uint8),
            np.zeros(shape, np.uint16),
            np.zeros(shape, np.uint8),
            np.full(shape, SATURATED, np.uint16),
            np.full(shape, SATURATED, np.uint16),
        )

    def paint(self, label: int, region: Region, fields: CellFields) -> None:
        """Paint the part of a cell's box that lies in the block.

        Parameters
        ----------
        label : int
            The cell's id.
        region : Region
            The box, in the volume.
        fields : CellFields
            Of the box.
        """
        common = tuple((max(a, c), min(b, d)) for (a, b), (c, d) in zip(region, self.region, strict=True))
        if any(a >= b for a, b in common):
            return
        here = region_slices(_within(common, self.region))
        there = region_slices(_within(common, region))
        targets = [array[here] for array in self.fields.as_arrays().values()]
        sources = [array[there] for array in fields.as_arrays().values()]
        _paint(self.territory[here], label, *targets, *sources)


def _within(region: Region, outer: Region) -> Region:
    return tuple((a - start, b - start) for (a, b), (start, _) in zip(region, outer, strict=True))


@njit(nogil=True, cache=True)
def _paint(
    territory, label, shell, position, kind, ne, pm, own_shell, own_position, own_kind, own_ne, own_pm
):
    for z in range(territory.shape[0]):
        for y in range(territory.shape[1]):
            for x in range(territory.shape[2]):
                new, old = own_kind[z, y, x], kind[z, y, x]
                if new == OUTSIDE or old >= CYTOPLASM:
                    continue
                if new == MARGIN and old == MARGIN and own_pm[z, y, x] >= pm[z, y, x]:
                    continue
                territory[z, y, x] = label
                shell[z, y, x] = own_shell[z, y, x]
                position[z, y, x] = own_position[z, y, x]
                kind[z, y, x] = new
                ne[z, y, x] = own_ne[z, y, x]
                pm[z, y, x] = own_pm[z, y, x]
