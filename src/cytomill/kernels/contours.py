"""Sub-voxel contours of a binary mask within its slices.

A mask tells on which side of the surface each voxel's centre lies; where between two centres the surface
passes is estimated from the mask around. The estimate never leaves the gap between the two centres that the
mask separates, so that nothing is erased, however thin: where smoothing would, the surface stays halfway.

The mask is smoothed by the finest voxel's width (in every axis, in nanometres) and the level 0.5 is found on
the edges between neighbouring voxels. The kernel has no second moment, so that a curved surface keeps its
place where a plain Gaussian would move it towards its centre of curvature. Where a contour runs along a row,
it is better known where it changes rows than in between: there the heights of
:mod:`cytomill.kernels.terraces` take the place of the smoothed level.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit

from cytomill.kernels.terraces import height_of_run

#: Width of the smoothing (its standard deviation), in finest voxels.
SMOOTHING_VOXELS = 1.0
#: Radius of the smoothing kernel along each axis, in voxels, at most.
KERNEL_RADIUS = 4
#: Smoothing has erased a voxel whose level it puts so far on the other side.
ERASED = 0.2
#: Slices in a row whose contours are held: a slice's terraces depend on those of four.
CONTOURS_HELD = 4
#: Offsets along an axis where the surface does not pass between a voxel and its neighbours.
NONE = np.float32(np.inf)

#: A site is never nearer to a voxel's centre than this, in voxels.
NEAREST = np.float32(1e-3)
#: Half a voxel, as far as float32 distances in nm can tell: a face halfway between two centres belongs to
#: both of their voxels, and must not be lost to both.
_HALF = 0.5 + 1e-5
_LEAST = 1e-6


def smoothing_kernel(sigma: float) -> np.ndarray:
    """Weights of a smoothing kernel without second moment, ``(1 + α) G(σ) − α G(√2 σ)``.

    Parameters
    ----------
    sigma : float
        Standard deviation in voxels; 0 gives the single weight 1.

    Returns
    -------
    (2r + 1,) float64 ndarray
        Sums to 1; Σ i² w(i) = 0; r ≤ :data:`KERNEL_RADIUS`.
    """
    radius = min(KERNEL_RADIUS, int(np.ceil(4.0 * sigma)))
    place = np.arange(-radius, radius + 1, dtype=np.float64)
    if radius == 0:
        return np.ones(1)
    narrow = np.exp(-0.5 * (place / sigma) ** 2)
    wide = np.exp(-0.25 * (place / sigma) ** 2)
    narrow /= narrow.sum()
    wide /= wide.sum()
    first, second = (narrow * place**2).sum(), (wide * place**2).sum()
    share = first / (second - first)
    return (1.0 + share) * narrow - share * wide


def axis_kernels(voxel_size_nm: Sequence[float], slices: int) -> list[np.ndarray]:
    """Smoothing weights along Z, Y and X: the same width in nanometres, that of the finest voxel."""
    finest = min(voxel_size_nm if slices > 1 else voxel_size_nm[1:])
    kernels = []
    for axis, size in enumerate(voxel_size_nm):
        sigma = SMOOTHING_VOXELS * finest / size
        # Below half a voxel the mask's samples carry nothing to smooth with.
        kernels.append(smoothing_kernel(sigma if sigma >= 0.5 and (axis or slices > 1) else 0.0))
    return kernels


def _row_table(weights: np.ndarray) -> np.ndarray:
    """Sum of the weights under every pattern of set voxels along a row."""
    pattern = np.arange(2**weights.size)
    bits = (pattern[:, None] >> np.arange(weights.size)[None, ::-1]) & 1
    return (bits @ weights).astype(np.float32)


@njit(nogil=True, cache=True)
def _smooth_rows(mask, table, radius, smooth):
    """Smooth a slice along X: the voxels around each are a bit pattern, its sum is looked up."""
    rows, width = mask.shape
    keep = (1 << (2 * radius + 1)) - 1
    for y in range(rows):
        pattern = 0
        for x in range(-radius, radius):
            pattern = (pattern << 1) | mask[y, min(max(x, 0), width - 1)]
        last = mask[y, width - 1]
        inner = max(width - radius, 0)
        for x in range(inner):
            pattern = ((pattern << 1) | mask[y, x + radius]) & keep
            smooth[y, x] = table[pattern]
        for x in range(inner, width):
            pattern = ((pattern << 1) | last) & keep
            smooth[y, x] = table[pattern]


@njit(nogil=True, cache=True)
def _level(stack, order, along_z, along_y, y, x, inside, level):
    """Smoothed mask less ½ at a voxel; 0 where smoothing would change the voxel's side."""
    if level[y, x] < np.inf:
        return level[y, x]
    rows = stack.shape[1]
    radius = along_y.size // 2
    total = 0.0
    for k in range(order.size):
        plane = order[k]
        part = 0.0
        for j in range(along_y.size):
            part += along_y[j] * stack[plane, min(max(y + j - radius, 0), rows - 1), x]
        total += along_z[k] * part
    total -= 0.5
    if (total > 0.0) != (inside != 0):
        # A little on the wrong side: the surface passes by this very centre. More: there is no saying where.
        total = (_LEAST if inside else -_LEAST) if abs(total) < ERASED else 0.0
    level[y, x] = total
    return level[y, x]


@njit(nogil=True, cache=True)
def _crossing(here, there):
    """Where the level passes between two voxels, from 0 (here) to 1; ½ where it is not known."""
    if here == 0.0 or there == 0.0:
        return 0.5
    return abs(here) / (abs(here) + abs(there))


@njit(nogil=True, cache=True)
def keep_nearer(offsets, y, x, offset):
    """Set a voxel's signed offset to the surface where this one is nearer than what it has."""
    if abs(offset) < abs(offsets[y, x]):
        offsets[y, x] = offset


@njit(nogil=True, cache=True)
def _edges(mask, stack, order, along_z, along_y, swapped, size, level, heights, step):
    """Signed distance (nm) from each voxel to where the surface passes on the edges between rows.

    `swapped` tells that mask and step are transposed, and rows are columns of the slice.
    """
    for y in range(mask.shape[0] - 1):
        x = 0
        while x < mask.shape[1]:
            if mask[y, x] == mask[y + 1, x]:
                x += 1
                continue
            start = x
            value = mask[y, x]
            while x < mask.shape[1] and mask[y, x] == value and mask[y + 1, x] != value:
                x += 1
            known = height_of_run(mask, y, start, x, heights)
            for i in range(start, x):
                thin = y > 0 and mask[y - 1, i] != value
                if thin or (y + 2 < mask.shape[0] and mask[y + 2, i] == value):
                    # One voxel thin: both its faces are kept, half a voxel from its centre.
                    part = 0.5
                elif known:
                    part = heights[i - start]
                else:
                    if swapped:
                        here = _level(stack, order, along_z, along_y, i, y, value, level)
                        there = _level(stack, order, along_z, along_y, i, y + 1, 1 - value, level)
                    else:
                        here = _level(stack, order, along_z, along_y, y, i, value, level)
                        there = _level(stack, order, along_z, along_y, y + 1, i, 1 - value, level)
                    part = _crossing(here, there)
                keep_nearer(step, y, i, max(part, NEAREST) * size)
                keep_nearer(step, y + 1, i, -max(1.0 - part, NEAREST) * size)


@njit(nogil=True, cache=True)
def _contour(mask, stack, order, along_z, along_y, size_y, size_x, level, heights, step_y, step_x):
    """Signed distance (nm) from each voxel to where the surface passes on the edges along Y and X."""
    step_y[:] = np.inf
    step_x[:] = np.inf
    level[:] = np.inf
    _edges(mask, stack, order, along_z, along_y, False, size_y, level, heights, step_y)
    _edges(mask.T, stack, order, along_z, along_y, True, size_x, level, heights, step_x.T)


@njit(nogil=True, cache=True)
def _within_half(offset):
    return min(max(offset, -0.5), 0.5)


@njit(nogil=True, cache=True)
def foot_of_plane(step_z, step_y, step_x, size_z, size_y, size_x):
    """Foot of the perpendicular on the plane through up to three axis crossings, in voxels.

    Returns
    -------
    found : bool
        The foot lies in the voxel's own cell, or the nearest crossing does.
    oz, oy, ox : float
        Offset from the voxel's centre, each within ±½.
    """
    nz = 1.0 / step_z
    ny = 1.0 / step_y
    nx = 1.0 / step_x
    square = nz * nz + ny * ny + nx * nx
    if square == 0.0:
        return False, 0.0, 0.0, 0.0
    oz = nz / square / size_z
    oy = ny / square / size_y
    ox = nx / square / size_x
    if abs(oz) <= _HALF and abs(oy) <= _HALF and abs(ox) <= _HALF:
        return True, _within_half(oz), _within_half(oy), _within_half(ox)
    oz = step_z / size_z
    oy = step_y / size_y
    ox = step_x / size_x
    if abs(oz) <= _HALF and abs(oz) <= abs(oy) and abs(oz) <= abs(ox):
        return True, _within_half(oz), 0.0, 0.0
    if abs(oy) <= _HALF and abs(oy) <= abs(ox):
        return True, 0.0, _within_half(oy), 0.0
    if abs(ox) <= _HALF:
        return True, 0.0, 0.0, _within_half(ox)
    return False, 0.0, 0.0, 0.0


@njit(nogil=True, cache=True)
def nearest_in_rows(offset_z, offset_x, layer, layers, nearest, line):
    """Index of the site nearest along X in each row, -1 in a row without sites.

    Parameters
    ----------
    offset_z : (Y, X) float32 ndarray
        Offset of each voxel's site along Z in voxels; not read where `layers` is 1.
    offset_x : (Y, X) float32 ndarray
        Offset of each voxel's site along X in voxels, infinite without a site.
    layer, layers : int
        Only sites in this one of so many equal layers of the slice count.
    nearest : (Y, X) int32 ndarray
        Result.
    line : (X,) int32 ndarray
        Scratch.
    """
    rows, width = offset_x.shape
    for y in range(rows):
        count = 0
        for x in range(width):
            if offset_x[y, x] < 1.0 and (
                layers == 1 or min(int((offset_z[y, x] + 0.5) * layers), layers - 1) == layer
            ):
                line[count] = x
                count += 1
        if count == 0:
            nearest[y, :] = -1
            continue
        x = 0
        for i in range(count):
            stop = width
            if i + 1 < count:
                here, there = line[i], line[i + 1]
                middle = 0.5 * (here + offset_x[y, here] + there + offset_x[y, there])
                stop = int(np.floor(middle)) + 1
            while x < stop:
                nearest[y, x] = line[i]
                x += 1


@njit(nogil=True, cache=True)
def _feet(step_y, step_x, size_y, size_x, offset_y, offset_x):
    """Sites of a slice's contour within the slice."""
    for y in range(step_y.shape[0]):
        for x in range(step_y.shape[1]):
            offset_x[y, x] = np.inf
            if step_x[y, x] < np.inf or step_y[y, x] < np.inf:
                found, _, oy, ox = foot_of_plane(np.inf, step_y[y, x], step_x[y, x], 1.0, size_y, size_x)
                if found:
                    offset_y[y, x] = oy
                    offset_x[y, x] = ox


class SliceContours:
    """Contours of a slab's slices, each made once while a sweep along Z needs it."""

    def __init__(self, slab: np.ndarray, voxel_size_nm: Sequence[float]):
        self.slab = slab
        self.size_nm = tuple(float(size) for size in voxel_size_nm)
        self.along_z, self.along_y, along_x = axis_kernels(voxel_size_nm, slab.shape[0])
        self.table = _row_table(along_x)
        self.radius_x = along_x.size // 2
        plane = slab.shape[1:]
        # Rows smoothed along X of as many slices as the kernel spans along Z, in a ring.
        self.stack = np.empty((self.along_z.size, *plane), np.float32)
        self.held = np.full(self.along_z.size, -1)
        self.level = np.empty(plane, np.float32)
        self.heights = np.empty(max(plane))
        self.line = np.empty(plane[1], np.int32)
        self.made: dict[int, tuple] = {}

    def inside(self, index: int) -> int:
        """Index of the slice that stands for `index`: beyond a face, the last slice."""
        return min(max(index, 0), self.slab.shape[0] - 1)

    def contour(self, index: int) -> tuple:
        """``step_y, step_x`` and the contour ``(nearest, offset_y, offset_x)`` of a slice."""
        index = self.inside(index)
        if index not in self.made:
            for old in [key for key in self.made if key <= index - CONTOURS_HELD]:
                del self.made[old]
            self.made[index] = self._make(index)
        return self.made[index]

    def _make(self, index: int) -> tuple:
        radius = self.along_z.size // 2
        order = np.empty(self.along_z.size, np.int64)
        for k in range(order.size):
            source = self.inside(index + k - radius)
            place = source % order.size
            if self.held[place] != source:
                _smooth_rows(self.slab[source], self.table, self.radius_x, self.stack[place])
                self.held[place] = source
            order[k] = place
        plane = self.slab.shape[1:]
        step_y, step_x, offset_y, offset_x = (np.empty(plane, np.float32) for _ in range(4))
        nearest = np.empty(plane, np.int32)
        _, size_y, size_x = self.size_nm
        _contour(
            self.slab[index], self.stack, order, self.along_z, self.along_y, size_y, size_x,
            self.level, self.heights, step_y, step_x,
        )  # fmt: skip
        _feet(step_y, step_x, size_y, size_x, offset_y, offset_x)
        nearest_in_rows(offset_x, offset_x, 0, 1, nearest, self.line)
        return step_y, step_x, (nearest, offset_y, offset_x)
