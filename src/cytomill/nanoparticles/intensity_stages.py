"""Stages that work slice by slice up to the fit: conversion, grey levels, histograms, background, mixture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from typing import Any

import numpy as np

from cytomill import __version__
from cytomill.kernels.binning import Binning, choose_binning
from cytomill.kernels.checksum import crc32c_of
from cytomill.nanoparticles.fitting import analyse_histograms, fit_stack
from cytomill.nanoparticles.padding import padding_of
from cytomill.nanoparticles.slabs import slab_backgrounds, slab_histograms, slab_ranges
from cytomill.nanoparticles.state import (
    IMAGES,
    POSTERIOR,
    DatasetState,
    histograms_to_arrays,
    mixture_to_arrays,
    values_digest,
)
from cytomill.runtime.stage import Arrays, DatasetRefused, Stage, Unit, UnitOutput
from cytomill.storage.stores import writing_buffer_bytes

#: Counts of all levels of 16-bit data; runs and boxes of the candidates of a slice.
RANGE_BYTES, CANDIDATE_BYTES = 2 * 2**20, 4 * 2**20


class NanoparticleStage(Stage):
    """A stage of the nanoparticle pipeline: everything it needs is in the dataset's state."""

    def __init__(self, state: DatasetState) -> None:
        self.state = state
        self.dataset = state.dataset

    def accept(self, result: Arrays) -> None:
        self.state.results[self.name] = result

    def create(self, name: str, shape: tuple[int, ...], dtype: Any, inputs: Sequence[str]) -> None:
        """Create the volume that this stage writes (rank 0)."""
        chunks, shards = self.state.layout_of(shape, dtype)
        config = self.state.config
        processing = {
            "step": self.name,
            "model_name": config.model_name,
            "version": __version__,
            "parameters": self.fields(),
        }
        attributes: dict[str, Any] = {"processing": [processing], "inputs": list(inputs)}
        if name.startswith(POSTERIOR) and np.dtype(dtype) == np.uint8:
            attributes["posterior_scale"] = 1 / 255
        self.state.store.create_or_replace(name, shape, dtype, chunks, shards, attributes)


class SlabStage(NanoparticleStage):
    """A stage whose units are slabs of whole slices of the image."""

    def slab_multiple(self) -> int:
        """Slices that a unit's depth must be a multiple of: what is read at once, and what is written."""
        return min(self.state.image.chunks[0], self.state.shape[0])

    def requires(self) -> Sequence[str]:
        return () if self.state.source.region_readable else ("convert",)

    def depth(self) -> int:
        """Slices of a unit."""
        depth, height, width = self.state.shape
        slice_bytes = height * width * self.state.image.dtype.itemsize
        return self.state.layout.slab_depth(depth, slice_bytes, self.slab_multiple())

    def units(self) -> list[Unit]:
        depth, height, width = self.state.shape
        regions = [((z, min(z + self.depth(), depth)),) for z in range(0, depth, self.depth())]
        return [Unit(i, r, float((r[0][1] - r[0][0]) * height * width)) for i, r in enumerate(regions)]

    def read_depth(self) -> int:
        """Slices read at once: the input's own granularity, as less costs as much."""
        return self.state.image.chunks[0]

    def slabs(self, unit: Unit) -> Iterator[tuple[int, np.ndarray]]:
        """Yield ``(first z, raw slab)`` of a unit, reading the input's granularity at a time."""
        first, stop = unit.region[0]
        for z in range(first, stop, self.read_depth()):
            yield z, self.state.image.read(((z, min(z + self.read_depth(), stop)),))

    def slice_memory_bytes(self, working: int) -> int:
        """Peak bytes of reading a slab, or of holding it with `working` bytes a pixel of one slice."""
        depth, height, width = self.state.shape
        slab = (min(self.read_depth(), depth), height, width)
        held = prod(slab) * self.state.image.dtype.itemsize + working * height * width
        return max(self.state.image.reading_bytes(slab), held)


class ConvertStage(NanoparticleStage):
    """Copies an input that cannot be read by region (gz, bz2, NPZ) into the dataset's store."""

    name = "convert"

    def fields(self) -> dict[str, Any]:
        state = self.state
        return {
            "input": state.input_identity,
            "voxel_size_nm": state.voxel_size_nm,
            "layout": state.layout_of(state.shape, state.source.dtype),
        } | state.options("zarr_chunks", "shard_shape")

    def units(self) -> list[Unit]:
        # One unit: a compressed stream has to be read from its beginning.
        shape = self.state.shape
        return [Unit(0, tuple((0, n) for n in shape), float(prod(shape)))]

    def memory_bytes(self, units: Sequence[Unit]) -> int:
        shape, dtype = self.state.shape, self.state.source.dtype
        _, shards = self.state.layout_of(shape, dtype)
        layer = (min(shards[0], shape[0]), *shape[1:])
        return self.state.source.reading_bytes(layer) + writing_buffer_bytes(layer, shards, dtype)

    def prepare(self, rank: int) -> None:
        if rank == 0:
            self.create(f"{IMAGES}/{self.state.spacing}", self.state.shape, self.state.source.dtype, [])

    def process(self, unit: Unit) -> UnitOutput:
        target = self.state.volume(IMAGES)
        for z, slab in self.state.source.slabs(target.shards[0]):
            target.write(((z, z + len(slab)),), slab)
            del slab  # before the next is read
        return UnitOutput({}, target.shard_paths())


class GreyLevelStage(SlabStage):
    """Grey-level range of every slice of 16-bit data, from which the 256 bins are chosen."""

    name = "grey levels"

    def fields(self) -> dict[str, Any]:
        return {"input": self.state.input_identity}

    def memory_bytes(self, units: Sequence[Unit]) -> int:
        return self.slice_memory_bytes(0) + RANGE_BYTES

    def process(self, unit: Unit) -> UnitOutput:
        rows = []
        for _, slab in self.slabs(unit):
            rows.append(slab_ranges(slab))
            del slab  # before the next is read
        return UnitOutput({"ranges": np.concatenate(rows)})

    def reduce(self, partials: Arrays) -> Arrays:
        binning = choose_binning(partials["ranges"])
        return {"ranges": partials["ranges"], "binning": np.array([binning.low, binning.high], np.int64)}


class HistogramStage(SlabStage):
    """Histogram and checksum of every slice; on rank 0 polarity and thresholds."""

    name = "histograms"

    @property
    def levels(self) -> Binning:
        """Bins before the polarity is known."""
        if "grey levels" not in self.state.results:
            return Binning()
        low, high = (int(v) for v in self.state.results["grey levels"]["binning"])
        return Binning(low, high)

    def fields(self) -> dict[str, Any]:
        fields = {"input": self.state.input_identity, "levels": [self.levels.low, self.levels.high]}
        fields |= self.state.options("estimator", "polarity", "sampling_step")
        if self.state.config.estimator == "reference":
            fields |= self.state.options("percent_th_low", "percent_th_high", "eps")
        return fields

    def memory_bytes(self, units: Sequence[Unit]) -> int:
        return self.slice_memory_bytes(0 if self.levels.is_identity else 1)

    def process(self, unit: Unit) -> UnitOutput:
        state = self.state
        histograms, padding, checksums = [], [], []
        for _, slab in self.slabs(unit):
            checksums += [crc32c_of(image) for image in slab]
            histograms.append(slab_histograms(state.device.put(slab), self.levels))
            padding.append(padding_of(state.config, slab, self.levels, histograms[-1]))
            del slab  # before the next is read
        return UnitOutput(
            {
                "hist_slices": np.concatenate(histograms),
                "padding": np.concatenate(padding),
                "crc32c": np.array(checksums, np.int64),
            }
        )

    def reduce(self, partials: Arrays) -> Arrays:
        state = self.state
        counted = (self.levels, partials["hist_slices"], partials["padding"])
        try:
            stack = analyse_histograms(state.config, state.estimator, *counted, state.sampled)
        except ValueError as error:
            raise DatasetRefused(f"dataset {self.dataset}: {error}") from error
        return histograms_to_arrays(stack) | {"crc32c": partials["crc32c"]}


class BackgroundStage(SlabStage):
    """Background histogram of every slice: what lies outside the boxes around candidates."""

    name = "background"

    def fields(self) -> dict[str, Any]:
        histograms = values_digest(self.state.results["histograms"])
        return {"histograms": histograms} | self.state.options("halo_pad", "min_size")

    def memory_bytes(self, units: Sequence[Unit]) -> int:
        return self.slice_memory_bytes(0 if self._bins_are_pixels() else 1) + CANDIDATE_BYTES

    def _bins_are_pixels(self) -> bool:
        """Whether pixels are used as they are; the worst is assumed while that is not known."""
        if "histograms" not in self.state.results:
            return False
        stack = self.state.histograms
        return stack.binning.is_identity and not stack.padding.any()

    def process(self, unit: Unit) -> UnitOutput:
        state, config = self.state, self.state.config
        stack = state.histograms
        counted = (stack.binning, stack.hist_slices, stack.thresholds)
        rows = []
        for z, slab in self.slabs(unit):
            rows.append(slab_backgrounds(slab, z, *counted, config.halo_pad, config.min_size, stack.padding))
            del slab  # before the next is read
        return UnitOutput({"hist_bg_slices": np.concatenate(rows)})

    def reduce(self, partials: Arrays) -> Arrays:
        return partials


class MixtureStage(NanoparticleStage):
    """The fit, on rank 0, and every slice's mixing weight and posterior table; it has no units."""

    name = "mixture"

    def fields(self) -> dict[str, Any]:
        fields = {"background": values_digest(self.state.results["background"])}
        fields |= {"histograms": values_digest(self.state.results["histograms"])}
        return fields | self.state.options(
            "max_iter",
            "eps",
            "nll_tol",
            "sampling_step",
            "beta_params",
            "estimator",
            "pi_solver",
            "posterior_dtype",
        )

    def units(self) -> list[Unit]:
        return []

    def memory_bytes(self, units: Sequence[Unit]) -> int:
        return 0

    def process(self, unit: Unit) -> UnitOutput:
        raise ValueError(f"the {self.name} stage has no units, but unit {unit.index} was asked for")

    def reduce(self, partials: Arrays) -> Arrays:
        state = self.state
        backgrounds = state.results["background"]["hist_bg_slices"]
        try:
            fitted = fit_stack(state.estimator, state.histograms, backgrounds, state.sampled)
        except (RuntimeError, ValueError) as error:
            raise DatasetRefused(f"dataset {self.dataset}: {error}") from error
        return mixture_to_arrays(fitted.mixture) | {
            "pi_map": fitted.slices.pi_map,
            "pi_ml": fitted.slices.pi_ml,
            "tables": fitted.slices.tables,
        }
