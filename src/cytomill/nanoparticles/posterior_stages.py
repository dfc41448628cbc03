"""Stages that write the posterior: at the image's spacing, and reduced by block means."""

from __future__ import annotations

from collections.abc import Sequence
from math import lcm, prod
from typing import Any

import numpy as np

from cytomill.kernels.blocks import grid, round_up
from cytomill.kernels.checksum import crc32c_of
from cytomill.nanoparticles.downsample import downsample_slab, halo_slices, source_slices
from cytomill.nanoparticles.intensity_stages import NanoparticleStage, SlabStage
from cytomill.nanoparticles.slabs import slab_posterior
from cytomill.nanoparticles.state import ENCODED_POSTERIOR, IMAGES, POSTERIOR, values_digest
from cytomill.runtime.arrays import digest, digest_of
from cytomill.runtime.stage import Unit, UnitOutput, check_blocks
from cytomill.storage.errors import VolumeError
from cytomill.storage.stores import reading_buffer_bytes, writing_buffer_bytes


class PosteriorStage(SlabStage):
    """The posterior volume: each slice's table gathered at its pixels."""

    name = "posterior"

    @property
    def volume(self) -> str:
        """Name of the volume written."""
        return f"{POSTERIOR}/{self.state.spacing}"

    def shards(self) -> tuple[int, ...]:
        """Shard of the posterior."""
        return self.state.layout_of(self.state.shape, self.state.config.posterior_dtype)[1]

    def slab_multiple(self) -> int:
        return lcm(super().slab_multiple(), self.shards()[0])

    def read_depth(self) -> int:
        return self.shards()[0]

    def band_height(self) -> int:
        """Rows handled at once: a shard's, or all where the input is stored by whole slices."""
        shard_height, chunk_height = self.shards()[1], self.state.image.chunks[1]
        return min(self.state.shape[1], round_up(chunk_height, shard_height))

    def fields(self) -> dict[str, Any]:
        # The spacing names the volume: under another one it is another volume.
        results = self.state.results
        return {
            # Equal histograms do not make equal slices.
            "slices": digest({"crc32c": results["histograms"]["crc32c"]}),
            "mixture": values_digest(results["mixture"]),
            "spacing": self.state.spacing,
            "layout": self.state.layout_of(self.state.shape, self.state.config.posterior_dtype),
        } | self.state.options("posterior_dtype", "zarr_chunks", "shard_shape")

    def check_unit_table(self, units: Sequence[Unit]) -> None:
        check_blocks(self.name, units, self.shards(), self.state.shape)

    def memory_bytes(self, units: Sequence[Unit]) -> int:
        state, dtype = self.state, np.dtype(self.state.config.posterior_dtype)
        band = (min(self.shards()[0], state.shape[0]), self.band_height(), state.shape[2])
        pixels, written = prod(band) * state.image.dtype.itemsize, prod(band) * dtype.itemsize
        one_slice_of_bins = prod(band[1:])
        return max(
            state.image.reading_bytes(band),
            pixels + written + one_slice_of_bins,
            written + writing_buffer_bytes(band, self.shards(), dtype, ENCODED_POSTERIOR[dtype.name]),
        )

    def prepare(self, rank: int) -> None:
        if rank == 0:
            self.create(
                self.volume,
                self.state.shape,
                self.state.config.posterior_dtype,
                [f"{IMAGES}/{self.state.spacing}"],
            )

    def process(self, unit: Unit) -> UnitOutput:
        state = self.state
        target = state.store.open(self.volume)
        tables = state.results["mixture"]["tables"]
        (first, stop), height = unit.region[0], self.state.shape[1]
        checksums = np.zeros(stop - first, np.int64)
        for (z0, z1), (y0, y1) in grid((stop - first, height), (self.shards()[0], self.band_height())):
            region = ((first + z0, first + z1), (y0, y1))
            image = state.image.read(region)
            # A slice's bands come one after the other, from its first row to its last.
            checksums[z0:z1] = [
                crc32c_of(rows, int(crc)) for rows, crc in zip(image, checksums[z0:z1], strict=True)
            ]
            slab = state.device.put(image)
            del image
            posterior = slab_posterior(slab, state.binning, tables[slice(*region[0])])
            del slab  # the writer needs room
            target.write(region, posterior)
            del posterior  # before the next is read
        self._check_unchanged(first, checksums)
        return UnitOutput({}, target.shard_paths(unit.region))

    def _check_unchanged(self, first: int, checksums: np.ndarray) -> None:
        """Refuse slices that are not those whose histograms decided their tables."""
        counted = self.state.results["histograms"]["crc32c"][first : first + len(checksums)]
        changed = np.flatnonzero(counted != checksums)
        if changed.size:
            raise VolumeError(
                f"{self.state.input}: slice {first + changed[0]} has other pixels than when its histogram "
                "was taken; restore the file, or touch it and run again with --update"
            )


#: Tiles of the smoothing, its tables, and what the allocator keeps of them (measured: 18 MB, rounded up).
WORKSPACE_BYTES = 32_000_000


class DownsampleStage(NanoparticleStage):
    """The posterior reduced by block means, for labels at a coarser spacing."""

    name = "downsample"

    @property
    def volume(self) -> str:
        """Name of the volume written."""
        return f"{POSTERIOR}/{self.state.label_spacing}"

    def shards(self) -> tuple[int, ...]:
        """Shard of the reduced posterior."""
        return self.state.layout_of(self.state.label_shape, self.state.config.posterior_dtype)[1]

    def fields(self) -> dict[str, Any]:
        return {
            "posterior": digest_of(PosteriorStage(self.state).fields()),
            "layout": self.state.layout_of(self.state.label_shape, self.state.config.posterior_dtype),
        } | self.state.options("downsample", "downsample_sigma", "zarr_chunks", "shard_shape")

    def requires(self) -> Sequence[str]:
        return ("posterior",)

    def units(self) -> list[Unit]:
        depth, height, width = self.state.label_shape
        step = self.shards()[0]
        regions = [((z, min(z + step, depth)),) for z in range(0, depth, step)]
        # As costly as the image's voxels that become one slice.
        slice_cost = float(prod(self.state.config.downsample) * height * width)
        return [Unit(i, r, (r[0][1] - r[0][0]) * slice_cost) for i, r in enumerate(regions)]

    def check_unit_table(self, units: Sequence[Unit]) -> None:
        check_blocks(self.name, units, self.shards(), self.state.label_shape)

    def memory_bytes(self, units: Sequence[Unit]) -> int:
        state, config = self.state, self.state.config
        step = min(self.shards()[0], state.label_shape[0])
        halo = halo_slices(config.downsample_sigma[0])
        depth = min(step * config.downsample[0] + 2 * halo, state.shape[0])
        dtype = np.dtype(config.posterior_dtype)
        read, written = (depth, *state.shape[1:]), (step, *state.label_shape[1:])
        slab, reduced = prod(read) * dtype.itemsize, prod(written) * dtype.itemsize
        encoded = ENCODED_POSTERIOR[dtype.name]
        shards = PosteriorStage(state).shards()
        return WORKSPACE_BYTES + max(
            slab + reading_buffer_bytes(read, shards, dtype, encoded),
            slab + reduced,
            reduced + writing_buffer_bytes(written, self.shards(), dtype, encoded),
        )

    def prepare(self, rank: int) -> None:
        if rank == 0:
            self.create(
                self.volume,
                self.state.label_shape,
                self.state.config.posterior_dtype,
                [f"{POSTERIOR}/{self.state.spacing}"],
            )

    def process(self, unit: Unit) -> UnitOutput:
        state, config = self.state, self.state.config
        source = state.volume(POSTERIOR)
        target = state.store.open(self.volume)
        z0, z1 = unit.region[0]
        factor_z, sigma_z = config.downsample[0], config.downsample_sigma[0]
        start, stop = source_slices(z0, z1, state.shape[0], factor_z, sigma_z)
        slab = source.read(((start, stop),))
        reduced = downsample_slab(slab, start, z0, z1, config.downsample, config.downsample_sigma)
        del slab  # the writer needs room
        target.write(unit.region, reduced)
        return UnitOutput({}, target.shard_paths(unit.region))
