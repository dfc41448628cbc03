"""Lengths of the streamlines of a harmonic field between two walls, voxel by voxel.

From the transport equation ∇u/|∇u| · ∇L = 1, with L = 0 on the wall where the streamlines start (A. Yezzi and
J. L. Prince, IEEE Trans. Med. Imaging 22, 1332, 2003), by upwind differences of second order (of first order
where there is no second voxel upstream). A voxel depends only on voxels of strictly lower u, so one
pass in the order of u solves the difference equations exactly. That pass works on arrays in that order: what
a voxel needs is then a short way back in memory, where voxels in raster order lie all over it.

Voxels are numbered as in :mod:`cytomill.kernels.multigrid`. ``walls[i]`` holds for the sides Z−, Z+, Y−, Y+,
X−, X+ of voxel i the distance to the wall, in voxels of that axis times :data:`WALL_STEPS`: negative for the
wall at u = 0, positive for the wall at u = 1, 0 for no wall. A side with neither wall nor neighbour lets no
flux through.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numba import njit

# Distances to walls are kept in 1/120 of a voxel: one byte each.
WALL_STEPS = 120
# Components of unit tangents are kept in two bytes.
TANGENT_STEPS = 32767
# Peak of the memory that u, the neighbours, the walls and this module's own arrays take.
STREAMLINE_BYTES_A_VOXEL = 95
_RADIX_BITS = 11


@njit(nogil=True, cache=True)
def rank_by_value(values):
    """Rank of every voxel by its value, which must not be negative.

    Parameters
    ----------
    values : (n + 2,) float32 ndarray
        The first and the last are sentinels.

    Returns
    -------
    (n + 2,) int32 ndarray
        1 … n in ascending order of value, of number among equal ones; 0 for the sentinels.
    """
    count = values.size - 2
    # The bits of floats that are not negative sort as integers do.
    key = values.view(np.uint32)
    order = np.arange(1, count + 1).astype(np.int32)
    other = np.empty(count, np.int32)
    buckets = 1 << _RADIX_BITS
    start = np.empty(buckets, np.int64)
    for shift in range(0, 32, _RADIX_BITS):
        start[:] = 0
        for i in range(1, count + 1):
            start[(key[i] >> shift) & (buckets - 1)] += 1
        total = 0
        for bucket in range(buckets):
            size = start[bucket]
            start[bucket] = total
            total += size
        for place in range(count):
            i = order[place]
            bucket = (key[i] >> shift) & (buckets - 1)
            other[start[bucket]] = i
            start[bucket] += 1
        order, other = other, order
    rank = np.zeros(count + 2, np.int32)
    for place in range(count):
        rank[order[place]] = place + 1
    return rank


@njit(nogil=True, cache=True)
def _find_tangents(u, minus, plus, walls, spacing, flattest, tangent, flat):
    """Unit tangents times TANGENT_STEPS; mark the voxels without a streamline, whose tangent is 0.

    These lie in a flat field, or have nothing upstream in one of the two directions. The derivatives are
    of second order also next to a wall.
    """
    slopes = np.empty(3, np.float64)
    for i in range(1, u.size - 1):
        here = np.float64(u[i])
        square = 0.0
        found = found_back = False
        for k in range(3):
            # A side without neighbour or wall lets no flux through: it mirrors the voxel.
            before = after = spacing[k]
            low = high = here
            low_rises = high_rises = 0.0
            if minus[k, i]:
                low = np.float64(u[minus[k, i]])
                low_rises = low - here
            elif walls[i, 2 * k]:
                low_rises = np.float64(walls[i, 2 * k])
                low = np.float64(low_rises > 0)
                before *= abs(low_rises) / WALL_STEPS
            if plus[k, i]:
                high = np.float64(u[plus[k, i]])
                high_rises = high - here
            elif walls[i, 2 * k + 1]:
                high_rises = np.float64(walls[i, 2 * k + 1])
                high = np.float64(high_rises > 0)
                after *= abs(high_rises) / WALL_STEPS
            slope = (before * before * (high - here) + after * after * (here - low)) / (
                before * after * (before + after)
            )
            if slope > 0:
                found |= low_rises < 0
                found_back |= high_rises > 0
            elif slope < 0:
                found |= high_rises < 0
                found_back |= low_rises > 0
            slopes[k] = slope
            square += slope * slope
        steepness = math.sqrt(square)
        flat[i] = steepness <= flattest or not (found and found_back)
        for k in range(3):
            tangent[i, k] = 0 if flat[i] else round(TANGENT_STEPS * slopes[k] / steepness)


@njit(nogil=True, cache=True)
def _collect(sign, u, rank, tangent, minus, plus, walls, near, far, reach, weight):
    """Write, in the order of u, which voxels upstream each voxel needs.

    ``near``, ``far``: ranks of the first and second voxel upstream on each axis (0: a wall, where L = 0);
    ``reach``: distances to the first (0: none), and from it to the second (0: none), in 1/120 voxel;
    ``weight``: |component of the tangent|.
    """
    for i in range(1, u.size - 1):
        here = rank[i]
        for k in range(3):
            reach[here, 2 * k] = 0
            component = sign * tangent[i, k]
            if component == 0:
                continue
            side = 0 if component > 0 else 1
            weight[here, k] = abs(component)
            reach[here, 2 * k + 1] = 0
            far[here, k] = 0
            at = i
            for hop in range(2):
                found = plus[k, at] if side else minus[k, at]
                distance = 0
                if found:
                    if sign * (u[at] - u[found]) > 0:
                        distance = WALL_STEPS
                elif walls[at, 2 * k + side] * sign < 0:
                    distance = abs(walls[at, 2 * k + side])
                if distance == 0:
                    break
                reach[here, 2 * k + hop] = distance
                if hop == 0:
                    near[here, k] = rank[found]
                else:
                    far[here, k] = rank[found]
                if found == 0:
                    break
                at = found


@njit(nogil=True, cache=True)
def _follow(sign, near, far, reach, weight, spacing, length):
    """Lengths in the order of u; a voxel without anything upstream keeps the length that it has."""
    count = length.size - 2
    for place in range(1, count + 1):
        here = place if sign > 0 else count + 1 - place
        top = bottom = 0.0
        first_top = first_bottom = 0.0
        for k in range(3):
            if reach[here, 2 * k] == 0:
                continue
            share = weight[here, k] / TANGENT_STEPS
            step = reach[here, 2 * k] * spacing[k] / WALL_STEPS
            known = np.float64(length[near[here, k]])
            first_top += share * known / step
            first_bottom += share / step
            if reach[here, 2 * k + 1]:
                beyond = reach[here, 2 * k + 1] * spacing[k] / WALL_STEPS
                both = step + beyond
                top += (
                    share
                    * (both * known / beyond - step * length[far[here, k]] * step / (beyond * both))
                    / step
                )
                bottom += share * (step + both) / (step * both)
            else:
                top += share * known / step
                bottom += share / step
        if first_bottom == 0:
            continue
        first = (1 + first_top) / first_bottom
        second = (1 + top) / bottom
        # Where streamlines of different lengths meet, the second order may overshoot.
        length[here] = second if abs(second - first) * first_bottom <= 1 else first


def streamline_lengths(
    u: np.ndarray,
    minus: np.ndarray,
    plus: np.ndarray,
    walls: np.ndarray,
    spacing: np.ndarray,
    flattest: float,
    fallback: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
) -> tuple[np.ndarray, np.ndarray, int]:
    """Lengths of the streamlines from either wall to every voxel.

    Parameters
    ----------
    u : (n + 2,) float32 ndarray
        The harmonic field, 0 … 1.
    minus, plus : (3, n + 2) int32 ndarray
        Neighbours.
    walls : (n + 2, 6) int8 ndarray
        Distances to walls.
    spacing : (3,) float64 ndarray
        Voxel size.
    flattest : float
        A voxel where |∇u| is not larger has no streamline.
    fallback : function of a (n,) bool ndarray
        Returns, for the voxels marked in it, what stands for the lengths from the walls at u = 0 and at
        u = 1, two float32 ndarrays. Called where a voxel has no streamline.

    Returns
    -------
    from_zero, from_one : (n,) float32 ndarray
        Lengths from the walls at u = 0 and u = 1, in the unit of `spacing`.
    flat : int
        Voxels without a streamline.

    Notes
    -----
    Peak memory 61 bytes a voxel beside the arguments.
    """
    count = u.size - 2
    spacing = np.asarray(spacing, np.float64)
    rank = rank_by_value(u)
    tangent = np.zeros((count + 2, 3), np.int16)
    flat = np.zeros(count + 2, bool)
    _find_tangents(u, minus, plus, walls, spacing, flattest, tangent, flat)
    marked = flat[1:-1]
    without = int(np.count_nonzero(marked))
    distances = fallback(marked) if without else None
    # One record of 36 bytes a voxel, so that writing out of raster order touches one place in memory.
    record = np.zeros((count + 2, 9), np.int32)
    near, far = record[:, 0:3], record[:, 3:6]
    weight = record.view(np.int16)[:, 12:15]
    reach = record.view(np.uint8)[:, 30:36]
    results = []
    for which, sign in enumerate((1, -1)):
        _collect(sign, u, rank, tangent, minus, plus, walls, near, far, reach, weight)
        length = np.zeros(count + 2, np.float32)
        if without:
            length[rank[1:-1][marked]] = distances[which]
        _follow(sign, near, far, reach, weight, spacing, length)
        results.append(length[rank[1:-1]])
    return results[0], results[1], without
