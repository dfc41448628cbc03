"""Runs of a volume along X: where voxels of one value, other than 0, follow one another."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(nogil=True, cache=True)
def _scan(flat, words, width, row, start, stop, value):
    """Count the runs of equal non-zero values, and write them where there is room."""
    voxels_a_word = 8 // flat.itemsize
    count = 0
    position = 0
    size = flat.size
    while position < size:
        if position % voxels_a_word == 0:
            # Most of a volume is background: eight bytes of it at a time.
            word = position // voxels_a_word
            while word < words.size and words[word] == 0:
                word += 1
            position = word * voxels_a_word
            if position >= size:
                break
        if flat[position] == 0:
            position += 1
            continue
        first = position
        line = first // width
        end = (line + 1) * width
        while position < end and flat[position] == flat[first]:
            position += 1
            word = position // voxels_a_word
            if position % voxels_a_word or position - first < voxels_a_word or word >= words.size:
                continue
            # The word just passed lies in the run: as long as words repeat it, so do voxels.
            last = min(end // voxels_a_word, words.size)
            while word < last and words[word] == words[word - 1]:
                word += 1
            position = word * voxels_a_word
        if row.size:
            row[count] = line
            start[count] = first - line * width
            stop[count] = position - line * width
            value[count] = flat[first]
        count += 1
    return count


def scan_runs(volume: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Find the runs of equal non-zero values along X.

    Parameters
    ----------
    volume : (Z, Y, X) bool or integer ndarray
        A mask or labels, fewer than 2³¹ voxels.

    Returns
    -------
    row, start, stop : (R,) int32 ndarray
        ``z · Y + y``, and the half-open range along X; in raster order.
    value : (R,) ndarray
        Of the volume's dtype (uint8 for bool).

    Raises
    ------
    ValueError
        For 2³¹ voxels or more.
    """
    if volume.size >= 2**31:
        raise ValueError(f"a block of {volume.shape} has 2^31 voxels or more: choose smaller blocks")
    flat = np.ascontiguousarray(volume).reshape(-1)
    if flat.dtype == bool:
        flat = flat.view(np.uint8)
    # A slice of a larger array may begin off a word's boundary; numba wants its words aligned.
    whole = flat.size * flat.itemsize // 8 if flat.ctypes.data % 8 == 0 else 0
    words = flat[: whole * 8 // flat.itemsize].view(np.uint64)
    nothing = np.empty(0, np.int32)
    count = _scan(flat, words, volume.shape[2], nothing, nothing, nothing, flat[:0])
    row, start, stop = (np.empty(count, np.int32) for _ in range(3))
    value = np.empty(count, flat.dtype)
    if count:
        _scan(flat, words, volume.shape[2], row, start, stop, value)
    return row, start, stop, value
