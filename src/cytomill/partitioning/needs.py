"""What the stages of a dataset of cells will need, from headers and configuration alone.

The cells are not known before their masks are read, so the plan takes one cell that fills the volume, or as
much of it as one rank takes at once; and every organelle for a mask.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import numpy as np

from cytomill.kernels.blocks import region_shape
from cytomill.kernels.distance import layers_per_slice
from cytomill.partitioning.block_stages import VOLUMES, ShellStage
from cytomill.partitioning.cell import cell_bytes
from cytomill.partitioning.cell_stages import CellStage, works_by_slabs
from cytomill.partitioning.organelle_stages import ObjectStage
from cytomill.partitioning.slab_stages import SURFACES, ColumnStage, PlaneStage, bands_of
from cytomill.partitioning.state import PartitionState
from cytomill.partitioning.xvg_stage import XvgStage
from cytomill.runtime.needs import StageNeeds, VolumeNeeds, volume_needs
from cytomill.runtime.stage import Stage, Unit

#: Voxels a second of one core, reading, coding and making durable included. Measured on one core of a shared
#: machine with phantoms, and rounded down.
VOXELS_PER_SECOND: Mapping[str, float] = {
    "survey": 200e6,
    "cells": 4e6,
    "planes": 8e6,
    "columns": 8e6,
    "shells": 15e6,
    "contents": 200e6,
    "components": 60e6,
    "organelles": 30e6,
    "places": 30e6,
    "xvg": 2e6,
}
#: Tables, intervals included.
TABLE_SECONDS = 3.0
#: Raw bytes over bytes on disk at zstd level 1, of fields of cells.
RATIO = 4.0
#: Bytes a voxel of a cell's box between the stages, before compression: its fields; its planes.
FIELD_BYTES, PLANE_BYTES_A_LAYER = 8, 10
#: Bytes of a line of coordinates.
LINE_BYTES = 20


def expect(state: PartitionState, stages: Sequence[Stage]) -> list[StageNeeds]:
    """What each stage of a dataset will need; no voxel is read, and the state's results are used up."""
    state.results["contents"] = {"is_mask": np.ones(len(state.organelles), bool)}
    state.results["components"] = {}
    return [_needs(state, stage) for stage in stages]


def _needs(state: PartitionState, stage: Stage) -> StageNeeds:
    units = _units(state, stage)
    cost = sum(unit.cost for unit in units)
    largest = max((unit.region for unit in units), key=lambda r: prod(region_shape(r)), default=())
    return StageNeeds(
        dataset=stage.dataset,
        stage=stage.name,
        units=len(units),
        unit=tuple(stop - start for start, stop in largest[:3]),
        cost=cost,
        largest_cost=max((unit.cost for unit in units), default=0.0),
        memory_bytes=_memory(state, stage, units),
        partial_bytes=stage.partial_bytes(),
        reduce_bytes=stage.reduce_bytes(),
        seconds=cost / VOXELS_PER_SECOND[stage.name] if units else TABLE_SECONDS * (stage.name == "tables"),
        volumes=_volumes(state, stage),
    )


def _by_slabs(state: PartitionState) -> bool:
    return works_by_slabs(state.config) and prod(state.shape) > state.config.largest_crop


def _units(state: PartitionState, stage: Stage) -> Sequence[Unit]:
    whole = tuple((0, n) for n in state.shape)
    if isinstance(stage, CellStage):
        return [] if _by_slabs(state) else [Unit(0, whole, float(prod(state.shape)))]
    if isinstance(stage, (PlaneStage, ColumnStage)):
        return stage.units_of_box(whole) if _by_slabs(state) else []
    if isinstance(stage, XvgStage):
        return [Unit(0, whole, float(prod(state.shape)))]
    return stage.units()


def _memory(state: PartitionState, stage: Stage, units: Sequence[Unit]) -> int:
    if isinstance(stage, CellStage):
        # A volume of many cells has none of its size; what a cell needs is checked once it is known.
        return int(
            cell_bytes(state.shape, state.config) * min(1, state.config.largest_crop / prod(state.shape))
        )
    return stage.memory_bytes(units)


def _volumes(state: PartitionState, stage: Stage) -> tuple[VolumeNeeds, ...]:
    """What the stage writes."""
    voxels = prod(state.shape)
    if isinstance(stage, ShellStage):
        shards = state.blocks_shape
        return tuple(
            volume_needs(name, state.shape, np.dtype(dtype).itemsize, shards, RATIO)
            for name, dtype in VOLUMES.items()
        )
    layers = -(-state.shape[0] // state.blocks_shape[0])
    between, whole = "cells between the passes", tuple((0, n) for n in state.shape)
    if isinstance(stage, CellStage) and not _by_slabs(state):
        return (_held(between, voxels * FIELD_BYTES, layers),)
    if isinstance(stage, ColumnStage) and _by_slabs(state):
        return (_held(between, voxels * FIELD_BYTES, layers * len(bands_of(whole))),)
    if isinstance(stage, PlaneStage) and _by_slabs(state):
        held = voxels * PLANE_BYTES_A_LAYER * layers_per_slice(state.voxel_size_nm)
        return (_held(between, held, len(stage.units_of_box(whole)) * len(bands_of(whole)) * len(SURFACES)),)
    if isinstance(stage, ObjectStage):
        units = stage.units()
        return (_held("objects between the passes", int(sum(u.cost for u in units)) // 4, len(units)),)
    if isinstance(stage, XvgStage):
        return (VolumeNeeds("coordinates", voxels * LINE_BYTES, voxels * LINE_BYTES, 1),)
    return ()


def _held(name: str, raw_bytes: int, files: int) -> VolumeNeeds:
    return VolumeNeeds(name, raw_bytes, int(raw_bytes / RATIO), files)
