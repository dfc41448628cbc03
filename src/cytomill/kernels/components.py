"""Connected components of a mask by runs along X.

A mask is turned into its runs, runs of neighbouring rows that touch are joined, and only then are
labels written: a sparse mask is read at the speed of memory, labels come numbered by first voxel in
C order without a second pass, and the faces that a block shares with others are a subset of its runs.
The same sweep that joins rows within a block joins the planes of neighbouring blocks
(:mod:`cytomill.kernels.block_faces`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit

from cytomill.kernels.runs import scan_runs
from cytomill.kernels.union_find import flatten, union

CONNECTIVITIES = (1, 2, 3)


@dataclass(frozen=True)
class Runs:
    """Runs of a mask along X, in raster order, with their labels.

    Parameters
    ----------
    row : (R,) int32 ndarray
        ``z · Y + y``.
    start, stop : (R,) int32 ndarray
        Half-open range along X.
    label : (R,) int32 ndarray
        Component, 1 … n by first voxel in C order.
    first_voxel : (n,) int64 ndarray
        C-order index, in the block, of each component's first voxel.
    voxel_count : (n,) int64 ndarray
        Voxels of each component.
    """

    row: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    label: np.ndarray
    first_voxel: np.ndarray
    voxel_count: np.ndarray


def check_connectivity(connectivity: int) -> None:
    """Refuse a connectivity that is not 1 (faces), 2 (and edges) or 3 (and corners)."""
    if connectivity not in CONNECTIVITIES:
        raise ValueError(f"connectivity must be 1, 2 or 3 in three dimensions, got {connectivity}")


@njit(nogil=True, cache=True)
def join_rows(parent, item, row, start, stop, first, second, shift, slack):
    """Join the runs of two ranges that touch.

    Parameters
    ----------
    parent : (N,) integer ndarray
        Disjoint sets, changed.
    item : (R,) integer ndarray
        Member of `parent` that each run stands for.
    row, start, stop : (R,) integer ndarray
        Runs, sorted by row and start within each range.
    first, second : (int, int)
        Ranges of runs.
    shift : int
        A run of the first range meets runs of the second whose row is larger by this.
    slack : int
        0: runs touch where they overlap; 1: also corner to corner.
    """
    i, j = first[0], second[0]
    while i < first[1] and j < second[1]:
        line = row[i] + shift
        if line < row[j]:
            i += 1
        elif line > row[j]:
            j += 1
        else:
            if start[i] < stop[j] + slack and start[j] < stop[i] + slack:
                union(parent, item[i], item[j])
            if stop[i] <= stop[j]:
                i += 1
            else:
                j += 1


@njit(nogil=True, cache=True)
def join_planes(parent, item, row, start, stop, first, second, shift, connectivity):
    """Join the runs of two planes next to each other; `shift` takes a row to the one facing it."""
    join_rows(parent, item, row, start, stop, first, second, shift, 1 if connectivity > 1 else 0)
    if connectivity > 1:
        slack = 1 if connectivity > 2 else 0
        join_rows(parent, item, row, start, stop, first, second, shift - 1, slack)
        join_rows(parent, item, row, start, stop, first, second, shift + 1, slack)


@njit(nogil=True, cache=True)
def join_volume(row, start, stop, depth, height, connectivity):
    """Join the runs of a mask that touch; return the smallest run that each is joined with.

    Parameters
    ----------
    row, start, stop : (R,) integer ndarray
        Runs in raster order, of a volume of `depth` slices of `height` rows.
    connectivity : {1, 2, 3}
        Voxels that share a face; or an edge; or a corner.
    """
    item = np.arange(row.size).astype(np.int32)
    parent = item.copy()
    previous = (0, 0)
    for z in range(depth):
        begin = previous[1]
        end = begin + np.searchsorted(row[begin:], (z + 1) * height)
        plane = (begin, end)
        join_rows(parent, item, row, start, stop, plane, plane, 1, 1 if connectivity > 1 else 0)
        join_planes(parent, item, row, start, stop, previous, plane, height, connectivity)
        previous = plane
    flatten(parent)
    return parent


@njit(nogil=True, cache=True)
def number_components(parent, start, stop):
    """Return each run's component, 1 … n by first run, and the voxels of each component."""
    label = np.empty(parent.size, np.int32)
    count = 0
    for run in range(parent.size):
        if parent[run] == run:
            count += 1
            label[run] = count
        else:
            label[run] = label[parent[run]]
    voxel_count = np.zeros(count, np.int64)
    for run in range(parent.size):
        voxel_count[label[run] - 1] += stop[run] - start[run]
    return label, voxel_count


@njit(nogil=True, cache=True)
def _paint(labels, row, start, stop, label):
    for run in range(row.size):
        line = labels[row[run]]
        for x in range(start[run], stop[run]):
            line[x] = label[run]


def label_runs(mask: np.ndarray, connectivity: int) -> Runs:
    """Find the connected components of a mask, as runs.

    Parameters
    ----------
    mask : (Z, Y, X) bool or uint8 ndarray
        Non-zero is inside.
    connectivity : {1, 2, 3}
        Voxels that share a face; or an edge; or a corner.

    Returns
    -------
    Runs

    Raises
    ------
    ValueError
        For another connectivity, or a block of 2³¹ voxels or more.
    """
    check_connectivity(connectivity)
    depth, height, width = mask.shape
    row, start, stop, _ = scan_runs(mask if mask.dtype == bool else mask != 0)
    parent = join_volume(row, start, stop, depth, height, connectivity)
    label, voxel_count = number_components(parent, start, stop)
    is_first = parent == np.arange(parent.size)
    first_voxel = row[is_first].astype(np.int64) * width + start[is_first]
    return Runs(row, start, stop, label, first_voxel, voxel_count)


def paint_runs(runs: Runs, shape: Sequence[int], values: np.ndarray | None = None) -> np.ndarray:
    """Write runs into a new volume.

    Parameters
    ----------
    runs : Runs
    shape : sequence of int
        Of the block, (Z, Y, X).
    values : (n + 1,) int32 ndarray, optional
        What to write for each label, 0 first; the labels themselves when not given.

    Returns
    -------
    (Z, Y, X) ndarray
        int32 with `values`, else uint32; 0 is background.
    """
    depth, height, width = shape
    painted = runs.label if values is None else values[runs.label]
    labels = np.zeros((depth * height, width), np.uint32 if values is None else np.int32)
    _paint(labels, runs.row, runs.start, runs.stop, painted)
    return labels.reshape(depth, height, width)


def label_block(mask: np.ndarray, connectivity: int) -> tuple[np.ndarray, int]:
    """Label the connected components of a mask, numbered by first voxel in C order.

    Parameters
    ----------
    mask : (Z, Y, X) bool or uint8 ndarray
        Non-zero is inside.
    connectivity : {1, 2, 3}
        Voxels that share a face; or an edge; or a corner.

    Returns
    -------
    labels : (Z, Y, X) uint32 ndarray
    count : int
    """
    runs = label_runs(mask, connectivity)
    return paint_runs(runs, mask.shape), runs.voxel_count.size
