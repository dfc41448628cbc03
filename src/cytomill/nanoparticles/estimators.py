"""Choosing the estimator and the polarity that the configuration names."""

from __future__ import annotations

import numpy as np

from cytomill.nanoparticles.config import ESTIMATORS, NanoparticleSegConfig
from cytomill.nanoparticles.mixture import ReferenceEstimator
from cytomill.nanoparticles.model import Estimator
from cytomill.nanoparticles.robust import RobustEstimator, guess_polarity, knee_of
from cytomill.nanoparticles.robust_slices import brightness_shift, judge_slices


def make_estimator(config: NanoparticleSegConfig) -> Estimator:
    """Return the estimator that ``config.estimator`` names.

    Raises
    ------
    ValueError
        If there is no estimator of that name.
    """
    if config.estimator == "reference":
        return ReferenceEstimator(config)
    if config.estimator == "robust":
        return RobustEstimator(config)
    raise ValueError(f"estimator must be one of {', '.join(ESTIMATORS)}, found {config.estimator!r}")


def choose_polarity(config: NanoparticleSegConfig, hist_slices: np.ndarray) -> tuple[str, tuple[str, ...]]:
    """Say whether particles are bright or dark.

    Parameters
    ----------
    config : NanoparticleSegConfig
        ``polarity = "auto"`` is guessed from the histograms; the reference estimator, like the
        published method, takes bright.
    hist_slices : (Z, 256) int64 ndarray
        Histograms as acquired, not reversed.

    Returns
    -------
    polarity : {"bright", "dark"}
    notes : tuple of str
        A sentence where it was guessed.
    """
    if config.polarity != "auto":
        return config.polarity, ()
    if config.estimator == "reference":
        return "bright", ()
    polarity, note = guess_polarity(hist_slices)
    return polarity, (note,)


def judge_stack(config: NanoparticleSegConfig, hist_slices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the slices that can be used, and how their brightness drifts, as the estimator's fit does.

    Parameters
    ----------
    config : NanoparticleSegConfig
    hist_slices : (Z, 256) int64 ndarray
        Particles bright.

    Returns
    -------
    usable : (Z,) bool ndarray
        All of them with the reference estimator.
    slice_shift : (Z,) float64 ndarray
        Bins against the stack's median slice; 0 with the reference estimator.
    """
    if config.estimator == "reference":
        return np.ones(len(hist_slices), bool), np.zeros(len(hist_slices))
    usable, _ = judge_slices(hist_slices)
    return usable, brightness_shift(hist_slices, usable, knee_of)
