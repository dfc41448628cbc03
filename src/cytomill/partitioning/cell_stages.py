"""Stages that compute cells: whole where they fit a rank, by slabs and then by bands where they do not."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from cytomill.kernels.blocks import Region, region_shape
from cytomill.partitioning.cell import cell_bytes, partition_cell
from cytomill.partitioning.config import PartitioningConfig
from cytomill.partitioning.mask_values import as_masks
from cytomill.partitioning.pieces import Piece, pieces_of, write_region
from cytomill.partitioning.roster import RosterCell
from cytomill.partitioning.state import PartitionState
from cytomill.partitioning.survey_stage import PartitionStage, SurveyStage
from cytomill.runtime.arrays import digest_of, text_array
from cytomill.runtime.dataset import PROVISIONAL
from cytomill.runtime.stage import Arrays, DatasetRefused, Unit, UnitOutput

#: Folder of the cells' pieces, below that of what waits between two stages.
CELLS_BETWEEN = "cells"


def works_by_slabs(config: PartitioningConfig) -> bool:
    """Whether cells can be computed slab by slab: only distances can."""
    return (config.method, config.field) == ("normalized", "edt")


def cell_unit(index: int, cell: RosterCell, region: Region) -> Unit:
    """A unit that belongs to a cell: its box, and behind it the cell's position in the roster."""
    return Unit(index, (*region, (cell.index, cell.index + 1)), float(prod(region_shape(region))))


def cell_of(state: PartitionState, unit: Unit) -> tuple[RosterCell, Region]:
    """The cell and the box of a unit that :func:`cell_unit` made."""
    *region, (index, _) = unit.region
    return state.cells[index], tuple(region)


def cell_folder(state: PartitionState, cell: RosterCell) -> Path:
    """Where the pieces of a cell wait."""
    return state.folder / PROVISIONAL / CELLS_BETWEEN / f"{cell.index:06d}"


def pieces_by_cell(state: PartitionState) -> list[tuple[int, list[Piece]]]:
    """Label and pieces of every cell that was partitioned, in the order of the roster."""
    depth = state.blocks_shape[0]
    done = state.results["cells"]
    by_cell: dict[int, list[Piece]] = {}
    for index, refusal in zip(done["index"].tolist(), done["refusal"].tolist(), strict=True):
        if not refusal:
            cell = state.cells[index]
            region = tuple((0, n) for n in state.shape) if state.config.compat else cell.region
            by_cell[index] = pieces_of(cell_folder(state, cell), region, depth)
    for row in state.results["columns"]["bands"].tolist():
        index, *bounds = row
        region = tuple(zip(bounds[0::2], bounds[1::2]))
        by_cell.setdefault(index, []).extend(pieces_of(cell_folder(state, state.cells[index]), region, depth))
    return [(state.cells[index].label, by_cell[index]) for index in sorted(by_cell)]


class CellStage(PartitionStage):
    """Partitions every cell that a rank can take whole."""

    name = "cells"

    def fields(self) -> dict[str, Any]:
        state = self.state
        fields = {
            "survey": digest_of(SurveyStage(state).fields()),
            "zarr_chunks, slices a layer": state.blocks_shape[0],
        } | state.options("method", "n_shells", "adsorbed_nm")
        if state.config.method == "normalized":
            fields |= state.options("field")
        if state.config.method == "pairs":
            fields |= state.options("compat")
        return fields

    def taken_whole(self, cell: RosterCell) -> bool:
        """Whether a cell is partitioned by one unit; other methods than EDT know no other way."""
        config = self.state.config
        return cell.voxels <= config.largest_crop or not works_by_slabs(config)

    def units(self) -> list[Unit]:
        whole = [cell for cell in self.state.cells if self.taken_whole(cell)]
        if self.state.config.compat:
            # The published program knows one cell a volume, specks elsewhere in it included.
            volume = tuple((0, n) for n in self.state.shape)
            return [cell_unit(i, cell, volume) for i, cell in enumerate(whole)]
        return [cell_unit(i, cell, cell.region) for i, cell in enumerate(whole)]

    def memory_bytes(self, units: Sequence[Unit]) -> int:
        survey, config = self.state.results["survey"], self.state.config
        cytoplasm = survey["cell_voxels"] - survey["nucleus_voxels"]

        def bytes_of(unit: Unit) -> int:
            *region, (index, _) = unit.region
            return cell_bytes(region_shape(tuple(region)), config, int(cytoplasm[index]))

        return self.held_bytes() + max(map(bytes_of, units), default=0)

    def process(self, unit: Unit) -> UnitOutput:
        state = self.state
        cell, region = cell_of(state, unit)
        nucleus, mask = cell.masks(region)
        pieces = pieces_of(cell_folder(state, cell), region, state.blocks_shape[0])
        facts = {"index": np.array([cell.index])}
        try:
            fields, notes = partition_cell(
                nucleus,
                mask,
                state.voxel_size_nm,
                cell.cut_faces,
                state.config,
                state.quantum_nm,
                self._raw_masks(region) if state.config.compat else None,
            )
        except ValueError as refusal:
            # One cell that has no shells must not cost the others theirs.
            return UnitOutput(facts | {"refusal": text_array([str(refusal)]), "note": text_array([""])})
        shards = write_region(pieces, region, fields.as_arrays())
        return UnitOutput(
            facts | {"refusal": text_array([""]), "note": text_array(["; ".join(notes)])}, shards
        )

    def _raw_masks(self, region: Region) -> tuple[np.ndarray, np.ndarray]:
        """Nucleus and cell as they were given."""
        state, masks = self.state, []
        chosen = ((state.nucleus, state.config.ne_labels), (state.source, state.config.pm_labels))
        for volume, labels in chosen:
            values = as_masks(volume.read(region), str(volume.path))
            masks.append(np.isin(values, labels) if labels else values != 0)
        return masks[0], masks[1]

    def reduce(self, partials: Arrays) -> Arrays:
        if not partials:
            return {"index": np.empty(0, np.int64), "refusal": text_array([]), "note": text_array([])}
        if len(partials["index"]) == len(self.state.cells) and all(partials["refusal"]):
            raise DatasetRefused(
                f"dataset {self.dataset}: no cell can be partitioned: {partials['refusal'][0]}"
            )
        return partials
