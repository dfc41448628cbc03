"""Seeded resampling with replacement, the same whatever the order in which rows arrived."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator

import numpy as np

RESAMPLES = 1000
LEVEL = 0.95

#: Draws held at once: bounds the memory, at about 40 bytes each.
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


def resampled_weights(
    strata: np.ndarray, rng: np.random.Generator, resamples: int = RESAMPLES
) -> Iterator[np.ndarray]:
    """Draw the weight of each item when every stratum is resampled with replacement.

    From a stratum of m items m - 1 are drawn, each with the weight m / (m - 1).  With m draws of weight 1
    the spread of a mean would come out too small by the factor (m - 1) / m: by half for two cells.

    Parameters
    ----------
    strata : (N,) integer ndarray
        Stratum of each item; the only item of a stratum keeps its weight of 1.
    rng : numpy.random.Generator
    resamples : int

    Yields
    ------
    (B, N) float64 ndarray
        A row a resample, of sum N; as many batches as bound the memory, `resamples` rows together.

    References
    ----------
    J. N. K. Rao and C. F. J. Wu, Resampling inference with complex survey data, J. Am. Stat. Assoc. 83,
    231 (1988).
    """
    items = np.argsort(strata, kind="stable")
    _, sizes = np.unique(strata, return_counts=True)
    drawn = np.maximum(1, sizes - 1)
    size, first = np.repeat(sizes, drawn), np.repeat(np.cumsum(sizes) - sizes, drawn)
    weight = np.empty(len(items))
    weight[items] = np.repeat(sizes / drawn, sizes)
    batch = max(1, _DRAWS_AT_ONCE // max(1, len(items)))
    for begin in range(0, resamples, batch):
        rows = min(batch, resamples - begin)
        taken = items[first + rng.integers(0, size, (rows, len(size)))]
        taken += np.arange(rows)[:, None] * len(items)
        yield np.bincount(taken.ravel(), minlength=rows * len(items)).reshape(rows, -1) * weight


def interval(
    strata: np.ndarray,
    statistic: Callable[[np.ndarray], np.ndarray],
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the percentile interval of a statistic of resampled items.

    Parameters
    ----------
    strata : (N,) integer ndarray
        Stratum of each item.
    statistic : callable
        From (B, N) weights to (B, …) values.
    rng : numpy.random.Generator
    resamples : int
    level : float
        Share of the resamples within the interval.

    Returns
    -------
    low, high : ndarray
        NaN where fewer than half of the resamples define the statistic.
    """
    values = np.concatenate([statistic(weights) for weights in resampled_weights(strata, rng, resamples)])
    return percentile_interval(values, level)


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
