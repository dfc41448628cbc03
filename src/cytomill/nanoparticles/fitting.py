"""From the histograms of a stack to the posterior tables of its slices: arrays in, results out.

The class of one stack, the stages of a campaign and the preview go the same way: they read the slices
and call what is here in between.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from cytomill.kernels.binning import Binning
from cytomill.nanoparticles.config import NanoparticleSegConfig
from cytomill.nanoparticles.estimators import choose_polarity, judge_stack
from cytomill.nanoparticles.model import Estimator, Mixture, SlicePosterior, Thresholds
from cytomill.nanoparticles.padding import describe_padding, padding_counts


@dataclass(frozen=True)
class StackHistograms:
    """Histograms of a stack, and what they decide before the background is counted.

    Parameters
    ----------
    binning : Binning
        How pixels become bins, the polarity included.
    hist_slices : (Z, 256) int64 ndarray
        Counts of all pixels, particles bright.
    padding : (Z, 2) int64 ndarray
        Pixels of padding in each slice's darkest and brightest bin, see
        :mod:`cytomill.nanoparticles.padding`.
    thresholds : Thresholds
        Its notes say what was decided so far.
    """

    binning: Binning
    hist_slices: np.ndarray
    padding: np.ndarray
    thresholds: Thresholds

    @cached_property
    def hist_data(self) -> np.ndarray:
        """Counts without the padding, (Z, 256) int64."""
        return self.hist_slices - padding_counts(self.hist_slices, self.padding)


@dataclass(frozen=True)
class FittedStack:
    """A stack's mixture and what it means for the slices.

    Parameters
    ----------
    mixture : Mixture
    slices : SlicePosterior
    """

    mixture: Mixture
    slices: SlicePosterior


def analyse_histograms(
    config: NanoparticleSegConfig,
    estimator: Estimator,
    levels: Binning,
    hist_slices: np.ndarray,
    padding: np.ndarray,
    sampled: np.ndarray,
) -> StackHistograms:
    """Decide polarity and thresholds.

    Parameters
    ----------
    config : NanoparticleSegConfig
    estimator : Estimator
    levels : Binning
        Bins as acquired, not reversed.
    hist_slices : (Z, 256) int64 ndarray
        Under `levels`.
    padding : (Z, 2) int64 ndarray
        Under `levels`.
    sampled : (Z,) bool ndarray
        Slices that take part in the fit.

    Returns
    -------
    StackHistograms

    Raises
    ------
    ValueError
        If there is nothing to fit.
    """
    data = hist_slices - padding_counts(hist_slices, padding)
    polarity, said = choose_polarity(config, data)
    binning = levels
    if polarity == "dark":
        # Reversing the bins reverses their counts.
        binning = replace(levels, reverse=True)
        hist_slices, padding, data = (np.ascontiguousarray(a[:, ::-1]) for a in (hist_slices, padding, data))
    thresholds = estimator.thresholds(data, sampled)
    notes = (*said, *describe_padding(hist_slices, padding), *thresholds.notes)
    return StackHistograms(binning, hist_slices, padding, replace(thresholds, notes=notes))


def fit_stack(
    estimator: Estimator, stack: StackHistograms, hist_bg_slices: np.ndarray, sampled: np.ndarray
) -> FittedStack:
    """Fit the mixture and tabulate the posterior of every slice.

    Parameters
    ----------
    estimator : Estimator
    stack : StackHistograms
    hist_bg_slices : (Z, 256) int64 ndarray
        Histograms of the slices' background.
    sampled : (Z,) bool ndarray

    Returns
    -------
    FittedStack

    Raises
    ------
    RuntimeError
        If EM collapses.
    ValueError
        If no slice has a background pixel.
    """
    mixture = estimator.fit(stack.hist_data, hist_bg_slices, stack.thresholds, sampled)
    return FittedStack(mixture, _slices(estimator, mixture, stack.hist_slices, stack.padding))


def apply_mixture(
    config: NanoparticleSegConfig,
    estimator: Estimator,
    mixture: Mixture,
    hist_slices: np.ndarray,
    padding: np.ndarray,
) -> FittedStack:
    """Tabulate the posterior of a stack under a mixture that was fitted before, to this stack or another.

    Which slices are usable and how their brightness drifts is found from the stack's own histograms.

    Parameters
    ----------
    config : NanoparticleSegConfig
    estimator : Estimator
    mixture : Mixture
    hist_slices : (Z, 256) int64 ndarray
        Under the binning of the mixture.
    padding : (Z, 2) int64 ndarray

    Returns
    -------
    FittedStack
    """
    usable, slice_shift = judge_stack(config, hist_slices - padding_counts(hist_slices, padding))
    mixture = replace(mixture, usable=usable, slice_shift=slice_shift)
    return FittedStack(mixture, _slices(estimator, mixture, hist_slices, padding))


def _slices(
    estimator: Estimator, mixture: Mixture, hist_slices: np.ndarray, padding: np.ndarray
) -> SlicePosterior:
    lost = padding_counts(hist_slices, padding)
    slices = estimator.posterior(mixture, hist_slices - lost)
    slices.tables[lost > 0] = 0
    return slices
