"""Rays cast through nested shells that two planes cut open: what every pixel of a picture sees.

A place is three numbers, not an array, in steps of the grid: a ray samples the field some tens of times,
and a picture has half a million rays. The depths beyond the two cuts are linear along a ray.
"""

from __future__ import annotations

import numpy as np
from numba import njit

#: Free grid points around the cell, and one more that smoothing may fill.
BORDER = 2
#: Every how many pixels the open sky is looked at: it varies slowly, and costs ten times the rest.
SKY_EVERY = 3
#: Halvings of the step that found a surface, and samples along a ray to the sky.
_HALVINGS, _SKY_STEPS = 7, 7


@njit(nogil=True, cache=True, forceinline=True)
def _sample(level, z, y, x, outside):
    """Trilinear value at a place; `outside` beyond the grid."""
    if not (0 <= z < level.shape[0] - 1 and 0 <= y < level.shape[1] - 1 and 0 <= x < level.shape[2] - 1):
        return outside
    i, j, k = int(z), int(y), int(x)
    a, b, c = z - i, y - j, x - k
    low = (level[i, j, k] * (1 - c) + level[i, j, k + 1] * c) * (1 - b) + (
        level[i, j + 1, k] * (1 - c) + level[i, j + 1, k + 1] * c
    ) * b
    high = (level[i + 1, j, k] * (1 - c) + level[i + 1, j, k + 1] * c) * (1 - b) + (
        level[i + 1, j + 1, k] * (1 - c) + level[i + 1, j + 1, k + 1] * c
    ) * b
    return low * (1 - a) + high * a


@njit(nogil=True, cache=True, forceinline=True)
def _shell(level, z, y, x, n):
    """Shell at a place: 0 nucleus, 1..n, n + 1 outside."""
    return min(n + 1, int(_sample(level, z, y, x, n + 1.0) + 0.5))


@njit(nogil=True, cache=True, forceinline=True)
def _left(shell, n, depth, step):
    """The shell if it is still there after the cut, at a place so deep in the wedge; n + 1 for none."""
    if 0 < shell <= n and depth > step * (n - shell):
        return n + 1
    return shell


@njit(nogil=True, cache=True, forceinline=True, error_model="numpy")
def _span(start, slope, count, low, high):
    """The part of ``low … high`` in which ``start + slope * depth`` lies within `count` grid points."""
    if slope == 0:
        return (low, high) if 0 <= start <= count - 1 else (high, high)
    first, last = -start / slope, (count - 1 - start) / slope
    return max(low, min(first, last)), min(high, max(first, last))


@njit(nogil=True, cache=True, forceinline=True, error_model="numpy")
def _clearance(distance, z, y, x):
    """Distance stored at the grid point nearest to a place within the grid."""
    i = min(max(int(z + 0.5), 0), distance.shape[0] - 1)
    j = min(max(int(y + 0.5), 0), distance.shape[1] - 1)
    k = min(max(int(x + 0.5), 0), distance.shape[2] - 1)
    return distance[i, j, k]


@njit(nogil=True, cache=True)
def _surface_normal(level, size, n, z, y, x, normal):
    """Write the unit normal of the level's surface through a place, outwards, per µm."""
    out = n + 1.0
    normal[0] = _sample(level, z + 0.8, y, x, out) - _sample(level, z - 0.8, y, x, out)
    normal[1] = _sample(level, z, y + 0.8, x, out) - _sample(level, z, y - 0.8, x, out)
    normal[2] = _sample(level, z, y, x + 0.8, out) - _sample(level, z, y, x - 0.8, out)
    length = 1e-12
    for a in range(3):
        normal[a] /= size[a]
        length += normal[a] ** 2
    for a in range(3):
        normal[a] /= np.sqrt(length)


@njit(nogil=True, cache=True)
def _seen_sky(level, n, step, place, depths, normal, sky, sky_grid, sky_cuts):
    """Share of the sky that a point of a surface sees.

    `place` and the steps `sky_grid` are in steps of the grid, `depths` and the steps `sky_cuts` are those
    beyond the cuts, µm.
    """
    seen = 0.0
    total = 0.0
    for s in range(sky.shape[0]):
        weight = sky[s, 0] * normal[0] + sky[s, 1] * normal[1] + sky[s, 2] * normal[2]
        if weight <= 0.05:
            continue
        total += weight
        free = 1.0
        for i in range(1, _SKY_STEPS + 1):
            shell = _shell(
                level,
                place[0] + i * sky_grid[s, 0],
                place[1] + i * sky_grid[s, 1],
                place[2] + i * sky_grid[s, 2],
                n,
            )
            depth = min(depths[0] + i * sky_cuts[s, 0], depths[1] + i * sky_cuts[s, 1])
            if _left(shell, n, depth, step) <= n:
                free = (i - 1) / (_SKY_STEPS + 1)
                break
        seen += weight * free
    return seen / max(total, 1e-9)


@njit(nogil=True, cache=True, error_model="numpy")
def _cast(
    level, to_cell, to_nucleus, size, n, cuts, step, rows, columns, pixel, half_depth,
    origin, grid, first_depths, wedge_axes, lit, sky, sky_grid, sky_cuts,
):  # fmt: skip
    """First hit of every pixel's ray; `origin` and `grid` are in steps of the grid, depths in µm."""
    label = np.full((rows, columns), -1, np.int16)
    facing = np.zeros((rows, columns), np.float32)
    open_sky = np.full((rows, columns), np.nan, np.float32)
    stride = 0.5 * size.min()
    lifted = 0.7 * size.min()
    widest = step * (n - 1)
    dz, dy, dx = grid[2]
    d0, d1 = wedge_axes[2]
    normal = np.empty(3)
    place = np.empty(3)
    depths = np.empty(2)
    for row in range(rows):
        for column in range(columns):
            across = (column + 0.5 - 0.5 * columns) * pixel
            high = (0.5 * rows - row - 0.5) * pixel
            z = origin[0] + across * grid[0, 0] + high * grid[1, 0]
            y = origin[1] + across * grid[0, 1] + high * grid[1, 1]
            x = origin[2] + across * grid[0, 2] + high * grid[1, 2]
            c0 = first_depths[0] + across * wedge_axes[0, 0] + high * wedge_axes[1, 0]
            c1 = first_depths[1] + across * wedge_axes[0, 1] + high * wedge_axes[1, 1]
            # Beyond the grid is nothing to hit.
            far_end, depth = _span(z, dz, level.shape[0], -half_depth, half_depth)
            far_end, depth = _span(y, dy, level.shape[1], far_end, depth)
            far_end, depth = _span(x, dx, level.shape[2], far_end, depth)
            hit = n + 1
            while depth > far_end:
                pz, py, px = z + depth * dz, y + depth * dy, x + depth * dx
                wedge = min(c0 + depth * d0, c1 + depth * d1)
                # In free space: beyond the cell, or in the wedge beyond every cut and the nucleus.
                free_path = _clearance(to_cell, pz, py, px)
                if wedge > widest:
                    free_path = max(free_path, min(wedge - widest, _clearance(to_nucleus, pz, py, px)))
                if free_path <= 0:
                    hit = _left(_shell(level, pz, py, px, n), n, wedge, step)
                    if hit <= n:
                        break
                depth -= max(stride, free_path)
            if hit > n:
                continue
            near, far = depth + stride, depth
            for _ in range(_HALVINGS):
                half = 0.5 * (near + far)
                shell = _shell(level, z + half * dz, y + half * dy, x + half * dx, n)
                if _left(shell, n, min(c0 + half * d0, c1 + half * d1), step) <= n:
                    far = half
                else:
                    near = half
            pz, py, px = z + far * dz, y + far * dy, x + far * dx
            first, second = c0 + far * d0, c1 + far * d1
            hit = _left(_shell(level, pz, py, px, n), n, min(first, second), step)
            before = _shell(level, z + near * dz, y + near * dy, x + near * dx, n)
            label[row, column] = n + 1 if before > n else hit
            if before == hit:
                # The same shell on both sides: this is a face of the cut.
                which = 0 if first < second else 1
                for a in range(3):
                    normal[a] = cuts[which, a]
            else:
                _surface_normal(level, size, n, pz, py, px, normal)
            facing[row, column] = normal[0] * lit[0] + normal[1] * lit[1] + normal[2] * lit[2]
            if row % SKY_EVERY or column % SKY_EVERY:
                continue
            place[0], place[1], place[2] = pz, py, px
            depths[0], depths[1] = first, second
            for a in range(3):
                place[a] += normal[a] * lifted / size[a]
                depths[0] += normal[a] * lifted * cuts[0, a]
                depths[1] += normal[a] * lifted * cuts[1, a]
            open_sky[row, column] = _seen_sky(level, n, step, place, depths, normal, sky, sky_grid, sky_cuts)
    return label, facing, open_sky


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

    Parameters
    ----------
    level : (Z, Y, X) float32 ndarray
        Shell as a smooth field: 0 in the nucleus, n + 1 outside.
    to_cell, to_nucleus : (Z, Y, X) float32 ndarray
        How far from every grid point the cell and the nucleus are at the least, µm.
    size : (3,) float64 ndarray
        Steps of the grid, µm.
    n : int
        Shells.
    axes : (3, 3) float64 ndarray
        Right, up and towards the viewer, unit vectors (Z, Y, X).
    middle, centre : (3,) float64 ndarray
        Of the picture, and where the two cuts meet, µm.
    cuts : (2, 3) float64 ndarray
        Normals of the cuts, unit vectors.
    step : float
        How much further out each shell is cut than the one around it, µm.
    rows, columns : int
        Pixels.
    pixel, half_depth : float
        Of the picture, µm.
    light : (3,) float64 ndarray
        Direction in the picture: right, up, towards the viewer.
    sky : (S, 3) float64 ndarray
        Directions in which the open sky is looked for.

    Returns
    -------
    (rows, columns) int16, float32, float32 ndarray
        Shell (−1 for none, n + 1 for the outer face of the PM), cosine between surface and light, share of
        the sky that is seen (NaN where it was not looked at).
    """
    # One step towards each direction of the sky, µm.
    reach = sky * (0.22 * half_depth / _SKY_STEPS)
    return _cast(
        level,
        to_cell,
        to_nucleus,
        size,
        n,
        cuts,
        step,
        rows,
        columns,
        pixel,
        half_depth,
        middle / size,
        axes / size,
        cuts @ (middle - centre),
        axes @ cuts.T,
        light @ axes,
        sky,
        reach / size,
        reach @ cuts.T,
    )


def warm_rays() -> None:
    """Compile :func:`cast_rays`, or load it from the cache, by a picture of one pixel."""
    grid, axes = np.zeros((6, 6, 6), np.float32), np.eye(3)
    place = np.full(3, 3.0)
    cast_rays(
        grid, grid, grid, np.ones(3), 2, axes, place, place, axes[:2], 0.5, 1, 1, 1.0, 3.0, axes[2], axes
    )
