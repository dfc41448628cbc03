"""The published pair method as published, defects included, for comparison with earlier results.

Everything is in voxels: no voxel size enters, pairs shorter than 15 or longer than 200 voxels are
dropped, edges come from smoothed masks and the region from raw ones, and `n` shell *surfaces* stand
for `n` shells.  :mod:`cytomill.partitioning.pairs` is the method without these.

Results are equal to the published reference's to the last voxel with SciPy :data:`SCIPY_VERSION`
(Gaussian filter, binary morphology, ``cKDTree``); with another version a few edge voxels or ties
between pairs may differ, and :func:`check_scipy` says so.  Smoothing is done in float64, as the
reference does: a threshold at 0.5 of a float32 image moves voxels.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import scipy
from scipy import ndimage
from scipy.spatial import cKDTree

from cytomill.partitioning.compat_assignment import assign_by_distance, close_in_order

#: The SciPy version with which golden cases are reproduced bit for bit.
SCIPY_VERSION = "1.17.1"

#: Pairs outside of this range of lengths are dropped, in voxels.
PAIR_LENGTHS_VOXELS = (15.0, 200.0)

#: From this distance to a membrane on, the variant "with EDT" leaves a voxel unassigned, in voxels.
NEAR_MEMBRANE_VOXELS = 3.0

_NE_TARGET = 50_000
_PM_TARGET = 100_000
_FEW_PAIRS = 1000


def check_scipy() -> None:
    """Warn where the installed SciPy is not the one that the published results were made with."""
    if scipy.__version__ != SCIPY_VERSION:
        warnings.warn(
            f"compat partitions equal the published reference's bit for bit with SciPy {SCIPY_VERSION}; "
            f"found {scipy.__version__}: single voxels may differ, install scipy=={SCIPY_VERSION} to compare",
            stacklevel=3,
        )


def smooth_mask(mask: np.ndarray, sigma: float = 1.0, close_iter: int = 2) -> np.ndarray:
    """Smooth a mask by a Gaussian and a closing.

    Parameters
    ----------
    mask : (Z, Y, X) ndarray
        Smoothed by value: 0/255 masks grow, as in the reference; give bool or 0/1.
    sigma : float
        Of the Gaussian, in voxels.
    close_iter : int
        Iterations of the closing by the 6-neighbourhood; outside of the volume counts as background.

    Returns
    -------
    (Z, Y, X) uint8 ndarray
    """
    smoothed = ndimage.gaussian_filter(mask.astype(np.float64), sigma) > 0.5
    if close_iter > 0:
        smoothed = ndimage.binary_closing(smoothed, iterations=close_iter)
    return smoothed.astype(np.uint8)


def extract_ne_pm_edges(
    pm_mask: np.ndarray, ne_mask: np.ndarray, smooth_sigma: float = 1.0, smooth_close_iter: int = 2
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find the edge voxels of nucleus and cell.

    Parameters
    ----------
    pm_mask, ne_mask : (Z, Y, X) ndarray
        Cell and nucleus.
    smooth_sigma : float
        In voxels; 0 switches smoothing off.
    smooth_close_iter : int
        See :func:`smooth_mask`.

    Returns
    -------
    center : (3,) float64 ndarray
        Mean of the filled nucleus' voxels.
    ne_edge : (N, 3) int64 ndarray
        One voxel thick, raster order.
    pm_edge : (M, 3) int64 ndarray
        Two voxels thick, raster order.

    Raises
    ------
    ValueError
        For an empty nucleus or cell.
    """
    filled = []
    for name, mask in (("nucleus", ne_mask), ("cell", pm_mask)):
        if smooth_sigma > 0:
            mask = smooth_mask(mask, smooth_sigma, smooth_close_iter)
        mask = ndimage.binary_fill_holes(mask > 0)
        if not mask.any():
            raise ValueError(f"the {name} has no voxel after smoothing: check the mask and its labels")
        filled.append(mask)
    nucleus, cell = filled
    center = np.argwhere(nucleus).mean(axis=0)
    return center, _outer_layers(nucleus, 1), _outer_layers(cell, 2)


def _outer_layers(mask: np.ndarray, layers: int) -> np.ndarray:
    inside = mask > 0
    return np.argwhere(inside & ~ndimage.binary_erosion(inside, iterations=layers))


def _thin(points: np.ndarray, target: int) -> np.ndarray:
    return points[:: max(1, len(points) // target)] if len(points) > target else points


def _directions(points: np.ndarray, center: np.ndarray) -> np.ndarray:
    offset = points - center
    return offset / (np.linalg.norm(offset, axis=1)[:, None] + 1e-8)


def find_ne_pm_pairs(
    center: np.ndarray, ne_edge: np.ndarray, pm_edge: np.ndarray, workers: int = 1
) -> np.ndarray:
    """Pair each NE voxel with the PM voxel in the nearest direction from the centre.

    Parameters
    ----------
    center : (3,) ndarray
        In voxels.
    ne_edge, pm_edge : (N, 3), (M, 3) integer ndarray
        Edge voxels; thinned to at most 99,999 and 100,000 (or eight for each NE voxel).
    workers : int
        Threads of the nearest-neighbour search; the result does not depend on it.

    Returns
    -------
    (K, 6) int64 ndarray
        NE z, y, x, PM z, y, x of the pairs that are 15 to 200 voxels long.

    Raises
    ------
    ValueError
        For no NE or PM voxel.
    """
    for name, edge in (("NE", ne_edge), ("PM", pm_edge)):
        if len(edge) == 0:
            raise ValueError(f"pairs need {name} edge voxels, found none: check the {name} mask")
    ne = _thin(ne_edge, _NE_TARGET)
    pm = _thin(pm_edge, min(8 * len(ne), _PM_TARGET))
    tree = cKDTree(_directions(pm, center))
    _, nearest = tree.query(_directions(ne, center), workers=workers)
    pairs = np.hstack([ne, pm[nearest]])
    length = _lengths(pairs)
    shortest, longest = PAIR_LENGTHS_VOXELS
    return pairs[(length >= shortest) & (length <= longest)]


def _lengths(pairs: np.ndarray) -> np.ndarray:
    return np.linalg.norm(pairs[:, :3] - pairs[:, 3:], axis=1)


def points_along_pairs(pairs: np.ndarray, index: int, intervals: int | np.ndarray) -> np.ndarray:
    """Return the (K, 3) points NE + (PM − NE) · index / intervals of all pairs."""
    ne, pm = pairs[:, :3], pairs[:, 3:]
    return ne + (pm - ne) * index / np.reshape(intervals, (-1, 1))


def _inside(points: np.ndarray, cell_mask: np.ndarray) -> np.ndarray:
    voxel = points.astype(np.int64)
    return points[cell_mask[tuple(voxel.T)] > 0]


def shell_partition_optimized(pairs: np.ndarray, cell_mask: np.ndarray, intervals: int) -> list[np.ndarray]:
    """Cut every pair into `intervals` equal parts.

    Parameters
    ----------
    pairs : (K, 6) ndarray
        In voxels.
    cell_mask : (Z, Y, X) ndarray
        Points whose truncated voxel is 0 here are dropped; the reference gives the raw mask.
    intervals : int

    Returns
    -------
    list of `intervals` + 1 (P, 3) float64 ndarray
        Points of each shell surface, from the NE outwards, without repetitions, sorted.
    """
    surfaces = (points_along_pairs(pairs, i, intervals) for i in range(intervals + 1))
    return [np.unique(_inside(points, cell_mask), axis=0) for points in surfaces]


def shell_partition(pairs: np.ndarray, cell_mask: np.ndarray, intervals: int) -> list[np.ndarray]:
    """Cut pairs into about `intervals` parts: fewer for short pairs, more for long ones.

    The reference takes this way for 1000 pairs or fewer.  A pair shorter than half of the median has
    ``max(3, intervals // 2)`` parts, one longer than twice the median two more than the others.

    Parameters
    ----------
    pairs, cell_mask, intervals
        As for :func:`shell_partition_optimized`.

    Returns
    -------
    list of `intervals` + 1 (P, 3) float64 ndarray
        Points of each shell surface, without repetitions, sorted.
    """
    length = _lengths(pairs)
    median = np.median(length) if length.size else 0.0
    parts = np.full(len(pairs), intervals)
    parts[length < 0.5 * median] = max(3, intervals // 2)
    parts[length > 2 * median] = intervals + 2
    shells: list[list[np.ndarray]] = [[] for _ in range(intervals + 1)]
    for count in np.unique(parts):
        chosen = pairs[parts == count]
        for i in range(count + 1):
            shell = min(int(i / count * intervals), intervals)
            shells[shell].append(points_along_pairs(chosen, i, count))
    return [
        np.unique(_inside(np.concatenate(points), cell_mask), axis=0) if points else np.empty((0, 3))
        for points in shells
    ]


def build_shells(
    ne_edge: np.ndarray, pm_edge: np.ndarray, cell_mask: np.ndarray, n_slices: int, workers: int = 1
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Find pairs about the mean NE edge voxel and cut them into `n_slices` shell surfaces.

    Returns
    -------
    pairs : (K, 6) int64 ndarray
    shells : list of (P, 3) float64 ndarray

    Raises
    ------
    ValueError
        For fewer than two shells, an empty edge, or no pair of 15 to 200 voxels.
    """
    if n_slices < 2:
        raise ValueError(f"compat partitions need at least 2 shells, got n_slices = {n_slices}")
    pairs = find_ne_pm_pairs(ne_edge.mean(axis=0) if len(ne_edge) else None, ne_edge, pm_edge, workers)
    if not len(pairs):
        raise ValueError(
            "no NE-PM pair is 15 to 200 voxels long, so that the published method has no shells: "
            "use compat=False, which has no limits in voxels"
        )
    cut = shell_partition if len(pairs) <= _FEW_PAIRS else shell_partition_optimized
    return pairs, cut(pairs, cell_mask, n_slices - 1)


def cytoplasm_region(pm_mask: np.ndarray | None, ne_mask: np.ndarray | None, shape) -> np.ndarray:
    """Filled raw cell without the filled raw nucleus; everything where no mask is given."""
    region = np.ones(tuple(shape), bool)
    if pm_mask is not None:
        region &= ndimage.binary_fill_holes(pm_mask > 0)
    if ne_mask is not None:
        region &= ~ndimage.binary_fill_holes(ne_mask > 0)
    return region


def partition_pure(
    ne_edge: np.ndarray,
    pm_edge: np.ndarray,
    shape: Sequence[int],
    n_slices: int = 8,
    pm_mask: np.ndarray | None = None,
    ne_mask: np.ndarray | None = None,
    closing: bool = True,
    workers: int = 1,
) -> np.ndarray:
    """Partition the cytoplasm as the published reference's pure pair method does.

    Parameters
    ----------
    ne_edge, pm_edge : (N, 3), (M, 3) integer ndarray
        From :func:`extract_ne_pm_edges`.
    shape : sequence of int
        (Z, Y, X).
    n_slices : int
        Shell surfaces, 2 to 255.
    pm_mask, ne_mask : (Z, Y, X) ndarray, optional
        Raw masks; without them the whole volume is partitioned.
    closing : bool
        Whether ids are closed at the end.
    workers : int
        Threads of the nearest-neighbour searches; the result does not depend on it.

    Returns
    -------
    (Z, Y, X) uint8 ndarray
        1 … `n_slices` from the nucleus outwards, 0 outside the cytoplasm.

    Raises
    ------
    ValueError
        As :func:`build_shells`.

    Notes
    -----
    About 60 bytes a cytoplasm voxel for coordinates and search results beside the masks.
    """
    check_scipy()
    region, voxels, shells = _prepare(ne_edge, pm_edge, shape, n_slices, pm_mask, ne_mask, workers)
    partition = np.zeros(region.shape, np.uint8)
    partition[region] = assign_by_distance(voxels, shells, workers)
    return close_in_order(partition, region, n_slices) if closing else partition


def _prepare(
    ne_edge: np.ndarray,
    pm_edge: np.ndarray,
    shape: Sequence[int],
    n_slices: int,
    pm_mask: np.ndarray | None,
    ne_mask: np.ndarray | None,
    workers: int,
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Region to partition, its voxels, and the points of the shell surfaces."""
    cell_mask = np.broadcast_to(np.uint8(1), tuple(shape)) if pm_mask is None else pm_mask
    _, shells = build_shells(ne_edge, pm_edge, cell_mask, n_slices, workers)
    if not any(len(points) for points in shells):
        raise ValueError("no point of any NE-PM pair lies in the cell mask: is the PM mask a membrane only?")
    region = cytoplasm_region(pm_mask, ne_mask, shape)
    return region, np.argwhere(region), shells


def partition_with_edt(
    ne_edge: np.ndarray,
    pm_edge: np.ndarray,
    shape: Sequence[int],
    n_slices: int = 8,
    pm_mask: np.ndarray | None = None,
    ne_mask: np.ndarray | None = None,
    workers: int = 1,
) -> np.ndarray:
    """Partition as the published reference's method "with EDT" does: most voxels stay unassigned.

    Voxels within 3 voxels of the nucleus' outermost voxels are shell 1, those within 3 voxels of the
    cell's two outermost layers the last one, the nearer of both deciding; the reference writes the ids
    of all others into a copy, so that they are 0.  Parameters and errors as :func:`partition_pure`;
    edges stand for masks that are not given.

    Returns
    -------
    (Z, Y, X) uint8 ndarray
    """
    check_scipy()
    region, voxels, _ = _prepare(ne_edge, pm_edge, shape, n_slices, pm_mask, ne_mask, workers)
    near_ne = ne_edge if ne_mask is None else _outer_layers(ne_mask, 1)
    near_pm = pm_edge if pm_mask is None else _outer_layers(pm_mask, 2)
    to_ne, _ = cKDTree(near_ne).query(voxels, workers=workers)
    to_pm, _ = cKDTree(near_pm).query(voxels, workers=workers)
    ids = np.zeros(len(voxels), np.uint8)
    ids[(to_ne <= NEAR_MEMBRANE_VOXELS) & (to_ne < to_pm)] = 1
    ids[(to_pm <= NEAR_MEMBRANE_VOXELS) & (to_pm < to_ne)] = n_slices
    partition = np.zeros(region.shape, np.uint8)
    partition[region] = ids
    return close_in_order(partition, region, n_slices)
