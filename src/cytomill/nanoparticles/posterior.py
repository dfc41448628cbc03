"""Posterior probability of being particle, as one table of 256 entries a slice."""

from __future__ import annotations

import numpy as np


def posterior_tables(
    pi: np.ndarray, p_np: np.ndarray, p_bg: np.ndarray, eps: float, dtype: str = "float16"
) -> np.ndarray:
    """Posterior of every bin of every slice, ``pi p_np / (pi p_np + (1 - pi) p_bg + eps)``.

    Computed in float64 and rounded here, before any gather: rounding 256 entries a slice costs
    nothing, rounding every voxel costs more than the gather.

    Parameters
    ----------
    pi : (Z,) float64 ndarray
        Mixing weight of particles in each slice.
    p_np, p_bg : (256,) or (Z, 256) float64 ndarray
        Distributions of particles and background.
    eps : float
        Floor of the denominator.
    dtype : {"float16", "uint8"}
        uint8 holds ``round(255 p)``.

    Returns
    -------
    (Z, 256) ndarray of `dtype`

    Raises
    ------
    ValueError
        If `dtype` is neither of the two.
    """
    weight = np.asarray(pi, np.float64)[:, None]
    particles = weight * p_np
    mix = particles + (1 - weight) * p_bg
    return round_posterior(particles / (mix + eps), dtype)


def round_posterior(posterior: np.ndarray, dtype: str) -> np.ndarray:
    """Round probabilities to the type of a posterior volume (``round(255 p)`` for uint8).

    Raises
    ------
    ValueError
        If `dtype` is neither float16 nor uint8.
    """
    if dtype == "float16":
        return posterior.astype(np.float16)
    if dtype == "uint8":
        return np.rint(255 * posterior).astype(np.uint8)
    raise ValueError(f"posterior_dtype must be float16 or uint8, found {dtype!r}")


def stored_tables(tables: np.ndarray, dtype: str) -> np.ndarray:
    """Tables in the type of the posterior volume: as they are, or rounded on to the other type.

    Parameters
    ----------
    tables : (Z, 256) float16 or uint8 ndarray
    dtype : {"float16", "uint8"}

    Returns
    -------
    (Z, 256) ndarray of `dtype`
    """
    if tables.dtype == np.dtype(dtype):
        return tables
    scale = 255 if tables.dtype == np.uint8 else 1
    return round_posterior(tables.astype(np.float64) / scale, dtype)
