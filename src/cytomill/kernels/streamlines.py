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
def _slope(i, k, u, minus, plus, walls, h):
    """Derivative of u at voxel i along axis k, of second order also next to a wall."""
    before = after = h
    low = high = here = u[i]
    if minus[k, i]:
        low = u[minus[k, i]]
    elif walls[i, 2 * k]:
        before = abs(walls[i, 2 * k]) * h / WALL_STEPS
        low = np.float32(walls[i, 2 * k] > 0)
    if plus[k, i]:
        high = u[plus[k, i]]
    elif walls[i, 2 * k + 1]:
        after = abs(walls[i, 2 * k + 1]) * h / WALL_STEPS
        high = np.float32(walls[i, 2 * k + 1] > 0)
    # One division: this runs three times a voxel.
    return (before * before * (high - here) + after * after * (here - low)) / (
        before * after * (before + after)
    )


@njit(nogil=True, cache=True)
def _upstream(i, k, side, sign, u, minus, plus, walls):
    """Neighbour of voxel i upstream on that side of axis k, and the distance to it or to the wall there.

    The neighbour is 0 for a wall; the distance, in 1/120 voxel, is 0 where nothing lies upstream.
    """
    near = plus[k, i] if side else minus[k, i]
    if near:
        return near, WALL_STEPS if sign * (u[i] - u[near]) > 0 else 0
    wall = walls[i, 2 * k + side]
    return 0, abs(wall) if wall * sign < 0 else 0


@njit(nogil=True, cache=True)
def _find_tangents(u, rank, minus, plus, walls, spacing, flattest, tangent, flat):
    """Unit tangents in the order of u; mark the voxels without a streamline, whose tangent is 0.

    These lie in a flat field, or have nothing upstream in one of the two directions.
    """
    for i in range(1, u.size - 1):
        here = rank[i]
        square = 0.0
        found = found_back = False
        for k in range(3):
            slope = _slope(i, k, u, minus, plus, walls, spacing[k])
            tangent[here, k] = slope
            square += slope * slope
            if slope != 0:
                side = 0 if slope > 0 else 1
                found |= _upstream(i, k, side, 1, u, minus, plus, walls)[1] > 0
                found_back |= _upstream(i, k, 1 - side, -1, u, minus, plus, walls)[1] > 0
        steepness = math.sqrt(square)
        flat[i] = steepness <= flattest or not (found and found_back)
        for k in range(3):
            tangent[here, k] = 0 if flat[i] else tangent[here, k] / steepness


@njit(nogil=True, cache=True)
def _collect(sign, u, rank, minus, plus, walls, tangent, near, far, reach):
    """Write, in the order of u, which voxels upstream each voxel needs.

    ``near``, ``far``: ranks of the first and second voxel upstream on each axis (0: a wall, where L = 0);
    ``reach``: distances to the first (0: none), and from it to the second (0: none), in 1/120 voxel.
    """
    for i in range(1, u.size - 1):
        here = rank[i]
        for k in range(3):
            reach[here, 2 * k] = 0
            component = sign * tangent[here, k]
            if component == 0:
                continue
            side = 0 if component > 0 else 1
            first, distance = _upstream(i, k, side, sign, u, minus, plus, walls)
            if distance == 0:
                continue
            near[here, k] = rank[first]
            reach[here, 2 * k] = distance
            far[here, k] = reach[here, 2 * k + 1] = 0
            if first:
                second, distance = _upstream(first, k, side, sign, u, minus, plus, walls)
                far[here, k] = rank[second]
                reach[here, 2 * k + 1] = distance


@njit(nogil=True, cache=True)
def _follow(sign, near, far, reach, tangent, spacing, length):
    """Lengths in the order of u; a voxel without anything upstream keeps the length that it has."""
    count = length.size - 2
    for place in range(1, count + 1):
        here = place if sign > 0 else count + 1 - place
        top = bottom = 0.0
        first_top = first_bottom = 0.0
        for k in range(3):
            if reach[here, 2 * k] == 0:
                continue
            share = abs(np.float64(tangent[here, k]))
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
    tangent = np.zeros((count + 2, 3), np.float32)
    flat = np.zeros(count + 2, bool)
    _find_tangents(u, rank, minus, plus, walls, spacing, flattest, tangent, flat)
    marked = flat[1:-1]
    without = int(np.count_nonzero(marked))
    distances = fallback(marked) if without else None
    # One record of 32 bytes a voxel, so that writing out of raster order touches one place in memory.
    record = np.zeros((count + 2, 8), np.int32)
    near, far = record[:, 0:3], record[:, 3:6]
    reach = record.view(np.uint8)[:, 24:30]
    results = []
    for which, sign in enumerate((1, -1)):
        _collect(sign, u, rank, minus, plus, walls, tangent, near, far, reach)
        length = np.zeros(count + 2, np.float32)
        if without:
            length[rank[1:-1][marked]] = distances[which]
        _follow(sign, near, far, reach, tangent, spacing, length)
        results.append(length[rank[1:-1]])
    return results[0], results[1], without
