"""Cells too large for one rank: distances within planes by slabs, then along Z by bands of rows.

The distance transform is separable, so that its two stages give each voxel the same bits as a transform
of the whole cell; between them lie, a slab and band, the squared distances within the planes.

::

    planes            columns
    +-----------+     +---+---+---+
    |   slab    |     | b | b | b |
    +-----------+     | a | a | a |
    |   slab    |     | n | n | n |
    +-----------+     | d | d | d |
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from cytomill.kernels.blocks import Region, region_shape
from cytomill.kernels.distance import (
    SLICE_BYTES_A_VOXEL,
    column_distances,
    layers_per_slice,
    plane_distances,
)
from cytomill.kernels.surface import surface_halo
from cytomill.partitioning.cell import fields_of
from cytomill.partitioning.cell_stages import CellStage, cell_folder, cell_of, cell_unit
from cytomill.partitioning.pieces import pieces_of, read_piece, write_piece, write_region
from cytomill.partitioning.roster import RosterCell
from cytomill.partitioning.state import PartitionState
from cytomill.partitioning.survey_stage import PartitionStage, SurveyStage
from cytomill.runtime.arrays import digest_of
from cytomill.runtime.dataset import PROVISIONAL
from cytomill.runtime.needs import steps
from cytomill.runtime.stage import Arrays, Unit, UnitOutput

#: Voxels of a slab, where the plan may choose, and of a band.  Both passes cut the bands by this number, the
#: first one also when it is done again years later: with another one it leaves what the second cannot read.
SLAB_VOXELS, BAND_VOXELS = 24_000_000, 16_000_000
#: Peak bytes while they are computed, measured and rounded up: a voxel of a slab, and of its mask with the
#: halo; a voxel of a band while its fields are derived; a voxel and layer of sites.
SLAB_BYTES, MASK_BYTES, BAND_BYTES, LAYER_BYTES = 3, 1, 32, 5
#: Of a pixel of one slice, beside what the distances say: allocations that are not given back at once.
SPARE_BYTES = 25

#: Folder of the slabs' distances, below that of what waits between two stages.
PLANES_BETWEEN = "planes"

SURFACES = ("nucleus", "cell")
PLANE_ARRAYS = ("squared", "offset")


def slab_path(
    state: PartitionState, cell: RosterCell, surface: str, first_slice: int, first_row: int
) -> Path:
    """Where what a slab has for a band waits."""
    folder = state.folder / PROVISIONAL / PLANES_BETWEEN / f"{cell.index:06d}"
    return folder / f"{surface}-{first_slice:06d}-{first_row:06d}.piece"


def bands_of(box: Region) -> list[tuple[int, int]]:
    """Rows of each band of a box; a matter of its size alone, as both stages go by it."""
    depth, height, width = region_shape(box)
    (first, _) = box[1]
    rows = max(1, BAND_VOXELS // (depth * width))
    return [(first + a, first + b) for a, b in steps(height, rows)]


class PlaneStage(PartitionStage):
    """Distances within the planes of every large cell."""

    name = "planes"

    def fields(self) -> dict[str, Any]:
        # Of the options behind the survey only those that choose the cells matter to distances.
        large = [cell.index for cell in self.large()]
        return {"survey": digest_of(SurveyStage(self.state).fields()), "cells": digest_of(large)}

    @property
    def halo(self) -> int:
        """Slices beside a slab that its surface depends on."""
        return surface_halo(self.state.voxel_size_nm)

    @property
    def layers(self) -> int:
        """Layers of sites in a slice."""
        return layers_per_slice(self.state.voxel_size_nm)

    def large(self) -> list[RosterCell]:
        """Cells that the stage before has left."""
        done = set(self.state.results["cells"]["index"].tolist())
        return [cell for cell in self.state.cells if cell.index not in done]

    def units(self) -> list[Unit]:
        units: list[Unit] = []
        for cell in self.large():
            units += [cell_unit(len(units) + i, cell, r) for i, r in enumerate(self._slabs(cell.region))]
        return units

    def units_of_box(self, box: Region) -> list[Unit]:
        """Units as of one cell in a box, for planning."""
        return Unit.boxes(self._slabs(box))

    def _slabs(self, box: Region) -> list[Region]:
        depth, height, width = region_shape(box)
        wanted = self.state.layout.slices_per_unit
        if not wanted:
            # Not much thinner than the halo, which is painted for every slab.
            most = max(2 * self.halo, SLAB_VOXELS // (height * width))
            wanted = max(1, min(most, -(-depth // max(8, 4 * self.state.layout.ranks))))
        start = box[0][0]
        return [((start + a, start + b), *box[1:]) for a, b in steps(depth, wanted)]

    def memory_bytes(self, units: Sequence[Unit]) -> int:
        # Bands are cut by the depth of the cell's box, which its slabs cover together.
        boxes: dict[Region, int] = {}
        for (first, stop), *rest in (unit.region for unit in units):
            boxes[tuple(rest)] = boxes.get(tuple(rest), 0) + stop - first

        def bytes_of(unit: Unit) -> int:
            depth, height, width = region_shape(unit.region[:3])
            pixels = height * width
            halo = depth + 2 * self.halo
            slab = depth * (SLAB_BYTES + LAYER_BYTES * self.layers)
            held = pixels * (slab + halo * MASK_BYTES + SLICE_BYTES_A_VOXEL + SPARE_BYTES)
            # A band of it as arrays, as a file, and compressed.
            rows = min(height, max(1, BAND_VOXELS // (boxes[tuple(unit.region[1:])] * width)))
            return held + 4 * depth * rows * width * LAYER_BYTES * self.layers

        return self.held_bytes() + max(map(bytes_of, units), default=0)

    def process(self, unit: Unit) -> UnitOutput:
        state = self.state
        cell, region = cell_of(state, unit)
        (z0, z1), (low, high) = region[0], cell.region[0]
        around = (max(z0 - self.halo, low), min(z1 + self.halo, high))
        first_row = cell.region[1][0]
        shards = []
        # One surface after the other: half the memory.
        for surface in SURFACES:
            mask = cell.mask(surface, (around, *region[1:]))
            squared, offset = plane_distances(mask, z0 - around[0], z1 - around[0], state.voxel_size_nm)
            del mask
            for a, b in bands_of(cell.region):
                rows = slice(a - first_row, b - first_row)
                path = slab_path(state, cell, surface, z0, a)
                band = {"squared": squared[:, rows], "offset": offset[:, rows]}
                write_piece(path, {name: np.ascontiguousarray(part) for name, part in band.items()})
                shards.append(path)
        return UnitOutput({"slabs": np.array([[cell.index, z0, z1]])}, shards)

    def reduce(self, partials: Arrays) -> Arrays:
        return {"slabs": partials.get("slabs", np.empty((0, 3), np.int64))}


class ColumnStage(PartitionStage):
    """Distances along Z, and all fields, of every large cell."""

    name = "columns"

    def fields(self) -> dict[str, Any]:
        # The slabs are named because what waits is that of exactly these slabs.
        slabs = self.state.results["planes"]["slabs"].tolist()
        return {
            "cells": digest_of(CellStage(self.state).fields()),
            "planes": digest_of(PlaneStage(self.state).fields()),
            "slabs": digest_of(slabs),
        }

    def requires(self) -> Sequence[str]:
        return (PlaneStage.name,)

    def units(self) -> list[Unit]:
        units: list[Unit] = []
        for index in np.unique(self.state.results["planes"]["slabs"][:, 0]).tolist():
            cell = self.state.cells[index]
            for region in self._bands(cell.region):
                units.append(cell_unit(len(units), cell, region))
        return units

    def units_of_box(self, box: Region) -> list[Unit]:
        """Units as of one cell in a box, for planning."""
        return Unit.boxes(self._bands(box))

    def _bands(self, box: Region) -> list[Region]:
        return [(box[0], band, box[2]) for band in bands_of(box)]

    def memory_bytes(self, units: Sequence[Unit]) -> int:
        layers = layers_per_slice(self.state.voxel_size_nm)
        # What waits is read piece by piece and joined.
        a_voxel = max(BAND_BYTES, 2 * LAYER_BYTES * layers + 5)
        return self.held_bytes() + max((prod(region_shape(u.region[:3])) * a_voxel for u in units), default=0)

    def process(self, unit: Unit) -> UnitOutput:
        state = self.state
        cell, region = cell_of(state, unit)
        slabs = [row for row in state.results["planes"]["slabs"].tolist() if row[0] == cell.index]
        distances = []
        for surface in SURFACES:
            paths = [slab_path(state, cell, surface, z0, region[1][0]) for _, z0, _ in sorted(slabs)]
            parts = [read_piece(path) for path in paths]
            squared, offset = (np.concatenate([part.pop(name) for part in parts]) for name in PLANE_ARRAYS)
            distances.append(column_distances(squared, offset, state.voxel_size_nm))
            del squared, offset
        nucleus, mask = cell.masks(region)
        fields = fields_of(
            nucleus,
            mask,
            *distances,
            state.voxel_size_nm,
            cell.cut_faces,
            state.config,
            state.quantum_nm,
            band=(region[1][0] - cell.region[1][0], region_shape(cell.region)[1]),
        )
        pieces = pieces_of(cell_folder(state, cell), region, state.blocks_shape[0])
        shards = write_region(pieces, region, fields.as_arrays())
        bounds = [bound for interval in region for bound in interval]
        return UnitOutput({"bands": np.array([[cell.index, *bounds]])}, shards)

    def reduce(self, partials: Arrays) -> Arrays:
        return {"bands": partials.get("bands", np.empty((0, 7), np.int64))}
