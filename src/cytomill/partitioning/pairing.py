"""Points on the nuclear envelope and the plasma membrane, and pairs of them by direction.

Pairs join points that lie in the same direction from the nucleus' centre.  The rule for the partner
is exact, so that hosts and devices find the same pairs: directions are unit vectors in nanometre
space, the largest float64 value of ``(a_z·b_z + a_y·b_y) + a_x·b_x`` wins (each operation rounded on
its own), the first index where several are equal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from cytomill.kernels.devices import to_host
from cytomill.kernels.distance import face_margin
from cytomill.kernels.surface import surface_sites
from cytomill.kernels.voxel_size import checked_voxel_size

#: Every how manieth surface point starts a pair.
DEFAULT_STEP = 8

# Float64 dot products of unit vectors are right to about 4e-16: partners whose squared chords differ by
# less than this are ranked by the exact rule.
_CHORD_SLACK = 1e-14
_NEIGHBOURS = 4
_CHUNK = 1 << 22


def no_membrane(shape: Sequence[int], cut_faces: np.ndarray | None) -> np.ndarray:
    """Return the (3, 2) bool array of the crop's faces that carry no membrane.

    Parameters
    ----------
    shape : sequence of int
        (Z, Y, X); both Z faces of a single slice carry none.
    cut_faces : (3, 2) bool ndarray, optional
        Faces of the image volume at which the cell is cut.

    Raises
    ------
    ValueError
        For another shape of `cut_faces`.
    """
    faces = np.zeros((3, 2), bool) if cut_faces is None else np.array(cut_faces, bool)
    if faces.shape != (3, 2):
        raise ValueError(f"cut_faces needs the shape (3, 2) (axis, side), found {faces.shape}")
    if shape[0] == 1:
        faces[0] = True
    return faces


def surface_points(
    mask: np.ndarray,
    cut_faces: np.ndarray | None = None,
    voxel_size_nm: Sequence[float] = (1.0, 1.0, 1.0),
) -> np.ndarray:
    """Find points on the sub-voxel surface of a mask, about one for each voxel along it.

    Parameters
    ----------
    mask : (Z, Y, X) bool ndarray
        Nucleus or cell; outside of the crop is background, but over `cut_faces` it goes on.
    cut_faces : (3, 2) bool ndarray, optional
        Faces of the crop at which the cell is cut: no membrane there.
    voxel_size_nm : sequence of float
        (Z, Y, X): where slices lie far apart, the surface between them follows their contours.

    Returns
    -------
    (N, 3) float64 ndarray
        z, y, x in voxels, voxel centres at integers; in raster order of their voxels.

    Raises
    ------
    ValueError
        If `mask` is not three-dimensional bool, or `cut_faces` not (3, 2).
    """
    if mask.ndim != 3 or mask.dtype != bool:
        raise ValueError(
            f"a surface needs a bool (Z, Y, X) mask, found {mask.dtype} of shape {mask.shape}: "
            "compare labels first, and give a 2-D image one slice"
        )
    size = checked_voxel_size(voxel_size_nm)
    margin = face_margin(mask, no_membrane(mask.shape, cut_faces))
    padded = np.pad(mask, margin) if margin.any() else np.ascontiguousarray(mask)
    return surface_sites(padded, tuple(size.tolist())) / size - margin[:, 0]


def nucleus_center(nucleus: np.ndarray) -> np.ndarray:
    """Return the (3,) float64 mean voxel of a nucleus; ValueError where it is empty."""
    total = int(np.count_nonzero(nucleus))
    if not total:
        raise ValueError("the nucleus has no voxel, so that its centre is undefined: check the NE mask")
    center = np.empty(3)
    for axis in range(3):
        others = tuple(k for k in range(3) if k != axis)
        profile = np.count_nonzero(nucleus, axis=others)
        center[axis] = profile @ np.arange(profile.size, dtype=np.float64) / total
    return center


def every_nth_on_curve(points_nm: np.ndarray, step: int) -> np.ndarray:
    """Choose every `step`-th point along a space-filling curve: evenly over a surface.

    Strides in raster order would leave gaps of `step` voxels along X beside rows that are full.

    Parameters
    ----------
    points_nm : (N, 3) float64 ndarray
    step : int
        At least 1. Points of a single plane lie on lines, of which every √step-th is taken.

    Returns
    -------
    (M,) int64 ndarray
        Ascending indices.
    """
    if len(points_nm) == 0 or step == 1:
        return np.arange(len(points_nm))
    low = points_nm.min(axis=0)
    extent = points_nm.max(axis=0) - low
    if np.count_nonzero(extent) < 3:
        step = max(1, round(math.sqrt(step)))
    # 2^20 cells along the longest axis: finer than any voxel, and three times 20 bits fit an int64.
    scale = (2**20 - 1) / max(float(extent.max()), np.finfo(float).tiny)
    cells = ((points_nm - low) * scale).astype(np.uint64)
    code = np.zeros(len(cells), np.uint64)
    for axis in range(3):
        spread = cells[:, axis]
        for shift, keep in (
            (32, 0x1F00000000FFFF),
            (16, 0x1F0000FF0000FF),
            (8, 0x100F00F00F00F00F),
            (4, 0x10C30C30C30C30C3),
            (2, 0x1249249249249249),
        ):
            spread = (spread | (spread << np.uint64(shift))) & np.uint64(keep)
        code |= spread << np.uint64(2 - axis)
    return np.sort(np.argsort(code, kind="stable")[::step])


def directions(points_nm: np.ndarray, center_nm: np.ndarray) -> np.ndarray:
    """Return (N, 3) float64 unit vectors from the centre; NaN for a point at the centre."""
    offset = points_nm - center_nm
    square = (offset[:, 0] * offset[:, 0] + offset[:, 1] * offset[:, 1]) + offset[:, 2] * offset[:, 2]
    length = np.sqrt(square)
    length[length == 0] = np.nan
    return offset / length[:, None]


def _first_largest(queries: Any, targets: Any, xp: Any) -> Any:
    """Index of the largest dot product of each query, the first of equal ones, all on `xp`."""
    dot = queries[:, 0, None] * targets[None, :, 0]
    dot = dot + queries[:, 1, None] * targets[None, :, 1]
    dot = dot + queries[:, 2, None] * targets[None, :, 2]
    # argmax alone would leave the order of equal values to the library.
    largest = dot.max(axis=1)
    index = xp.where(dot == largest[:, None], xp.arange(targets.shape[0]), targets.shape[0])
    return index.min(axis=1)


def _search_all(queries: np.ndarray, targets: np.ndarray, xp: Any) -> np.ndarray:
    on_device = xp.asarray(targets)
    rows = max(1, (_CHUNK if xp is np else 8 * _CHUNK) // max(1, len(targets)))
    parts = [
        to_host(_first_largest(xp.asarray(queries[start : start + rows]), on_device, xp))
        for start in range(0, len(queries), rows)
    ]
    return np.concatenate(parts).astype(np.int64) if parts else np.empty(0, np.int64)


def nearest_directions(
    queries: np.ndarray, targets: np.ndarray, xp: Any = np, workers: int = 1
) -> np.ndarray:
    """Find for each direction the target with the smallest angle, by the rule of this module.

    Parameters
    ----------
    queries, targets : (N, 3), (M, 3) float64 ndarray
        Unit vectors.
    xp : module
        ``numpy`` searches a k-d tree and ranks near ties exactly; any other array module (``cupy``)
        compares all with all, in pieces of at most 256 MiB. The answer is the same.
    workers : int
        Threads of the k-d tree.

    Returns
    -------
    (N,) int64 ndarray
        On the host.

    Raises
    ------
    ValueError
        For no target.
    """
    if not len(targets):
        raise ValueError("directions are compared with none: one of the surfaces has no point")
    if xp is not np:
        return _search_all(queries, targets, xp)
    near = min(_NEIGHBOURS, len(targets))
    chord, index = cKDTree(targets).query(queries, k=near, workers=workers)
    chord, index = chord.reshape(-1, near), index.reshape(-1, near)
    close = chord**2 <= chord[:, :1] ** 2 + _CHORD_SLACK
    candidate = targets[index]
    dot = queries[:, 0, None] * candidate[:, :, 0]
    dot = dot + queries[:, 1, None] * candidate[:, :, 1]
    dot = dot + queries[:, 2, None] * candidate[:, :, 2]
    best = np.where(dot == dot.max(axis=1)[:, None], index, len(targets)).min(axis=1)
    if near < len(targets):
        # As many near ties as neighbours asked for: there may be more.
        crowded = np.flatnonzero(close[:, -1])
        best[crowded] = _search_all(queries[crowded], targets, np)
    return best


def find_pairs(
    center: np.ndarray,
    ne_edge: np.ndarray,
    pm_edge: np.ndarray,
    step: int = DEFAULT_STEP,
    voxel_size_nm: Sequence[float] = (1.0, 1.0, 1.0),
    min_length_nm: float | None = None,
    max_length_nm: float | None = None,
    xp: Any = np,
    workers: int = 1,
) -> np.ndarray:
    """Pair points of the nuclear envelope with points of the plasma membrane by direction.

    Every `step`-th PM point (evenly over the surface) takes the NE point with the smallest angle about
    the centre, and every `step`-th NE point the PM point, so that no direction of either surface is
    left out; a pair found twice is kept once.

    Parameters
    ----------
    center : (3,) array_like
        Of the nucleus, in voxels.
    ne_edge, pm_edge : (N, 3), (M, 3) ndarray
        Surface points, in voxels, integer or not.
    step : int
        Sampling step, at least 1.
    voxel_size_nm : sequence of float
        (Z, Y, X); angles and lengths are physical.
    min_length_nm, max_length_nm : float, optional
        Shorter and longer pairs are dropped.
    xp : module
        ``numpy``, or ``cupy`` to search on the device; the pairs are identical.
    workers : int
        Threads on the host; the pairs do not depend on it.

    Returns
    -------
    (K, 6) ndarray
        NE z, y, x, PM z, y, x in voxels, of the edges' common dtype; sorted by NE, then PM point.
        Pairs without length are left out: there is no cytoplasm between their ends.

    Raises
    ------
    ValueError
        For no NE or PM point, a step below 1, or voxel sizes that are not positive.
    """
    ne_edge, pm_edge = np.asarray(ne_edge), np.asarray(pm_edge)
    for name, edge in (("NE", ne_edge), ("PM", pm_edge)):
        if edge.ndim != 2 or edge.shape[1] != 3 or not len(edge):
            raise ValueError(
                f"pairs need {name} points as rows z, y, x, found an array of shape {edge.shape}: "
                f"check the {name} mask"
            )
    if step < 1 or int(step) != step:
        raise ValueError(f"step must be a whole number from 1 on, got {step}")
    size = checked_voxel_size(voxel_size_nm)
    center_nm = np.asarray(center, np.float64) * size
    ne_nm, pm_nm = ne_edge * size, pm_edge * size
    ne_unit, pm_unit = directions(ne_nm, center_nm), directions(pm_nm, center_nm)
    # A point at the centre has no direction.
    ne_known, pm_known = (np.flatnonzero(np.isfinite(unit[:, 0])) for unit in (ne_unit, pm_unit))
    if not ne_known.size or not pm_known.size:
        raise ValueError("all points of the NE or the PM lie at the centre: the masks hold a single voxel")
    found = []
    for driving, drive_nm, drive_unit, known, unit in (
        (pm_known, pm_nm, pm_unit, ne_known, ne_unit),
        (ne_known, ne_nm, ne_unit, pm_known, pm_unit),
    ):
        start = driving[every_nth_on_curve(drive_nm[driving], int(step))]
        found.append((start, known[nearest_directions(drive_unit[start], unit[known], xp, workers)]))
    (pm_start, ne_partner), (ne_start, pm_partner) = found
    ne_index = np.concatenate([ne_partner, ne_start])
    pm_index = np.concatenate([pm_start, pm_partner])
    ne_index, pm_index = np.divmod(np.unique(ne_index * len(pm_edge) + pm_index), len(pm_edge))
    pairs = np.hstack([ne_edge[ne_index], pm_edge[pm_index]])
    return within_lengths(pairs, size, min_length_nm, max_length_nm)


def within_lengths(
    pairs: np.ndarray, size_nm: np.ndarray, min_length_nm: float | None, max_length_nm: float | None
) -> np.ndarray:
    """Return the pairs that have a length, within the limits that are given."""
    length = np.linalg.norm((pairs[:, 3:] - pairs[:, :3]) * size_nm, axis=1)
    keep = length > 0
    if min_length_nm is not None:
        keep &= length >= min_length_nm
    if max_length_nm is not None:
        keep &= length <= max_length_nm
    return pairs[keep]
