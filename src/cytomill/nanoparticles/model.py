"""What the two estimators share: thresholds, the fitted mixture, the posterior of each slice."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

#: Verdicts of an estimator on a whole stack.
PARTICLES = "particles"
NO_PARTICLES = "no particles"
FLAGGED = "flagged: no separate mode"


@dataclass(frozen=True)
class Thresholds:
    """Intensity thresholds of the background step, and what the histograms alone decide.

    Parameters
    ----------
    th_low, th_high : int
        Bins in [0, 256]: a candidate particle pixel is ``> th_low``; background is ``< th_high``.
    usable : (Z,) bool ndarray
        False for slices set aside (blank, constant, saturated).
    notes : tuple of str
        Sentences for the log and the report.
    slice_shift : (Z,) int64 ndarray, optional
        Offset of each slice's thresholds, in bins (brightness drift); None without drift.
    """

    th_low: int
    th_high: int
    usable: np.ndarray
    notes: tuple[str, ...] = ()
    slice_shift: np.ndarray | None = None

    def of_slice(self, z: int) -> tuple[int, int]:
        """``(th_low, th_high)`` of slice `z`, moved with its brightness, within [0, 256]."""
        if self.slice_shift is None:
            return self.th_low, self.th_high
        shift = int(self.slice_shift[z])
        # A limit at the end of the scale excludes nothing, whatever the brightness.
        high = self.th_high if self.th_high >= 256 else min(max(self.th_high + shift, 0), 256)
        return min(max(self.th_low + shift, 0), 255), high


@dataclass(frozen=True)
class Mixture:
    """A fitted two-component intensity mixture over 256 bins.

    Parameters
    ----------
    hist_stack, hist_bg : (256,) int64 ndarray
        Counts of the stack and of its background.
    p_stack, p_bg, p_np : (256,) float64 ndarray
        Probabilities a bin: whole stack, background, nanoparticles.
    th_low, th_high : int
        Bins, see :class:`Thresholds`.
    w_bg : float
        Global weight of the background.
    nll : float
        Negative log-likelihood a pixel at the solution (nat).
    nit : int
        0-based index of the last iteration.
    converged : bool
        Whether the stopping rule was met within the iterations allowed.
    verdict : str
        One of :data:`PARTICLES`, :data:`NO_PARTICLES`, :data:`FLAGGED`.
    usable : (Z,) bool ndarray
        Slices that took part.
    slice_shift : (Z,) float64 ndarray
        Brightness offset of each slice against the stack's model, in bins (0 without drift).
    notes : tuple of str
        Sentences for the log and the report.
    p_tissue, p_rim : (256,) float64 ndarray, optional
        What `p_bg` is made of (robust estimator only): tissue, and the rim of particles, the voxels
        outside them that their blur brightens.  A slice with more particles has more rim.
    rim_ratio : float
        Rim voxels for each particle voxel.
    """

    hist_stack: np.ndarray
    hist_bg: np.ndarray
    p_stack: np.ndarray
    p_bg: np.ndarray
    p_np: np.ndarray
    th_low: int
    th_high: int
    w_bg: float
    nll: float
    nit: int
    converged: bool
    verdict: str
    usable: np.ndarray
    slice_shift: np.ndarray
    notes: tuple[str, ...] = ()
    p_tissue: np.ndarray | None = None
    p_rim: np.ndarray | None = None
    rim_ratio: float = 0.0

    @property
    def summary_fit(self) -> dict[str, float | int | bool]:
        """The fit in four figures: ``w_bg``, ``nll``, ``nit``, ``converged``."""
        return {"w_bg": self.w_bg, "nll": self.nll, "nit": self.nit, "converged": self.converged}


@dataclass(frozen=True)
class SlicePosterior:
    """Mixing weights and posterior tables, a row a slice.

    Parameters
    ----------
    pi_map : (Z,) float64 ndarray
        MAP mixing weight of particles under the Beta prior.
    pi_ml : (Z,) float64 ndarray
        The same without the prior.
    tables : (Z, 256) float16 or uint8 ndarray
        Posterior probability of being particle for each bin (uint8: times 255), rounded before any
        gather; of the configuration's ``posterior_dtype``.
    """

    pi_map: np.ndarray
    pi_ml: np.ndarray
    tables: np.ndarray
    notes: tuple[str, ...] = field(default=())


class Estimator(Protocol):
    """Histograms in, posterior tables out; `reference` and `robust` are the two of them.

    All histograms are (Z, 256) int64, bins ordered so that particles are bright (a dark polarity is
    reversed before).  `sampled` is the (Z,) bool mask of slices that `sampling_step` keeps.
    """

    def thresholds(self, hist_slices: np.ndarray, sampled: np.ndarray) -> Thresholds:
        """Choose the thresholds of the background step."""

    def fit(
        self,
        hist_slices: np.ndarray,
        hist_bg_slices: np.ndarray,
        thresholds: Thresholds,
        sampled: np.ndarray,
    ) -> Mixture:
        """Fit the mixture from the slices' histograms and those of their background."""

    def posterior(self, mixture: Mixture, hist_slices: np.ndarray) -> SlicePosterior:
        """Mixing weight and posterior table of every slice (0 for slices set aside)."""


def norm(histogram: np.ndarray, eps: float) -> np.ndarray:
    """Normalise a histogram to probabilities that are at least about `eps`.

    Parameters
    ----------
    histogram : (256,) ndarray
        Counts or weights.
    eps : float
        Floor applied before the last normalisation.

    Returns
    -------
    (256,) float64 ndarray
        Uniform where `histogram` is all zero.
    """
    weights = np.asarray(histogram, np.float64)
    total = weights.sum()
    p = np.full(weights.shape, 1.0 / weights.size) if total == 0 else weights / total
    p = np.maximum(p, eps)
    return p / p.sum()
