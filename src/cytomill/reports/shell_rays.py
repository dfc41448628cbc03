"""Rays cast through nested shells that two planes cut open: what every pixel of a picture sees."""

from __future__ import annotations

import numpy as np
from numba import njit

#: Free grid points around the cell, and one more that smoothing may fill.
BORDER = 2
#: Every how many pixels the open sky is looked at: it varies slowly, and costs ten times the rest.
SKY_EVERY = 3


@njit(nogil=True, cache=True)
def _sample(level, size, p, outside):
    """Trilinear value at a place in µm; `outside` beyond the grid."""
    z, y, x = p[0] / size[0], p[1] / size[1], p[2] / size[2]
    if z < 0 or y < 0 or x < 0:
        return outside
    i, j, k = int(z), int(y), int(x)
    if i > level.shape[0] - 2 or j > level.shape[1] - 2 or k > level.shape[2] - 2:
        return outside
    a, b, c = z - i, y - j, x - k
    low = (level[i, j, k] * (1 - c) + level[i, j, k + 1] * c) * (1 - b) + (
        level[i, j + 1, k] * (1 - c) + level[i, j + 1, k + 1] * c
    ) * b
    high = (level[i + 1, j, k] * (1 - c) + level[i + 1, j, k + 1] * c) * (1 - b) + (
        level[i + 1, j + 1, k] * (1 - c) + level[i + 1, j + 1, k + 1] * c
    ) * b
    return low * (1 - a) + high * a


@njit(nogil=True, cache=True)
def _depths(p, centre, cuts, offset):
    """How far a place lies beyond each of the two cuts, µm; negative before it."""
    first = -offset
    second = -offset
    for a in range(3):
        first += (p[a] - centre[a]) * cuts[0, a]
        second += (p[a] - centre[a]) * cuts[1, a]
    return first, second


@njit(nogil=True, cache=True)
def _cut(p, centre, cuts, offset):
    """How deep a place lies in the wedge, µm; negative outside of it."""
    first, second = _depths(p, centre, cuts, offset)
    return min(first, second)


@njit(nogil=True, cache=True)
def _place(middle, axes, across, high, depth, p):
    """Write the place at a depth of a pixel's ray."""
    for a in range(3):
        p[a] = middle[a] + across * axes[0, a] + high * axes[1, a] + depth * axes[2, a]


@njit(nogil=True, cache=True)
def _seen_sky(level, size, n, centre, cuts, step, p, normal, sky, reach, q):
    """Share of the sky that a point of a surface sees within `reach`, µm."""
    lifted = 1.4 * (0.5 * size.min())
    seen = 0.0
    total = 0.0
    for s in range(sky.shape[0]):
        weight = 0.0
        for a in range(3):
            weight += sky[s, a] * normal[a]
        if weight <= 0.05:
            continue
        total += weight
        free = 1.0
        for i in range(1, 8):
            for a in range(3):
                q[a] = p[a] + normal[a] * lifted + sky[s, a] * reach * i / 7
            if _solid(level, size, q, n, centre, cuts, step) <= n:
                free = (i - 1) / 8
                break
        seen += weight * free
    return seen / max(total, 1e-9)


@njit(nogil=True, cache=True)
def _shell(level, size, p, n):
    """Shell at a place: 0 nucleus, 1..n, n + 1 outside."""
    value = _sample(level, size, p, n + 1.0)
    return min(n + 1, int(value + 0.5))


@njit(nogil=True, cache=True)
def _solid(level, size, p, n, centre, cuts, step):
    """Shell at a place that is still there after the cut; n + 1 for none."""
    shell = _shell(level, size, p, n)
    if 0 < shell <= n and _cut(p, centre, cuts, step * (n - shell)) > 0:
        return n + 1
    return shell


@njit(nogil=True, cache=True)
def _clearance(distance, size, p):
    """Distance stored at the grid point nearest to a place; beyond the grid its border's width."""
    i, j, k = int(p[0] / size[0] + 0.5), int(p[1] / size[1] + 0.5), int(p[2] / size[2] + 0.5)
    if i < 0 or j < 0 or k < 0:
        return BORDER * size.min()
    if i >= distance.shape[0] or j >= distance.shape[1] or k >= distance.shape[2]:
        return BORDER * size.min()
    return distance[i, j, k]


@njit(nogil=True, cache=True)
def cast_rays(
    level,
    to_cell,
    to_nucleus,
    size,
    n,
    axes,
    middle,
    centre,
    cuts,
    step,
    rows,
    columns,
    pixel,
    half_depth,
    light,
    sky,
):
    """First hit of every pixel's ray.

    Returns
    -------
    (rows, columns) int16, float32, float32 ndarray
        Shell (−1 for none, n + 1 for the outer face of the PM), cosine between surface and light, share of
        the sky that is seen (NaN where it was not looked at).
    """
    label = np.full((rows, columns), -1, np.int16)
    facing = np.zeros((rows, columns), np.float32)
    open_sky = np.full((rows, columns), np.nan, np.float32)
    stride = 0.5 * size.min()
    widest = step * (n - 1)
    reach = 0.22 * half_depth
    p = np.empty(3)
    q = np.empty(3)
    normal = np.empty(3)
    for row in range(rows):
        for column in range(columns):
            across = (column + 0.5 - 0.5 * columns) * pixel
            high = (0.5 * rows - row - 0.5) * pixel
            depth = half_depth
            hit = n + 1
            while depth > -half_depth:
                _place(middle, axes, across, high, depth, p)
                hit = _solid(level, size, p, n, centre, cuts, step)
                if hit <= n:
                    break
                # In free space: beyond the cell, or in the wedge beyond every cut and the nucleus.
                free_path = min(_cut(p, centre, cuts, widest), _clearance(to_nucleus, size, p))
                depth -= max(stride, free_path, _clearance(to_cell, size, p))
            if hit > n:
                continue
            near, far = depth + stride, depth
            for _ in range(7):
                half = 0.5 * (near + far)
                _place(middle, axes, across, high, half, q)
                if _solid(level, size, q, n, centre, cuts, step) <= n:
                    far = half
                else:
                    near = half
            _place(middle, axes, across, high, far, p)
            _place(middle, axes, across, high, near, q)
            hit = _solid(level, size, p, n, centre, cuts, step)
            before = _shell(level, size, q, n)
            label[row, column] = n + 1 if before > n else hit
            if before == hit:
                # The same shell on both sides: this is a face of the cut.
                first, second = _depths(p, centre, cuts, 0.0)
                which = 0 if first < second else 1
                for a in range(3):
                    normal[a] = cuts[which, a]
            else:
                length = 1e-12
                for a in range(3):
                    q[:] = p
                    q[a] += 0.8 * size[a]
                    above = _sample(level, size, q, n + 1.0)
                    q[a] -= 1.6 * size[a]
                    normal[a] = (above - _sample(level, size, q, n + 1.0)) / size[a]
                    length += normal[a] ** 2
                for a in range(3):
                    normal[a] /= np.sqrt(length)
            cosine = 0.0
            for a in range(3):
                cosine += normal[a] * (light[0] * axes[0, a] + light[1] * axes[1, a] + light[2] * axes[2, a])
            facing[row, column] = cosine
            if row % SKY_EVERY or column % SKY_EVERY:
                continue
            open_sky[row, column] = _seen_sky(level, size, n, centre, cuts, step, p, normal, sky, reach, q)
    return label, facing, open_sky
