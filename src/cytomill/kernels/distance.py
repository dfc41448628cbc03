"""Exact Euclidean distances to the sub-voxel surface of a mask, in two separable stages.

Stage 1 (:func:`plane_distances`) takes slabs of slices: the surface's sites, and each voxel's distance
within its slice to the nearest. Stage 2 (:func:`column_distances`) takes bands of rows with all their slices
and adds the distance along Z. Between them lie, for each voxel and each of the layers of its slice
(:func:`layers_per_slice`), the squared in-plane distance (float32) and the nearest site's offset along Z
(int8): 5 bytes. Either stage gives the same bits however the volume is cut.

Each pass but the first is the lower envelope of parabolas, with vertices at the sites and not at the voxels'
centres. A site is chosen by the distance along the axes passed so far, and its offsets along the others come
along: the choice may miss the nearest site by a part of a voxel sideways, which is of second order in the
distance.

Source: P. F. Felzenszwalb and D. P. Huttenlocher, Distance transforms of sampled functions, Theory of
Computing 8 (2012) 415-428.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit

from cytomill.kernels.contours import nearest_in_rows
from cytomill.kernels.surface import iterate_sites

#: Steps of the stored Z offset in a voxel's height.
OFFSET_STEPS = 254
#: Working memory of the first stage for each voxel of one slice, whatever the number of slices.
SLICE_BYTES_A_VOXEL = 180
#: Layers of a slice, at most.
MOST_LAYERS = 3


@njit(nogil=True, cache=True)
def _envelope(vertex, height, count, kept, reach):
    """Lower envelope of parabolas ``(u − vertex)² + height`` with rising vertices.

    ``kept[i]`` is the i-th parabola of the envelope, which holds from ``reach[i]`` on.
    """
    last = -1
    for q in range(count):
        cross = -np.inf
        while last >= 0:
            p = kept[last]
            gap = vertex[q] - vertex[p]
            if gap <= 0.0:
                # Two sites on one spot: the lower stands for both.
                if height[q] >= height[p]:
                    break
                last -= 1
                continue
            cross = 0.5 * (vertex[q] + vertex[p] + (height[q] - height[p]) / gap)
            if cross > reach[last]:
                break
            last -= 1
        if last >= 0 and vertex[q] - vertex[kept[last]] <= 0.0:
            continue
        last += 1
        kept[last] = q
        reach[last] = cross if last > 0 else -np.inf
    return last + 1


@njit(nogil=True, cache=True)
def _plane_pass(nearest, offsets, size_y, size_x, vertex, height, lift, kept, reach, squared, offset_z):
    """Squared distance within a slice to the nearest site, and that site's offset along Z."""
    rows, width = nearest.shape
    for x in range(width):
        count = 0
        for y in range(rows):
            site = nearest[y, x]
            if site < 0:
                continue
            away = (site + offsets[2, y, site] - x) * size_x
            vertex[count] = (y + offsets[1, y, site]) * size_y
            height[count] = away * away
            lift[count] = offsets[0, y, site]
            count += 1
        if count == 0:
            for y in range(rows):
                squared[y, x] = np.inf
                offset_z[y, x] = 0
            continue
        count = _envelope(vertex, height, count, kept, reach)
        i = 0
        for y in range(rows):
            here = y * size_y
            while i + 1 < count and reach[i + 1] < here:
                i += 1
            site = kept[i]
            squared[y, x] = (here - vertex[site]) ** 2 + height[site]
            offset_z[y, x] = int(np.rint(lift[site] * OFFSET_STEPS))


@njit(nogil=True, cache=True)
def _column_pass(squared, offset_z, where, size_z, vertex, height, kept, reach, distance):
    """Distance to the nearest site; a column is read whole before it is written."""
    depth, rows, width = distance.shape
    layers = squared.shape[0] // depth
    for y in range(rows):
        for x in range(width):
            wanted = where.size == 0
            if not wanted:
                for z in range(depth):
                    if where[z, y, x]:
                        wanted = True
                        break
            if not wanted:
                for z in range(depth):
                    distance[z, y, x] = 0.0
                continue
            count = 0
            for layer in range(depth * layers):
                if squared[layer, y, x] < np.inf:
                    vertex[count] = (layer // layers + offset_z[layer, y, x] / OFFSET_STEPS) * size_z
                    height[count] = squared[layer, y, x]
                    count += 1
            count = _envelope(vertex, height, count, kept, reach)
            i = 0
            for z in range(depth):
                here = z * size_z
                if count == 0:
                    distance[z, y, x] = np.inf
                    continue
                while i + 1 < count and reach[i + 1] < here:
                    i += 1
                distance[z, y, x] = np.sqrt((here - vertex[kept[i]]) ** 2 + height[kept[i]])


def layers_per_slice(voxel_size_nm: Sequence[float]) -> int:
    """Layers in which the sites of a slice are transformed apart: slices much thicker than voxels need more.

    Among sites of one layer, those nearest within the slice stand for all. That neglects how their offsets
    along Z differ, which is little only where the layer is no thicker than the voxels are wide.

    Parameters
    ----------
    voxel_size_nm : (float, float, float)
        Z, Y, X.

    Returns
    -------
    int
        1 to :data:`MOST_LAYERS`.
    """
    size_z, size_y, size_x = voxel_size_nm
    return int(min(max(round(size_z / min(size_y, size_x)), 1), MOST_LAYERS))


def plane_distances(
    slab: np.ndarray, first: int, stop: int, voxel_size_nm: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Stage 1: distances within each slice of a slab to the surface's sites of that slice.

    Parameters
    ----------
    slab : (S, Y, X) bool ndarray
        All of Y and X; slices `first` … `stop` - 1 with ``surface_halo`` slices more on either side, fewer
        only where the volume ends.
    first, stop : int
        Slices of the slab to transform.
    voxel_size_nm : (float, float, float)
        Z, Y, X.

    Returns
    -------
    squared_nm2 : (L (stop - first), Y, X) float32 ndarray
        For each slice its L layers (:func:`layers_per_slice`); infinite in a layer without sites.
    offset_z : (L (stop - first), Y, X) int8 ndarray
        Offset of the nearest site along Z from its slice, in 1/254 slices.

    Notes
    -----
    5 L bytes a voxel of the result, and :data:`SLICE_BYTES_A_VOXEL` bytes a voxel of one slice.
    """
    plane = slab.shape[1:]
    layers = layers_per_slice(voxel_size_nm)
    squared = np.empty(((stop - first) * layers, *plane), np.float32)
    offset_z = np.empty(((stop - first) * layers, *plane), np.int8)
    nearest = np.empty(plane, np.int32)
    line = np.empty(plane[1], np.int32)
    vertex, height, lift = (np.empty(plane[0]) for _ in range(3))
    kept, reach = np.empty(plane[0], np.int32), np.empty(plane[0])
    _, size_y, size_x = (float(size) for size in voxel_size_nm)
    for k, offsets in enumerate(iterate_sites(slab, first, stop, voxel_size_nm)):
        for layer in range(layers):
            nearest_in_rows(offsets[0], offsets[2], layer, layers, nearest, line)
            _plane_pass(
                nearest, offsets, size_y, size_x, vertex, height, lift, kept, reach,
                squared[k * layers + layer], offset_z[k * layers + layer],
            )  # fmt: skip
    return squared, offset_z


def column_distances(
    squared_nm2: np.ndarray,
    offset_z: np.ndarray,
    voxel_size_nm: Sequence[float],
    where: np.ndarray | None = None,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Stage 2: distances to the surface from those within slices, for a band of rows.

    Parameters
    ----------
    squared_nm2, offset_z : (L Z, Y, X) float32 and int8 ndarray
        Of :func:`plane_distances`; all slices with their layers, any rows and columns.
    voxel_size_nm : (float, float, float)
        Z, Y, X.
    where : (Z, Y, X) bool ndarray, optional
        Columns without a voxel set here are left out and get 0.
    out : (Z, Y, X) float32 ndarray, optional
        Result; may be the first Z planes of `squared_nm2`.

    Returns
    -------
    (Z, Y, X) float32 ndarray
        Distance in nm; infinite where there is no surface at all.
    """
    depth = squared_nm2.shape[0]
    if out is None:
        out = np.empty((depth // layers_per_slice(voxel_size_nm), *squared_nm2.shape[1:]), np.float32)
    wanted = np.empty((0, 0, 0), bool) if where is None else where
    vertex, height, reach = (np.empty(depth) for _ in range(3))
    kept = np.empty(depth, np.int32)
    _column_pass(squared_nm2, offset_z, wanted, float(voxel_size_nm[0]), vertex, height, kept, reach, out)
    return out


def surface_distance(
    mask: np.ndarray,
    voxel_size_nm: Sequence[float],
    cut_faces: np.ndarray | None = None,
    where: np.ndarray | None = None,
) -> np.ndarray:
    """Distance from every voxel's centre to the mask's sub-voxel surface, inside and outside.

    Parameters
    ----------
    mask : (Z, Y, X) bool ndarray
        One slice means two dimensions: distances within the plane.
    voxel_size_nm : (float, float, float)
        Z, Y, X.
    cut_faces : (3, 2) bool ndarray, optional
        Faces of the array at which the mask is cut and has no surface (first and last, of each axis).
        Elsewhere a set voxel on a face has the surface half a voxel outside.
    where : (Z, Y, X) bool ndarray, optional
        Distances are needed here only; columns along Z without a voxel set here get 0.

    Returns
    -------
    (Z, Y, X) float32 ndarray
        Distance in nm; infinite everywhere where the mask has no surface.

    Notes
    -----
    Besides the mask 5 bytes a voxel, 5 L + 4 where slices have L > 1 layers, and what
    :func:`plane_distances` takes for one slice. Time is linear in voxels.
    """
    margin = face_margin(mask, cut_faces)
    if margin.any():
        padded = np.pad(mask, margin)
        inner = tuple(slice(low, low + size) for (low, _), size in zip(margin, mask.shape, strict=True))
        wanted = None if where is None else np.pad(where, margin)
        return np.ascontiguousarray(_distance(padded, voxel_size_nm, wanted)[inner])
    return _distance(mask, voxel_size_nm, where)


def _distance(mask, voxel_size_nm, where):
    squared, offset_z = plane_distances(mask, 0, mask.shape[0], voxel_size_nm)
    # Several layers would be kept alive by a result that lies in the first of them.
    out = squared if squared.shape == mask.shape else None
    return column_distances(squared, offset_z, voxel_size_nm, where, out)


def face_margin(mask: np.ndarray, cut_faces: np.ndarray | None) -> np.ndarray:
    """Background to add where the mask reaches a face at which it is not cut.

    Parameters
    ----------
    mask : (Z, Y, X) bool ndarray
        Never padded along Z where it is one slice.
    cut_faces : (3, 2) bool ndarray or None

    Returns
    -------
    (3, 2) int ndarray
        Voxels before and after each axis, as for :func:`numpy.pad`.
    """
    margin = np.zeros((3, 2), int)
    for axis in range(3):
        for side in range(2):
            cut = cut_faces is not None and bool(cut_faces[axis][side])
            if not cut and (axis or mask.shape[0] > 1) and mask.take(-side, axis=axis).any():
                margin[axis, side] = 2
    return margin
