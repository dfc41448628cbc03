"""Stages that work block by block: components of each block, final masks and measurements."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import fields
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cytomill.kernels.blocks import Region, grid, grow, region_shape, scale
from cytomill.kernels.closing import Ball, ball
from cytomill.kernels.components import Runs
from cytomill.kernels.labelling import (
    LabelMap,
    label_unit,
    masks_unit_bytes,
    merge_blocks,
    paint_unit,
    unit_bytes,
)
from cytomill.nanoparticles.intensity_stages import NanoparticleStage
from cytomill.nanoparticles.measurements import (
    COLUMN_METADATA,
    ROW_BYTES,
    measure_unit,
    merge_measurements,
    merging_bytes,
    particle_tables,
)
from cytomill.nanoparticles.posterior_stages import DownsampleStage, PosteriorStage
from cytomill.nanoparticles.state import (
    ENCODED_LABELS,
    ENCODED_POSTERIOR,
    MASKS,
    POSTERIOR,
    DatasetState,
)
from cytomill.runtime.arrays import digest_of, from_npz, to_npz, total_bytes
from cytomill.runtime.dataset import PROVISIONAL
from cytomill.runtime.stage import Arrays, Unit, UnitOutput, check_blocks, largest_block
from cytomill.storage.checked import read_checked, write_checked
from cytomill.storage.stores import StoredArray, reading_buffer_bytes, writing_buffer_bytes
from cytomill.storage.tables import write_table

#: Voxels of a block, where the plan may choose: what a rank handles in about a second.
BLOCK_VOXELS = 64 * 2**20

#: Runs between the two passes: 16 bytes each, at 5 % load and five voxels a run.
RUN_BYTES_A_VOXEL = 0.16
#: Voxels a cluster where their number is not known yet; phantoms at 10 % load have one in 20 000.
VOXELS_A_CLUSTER = 10_000
#: What merging takes a component of a block beside its partial results.
MERGED_COMPONENT_BYTES = 100

TABLES = "tables"
PARTICLES = "particles"
SLICES = "slices"


def structuring_element(state: DatasetState) -> Ball:
    """Ball of the closing: `radius` voxels, or `closing_nm` at the labels' voxel size."""
    closing_nm = state.config.closing_nm
    if closing_nm is None:
        return ball(state.config.radius)
    return ball(closing_nm, state.label_voxel_size_nm)


def runs_path(state: DatasetState, block: int) -> Path:
    """Where the runs of a block wait between the two passes of the labelling."""
    return state.folder / PROVISIONAL / state.label_spacing / f"{block:06d}.runs"


def write_runs(path: Path, runs: Runs) -> None:
    """Write a block's runs; a block without any leaves no file."""
    path.unlink(missing_ok=True)
    if runs.row.size:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_checked(path, to_npz({f.name: getattr(runs, f.name) for f in fields(Runs)}))


def read_runs(path: Path) -> Runs:
    """Read a block's runs.

    Raises
    ------
    DamagedShard
        If the file is missing or damaged.
    """
    return Runs(**from_npz(read_checked(path)))


class ComponentStage(NanoparticleStage):
    """First pass of the labelling: threshold, closing and components of each block."""

    name = "components"

    @cached_property
    def element(self) -> Ball:
        """Structuring element of the closing."""
        return structuring_element(self.state)

    @property
    def source(self) -> PosteriorStage | DownsampleStage:
        """The stage whose posterior is labelled."""
        return DownsampleStage(self.state) if self.state.downsamples else PosteriorStage(self.state)

    def fields(self) -> dict[str, Any]:
        return {
            self.source.name: digest_of(self.source.fields()),
            "voxel_size_nm": list(self.state.label_voxel_size_nm),
            "layout": self.state.layout_of(self.state.label_shape, np.int32),
        } | self.state.options(
            "posterior_th", "radius", "closing_nm", "connectivity", "border", "min_particle_size"
        )

    def requires(self) -> Sequence[str]:
        return (self.source.name,)

    def shards(self) -> tuple[int, ...]:
        """Shard that holds for both volumes of labels, so that one grid serves both passes."""
        return self.state.layout_of(self.state.label_shape, np.int32)[1]

    def block(self) -> tuple[int, ...]:
        """Block of a unit: whole shards."""
        return self.state.layout.block_of(self.state.label_shape, self.shards(), BLOCK_VOXELS)

    def units(self) -> list[Unit]:
        return Unit.boxes(grid(self.state.label_shape, self.block()))

    def check_unit_table(self, units: Sequence[Unit]) -> None:
        check_blocks(self.name, units, self.shards(), self.state.label_shape)

    def memory_bytes(self, units: Sequence[Unit]) -> int:
        block, dtype = largest_block(units, self.block()), self.state.config.posterior_dtype
        shape, halo = self.state.label_shape, self.element.halo
        around = [region_shape(grow(unit.region, halo, shape)[0]) for unit in units]
        read = tuple(map(max, zip(*around, strict=True))) if units else block
        runs = int(3 * RUN_BYTES_A_VOXEL * prod(block))  # thrice while they are written
        return max(unit_bytes(block, self.element, dtype, read=read), self.posterior_bytes(read)) + runs

    def posterior_bytes(self, shape: Sequence[int]) -> int:
        """Peak bytes of reading a region of the posterior."""
        dtype = np.dtype(self.state.config.posterior_dtype)
        buffer = reading_buffer_bytes(shape, self.source.shards(), dtype, ENCODED_POSTERIOR[dtype.name])
        return prod(shape) * dtype.itemsize + buffer

    def partial_bytes(self) -> int:
        """First voxel and voxel count of each component; runs on faces are few."""
        return 16 * prod(self.state.label_shape) // VOXELS_A_CLUSTER

    def reduce_bytes(self) -> int:
        components = prod(self.state.label_shape) // VOXELS_A_CLUSTER
        return self.partial_bytes() + MERGED_COMPONENT_BYTES * components

    def process(self, unit: Unit) -> UnitOutput:
        state, config = self.state, self.state.config
        posterior = state.store.open(self.source.volume)
        around, _ = grow(unit.region, self.element.halo, state.label_shape)
        runs, partials = label_unit(
            posterior.read(around),
            unit.region,
            state.label_shape,
            config.posterior_th,
            self.element,
            config.connectivity,
            config.border,
        )
        path = runs_path(state, unit.index)
        write_runs(path, runs)
        return UnitOutput(partials, [path])

    def reduce(self, partials: Arrays) -> Arrays:
        config = self.state.config
        merged = merge_blocks(partials, config.connectivity, config.min_particle_size)
        return merged.as_arrays() | {"regions": partials["blocks"][:, :6]}


class MaskStage(NanoparticleStage):
    """Second pass: final ids, the masks, and the measurements of every cluster."""

    name = "masks"

    def __init__(self, state: DatasetState) -> None:
        super().__init__(state)
        self._files: list[Path] = []

    @property
    def volume(self) -> str:
        """Name of the volume written."""
        return f"{MASKS}/{self.state.label_spacing}"

    @cached_property
    def label_map(self) -> LabelMap:
        """Final id of every component of every block."""
        found = self.state.results["components"]
        return LabelMap(found["offsets"], found["final"], found["first_voxel"], found["voxel_count"])

    def fields(self) -> dict[str, Any]:
        # The blocks are named because the runs are those of exactly these blocks.
        return {
            "components": digest_of(ComponentStage(self.state).fields()),
            "blocks": digest_of(self.state.results["components"]["regions"].tolist()),
        }

    def requires(self) -> Sequence[str]:
        convert = () if self.state.source.region_readable else ("convert",)
        return ("components", ComponentStage(self.state).source.name, *convert)

    def units(self) -> list[Unit]:
        units = []
        for i, bounds in enumerate(self.state.results["components"]["regions"].tolist()):
            region: Region = tuple(zip(bounds[0::2], bounds[1::2]))
            units.append(Unit(i, region, float(prod(region_shape(region)))))
        return units

    def memory_bytes(self, units: Sequence[Unit]) -> int:
        state = self.state
        components = ComponentStage(state)
        block, factors = largest_block(units, components.block()), state.config.downsample
        final = 4 * prod(block)  # the painted block
        runs = int(2 * RUN_BYTES_A_VOXEL * prod(block))  # twice while they are read
        raw = state.image.reading_bytes([n * f for n, f in zip(block, factors, strict=True)])
        return (
            max(
                masks_unit_bytes(block, state.config.posterior_dtype, state.source.dtype, factors),
                final + writing_buffer_bytes(block, components.shards(), np.int32, ENCODED_LABELS),
                final + components.posterior_bytes(block),
                final + np.dtype(state.config.posterior_dtype).itemsize * prod(block) + raw,
            )
            + runs
            + self._map_bytes()
        )

    def _map_bytes(self) -> int:
        """Bytes of the map of labels, which every rank holds; 0 before there is one."""
        return total_bytes(self.state.results.get("components", {}))

    def _rows_and_labels(self) -> tuple[int, int]:
        """Rows of partial results and labels, guessed where the components are not merged yet."""
        if "components" in self.state.results:
            return int(np.count_nonzero(self.label_map.final)), self.label_map.count
        return (prod(self.state.label_shape) // VOXELS_A_CLUSTER,) * 2

    def partial_bytes(self) -> int:
        return ROW_BYTES * self._rows_and_labels()[0]

    def reduce_bytes(self) -> int:
        return self._map_bytes() + merging_bytes(*self._rows_and_labels())

    def prepare(self, rank: int) -> None:
        if rank == 0:
            self._remove_leftovers()
            inputs = [ComponentStage(self.state).source.volume]
            self.create(self.volume, self.state.label_shape, np.int32, inputs)

    def _remove_leftovers(self) -> None:
        """Delete volumes of older configurations: beside the new ones a viewer would take them for levels."""
        state = self.state
        state.store.keep_only(POSTERIOR, {state.spacing, state.label_spacing})
        state.store.keep_only(MASKS, {state.label_spacing})
        for folder in (state.folder / PROVISIONAL).glob("*"):
            if folder.name != state.label_spacing:
                shutil.rmtree(folder)

    def process(self, unit: Unit) -> UnitOutput:
        state = self.state
        target = state.store.open(self.volume)
        block_map = self.label_map.of_block(unit.index)
        if block_map.size > 1:
            final = paint_unit(read_runs(runs_path(state, unit.index)), region_shape(unit.region), block_map)
        else:
            final = np.zeros(region_shape(unit.region), np.int32)
        target.write(unit.region, final)
        partials = self._measure(final, unit.region)
        return UnitOutput(partials, target.shard_paths(unit.region))

    def _measure(self, final: np.ndarray, region: Region) -> Arrays:
        """Read image and posterior only where the block has a label at all."""
        state, factors = self.state, self.state.config.downsample
        if not final.any():
            return measure_unit(final, region)
        stored: StoredArray = state.store.open(ComponentStage(state).source.volume)
        posterior = stored.read(region)
        image = state.image.read(scale(region, factors))
        return measure_unit(final, region, posterior, image, factors)

    def reduce(self, partials: Arrays) -> Arrays:
        state = self.state
        sums = merge_measurements(partials)
        partials.clear()  # the rows of all blocks are as many bytes again
        parts = particle_tables(sums, state.label_voxel_size_nm, state.label_origin_nm)
        folder = state.folder / TABLES
        folder.mkdir(parents=True, exist_ok=True)
        self._files = [
            *write_table(parts, folder / PARTICLES, metadata={"columns": COLUMN_METADATA}),
            *write_table(slice_table(state), folder / SLICES, metadata={"columns": SLICE_METADATA}),
        ]
        voxels = int(self.label_map.voxel_count.sum())
        return {"particles": np.array(len(sums)), "voxels": np.array(voxels)}

    def files(self) -> Sequence[Path]:
        return self._files


SLICE_METADATA = {
    "z": "index of the slice",
    "z_nm": "position of the slice, nm; 0 is the centre of the first",
    "usable": "whether the slice took part (blank, constant and saturated slices do not)",
    "pi_map": "MAP mixing weight: share of the slice's pixels that are particle, under the Beta prior",
    "pi_ml": "the same without the prior",
    "shift_bins": "brightness of the slice against the stack's model, in bins of 1/256 of the range",
    "input_crc32c": "CRC-32C of the slice's pixels as they were read",
}


def slice_table(state: DatasetState) -> pd.DataFrame:
    """Mixing weights and checks of every slice, a row a slice; columns :data:`SLICE_METADATA`."""
    mixture, posterior = state.mixture, state.posterior
    z = np.arange(state.shape[0])
    return pd.DataFrame(
        {
            "z": z,
            "z_nm": z * state.voxel_size_nm[0],
            "usable": mixture.usable.astype(bool),
            "pi_map": posterior.pi_map,
            "pi_ml": posterior.pi_ml,
            "shift_bins": mixture.slice_shift,
            "input_crc32c": state.results["histograms"]["crc32c"],
        }
    )
