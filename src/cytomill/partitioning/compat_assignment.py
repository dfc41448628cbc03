"""Ids of voxels by the published reference's rules: two nearest shell surfaces, then closing in order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

_QUERY_BATCH = 1 << 17

# Comparators of a bitonic sort of 8, in the order of NumPy's AVX-512 argsort.
_PAIRWISE = ((0, 1), (2, 3), (4, 5), (6, 7))
_NETWORK = (
    *_PAIRWISE,
    *((0, 3), (1, 2), (4, 7), (5, 6)),
    *_PAIRWISE,
    *((0, 7), (1, 6), (2, 5), (3, 4)),
    *((0, 2), (1, 3), (4, 6), (5, 7)),
    *_PAIRWISE,
)
_NETWORK_WIDTH = 8


def _sort_in_network(distance: np.ndarray) -> np.ndarray:
    """Order of up to 8 columns in each row, as the reference's argsort left ties: ids from 0.

    The reference sorts by NumPy's default argsort, which on the machine that made the published
    numbers is a bitonic network of 8; where two surfaces are equally near, which of them comes first
    depends on it.  The same comparisons here give the same ties on every processor.
    """
    rows, columns = distance.shape
    key = [distance[:, i] if i < columns else np.full(rows, np.inf) for i in range(_NETWORK_WIDTH)]
    index = [np.full(rows, i, np.uint8) for i in range(_NETWORK_WIDTH)]
    for low, high in _NETWORK:
        swap = key[low] > key[high]
        for values in (key, index):
            values[low], values[high] = (
                np.where(swap, values[high], values[low]),
                np.where(swap, values[low], values[high]),
            )
    return np.stack(index[:2], axis=1)


def _two_nearest(voxels: np.ndarray, shells: Sequence[np.ndarray], workers: int):
    """Nearest shell, the lowest where several are; and the two nearest with their distances: ids 1 …"""
    distance = np.full((len(voxels), max(2, len(shells))), np.inf)
    for column, points in enumerate(shells):
        if len(points):
            distance[:, column], _ = cKDTree(points).query(voxels, workers=workers)
    if len(shells) <= _NETWORK_WIDTH:
        order = _sort_in_network(distance)
    else:
        order = np.argsort(distance, axis=1, kind="stable")[:, :2].astype(np.uint8)
    nearest = np.take_along_axis(distance, order, axis=1)
    return np.argmin(distance, axis=1) + 1, order + 1, nearest


def assign_by_distance(voxels: np.ndarray, shells: Sequence[np.ndarray], workers: int = 1) -> np.ndarray:
    """Give voxels the id of a near shell surface by the reference's 60/40 rule.

    Parameters
    ----------
    voxels : (V, 3) integer ndarray
    shells : sequence of (P, 3) ndarray
        Surface k has id k + 1.
    workers : int

    Returns
    -------
    (V,) uint8 ndarray
        1 where surface 1 is nearest; the last id where the nearest surface's id reaches the number of
        non-empty surfaces; else the nearest surface's id where ``d2 / (d1 + d2) > 0.6`` of the two
        nearest, and the smaller of both ids otherwise.
    """
    occupied = sum(len(points) > 0 for points in shells)
    last = max(i for i, points in enumerate(shells, start=1) if len(points))
    ids = np.empty(len(voxels), np.uint8)
    for start in range(0, len(voxels), _QUERY_BATCH):
        part = slice(start, start + _QUERY_BATCH)
        nearest_id, two_ids, two = _two_nearest(voxels[part], shells, workers)
        with np.errstate(invalid="ignore"):
            # A point common to two surfaces gives 0 / 0, and one occupied surface inf / inf: neither is
            # above 0.6.
            ratio = two[:, 1] / (two[:, 0] + two[:, 1])
        between = np.where(ratio > 0.6, two_ids[:, 0], two_ids.min(axis=1))
        outer = np.where(nearest_id >= occupied, last, between)
        ids[part] = np.where(nearest_id == 1, 1, outer)
    return ids


def close_in_order(partition: np.ndarray, region: np.ndarray, n_slices: int) -> np.ndarray:
    """Close each id by the 6-neighbourhood in ascending order; later ids overwrite, in place."""
    for shell_id in range(1, n_slices + 1):
        mask = partition == shell_id
        if mask.any():
            partition[ndimage.binary_closing(mask, iterations=1) & region] = shell_id
    return partition
