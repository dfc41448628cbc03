"""What the stages of one dataset share: its input, its store, its configuration and their results."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np

from cytomill.kernels.binning import Binning
from cytomill.nanoparticles.config import NanoparticleSegConfig
from cytomill.nanoparticles.estimators import make_estimator
from cytomill.nanoparticles.fitting import StackHistograms
from cytomill.nanoparticles.layout import output_layout
from cytomill.nanoparticles.mixture import sampled_slices
from cytomill.nanoparticles.model import Estimator, Mixture, SlicePosterior, Thresholds
from cytomill.runtime.arrays import digest, text_array
from cytomill.runtime.dataset import OpenDataset
from cytomill.runtime.stage import Arrays
from cytomill.storage.stores import StoredArray, spacing_name
from cytomill.storage.volumes import Volume

IMAGES = "images"
POSTERIOR = "labels/nps/posterior"
MASKS = "labels/nps/masks"

#: Bytes stored a byte of volume, at the most: a posterior has 256 values a slice, labels are long runs.
ENCODED_POSTERIOR = {"float16": 0.5, "uint8": 1.0}
ENCODED_LABELS = 0.125


@dataclass
class DatasetState(OpenDataset):
    """One dataset of the nanoparticle pipeline.

    Parameters
    ----------
    config : NanoparticleSegConfig
        Parameters.
    """

    config: NanoparticleSegConfig

    @property
    def image(self) -> Volume | StoredArray:
        """What the stages read: the input, or its converted copy where it cannot be read by region."""
        return self.source if self.source.region_readable else self._converted

    @cached_property
    def _converted(self) -> StoredArray:
        return self.volume(IMAGES)

    @cached_property
    def estimator(self) -> Estimator:
        """The estimator that the configuration names."""
        return make_estimator(self.config)

    @property
    def label_voxel_size_nm(self) -> tuple[float, ...]:
        """Voxel size of the volume that is labelled, nm (Z, Y, X)."""
        return tuple(s * f for s, f in zip(self.voxel_size_nm, self.config.downsample))

    @property
    def label_origin_nm(self) -> tuple[float, ...]:
        """Centre of the first voxel that is labelled, nm from that of the image (Z, Y, X)."""
        return tuple((c - s) / 2 for c, s in zip(self.label_voxel_size_nm, self.voxel_size_nm))

    @property
    def label_spacing(self) -> str:
        """Name of the spacing at which labels are made."""
        return spacing_name(self.label_voxel_size_nm)

    @property
    def downsamples(self) -> bool:
        """Whether labels are made on a reduced posterior."""
        return any(factor > 1 for factor in self.config.downsample)

    @property
    def label_shape(self) -> tuple[int, ...]:
        """Voxels of the volume that is labelled (Z, Y, X)."""
        return tuple(n // f for n, f in zip(self.shape, self.config.downsample))

    def layout_of(self, shape: tuple[int, ...], dtype: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Chunks and shards of a volume that the dataset writes."""
        return output_layout(self.config, shape, dtype)

    @property
    def histograms(self) -> StackHistograms:
        """Histograms of the slices, and what they decide."""
        found = self.results["histograms"]
        low, high = (int(v) for v in found["thresholds"])
        notes = tuple(str(n) for n in found["notes"])
        thresholds = Thresholds(low, high, found["usable"].astype(bool), notes, found.get("slice_shift"))
        return StackHistograms(self.binning, found["hist_slices"], found["padding"], thresholds)

    @property
    def binning(self) -> Binning:
        """How pixels become bins, known once the histograms are."""
        low, high, reverse = (int(v) for v in self.results["histograms"]["binning"])
        return Binning(low, high, bool(reverse))

    @property
    def thresholds(self) -> Thresholds:
        """Thresholds of the background step."""
        return self.histograms.thresholds

    @property
    def sampled(self) -> np.ndarray:
        """(Z,) bool: slices that take part in the fit."""
        return sampled_slices(self.shape[0], self.config.sampling_step)

    @property
    def mixture(self) -> Mixture:
        """The fitted mixture."""
        return mixture_from_arrays(self.results["mixture"])

    @property
    def posterior(self) -> SlicePosterior:
        """Mixing weights and tables of the slices."""
        found = self.results["mixture"]
        return SlicePosterior(found["pi_map"], found["pi_ml"], found["tables"])


def values_digest(result: Arrays) -> str:
    """Digest of a stage's result but for its sentences: they change with a version where values do not."""
    return digest({name: array for name, array in result.items() if name != "notes"})


def histograms_to_arrays(stack: StackHistograms) -> Arrays:
    """Histograms and what they decide as named arrays, for the ledger."""
    binning, thresholds = stack.binning, stack.thresholds
    shift = {} if thresholds.slice_shift is None else {"slice_shift": thresholds.slice_shift}
    return shift | {
        "hist_slices": stack.hist_slices,
        "padding": stack.padding,
        "binning": np.array([binning.low, binning.high, binning.reverse], np.int64),
        "thresholds": np.array([thresholds.th_low, thresholds.th_high], np.int64),
        "usable": thresholds.usable.astype(np.uint8),
        "notes": text_array(thresholds.notes),
    }


def mixture_to_arrays(mixture: Mixture) -> Arrays:
    """A mixture as named arrays, for the ledger."""
    values = {f.name: getattr(mixture, f.name) for f in fields(Mixture)}
    values["notes"] = text_array(mixture.notes)
    return {name: np.asarray(value) for name, value in values.items() if value is not None}


def mixture_from_arrays(arrays: Arrays) -> Mixture:
    """The inverse of :func:`mixture_to_arrays`; further arrays are left alone."""
    found = {f.name: arrays[f.name] for f in fields(Mixture) if f.name in arrays}
    values: dict[str, Any] = {n: array if array.ndim else array.item() for n, array in found.items()}
    return Mixture(**values | {"notes": tuple(str(n) for n in arrays["notes"])})
