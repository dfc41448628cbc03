"""Seeded resampling with replacement, the same whatever the order in which rows arrived."""

from __future__ import annotations

import zlib

import numpy as np
from numba import njit

RESAMPLES = 1000
LEVEL = 0.95

#: Draws held at once: bounds the memory, at 4 bytes each.
_DRAWS_AT_ONCE = 4_000_000


def generator(seed: int, *names: str | int) -> np.random.Generator:
    """Return a random generator that depends on the seed and on what is resampled, and on nothing else.

    Parameters
    ----------
    seed : int
        Of the run, 0 or more.
    *names : str or int
        Of the cell, the organelle, the condition.
    """
    return np.random.default_rng([seed, *(zlib.crc32(str(name).encode()) for name in names)])


@njit(nogil=True, cache=True)
def _add_drawn(drawn, values, totals):
    for row in range(drawn.shape[0]):
        for draw in drawn[row]:
            for column in range(values.shape[1]):
                totals[row, column] += values[draw, column]


def resampled_totals(
    values: np.ndarray, strata: np.ndarray, rng: np.random.Generator, resamples: int = RESAMPLES
) -> np.ndarray:
    """Add up items, again and again, every stratum being resampled with replacement.

    From a stratum of m items m - 1 are drawn, each with the weight m / (m - 1).  With m draws of weight 1
    the spread of a mean would come out too small by the factor (m - 1) / m: by half for two cells.

    Parameters
    ----------
    values : (N, k) ndarray
        What is added up, a row an item.
    strata : (N,) integer ndarray
        Stratum of each item; the only item of a stratum is always taken.
    rng : numpy.random.Generator
    resamples : int

    Returns
    -------
    (resamples, k) float64 ndarray

    References
    ----------
    J. N. K. Rao and C. F. J. Wu, Resampling inference with complex survey data, J. Am. Stat. Assoc. 83,
    231 (1988).
    """
    totals = np.zeros((resamples, values.shape[1]))
    for stratum in np.unique(strata):
        own = np.asarray(values[strata == stratum], np.float64)
        items, draws = len(own), max(1, len(own) - 1)
        own *= items / draws
        batch = max(1, _DRAWS_AT_ONCE // draws)
        for begin in range(0, resamples, batch):
            part = totals[begin : begin + batch]
            _add_drawn(rng.integers(0, items, (len(part), draws), dtype=np.int32), own, part)
    return totals


def percentile_interval(values: np.ndarray, level: float = LEVEL) -> tuple[np.ndarray, np.ndarray]:
    """Return the quantiles, over the first axis, between which `level` of the finite values lie.

    NaN where fewer than half of the values are finite: what is left would be a choice, not a sample.
    """
    finite = np.isfinite(values)
    enough = 2 * finite.sum(axis=0) >= max(1, len(values))
    tail = (1 - level) / 2
    usable = np.where(finite & enough, values, np.nan)
    low, high = np.full(values.shape[1:], np.nan), np.full(values.shape[1:], np.nan)
    if enough.any():
        # Sorting puts NaN last, so that the quantiles of the finite ones are found without warnings.
        ordered = np.sort(usable, axis=0)
        count = np.where(enough, finite.sum(axis=0), 1)
        for out, share in ((low, tail), (high, 1 - tail)):
            place = share * (count - 1)
            below = np.floor(place).astype(np.int64)
            above = np.minimum(below + 1, count - 1)
            left = np.take_along_axis(ordered, below[None], axis=0)[0]
            right = np.take_along_axis(ordered, above[None], axis=0)[0]
            out[...] = left + (place - below) * (right - left)
    return low, high
