"""Sites of a binary mask's sub-voxel surface: one for each voxel that the surface crosses.

Within its slices the surface is given by contours (:mod:`cytomill.kernels.contours`). Between slices, a mask is
a flight of terraces, far wider than any smoothing that spares thin structures: there the distance to each
slice's contour is interpolated linearly between the slices (shape-based interpolation). On the last slice of a
cap, where the next slice has no contour, the height is that of a sphere through the last two contours.

Source: S. P. Raya and J. K. Udupa, Shape-based interpolation of multidimensional objects, IEEE Transactions
on Medical Imaging 9 (1990) 32-42.

Beyond its faces, a volume is continued by its last voxels: a face carries no surface.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numba import njit

from cytomill.kernels.contours import NEAREST, NONE, SliceContours, axis_kernels, foot_of_plane, keep_nearer

#: Contours farther than this from a terrace's voxel (in its widest in-plane pitch) count as this far.
TERRACE_REACH = 64
#: A cap taller than this, in slices, is no cap of a sphere: its height is half a slice.
TALLEST_CAP = 1.5


def surface_halo(voxel_size_nm: Sequence[float]) -> int:
    """Slices beside a slab that its sites depend on.

    Two for the terraces and caps above and below a slice, and the radius of the smoothing along Z.
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
    """Height over a cap's slice at its centre, in slices, by the sphere through two contours; inradius.

    On a sphere ρ² falls linearly along Z near a pole, so h = M² / (ρ₁² − M²) with the radius M of the
    last contour and ρ₁ of the one before.
    """
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
    spread /= count
    growth = spread * (2.0 * inradius + spread)
    if spread <= 0.0 or inradius * inradius > TALLEST_CAP * growth:
        return -1.0, inradius
    return min(1.0, inradius * inradius / growth), inradius


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
                if bound_low and bound_high:
                    near, oy, ox = contours[1]
                    from_low = _distance_to_contour(cy, cx, near, oy, ox, size_y, size_x, reach)
                    near, oy, ox = contours[2]
                    from_high = _distance_to_contour(cy, cx, near, oy, ox, size_y, size_x, reach)
                    if from_low + from_high > 0.0:
                        part = from_low / (from_low + from_high)
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
            offsets[3, y, x] = np.inf
            if step_x[y, x] < np.inf or step_y[y, x] < np.inf or step_z[y, x] < np.inf:
                found, oz, oy, ox = foot_of_plane(
                    step_z[y, x], step_y[y, x], step_x[y, x], size_z, size_y, size_x
                )
                square = (1.0 / step_z[y, x]) ** 2 + (1.0 / step_y[y, x]) ** 2 + (1.0 / step_x[y, x]) ** 2
                offsets[3, y, x] = 1.0 / np.sqrt(square)
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
    slab : (S, Y, X) bool or uint8 ndarray
        Slices `first` … `stop` - 1 of a mask with :func:`surface_halo` slices more on either side, fewer only
        where the volume ends.
    first, stop : int
        Slices of the slab to make sites for.
    voxel_size_nm : (float, float, float)
        Z, Y, X.

    Yields
    ------
    (4, Y, X) float32 ndarray
        Offset of each voxel's site from its centre along Z, Y and X in voxels, within ±½; the offset along
        X is infinite, and the others mean nothing, in a voxel that the surface does not cross. Then the
        distance (nm) to the surface's tangent plane in every voxel with a neighbour on the other side,
        infinite elsewhere. Overwritten by the next slice.
    """
    slab = np.ascontiguousarray(slab).view(np.uint8) if slab.dtype == bool else slab
    contours = SliceContours(slab, voxel_size_nm)
    plane = slab.shape[1:]
    size_z, size_y, size_x = contours.size_nm
    offsets = np.empty((4, *plane), np.float32)
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
        place = np.column_stack([np.full(y.size, z), y, x]) + offsets[:3, y, x].T
        found.append(place * np.asarray(voxel_size_nm, dtype=np.float64))
    return np.concatenate(found) if found else np.empty((0, 3))
