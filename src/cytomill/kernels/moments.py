"""Sums over the voxels of labels, in integers, so that those of blocks add up exactly.

A block's sums are taken relative to its own first voxel; :func:`merge_sums` shifts them to the
first corner of each label's bounding box, which no cutting into blocks can change.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit

from cytomill.kernels.runs import scan_runs

#: Columns of a table of sums, all int64.  z0 … x1: bounding box (half-open) in the volume; origin:
#: the voxel that the sums of coordinates and of their products are relative to; intensity sums run
#: over image voxels; the posterior's sum is in units of 1 / posterior_scale.
SUM_COLUMNS = (
    "label", "voxel_count",
    "z0", "y0", "x0", "z1", "y1", "x1",
    "origin_z", "origin_y", "origin_x",
    "sum_z", "sum_y", "sum_x",
    "sum_zz", "sum_yy", "sum_xx", "sum_zy", "sum_zx", "sum_yx",
    "intensity_count", "intensity_sum", "intensity_max",
    "posterior_sum", "posterior_scale",
)  # fmt: skip

_LOW, _HIGH, _ORIGIN, _FIRST, _SECOND = slice(2, 5), slice(5, 8), slice(8, 11), slice(11, 14), slice(14, 20)
#: Axes of the six second moments, in the order of their columns.
_PAIRS = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))

#: Float16 values are whole multiples of 2⁻²⁴.
FLOAT16_SCALE = 2**24
UINT8_SCALE = 255


@njit(nogil=True, cache=True)
def _add_runs(sums, slot, row, start, stop, height):
    for run in range(row.size):
        z, y = row[run] // height, row[run] % height
        # The sums over x below stop are differences of those from 0 on.
        first, last = np.int64(start[run]), np.int64(stop[run])
        n = last - first
        x = (last * (last - 1) - first * (first - 1)) // 2
        xx = ((last - 1) * last * (2 * last - 1) - (first - 1) * first * (2 * first - 1)) // 6
        target = sums[slot[run]]
        target[1] += n
        target[2] = min(target[2], z)
        target[3] = min(target[3], y)
        target[4] = min(target[4], first)
        target[5] = max(target[5], z + 1)
        target[6] = max(target[6], y + 1)
        target[7] = max(target[7], last)
        target[11] += n * z
        target[12] += n * y
        target[13] += x
        target[14] += n * z * z
        target[15] += n * y * y
        target[16] += xx
        target[17] += n * z * y
        target[18] += z * x
        target[19] += y * x


@njit(nogil=True, cache=True)
def _add_intensity(sums, slot, row, start, stop, height, image, factors):
    for run in range(row.size):
        z, y = row[run] // height, row[run] % height
        total, largest = np.int64(0), np.int64(0)
        for raw_z in range(z * factors[0], (z + 1) * factors[0]):
            for raw_y in range(y * factors[1], (y + 1) * factors[1]):
                line = image[raw_z, raw_y]
                for raw_x in range(start[run] * factors[2], stop[run] * factors[2]):
                    value = np.int64(line[raw_x])
                    total += value
                    largest = max(largest, value)
        target = sums[slot[run]]
        target[20] += np.int64(stop[run] - start[run]) * factors[0] * factors[1] * factors[2]
        target[21] += total
        target[22] = max(target[22], largest)


@njit(nogil=True, cache=True)
def _add_posterior(sums, slot, row, start, stop, height, values):
    for run in range(row.size):
        line = values[row[run] // height, row[run] % height]
        total = np.int64(0)
        for x in range(start[run], stop[run]):
            total += line[x]
        sums[slot[run], 23] += total


@njit(nogil=True, cache=True)
def _add_float16(sums, slot, row, start, stop, height, bits):
    """Add float16 values as multiples of 2⁻²⁴; False where one lies outside [0, 1]."""
    for run in range(row.size):
        line = bits[row[run] // height, row[run] % height]
        total = np.int64(0)
        for x in range(start[run], stop[run]):
            value = np.int64(line[x])
            if value > 0x3C00:
                return False
            exponent, mantissa = value >> 10, value & 0x3FF
            total += mantissa if exponent == 0 else (mantissa + 1024) << (exponent - 1)
        sums[slot[run], 23] += total
    return True


def _check_range(voxels: int, extent: int, what: str) -> None:
    if voxels * extent * extent >= 2**63:
        raise ValueError(
            f"{what} of {voxels} voxels over {extent} voxels is too large for second moments in int64"
        )


def block_sums(
    labels: np.ndarray,
    origin: Sequence[int] = (0, 0, 0),
    posterior: np.ndarray | None = None,
    image: np.ndarray | None = None,
    factors: Sequence[int] = (1, 1, 1),
) -> np.ndarray:
    """Sum over the voxels of each label of one block.

    Parameters
    ----------
    labels : (Z, Y, X) int32 ndarray
        0 is background.
    origin : sequence of int
        The block's first voxel in the volume of labels.
    posterior : (Z, Y, X) float16 or uint8 ndarray, optional
        Probability of being particle, in [0, 1] (uint8: times 255).
    image : (Z·fz, Y·fy, X·fx) uint8 or uint16 ndarray, optional
        Intensities; larger than the labels where these belong to a block mean.
    factors : sequence of int
        Image voxels a label's voxel, along Z, Y and X.

    Returns
    -------
    (K, 25) int64 ndarray
        A row a label, sorted; columns :data:`SUM_COLUMNS`.  Without a posterior its scale is 0,
        without an image its count is 0.

    Raises
    ------
    ValueError
        For shapes or dtypes that do not match, a posterior outside [0, 1], or a block so large that
        the moments could overflow.
    """
    _check_range(labels.size, max(labels.shape, default=0), "a block")
    row, start, stop, value = scan_runs(labels)
    ids, slot = np.unique(value, return_inverse=True)
    height = labels.shape[1]
    sums = np.zeros((ids.size, len(SUM_COLUMNS)), np.int64)
    sums[:, 0] = ids
    sums[:, _LOW] = np.iinfo(np.int64).max
    _add_runs(sums, slot, row, start, stop, height)
    sums[:, _LOW] += np.asarray(origin)
    sums[:, _HIGH] += np.asarray(origin)
    sums[:, _ORIGIN] = origin

    if image is not None:
        expected = tuple(size * factor for size, factor in zip(labels.shape, factors, strict=True))
        if image.shape != expected or image.dtype not in (np.uint8, np.uint16):
            raise ValueError(
                f"the image over labels of shape {labels.shape} must be uint8 or uint16 of shape {expected}, "
                f"got {image.dtype} of shape {image.shape}"
            )
        _add_intensity(sums, slot, row, start, stop, height, image, np.asarray(factors, np.int64))
    if posterior is not None:
        if posterior.shape != labels.shape or posterior.dtype not in (np.float16, np.uint8):
            raise ValueError(
                f"the posterior over labels of shape {labels.shape} must be float16 or uint8 of that shape, "
                f"got {posterior.dtype} of shape {posterior.shape}"
            )
        if posterior.dtype == np.uint8:
            sums[:, 24] = UINT8_SCALE
            _add_posterior(sums, slot, row, start, stop, height, posterior)
        else:
            sums[:, 24] = FLOAT16_SCALE
            if not _add_float16(sums, slot, row, start, stop, height, posterior.view(np.uint16)):
                raise ValueError("the posterior of a labelled voxel lies outside [0, 1] or is not a number")
    return sums


@njit(nogil=True, cache=True)
def _shift(row, dz, dy, dx):
    """Move one row's origin back by a step of voxels, in place.

    Integers wrap around, so that the result is exact wherever it fits, whatever lies between.
    """
    count, z, y, x = row[1], row[11], row[12], row[13]
    row[14] += 2 * dz * z + count * dz * dz
    row[15] += 2 * dy * y + count * dy * dy
    row[16] += 2 * dx * x + count * dx * dx
    row[17] += dz * y + dy * z + count * dz * dy
    row[18] += dz * x + dx * z + count * dz * dx
    row[19] += dy * x + dx * y + count * dy * dx
    row[11] += count * dz
    row[12] += count * dy
    row[13] += count * dx
    row[8] -= dz
    row[9] -= dy
    row[10] -= dx


@njit(nogil=True, cache=True)
def _centre(sums):
    # About the voxel nearest the centroid nothing is lost when the mean's square is taken off.
    for row in sums:
        dz, dy, dx = -np.rint(row[11] / row[1]), -np.rint(row[12] / row[1]), -np.rint(row[13] / row[1])
        _shift(row, np.int64(dz), np.int64(dy), np.int64(dx))


@njit(nogil=True, cache=True)
def _merge_boxes(merged, slot, rows):
    for i in range(len(rows)):
        target, row = merged[slot[i]], rows[i]
        for column in range(2, 5):
            target[column] = min(target[column], row[column])
        for column in range(5, 8):
            target[column] = max(target[column], row[column])


@njit(nogil=True, cache=True)
def _merge_moments(merged, slot, rows):
    moved = np.empty(rows.shape[1], np.int64)
    for i in range(len(rows)):
        target = merged[slot[i]]
        moved[:] = rows[i]
        _shift(moved, moved[8] - target[8], moved[9] - target[9], moved[10] - target[10])
        target[1] += moved[1]
        for column in range(11, 22):
            target[column] += moved[column]
        target[22] = max(target[22], moved[22])
        target[23] += moved[23]
        target[24] = max(target[24], moved[24])


def merge_sums(rows: np.ndarray) -> np.ndarray:
    """Add up the sums of blocks, label by label.

    Parameters
    ----------
    rows : (M, 25) int64 ndarray
        Rows of :func:`block_sums` of all blocks, in any order.

    Returns
    -------
    (N, 25) int64 ndarray
        A row a label, sorted; sums relative to the first corner of the label's bounding box.

    Raises
    ------
    ValueError
        For a label so large that its moments overflow.
    """
    ids, slot = np.unique(rows[:, 0], return_inverse=True)
    merged = np.zeros((ids.size, len(SUM_COLUMNS)), np.int64)
    merged[:, 0] = ids
    merged[:, _LOW] = np.iinfo(np.int64).max
    _merge_boxes(merged, slot, rows)
    merged[:, _ORIGIN] = merged[:, _LOW]
    _merge_moments(merged, slot, rows)
    if ids.size:
        extents = (merged[:, _HIGH] - merged[:, _LOW]).max(axis=1)
        worst = np.argmax(merged[:, 1] * extents.astype(np.float64) ** 2)
        _check_range(int(merged[worst, 1]), int(extents[worst]), f"label {merged[worst, 0]}")
    return merged


def centroids(sums: np.ndarray) -> np.ndarray:
    """Return the mean voxel coordinate of each label in the volume, (N, 3) float64 (Z, Y, X)."""
    return sums[:, _ORIGIN] + sums[:, _FIRST] / sums[:, 1:2]


def covariances(sums: np.ndarray) -> np.ndarray:
    """Return the covariance of the voxel centres of each label.

    Parameters
    ----------
    sums : (N, 25) int64 ndarray
        Of :func:`merge_sums`.

    Returns
    -------
    (N, 3, 3) float64 ndarray
        In voxels², population covariance (divided by the voxel count).
    """
    centred = sums.copy()
    _centre(centred)
    mean = centred[:, _FIRST] / centred[:, 1:2]
    second = centred[:, _SECOND] / centred[:, 1:2]
    matrices = np.empty((len(sums), 3, 3))
    for column, (i, j) in enumerate(_PAIRS):
        matrices[:, i, j] = matrices[:, j, i] = second[:, column] - mean[:, i] * mean[:, j]
    return matrices
