"""Intensity histograms of 8-bit images, on the host and on a CUDA device."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from cytomill.kernels.devices import on_gpu

BINS = 256


@njit(nogil=True, cache=True)
def _count_words(words, counts):
    # One table a byte lane: neighbouring pixels are often equal, and an increment that waits for
    # the store of the one before it costs five times as much as an independent one.
    lanes = np.zeros((8, 256), np.int64)
    byte = np.uint64(255)
    for i in range(words.size):
        word = words[i]
        lanes[0, word & byte] += 1
        lanes[1, (word >> np.uint64(8)) & byte] += 1
        lanes[2, (word >> np.uint64(16)) & byte] += 1
        lanes[3, (word >> np.uint64(24)) & byte] += 1
        lanes[4, (word >> np.uint64(32)) & byte] += 1
        lanes[5, (word >> np.uint64(40)) & byte] += 1
        lanes[6, (word >> np.uint64(48)) & byte] += 1
        lanes[7, word >> np.uint64(56)] += 1
    for value in range(256):
        total = 0
        for lane in range(8):
            total += lanes[lane, value]
        counts[value] += total


@njit(nogil=True, cache=True)
def _count_bytes(pixels, counts):
    for i in range(pixels.size):
        counts[pixels[i]] += 1


def as_words(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Split a flat uint8 array into the part that is whole 8-byte words, and the rest.

    Parameters
    ----------
    pixels : (N,) uint8 ndarray, contiguous

    Returns
    -------
    words : (N // 8,) uint64 ndarray
        View of the first bytes.
    rest : (N % 8,) uint8 ndarray
        View of the last ones.
    """
    whole = pixels.size & ~7
    return pixels[:whole].view(np.uint64), pixels[whole:]


def histogram_256(image: Any) -> Any:
    """Count the pixels of each of the 256 values.

    Parameters
    ----------
    image : uint8 ndarray or CuPy array of any shape

    Returns
    -------
    (256,) int64 array
        On the device that `image` lives on; the same values on both.

    Raises
    ------
    TypeError
        If `image` is not uint8.
    """
    if image.dtype != np.uint8:
        raise TypeError(f"a histogram of 256 bins needs uint8 pixels, found {image.dtype}: bin them first")
    if on_gpu(image):
        import cupy

        return cupy.bincount(image.ravel(), minlength=BINS).astype(cupy.int64)
    counts = np.zeros(BINS, np.int64)
    words, rest = as_words(np.ascontiguousarray(image).reshape(-1))
    _count_words(words, counts)
    _count_bytes(rest, counts)
    return counts
