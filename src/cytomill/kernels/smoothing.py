"""Gaussian smoothing of table values by tiles, bit for bit as ``scipy.ndimage.gaussian_filter`` on float32.

SciPy smooths axis after axis, each pass rounded to float32; within a pass it adds in float64: the centre
first, then pairs of neighbours at the same distance, from the outermost inwards. The same order here, but a
tile goes through all three passes while it lies in the cache, and pairs are added for a whole row at once.
"""

from __future__ import annotations

import numpy as np
from numba import njit


def half_gaussian(sigma: float, truncate: float) -> np.ndarray:
    """Weights of a Gaussian at the distances 0, 1, … voxels.

    Parameters
    ----------
    sigma : float
        Standard deviation in voxels; 0 smooths nothing.
    truncate : float
        The Gaussian ends at this many standard deviations.

    Returns
    -------
    (radius + 1,) float64 ndarray
        Their symmetric sum is 1.
    """
    if sigma <= 1e-15:
        return np.ones(1)
    radius = int(truncate * sigma + 0.5)
    weights = np.exp(-0.5 / (sigma * sigma) * np.arange(-radius, radius + 1) ** 2)
    return (weights / weights.sum())[radius:].copy()


def reflected(size: int, radius: int) -> np.ndarray:
    """Index of the voxel that stands for each of ``-radius … size + radius - 1`` (… b a | a b c | c b …)."""
    return np.pad(np.arange(size), radius, mode="symmetric")


@njit(nogil=True, cache=True)
def _correlate(source, offsets, weights, sums):
    """Sum of ``weights[|k|] * source[offsets[radius + k] + x]`` over k, into the float64 `sums`."""
    radius, size = weights.size - 1, sums.size
    centre = source[offsets[radius] : offsets[radius] + size]
    weight = weights[0]
    for x in range(size):
        sums[x] = centre[x] * weight
    k = radius
    # Three pairs at a time, so that the sums are loaded and stored a third as often.
    while k >= 3:
        a = source[offsets[radius - k] : offsets[radius - k] + size]
        b = source[offsets[radius + k] : offsets[radius + k] + size]
        c = source[offsets[radius - k + 1] : offsets[radius - k + 1] + size]
        d = source[offsets[radius + k - 1] : offsets[radius + k - 1] + size]
        e = source[offsets[radius - k + 2] : offsets[radius - k + 2] + size]
        f = source[offsets[radius + k - 2] : offsets[radius + k - 2] + size]
        first, second, third = weights[k], weights[k - 1], weights[k - 2]
        for x in range(size):
            total = sums[x] + (np.float64(a[x]) + np.float64(b[x])) * first
            total += (np.float64(c[x]) + np.float64(d[x])) * second
            sums[x] = total + (np.float64(e[x]) + np.float64(f[x])) * third
        k -= 3
    while k >= 1:
        a = source[offsets[radius - k] : offsets[radius - k] + size]
        b = source[offsets[radius + k] : offsets[radius + k] + size]
        weight = weights[k]
        for x in range(size):
            sums[x] += (np.float64(a[x]) + np.float64(b[x])) * weight
        k -= 1


@njit(nogil=True, cache=True)
def smooth_tile(codes, table, weights_z, weights_y, weights_x, index_z, index_y, index_x, corner, target):
    """Smooth the table's values of a tile of a volume, all three axes, into `target`.

    Parameters
    ----------
    codes : (Z, Y, X) ndarray of unsigned integers
    table : (N,) float32 ndarray
        Value of every code.
    weights_z, weights_y, weights_x : (radius + 1,) float64 ndarray
        Of :func:`half_gaussian`.
    index_z, index_y, index_x : (size + 2 * radius,) int64 ndarray
        Of :func:`reflected`, for the volume's shape.
    corner : tuple of int
        First voxel (Z, Y, X) of the tile.
    target : (z, y, x) float32 ndarray
        Of the tile's shape.
    """
    rz, ry, rx = weights_z.size - 1, weights_y.size - 1, weights_x.size - 1
    z0, y0, x0 = corner
    depth, height, width = target.shape
    # What the tile and its halo cover of the volume.
    top, bottom = max(y0 - ry, 0), min(y0 + height + ry, codes.shape[1])
    left, right = max(x0 - rx, 0), min(x0 + width + rx, codes.shape[2])
    rows, columns = bottom - top, right - left
    # The slices in reach, in turn: slice z lies in place z modulo the number of places.
    places = 2 * rz + 1
    values = np.empty(places * rows * columns, np.float32)
    loaded = max(z0 - rz, 0)
    along_y = np.empty(rows * columns)
    along_x = np.empty(width + 2 * rx)
    sums, inner = np.empty(columns), np.empty(width)
    offsets_z, offsets_y = np.empty(places, np.int64), np.empty(2 * ry + 1, np.int64)
    offsets_x = np.arange(2 * rx + 1)
    for z in range(z0, z0 + depth):
        while loaded < min(z + rz + 1, codes.shape[0]):
            place = values[loaded % places * rows * columns :]
            for y in range(rows):
                line = codes[loaded, top + y]
                row = place[y * columns : (y + 1) * columns]
                for x in range(columns):
                    row[x] = table[line[left + x]]
            loaded += 1
        for y in range(rows):
            for k in range(places):
                offsets_z[k] = (index_z[z + k] % places * rows + y) * columns
            _correlate(values, offsets_z, weights_z, sums)
            row = along_y[y * columns : (y + 1) * columns]
            for x in range(columns):
                row[x] = np.float32(sums[x])
        for y in range(height):
            for k in range(2 * ry + 1):
                offsets_y[k] = (index_y[y0 + y + k] - top) * columns
            _correlate(along_y, offsets_y, weights_y, sums)
            start = left - (x0 - rx)
            for x in range(columns):
                along_x[start + x] = np.float32(sums[x])
            for x in range(start):
                along_x[x] = along_x[start + index_x[x0 + x] - left]
            for x in range(start + columns, along_x.size):
                along_x[x] = along_x[start + index_x[x0 + x] - left]
            _correlate(along_x, offsets_x, weights_x, inner)
            out = target[z - z0, y]
            for x in range(width):
                out[x] = np.float32(inner[x])


@njit(nogil=True, cache=True)
def _pairwise_sum(row):
    """Sum of at least 8 numbers as NumPy adds them: in 8 columns, those by pairs, then what is left over."""
    columns = row[:8].copy()
    whole = row.size - row.size % 8
    for first in range(8, whole, 8):
        for x in range(8):
            columns[x] += row[first + x]
    total = ((columns[0] + columns[1]) + (columns[2] + columns[3])) + (
        (columns[4] + columns[5]) + (columns[6] + columns[7])
    )
    for x in range(whole, row.size):
        total += row[x]
    return total


# NumPy's division: Python's looks for zeros one by one.
@njit(nogil=True, cache=True, error_model="numpy")
def logistic_block_means(powers, factors, target):
    """Mean of ``1 / (1 + powers)`` over blocks, in float32: the rows of a block one after another.

    Parameters
    ----------
    powers : (z, y, x) float32 ndarray
        Exponentials of the negative log-odds; whole blocks.
    factors : tuple of int
        Voxels a block (Z, Y, X).
    target : (z // fz, y // fy, x // fx) float32 ndarray
    """
    fz, fy, fx = factors
    one, count = np.float32(1), np.float32(fz * fy * fx)
    probability = np.empty(powers.shape[2], np.float32)
    target[:] = 0
    for z in range(powers.shape[0]):
        for y in range(powers.shape[1]):
            line = powers[z, y]
            for x in range(line.size):
                probability[x] = one / (one + line[x])
            sums = target[z // fz, y // fy]
            for x in range(sums.size):
                if fx < 8:
                    total = np.float32(0)
                    for k in range(x * fx, (x + 1) * fx):
                        total += probability[k]
                else:
                    total = _pairwise_sum(probability[x * fx : (x + 1) * fx])
                sums[x] += total
    for z in range(target.shape[0]):
        for y in range(target.shape[1]):
            for x in range(target.shape[2]):
                target[z, y, x] /= count
