"""Turning pixels into 256 bins by a rule in integers, the same for every slice of a stack.

8-bit pixels are their own bins.  16-bit pixels are cut into 256 equal bins, laid over levels that the
whole stack decides, so that a table a slice still serves; inverted contrast reverses the bins, so
that what is looked for is always bright.  A bin is a whole number of grey levels wide, and of the
stack's own steps where it was scaled up from fewer levels: bins of unequal content make a comb.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numba import njit

from cytomill.kernels.devices import on_gpu
from cytomill.kernels.histogram import BINS, histogram_256

#: Columns of a row of :func:`slice_range`.
RANGE_COLUMNS = ("minimum", "maximum", "low_percentile", "high_percentile", "constant", "step")

#: One pixel in this many may lie below the lower (above the upper) level of a slice: 0.01 %.
TAIL = 10_000

#: A slice has no say in the stack's range where its level lies further outside the median slice's than
#: this many times the median slice's width: it is charged, saturated or of another exposure.
WIDTHS_OUTSIDE = 3


@dataclass(frozen=True)
class Binning:
    """``bin = clip((v - low) * 256 // (high - low + 1), 0, 255)``; reversed, ``255 - bin``.

    Parameters
    ----------
    low, high : int
        Lowest value of bin 0 and highest value of bin 255 (it may exceed what the pixels can hold).
    reverse : bool
        Whether dark pixels get the high bins.

    Raises
    ------
    ValueError
        If the levels are not ``0 <= low < high``.
    """

    low: int = 0
    high: int = 255
    reverse: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.low < self.high:
            raise ValueError(f"binning needs 0 <= low < high, found low = {self.low}, high = {self.high}")

    @property
    def is_identity(self) -> bool:
        """Whether 8-bit pixels are their own bins."""
        return (self.low, self.high, self.reverse) == (0, 255, False)

    def table(self, dtype: np.dtype) -> np.ndarray:
        """Bin of every value that `dtype` (uint8 or uint16) can hold, uint8."""
        return _bin_table(self, np.dtype(dtype))


@lru_cache(maxsize=16)
def _bin_table(binning: Binning, dtype: np.dtype) -> np.ndarray:
    values = np.arange(np.iinfo(dtype).max + 1, dtype=np.int64)
    bins = np.clip((values - binning.low) * 256 // (binning.high - binning.low + 1), 0, 255)
    table = (255 - bins if binning.reverse else bins).astype(np.uint8)
    table.setflags(write=False)
    return table


@njit(nogil=True, cache=True)
def _gather_bins(pixels, table, out):
    for i in range(pixels.size):
        out[i] = table[pixels[i]]


@njit(nogil=True, cache=True)
def _count_values(pixels, counts):
    for i in range(pixels.size):
        counts[pixels[i]] += 1


def _check_dtype(dtype: np.dtype) -> None:
    if dtype.kind != "u" or dtype.itemsize > 2:
        raise TypeError(
            f"intensities must be uint8 or uint16, found {dtype}: convert the volume to one of them first"
        )


def to_bins(image: Any, binning: Binning) -> Any:
    """Return the bin of every pixel.

    Parameters
    ----------
    image : uint8 or uint16 ndarray or CuPy array of any shape
    binning : Binning

    Returns
    -------
    uint8 array
        `image` itself, not a copy, where 8-bit pixels are their own bins.

    Raises
    ------
    TypeError
        If `image` is neither uint8 nor uint16.
    """
    _check_dtype(image.dtype)
    if image.dtype == np.uint8 and binning.is_identity:
        return image
    table = binning.table(image.dtype.newbyteorder("="))
    if on_gpu(image):
        import cupy

        return cupy.take(cupy.asarray(table), image)
    out = np.empty(image.shape, np.uint8)
    _gather_bins(_native(image), table, out.reshape(-1))
    return out


def _native(image: np.ndarray) -> np.ndarray:
    """`image` flat, contiguous and in the machine's byte order (no copy where it is that already)."""
    return np.ascontiguousarray(image, dtype=image.dtype.newbyteorder("=")).reshape(-1)


def slice_range(image: np.ndarray) -> np.ndarray:
    """Levels of one slice, found by counting.

    The lower percentile is the smallest value with at least 0.01 % of the pixels at or below it, the
    upper one the smallest with at least 99.99 %.  In 16-bit slices the values 0 and 65535 are left out
    (of slices that hold others too): they are padding and saturation, whatever the range in between.
    The step is the greatest common divisor of the differences of the values between the percentiles:
    256 or 257 for 8-bit pixels scaled up, 1 for genuine 16-bit ones.

    Parameters
    ----------
    image : (Y, X) uint8 or uint16 ndarray, not empty

    Returns
    -------
    (6,) int64 ndarray
        In the order of :data:`RANGE_COLUMNS`; `constant` is 1 for a slice of one value, and `step` is 0
        where there are no two values between the percentiles.

    Raises
    ------
    TypeError
        If `image` is neither uint8 nor uint16.
    ValueError
        If `image` has no pixels.
    """
    _check_dtype(image.dtype)
    if image.size == 0:
        raise ValueError(f"a slice of shape {image.shape} has no pixels, so it has no range of intensities")
    if image.dtype == np.uint8:
        counts = histogram_256(image)
    else:
        counts = np.zeros(1 << 16, np.int64)
        _count_values(_native(image), counts)
    present = np.flatnonzero(counts)
    if image.dtype != np.uint8 and counts[1:-1].any():
        counts[[0, -1]] = 0
    total = int(counts.sum())
    below = np.cumsum(counts) * TAIL
    low = int(np.searchsorted(below, total))
    high = int(np.searchsorted(below, total * (TAIL - 1)))
    step = int(np.gcd.reduce(np.diff(np.flatnonzero(counts[low : high + 1]))))
    return np.array([present[0], present[-1], low, high, present.size == 1, step], np.int64)


def choose_binning(ranges: np.ndarray, usable: np.ndarray | None = None, reverse: bool = False) -> Binning:
    """Choose one binning for a stack.

    Values that all lie below 256 are their own bins.  Otherwise the slices that are usable and not
    constant (all slices where none is) span the range, from the least lower percentile to the greatest
    upper one; levels further outside the median slice's than :data:`WIDTHS_OUTSIDE` times its width do
    not count.  A bin is the smallest multiple of the stack's step (the greatest common divisor of the
    slices') with which 256 bins hold the range.  Where a bin is to spare, the range begins in bin 1, so
    that what lies below it (the padding of a registered stack) has a bin of its own.

    Parameters
    ----------
    ranges : (Z, 6) int64 ndarray
        Rows of :func:`slice_range`.
    usable : (Z,) bool ndarray, optional
        False for slices that shall have no say.
    reverse : bool
        Whether dark pixels get the high bins.

    Returns
    -------
    Binning
    """
    ranges = np.asarray(ranges, np.int64).reshape(-1, len(RANGE_COLUMNS))
    if ranges.size == 0 or ranges[:, 1].max() <= 255:
        return Binning(reverse=reverse)
    speaks = ranges[:, 4] == 0
    if usable is not None:
        speaks = speaks & np.asarray(usable, bool)
    if not speaks.any():
        speaks[:] = True
    lows, highs = ranges[speaks, 2], ranges[speaks, 3]
    # Order statistics and not means, so that there is always a slice within the limits.
    middle_low, middle_high = np.sort(lows)[(len(lows) - 1) // 2], np.sort(highs)[len(highs) // 2]
    room = WIDTHS_OUTSIDE * max(int(middle_high - middle_low), 1)
    kept_low, kept_high = lows >= middle_low - room, highs <= middle_high + room
    low, high = int(lows[kept_low].min()), int(highs[kept_high].max())
    step = max(int(np.gcd.reduce(ranges[speaks, 5][kept_low & kept_high])), 1)
    width = -(-(high - low + 1) // (BINS * step)) * step
    if -(-(high - low + 1) // width) < BINS:
        low = max(low - width, 0)
    return Binning(low, low + BINS * width - 1, reverse)
