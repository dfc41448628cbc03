"""Stages that work block by block on the dataset's volumes: shells, organelles, where objects lie."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from cytomill import __version__
from cytomill.kernels.blocks import Region, grid
from cytomill.kernels.cell_codes import POSITION_ONE
from cytomill.kernels.keyed_rows import merge_rows
from cytomill.kernels.tally import tally_cells
from cytomill.partitioning.cell import CellFields
from cytomill.partitioning.cell_stages import CellStage, pieces_by_cell
from cytomill.partitioning.painting import BLOCK_BYTES_A_VOXEL, Block
from cytomill.partitioning.pieces import read_piece
from cytomill.partitioning.slab_stages import ColumnStage
from cytomill.partitioning.state import (
    COMPARTMENTS,
    DISTANCE_NE,
    DISTANCE_PM,
    POSITION,
    SHELLS,
    TERRITORIES,
    PartitionState,
)
from cytomill.partitioning.survey_stage import PartitionStage
from cytomill.runtime.arrays import digest_of
from cytomill.runtime.stage import Arrays, Unit, UnitOutput, check_blocks, largest_block
from cytomill.storage.stores import reading_buffer_bytes, writing_buffer_bytes

#: Voxels of a block, where the plan may choose.
BLOCK_VOXELS = 16 * 2**20

#: Peak bytes a voxel of a block while its volumes are read: measured, and rounded up.
READ_BYTES_A_VOXEL = 17
#: Quanta in a bin of room: half a voxel's edge.
ROOM_QUANTA = 8

#: Volumes written, with their types; fields of a cell in the order of :class:`CellFields`, then territories.
VOLUMES = {
    SHELLS: np.uint8,
    POSITION: np.uint16,
    COMPARTMENTS: np.uint8,
    DISTANCE_NE: np.uint16,
    DISTANCE_PM: np.uint16,
    TERRITORIES: np.int32,
}


def block_of(state: PartitionState) -> tuple[int, ...]:
    """Block of a unit: whole shards."""
    return state.layout.block_of(state.shape, state.blocks_shape, BLOCK_VOXELS)


def read_block(state: PartitionState, region: Region) -> tuple[np.ndarray, CellFields]:
    """Territories and fields of a region of the dataset's volumes."""
    fields = CellFields(
        *(state.volume(group).read(region) for group in (SHELLS, POSITION, COMPARTMENTS)),
        *(state.volume(group).read(region) for group in (DISTANCE_NE, DISTANCE_PM)),
    )
    return state.volume(TERRITORIES).read(region), fields


class BlockStage(PartitionStage):
    """A stage whose units are blocks of the dataset's volumes."""

    def units(self) -> list[Unit]:
        return Unit.boxes(grid(self.state.shape, block_of(self.state)))

    def check_unit_table(self, units: Sequence[Unit]) -> None:
        check_blocks(self.name, units, self.state.blocks_shape, self.state.shape)

    def largest(self, units: Sequence[Unit]) -> tuple[int, ...]:
        """Extent along each axis of a block that holds any unit of the table."""
        return largest_block(units, block_of(self.state))

    def reading_bytes(self, block: Sequence[int]) -> int:
        """Peak bytes of :func:`read_block`."""
        held = prod(block) * READ_BYTES_A_VOXEL
        return held + reading_buffer_bytes(block, self.state.blocks_shape, np.int32, 0.5)


class ShellStage(BlockStage):
    """Paints all cells into the volumes, and counts them."""

    name = "shells"

    def fields(self) -> dict[str, Any]:
        state = self.state
        return {
            "cells": digest_of(CellStage(state).fields()),
            "zarr_chunks, layout": [list(shape) for shape in state.volume_layout],
        }

    def requires(self) -> Sequence[str]:
        return (CellStage.name, ColumnStage.name)

    def memory_bytes(self, units: Sequence[Unit]) -> int:
        block = self.largest(units)
        # A layer of a cell's box at the most as large as a block, compressed, decoded and as arrays.
        piece = min(self.state.config.largest_crop, prod(block)) * 2 * 8
        writing = writing_buffer_bytes(block, self.state.blocks_shape, np.int32, 0.5)
        return self.held_bytes() + prod(block) * BLOCK_BYTES_A_VOXEL + max(piece, writing, prod(block) * 4)

    def prepare(self, rank: int) -> None:
        if rank == 0:
            state = self.state
            chunks, shards = state.volume_layout
            processing = {"step": self.name, "version": __version__, "parameters": self.fields()}
            for group, dtype in VOLUMES.items():
                attributes: dict[str, Any] = {"processing": [processing]}
                if group == POSITION:
                    attributes["scale"] = 1 / POSITION_ONE
                if group in (DISTANCE_NE, DISTANCE_PM):
                    attributes["quantum_nm"] = state.quantum_nm
                name = f"{group}/{state.spacing}"
                labels = group in (SHELLS, COMPARTMENTS, TERRITORIES)
                state.store.create_or_replace(
                    name, state.shape, dtype, chunks, shards, attributes, is_labels=labels
                )

    @cached_property
    def pieces(self) -> list[tuple[int, list]]:
        """Cells in the order of the roster, with their pieces."""
        return pieces_by_cell(self.state)

    def process(self, unit: Unit) -> UnitOutput:
        state, block = self.state, Block(unit.region)
        for label, pieces in self.pieces:
            for piece in pieces:
                if all(a < d and c < b for (a, b), (c, d) in zip(piece.region, unit.region, strict=True)):
                    block.paint(label, piece.region, CellFields(**read_piece(piece.path)))
        fields = block.fields
        arrays = [
            fields.shell, fields.position, fields.compartment, fields.distance_ne, fields.distance_pm,
            block.territory,
        ]  # fmt: skip
        shards: list[Path] = []
        for group, array in zip(VOLUMES, arrays, strict=True):
            target = state.volume(group)
            target.write(unit.region, array)
            shards += target.shard_paths(unit.region)
        rows, room = tally_cells(
            block.territory,
            fields.compartment,
            fields.shell,
            state.config.n_shells,
            fields.position,
            fields.distance_ne,
            fields.distance_pm,
            room_width=ROOM_QUANTA,
        )
        return UnitOutput({"cells": rows, "room": room}, shards)

    def reduce(self, partials: Arrays) -> Arrays:
        return {name: merge_rows(rows) for name, rows in partials.items()}
