"""Histogram of what is surely background in a slice: outside the boxes around bright candidates.

A candidate is an 8-connected component of pixels above a threshold.  Neither a label image nor a mask
is made: runs of candidate pixels are joined row by row, and the boxes' union is counted as intervals.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from cytomill.kernels.histogram import BINS, as_words
from cytomill.kernels.union_find import flatten, union

#: Multiplying a single bit by this sequence shifts a pattern of its own to the six top bits.
DE_BRUIJN = np.uint64(0x03F79D71B4CB0A89)
BIT_POSITION = np.zeros(64, np.int64)
BIT_POSITION[[(int(DE_BRUIJN) << bit) % 2**64 >> 58 for bit in range(64)]] = range(64)


@njit(nogil=True, cache=True)
def _find_edges(flat, words, threshold):
    """Positions where ``flat > threshold`` begins and ends, in turn."""
    top = np.uint64(0x8080808080808080)
    low = np.uint64(0x7F7F7F7F7F7F7F7F)
    # Eight pixels are compared at once: adding 127 - (t mod 128) carries into a byte's top bit
    # where its low seven bits exceed t mod 128.
    add = np.uint64(0x0101010101010101) * np.uint64(127 - (threshold & 127))
    either = np.uint64(0) if threshold >= 128 else top
    # Brings the top bits of eight bytes together in one byte.
    gather = np.uint64(0x0002040810204081)
    one = np.uint64(1)
    edges = np.empty(4096, np.int64)
    count = 0
    before = np.uint64(0)
    blocks = words.size >> 3
    for block in range(blocks):
        first = block << 3
        mask = np.uint64(0)
        for lane in range(8):
            word = words[first + lane]
            carried = (word & low) + add
            above = (carried & word | (carried | word) & either) & top
            mask |= ((above * gather) >> np.uint64(56)) << np.uint64(8 * lane)
        changes = mask ^ ((mask << one) | before)
        before = mask >> np.uint64(63)
        if changes == np.uint64(0):
            continue
        if count + 64 > edges.size:
            grown = np.empty(2 * edges.size, np.int64)
            grown[:count] = edges[:count]
            edges = grown
        start = block << 6
        while changes != np.uint64(0):
            lowest = changes & (~changes + one)
            edges[count] = start + BIT_POSITION[(lowest * DE_BRUIJN) >> np.uint64(58)]
            count += 1
            changes ^= lowest
    rest = np.empty(count + flat.size - (blocks << 6) + 1, np.int64)
    rest[:count] = edges[:count]
    inside = before != np.uint64(0)
    for at in range(blocks << 6, flat.size):
        if (flat[at] > threshold) != inside:
            inside = not inside
            rest[count] = at
            count += 1
    if inside:
        rest[count] = flat.size
        count += 1
    return rest[:count]


@njit(nogil=True, cache=True)
def _find_runs(flat, words, threshold, width):
    """Runs (row, first, past-last column) of pixels above `threshold`, in raster order."""
    edges = _find_edges(flat, words, threshold)
    runs = np.empty((edges.size // 2 + flat.size // width, 3), np.int32)
    count = 0
    row = 0
    row_start = 0
    for k in range(0, edges.size, 2):
        start = edges[k]
        stop = edges[k + 1]
        while start < stop:
            while start >= row_start + width:
                row += 1
                row_start += width
            # A run that goes on at the beginning of the next row is two.
            end = min(stop, row_start + width)
            runs[count, 0] = row
            runs[count, 1] = start - row_start
            runs[count, 2] = end - row_start
            count += 1
            start = end
    return runs[:count]


@njit(nogil=True, cache=True)
def _boxes_of_runs(runs, min_size):
    """Boxes (y0, y1, x0, x1) of the 8-connected components of `runs` with enough pixels."""
    count = runs.shape[0]
    parent = np.arange(count).astype(np.int32)
    row_start = 0
    above_start = 0
    above_stop = 0
    while row_start < count:
        y = runs[row_start, 0]
        row_stop = row_start
        while row_stop < count and runs[row_stop, 0] == y:
            row_stop += 1
        if above_stop > above_start and runs[above_start, 0] == y - 1:
            j = above_start
            for i in range(row_start, row_stop):
                while j < above_stop and runs[j, 2] < runs[i, 1]:
                    j += 1
                k = j
                while k < above_stop and runs[k, 1] <= runs[i, 2]:
                    union(parent, i, k)
                    k += 1
        above_start = row_start
        above_stop = row_stop
        row_start = row_stop
    flatten(parent)
    # A component is numbered by its first run, which is its root.
    number = np.empty(count, np.int32)
    components = 0
    for i in range(count):
        if parent[i] == i:
            number[i] = components
            components += 1
        else:
            number[i] = number[parent[i]]
    size = np.zeros(components, np.int64)
    boxes = np.empty((components, 4), np.int64)
    boxes[:, 0] = np.iinfo(np.int64).max
    boxes[:, 2] = np.iinfo(np.int64).max
    boxes[:, 3] = 0
    for i in range(count):
        c = number[i]
        size[c] += runs[i, 2] - runs[i, 1]
        boxes[c, 0] = min(boxes[c, 0], runs[i, 0])
        boxes[c, 1] = runs[i, 0] + 1
        boxes[c, 2] = min(boxes[c, 2], runs[i, 1])
        boxes[c, 3] = max(boxes[c, 3], runs[i, 2])
    return boxes[size >= min_size]


@njit(nogil=True, cache=True)
def _move_edges(box, sign, steps, edges):
    """Open (sign 1) or close (sign -1) a box: depth steps at its columns, edges a group of 32 columns."""
    steps[box[2]] += sign
    steps[box[3]] -= sign
    edges[box[2] >> 5] += sign
    edges[box[3] >> 5] += sign


@njit(nogil=True, cache=True)
def _covered_columns(steps, edges, intervals, found):
    """Append the intervals (x0, x1) where the depth is not zero; groups without an edge are skipped."""
    depth = 0
    for group in range(edges.size):
        if edges[group] == 0:
            continue
        for x in range(32 * group, min(32 * group + 32, steps.size)):
            if steps[x] == 0:
                continue
            if depth == 0:
                intervals[found, 0] = x
            depth += steps[x]
            if depth == 0:
                intervals[found, 1] = x
                found += 1
    return found


@njit(nogil=True, cache=True)
def _union_intervals(boxes, height, width):
    """Bands (y0, y1, first, past-last interval) and the intervals (x0, x1) covered within them.

    Between two rows where a box begins or ends, the columns covered stay the same.
    """
    count = boxes.shape[0]
    changes = np.zeros(height + 1, np.uint8)
    for b in range(count):
        changes[boxes[b, 0]] = 1
        changes[boxes[b, 1]] = 1
    by_start = np.argsort(boxes[:, 0], kind="mergesort")
    by_stop = np.argsort(boxes[:, 1], kind="mergesort")
    steps = np.zeros(width + 1, np.int32)
    edges = np.zeros((width >> 5) + 1, np.int32)
    bands = np.empty((height, 4), np.int64)
    intervals = np.empty((256, 2), np.int64)
    bands_found = 0
    found = 0
    started = 0
    stopped = 0
    y = 0
    while y < height:
        while started < count and boxes[by_start[started], 0] == y:
            _move_edges(boxes[by_start[started]], 1, steps, edges)
            started += 1
        while stopped < count and boxes[by_stop[stopped], 1] == y:
            _move_edges(boxes[by_stop[stopped]], -1, steps, edges)
            stopped += 1
        end = y + 1
        while end < height and changes[end] == 0:
            end += 1
        is_open = started - stopped
        if is_open > 0:
            # There are no more intervals than open boxes.
            if found + is_open > intervals.shape[0]:
                grown = np.empty((2 * (found + is_open), 2), np.int64)
                grown[:found] = intervals[:found]
                intervals = grown
            first = found
            found = _covered_columns(steps, edges, intervals, first)
            bands[bands_found, 0] = y
            bands[bands_found, 1] = end
            bands[bands_found, 2] = first
            bands[bands_found, 3] = found
            bands_found += 1
        y = end
    return bands[:bands_found], intervals[:found]


@njit(nogil=True, cache=True)
def _count_range(flat, words, start, stop, lanes):
    """Count flat[start:stop], eight pixels a load where whole words allow."""
    byte = np.uint64(255)
    at = start
    while at < stop and at & 7 != 0:
        lanes[0, np.uint64(flat[at])] += 1
        at += 1
    while at + 8 <= stop:
        word = words[np.uint64(at >> 3)]
        lanes[0, word & byte] += 1
        lanes[1, (word >> np.uint64(8)) & byte] += 1
        lanes[2, (word >> np.uint64(16)) & byte] += 1
        lanes[3, (word >> np.uint64(24)) & byte] += 1
        lanes[0, (word >> np.uint64(32)) & byte] += 1
        lanes[1, (word >> np.uint64(40)) & byte] += 1
        lanes[2, (word >> np.uint64(48)) & byte] += 1
        lanes[3, word >> np.uint64(56)] += 1
        at += 8
    while at < stop:
        lanes[0, np.uint64(flat[at])] += 1
        at += 1


@njit(nogil=True, cache=True)
def _outside_histogram(flat, words, height, width, histogram, boxes):
    bands, intervals = _union_intervals(boxes, height, width)
    area = 0
    for b in range(bands.shape[0]):
        covered = 0
        for k in range(bands[b, 2], bands[b, 3]):
            covered += intervals[k, 1] - intervals[k, 0]
        area += covered * (bands[b, 1] - bands[b, 0])
    lanes = np.zeros((4, 256), np.int64)
    out = np.zeros(256, np.int64)
    # Inside and outside add up to the slice's histogram, so only the smaller one is counted.
    if 2 * area <= height * width:
        for b in range(bands.shape[0]):
            for y in range(bands[b, 0], bands[b, 1]):
                base = y * width
                for k in range(bands[b, 2], bands[b, 3]):
                    _count_range(flat, words, base + intervals[k, 0], base + intervals[k, 1], lanes)
        for value in range(256):
            inside = lanes[0, value] + lanes[1, value] + lanes[2, value] + lanes[3, value]
            out[value] = histogram[value] - inside
    else:
        at = 0
        for b in range(bands.shape[0]):
            for y in range(bands[b, 0], bands[b, 1]):
                base = y * width
                for k in range(bands[b, 2], bands[b, 3]):
                    _count_range(flat, words, at, base + intervals[k, 0], lanes)
                    at = base + intervals[k, 1]
        _count_range(flat, words, at, height * width, lanes)
        for value in range(256):
            out[value] = lanes[0, value] + lanes[1, value] + lanes[2, value] + lanes[3, value]
    return out


def _check_image(image: np.ndarray) -> np.ndarray:
    if image.dtype != np.uint8 or image.ndim != 2:
        raise TypeError(
            f"the background of a slice needs a 2-D uint8 image, found {image.dtype} of shape {image.shape}"
        )
    return np.ascontiguousarray(image)


def candidate_boxes(image: np.ndarray, th_low: int, min_size: int) -> np.ndarray:
    """Bounding boxes of the 8-connected components of ``image > th_low``.

    Parameters
    ----------
    image : (Y, X) uint8 ndarray
    th_low : int
        Threshold in [0, 256]; nothing exceeds 255.
    min_size : int
        Smallest component kept, in pixels.

    Returns
    -------
    (K, 4) int64 ndarray
        Half-open ranges ``y0, y1, x0, x1``, ordered by the component's first pixel in raster order.

    Raises
    ------
    TypeError
        If `image` is not 2-D uint8.
    """
    image = _check_image(image)
    if th_low >= 255:
        return np.empty((0, 4), np.int64)
    flat = image.reshape(-1)
    words, _ = as_words(flat)
    runs = _find_runs(flat, words, int(th_low), max(image.shape[1], 1))
    return _boxes_of_runs(runs, int(min_size))


def background_histogram(
    image: np.ndarray, histogram: np.ndarray, th_low: int, th_high: int, halo_pad: int, min_size: int
) -> np.ndarray:
    """Histogram of the background of a slice.

    Background is what lies outside the candidates' bounding boxes, grown by `halo_pad` and clipped to
    the slice, and below `th_high`.

    Parameters
    ----------
    image : (Y, X) uint8 ndarray
    histogram : (256,) int64 ndarray
        Histogram of `image`.
    th_low, th_high : int
        Thresholds in [0, 256]: a candidate pixel is ``> th_low``, background is ``< th_high``.
    halo_pad : int
        Pixels by which a box grows on each side.
    min_size : int
        Smallest candidate, in pixels.

    Returns
    -------
    (256,) int64 ndarray
        All zero where the boxes cover the slice.

    Raises
    ------
    TypeError
        If `image` is not 2-D uint8.
    """
    image = _check_image(image)
    boxes = candidate_boxes(image, th_low, min_size)
    boxes[:, 0::2] = np.maximum(boxes[:, 0::2] - halo_pad, 0)
    boxes[:, 1::2] = np.minimum(boxes[:, 1::2] + halo_pad, image.shape)
    if len(boxes):
        flat = image.reshape(-1)
        words, _ = as_words(flat)
        out = _outside_histogram(flat, words, *image.shape, np.asarray(histogram, np.int64), boxes)
    else:
        out = np.array(histogram, np.int64)
    out[min(max(int(th_high), 0), BINS) :] = 0
    return out
