"""Coordinates of every shell as text (XVG), a file a cell, for the programs that read such files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from cytomill.kernels.blocks import region_shape
from cytomill.partitioning.block_stages import ShellStage
from cytomill.partitioning.cell_stages import cell_of, cell_unit, pieces_by_cell
from cytomill.partitioning.coordinates import partition_rows
from cytomill.partitioning.roster import RosterCell
from cytomill.partitioning.state import SHELLS, TERRITORIES
from cytomill.partitioning.survey_stage import PartitionStage
from cytomill.partitioning.xvg_writing import write_xvg
from cytomill.runtime.arrays import digest_of
from cytomill.runtime.stage import Unit, UnitOutput

FOLDER = "xvg"
#: Voxels that are written at once.
SLAB_VOXELS = 4_000_000
#: Peak bytes a voxel of them: coordinates, and their lines.
BYTES_A_VOXEL = 120


class XvgStage(PartitionStage):
    """Writes ``{dataid}_partition_coords.xvg`` of every cell, where the configuration asks for it."""

    name = "xvg"

    def fields(self) -> dict[str, Any]:
        return {"shells": digest_of(ShellStage(self.state).fields())} | self.state.options("xvg")

    def requires(self) -> Sequence[str]:
        return (ShellStage.name,)

    def units(self) -> list[Unit]:
        state = self.state
        labels = {label for label, _ in pieces_by_cell(state)}
        cells = [cell for cell in state.cells if cell.label in labels]
        return [cell_unit(i, cell, cell.region) for i, cell in enumerate(cells)]

    def memory_bytes(self, units: Sequence[Unit]) -> int:
        largest = max((prod(region_shape(unit.region[:3])) for unit in units), default=0)
        held = 5 * largest if self.state.config.compat else 0
        return self.held_bytes() + held + BYTES_A_VOXEL * min(largest, SLAB_VOXELS)

    def path(self, cell: RosterCell) -> Path:
        """File of a cell."""
        return self.state.folder / FOLDER / f"{self.dataid(cell)}_partition_coords.xvg"

    def dataid(self, cell: RosterCell) -> str:
        """What the file calls the cell: the dataset, and the label where there are many."""
        many = len(self.state.cells) > 1
        return f"{self.dataset}_{cell.label}" if many else self.dataset

    def process(self, unit: Unit) -> UnitOutput:
        cell, _ = cell_of(self.state, unit)
        path = self.path(cell)
        path.parent.mkdir(parents=True, exist_ok=True)
        n = self.state.config.n_shells
        if self.state.config.compat:
            shells = np.concatenate([slab for _, slab in self._slabs(cell)])
            ids = [i for i in range(1, n + 1) if (shells == i).any()]
            origin = np.array([start for start, _ in cell.region])
            points = ((np.argwhere(shells == i) + origin, i) for i in ids)
            write_xvg(path, points, self.dataid(cell), reference_ids=ids)
        else:
            write_xvg(path, self._points(cell), self.dataid(cell), self.state.voxel_size_nm, shells=n)
        return UnitOutput({}, [path])

    def _slabs(self, cell: RosterCell) -> Iterator[tuple[int, np.ndarray]]:
        (z0, z1), rows, columns = cell.region
        depth = max(1, SLAB_VOXELS // prod(region_shape((rows, columns))))
        for z in range(z0, z1, depth):
            region = ((z, min(z + depth, z1)), rows, columns)
            own = self.state.volume(TERRITORIES).read(region) == cell.label
            yield z, np.where(own, self.state.volume(SHELLS).read(region), np.uint8(0))

    def _points(self, cell: RosterCell) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for z, shells in self._slabs(cell):
            yield from partition_rows(shells, (z, cell.region[1][0], cell.region[2][0]))
