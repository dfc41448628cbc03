"""Sub-voxel surface of a binary mask, as sites: one for each voxel that the surface crosses.

Within its slices the surface is given by contours (:mod:`cytomill.kernels.contours`). Between slices, a mask
is a flight of terraces, far wider than any smoothing that spares thin structures: there the height follows
from the distances to the contours of the slices (shape-based interpolation), bent as the next contours tell.
On the last slice of a cap, where the next slice has no contour, the height is that of a sphere through the
last two contours. What is one voxel thin keeps its faces half a voxel from its centre.

All distances, and the points of the pair methods, go by these sites. The fields laplace and ray go by a
second definition, the level 0.5 of :mod:`cytomill.kernels.levels`, where it is said why both exist.

Source: S. P. Raya and J. K. Udupa, Shape-based interpolation of multidimensional objects, IEEE Transactions
on Medical Imaging 9 (1990) 32-42.

Beyond its faces, a volume is continued by its last voxels: a face carries no surface.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numba import njit

from cytomill.kernels.contours import (
    NEAREST,
    NONE,
    SliceContours,
    axis_kernels,
    foot_of_plane,
    keep_nearer,
)
from cytomill.kernels.terraces import bend_of_ring, height_of_cap

#: Contours farther than this from a terrace's voxel (in its widest in-plane pitch) count as this far.
TERRACE_REACH = 64
#: Terraces narrower than this (in finest in-plane voxels) are straight.
BEND_FROM_VOXELS = 1.0


def surface_halo(voxel_size_nm: Sequence[float]) -> int:
    """Slices beside a slab that its sites depend on.

    Two for the terraces and caps above and below a slice, and the radius of the smoothing along Z.

    Parameters
    ----------
    voxel_size_nm : (float, float, float)
        Z, Y, X.

    Returns
    -------
    int
        At most 6.
    """
    return 2 + axis_kernels(voxel_size_nm, 2)[0].size // 2


@njit(nogil=True, cache=True)
def _distance_to_contour(y, x, nearest, offset_y, offset_x, size_y, size_x, reach):
    """In-plane distance (nm) to a slice's contour, at most `reach`."""
    rows = nearest.shape[0]
    best = reach * reach
    step = 0
    while (step - 0.5) * size_y < 0.0 or ((step - 0.5) * size_y) ** 2 < best:
        if y - step < 0 and y + step >= rows:
            break
        for side in range(2 if step else 1):
            row = y - step if side else y + step
            if row < 0 or row >= rows or nearest[row, x] < 0:
                continue
            column = nearest[row, x]
            dy = (row + offset_y[row, column] - y) * size_y
            dx = (column + offset_x[row, column] - x) * size_x
            best = min(best, dy * dy + dx * dx)
        step += 1
    return np.sqrt(best)


@njit(nogil=True, cache=True)
def _terrace(low, high, seen, y, x, queue):
    """Gather a terrace: connected voxels set in the same one of two slices; which contours bound it."""
    rows, width = low.shape
    value = low[y, x]
    bound_low = False
    bound_high = False
    queue[0] = y * width + x
    seen[y, x] = 1
    count = 1
    done = 0
    while done < count:
        cy = queue[done] // width
        cx = queue[done] - cy * width
        done += 1
        for side in range(4):
            ny = cy + (1 if side == 0 else -1 if side == 1 else 0)
            nx = cx + (1 if side == 2 else -1 if side == 3 else 0)
            if ny < 0 or ny >= rows or nx < 0 or nx >= width:
                continue
            if low[ny, nx] != value:
                bound_low = True
            if high[ny, nx] == value:
                bound_high = True
            if low[ny, nx] == value and high[ny, nx] != value and not seen[ny, nx]:
                seen[ny, nx] = 1
                queue[count] = ny * width + nx
                count += 1
    return count, bound_low, bound_high


@njit(nogil=True, cache=True)
def _cap_height(queue, count, depth, beyond, value, contour, size_y, size_x, reach):
    """Height over a cap's slice at its centre, in slices, or -1; inradius of the slice's contour."""
    width = beyond.shape[1]
    inradius = 0.0
    spread = 0.0
    for i in range(count):
        inradius = max(inradius, depth[i])
        cy = queue[i] // width
        cx = queue[i] - cy * width
        if beyond[cy, cx] != value:
            return -1.0, inradius
        spread += _distance_to_contour(cy, cx, contour[0], contour[1], contour[2], size_y, size_x, reach)
        spread -= depth[i]
    return height_of_cap(inradius, spread / count), inradius


@njit(nogil=True, cache=True)
def _ring_height(y, x, value, below, above, contours, size_y, size_x, reach):
    """Height over the lower of two slices, in slices, between their contours."""
    near, oy, ox = contours[1]
    from_low = _distance_to_contour(y, x, near, oy, ox, size_y, size_x, reach)
    near, oy, ox = contours[2]
    from_high = _distance_to_contour(y, x, near, oy, ox, size_y, size_x, reach)
    ring = from_low + from_high
    if ring <= 0.0:
        return 0.5
    part = from_low / ring
    if ring <= BEND_FROM_VOXELS * min(size_y, size_x) or from_low >= reach or from_high >= reach:
        return part
    inner = outer = -1.0
    if below[y, x] == value:
        near, oy, ox = contours[0]
        beyond = _distance_to_contour(y, x, near, oy, ox, size_y, size_x, reach)
        inner = beyond - from_low if beyond < reach else -1.0
    if above[y, x] != value:
        near, oy, ox = contours[3]
        beyond = _distance_to_contour(y, x, near, oy, ox, size_y, size_x, reach)
        outer = beyond - from_high if beyond < reach else -1.0
    return part + bend_of_ring(ring, inner, outer) * part * (1.0 - part)


@njit(nogil=True, cache=True)
def _steps_between(masks, contours, size_z, size_y, size_x, seen, queue, depth, rise, fall):
    """Where the surface passes between two slices, as signed distances (nm) along Z from each.

    Parameters
    ----------
    masks : tuple of four (Y, X) uint8 ndarray
        The slice below, the two slices, the slice above.
    contours : tuple of four tuples
        ``nearest, offset_y, offset_x`` of each slice's contour.
    rise, fall : (Y, X) float32 ndarray
        Nearest crossing along Z of the lower and of the higher slice, updated.
    """
    below, low, high, above = masks
    rows, width = low.shape
    reach = TERRACE_REACH * max(size_y, size_x)
    for y in range(rows):
        for x in range(width):
            seen[y, x] = 0
    for y in range(rows):
        for x in range(width):
            if low[y, x] == high[y, x] or seen[y, x]:
                continue
            value = low[y, x]
            count, bound_low, bound_high = _terrace(low, high, seen, y, x, queue)
            height = -1.0
            inradius = 0.0
            if bound_low != bound_high:
                inner = contours[1] if bound_low else contours[2]
                for i in range(count):
                    cy = queue[i] // width
                    cx = queue[i] - cy * width
                    depth[i] = _distance_to_contour(
                        cy, cx, inner[0], inner[1], inner[2], size_y, size_x, reach
                    )
                if bound_low:
                    height, inradius = _cap_height(
                        queue, count, depth, below, value, contours[0], size_y, size_x, reach
                    )
                else:
                    height, inradius = _cap_height(
                        queue, count, depth, above, 1 - value, contours[3], size_y, size_x, reach
                    )
            for i in range(count):
                cy = queue[i] // width
                cx = queue[i] - cy * width
                part = 0.5
                if below[cy, cx] != value or above[cy, cx] == value:
                    pass  # One voxel thin: both its faces are kept, half a voxel from its centre.
                elif bound_low and bound_high:
                    part = _ring_height(cy, cx, value, below, above, contours, size_y, size_x, reach)
                elif height > 0.0:
                    part = height * depth[i] * (2.0 * inradius - depth[i]) / (inradius * inradius)
                    part = part if bound_low else 1.0 - part
                keep_nearer(rise, cy, cx, max(part, NEAREST) * size_z)
                keep_nearer(fall, cy, cx, -max(1.0 - part, NEAREST) * size_z)


@njit(nogil=True, cache=True)
def _place_sites(step_z, step_y, step_x, size_z, size_y, size_x, offsets):
    """Sites of a slice from where the surface passes along the three axes."""
    for y in range(step_z.shape[0]):
        for x in range(step_z.shape[1]):
            offsets[2, y, x] = np.inf
            if step_x[y, x] < np.inf or step_y[y, x] < np.inf or step_z[y, x] < np.inf:
                found, oz, oy, ox = foot_of_plane(
                    step_z[y, x], step_y[y, x], step_x[y, x], size_z, size_y, size_x
                )
                if found:
                    offsets[0, y, x] = oz
                    offsets[1, y, x] = oy
                    offsets[2, y, x] = ox


def iterate_sites(
    slab: np.ndarray, first: int, stop: int, voxel_size_nm: Sequence[float]
) -> Iterator[np.ndarray]:
    """Sites of the surface, slice by slice.

    Parameters
    ----------
    slab : (S, Y, X) bool ndarray
        Slices `first` … `stop` - 1 of a mask with :func:`surface_halo` slices more on either side, fewer only
        where the volume ends.
    first, stop : int
        Slices of the slab to make sites for.
    voxel_size_nm : (float, float, float)
        Z, Y, X.

    Yields
    ------
    (3, Y, X) float32 ndarray
        Offset of each voxel's site from its centre along Z, Y and X in voxels, within ±½; the offset along
        X is infinite, and the others mean nothing, in a voxel that the surface does not cross. Overwritten
        by the next slice.
    """
    slab = np.ascontiguousarray(slab, dtype=bool).view(np.uint8)
    contours = SliceContours(slab, voxel_size_nm)
    plane = slab.shape[1:]
    size_z, size_y, size_x = contours.size_nm
    offsets = np.empty((3, *plane), np.float32)
    here, ahead = (np.full(plane, NONE, np.float32) for _ in range(2))
    seen = np.empty(plane, np.uint8)
    queue = np.empty(seen.size, np.int32)
    depth = np.empty(seen.size, np.float32)

    def pass_between(lower: int, rise: np.ndarray, fall: np.ndarray) -> None:
        around = [contours.inside(lower + k) for k in (-1, 0, 1, 2)]
        if around[1] == around[2]:
            return
        masks = tuple(slab[k] for k in around)
        _steps_between(
            masks, tuple(contours.contour(k)[2] for k in around), size_z, size_y, size_x,
            seen, queue, depth, rise, fall,
        )  # fmt: skip

    # What it finds for the slice below the first one is thrown away: nobody asked for its sites.
    pass_between(first - 1, np.empty_like(here), here)
    for index in range(first, stop):
        ahead.fill(NONE)
        pass_between(index, here, ahead)
        step_y, step_x, _ = contours.contour(index)
        _place_sites(here, step_y, step_x, size_z, size_y, size_x, offsets)
        yield offsets
        here, ahead = ahead, here


def surface_sites(mask: np.ndarray, voxel_size_nm: Sequence[float]) -> np.ndarray:
    """Positions of all sites of a mask's surface.

    Parameters
    ----------
    mask : (Z, Y, X) bool ndarray
    voxel_size_nm : (float, float, float)

    Returns
    -------
    (N, 3) float64 ndarray
        Z, Y, X in nm from the first voxel's centre, in raster order of their voxels.
    """
    found = []
    for z, offsets in enumerate(iterate_sites(mask, 0, mask.shape[0], voxel_size_nm)):
        y, x = np.nonzero(offsets[2] < 1.0)
        place = np.column_stack([np.full(y.size, z), y, x]) + offsets[:, y, x].T
        found.append(place * np.asarray(voxel_size_nm, dtype=np.float64))
    return np.concatenate(found) if found else np.empty((0, 3))
