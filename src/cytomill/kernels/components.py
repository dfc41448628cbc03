"""Connected components of a mask by runs along X, and their joints between blocks.

A mask is turned into its runs, runs of neighbouring rows that touch are joined, and only then are
labels written: a sparse mask is read at the speed of memory, labels come numbered by first voxel in
C order without a second pass, and the faces that a block shares with others are a subset of its runs.
The same sweep that joins rows within a block joins the planes of neighbouring blocks.

The runs of a face travel to where blocks are merged, a row a run (:data:`FACE_COLUMNS`):

======  ==========================================================
axis    the axis across which another block lies
plane   the face's plane on that axis, in the volume
row     Y on a Z face, Z on the others, in the volume
start   first voxel along the row (X, or Y on an X face), in the volume
stop    one past the last
label   label within the block
======  ==========================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit

from cytomill.kernels.blocks import Region
from cytomill.kernels.union_find import flatten, union

CONNECTIVITIES = (1, 2, 3)
FACE_COLUMNS = ("axis", "plane", "row", "start", "stop", "label")


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
def _scan(flat, words, width, row, start, stop, value):
    """Count the runs of equal non-zero values, and write them where there is room."""
    voxels_a_word = 8 // flat.itemsize
    count = 0
    position = 0
    size = flat.size
    while position < size:
        if position % voxels_a_word == 0:
            # Most of a volume is background: eight bytes of it at a time.
            word = position // voxels_a_word
            while word < words.size and words[word] == 0:
                word += 1
            position = word * voxels_a_word
            if position >= size:
                break
        if flat[position] == 0:
            position += 1
            continue
        first = position
        line = first // width
        end = (line + 1) * width
        while position < end and flat[position] == flat[first]:
            position += 1
            word = position // voxels_a_word
            if position % voxels_a_word or position - first < voxels_a_word or word >= words.size:
                continue
            # The word just passed lies in the run: as long as words repeat it, so do voxels.
            last = min(end // voxels_a_word, words.size)
            while word < last and words[word] == words[word - 1]:
                word += 1
            position = word * voxels_a_word
        if row.size:
            row[count] = line
            start[count] = first - line * width
            stop[count] = position - line * width
            value[count] = flat[first]
        count += 1
    return count


def scan_runs(volume: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Find the runs of equal non-zero values along X.

    Parameters
    ----------
    volume : (Z, Y, X) bool or integer ndarray
        A mask or labels, fewer than 2³¹ voxels.

    Returns
    -------
    row, start, stop : (R,) int32 ndarray
        ``z · Y + y``, and the half-open range along X; in raster order.
    value : (R,) ndarray
        Of the volume's dtype (uint8 for bool).

    Raises
    ------
    ValueError
        For 2³¹ voxels or more.
    """
    if volume.size >= 2**31:
        raise ValueError(f"a block of {volume.shape} has 2^31 voxels or more: choose smaller blocks")
    flat = np.ascontiguousarray(volume).reshape(-1)
    if flat.dtype == bool:
        flat = flat.view(np.uint8)
    # A slice of a larger array may begin off a word's boundary; numba wants its words aligned.
    whole = flat.size * flat.itemsize // 8 if flat.ctypes.data % 8 == 0 else 0
    words = flat[: whole * 8 // flat.itemsize].view(np.uint64)
    nothing = np.empty(0, np.int32)
    count = _scan(flat, words, volume.shape[2], nothing, nothing, nothing, flat[:0])
    row, start, stop = (np.empty(count, np.int32) for _ in range(3))
    value = np.empty(count, flat.dtype)
    if count:
        _scan(flat, words, volume.shape[2], row, start, stop, value)
    return row, start, stop, value


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


def face_runs(runs: Runs, region: Region, shape: Sequence[int]) -> np.ndarray:
    """Take out of a block's runs those on the faces that it shares with other blocks.

    Parameters
    ----------
    runs : Runs
        Of the block.
    region : Region
        The block in its volume.
    shape : sequence of int
        The volume: its own faces are left out.

    Returns
    -------
    (M, 6) int32 ndarray
        Columns :data:`FACE_COLUMNS`.
    """
    (z0, _), (y0, y1), (x0, x1) = region
    z, y = np.divmod(runs.row, y1 - y0)
    z += z0
    y += y0

    def shared(axis: int, first: np.ndarray, last: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        low, high = region[axis]
        return (first == low) & (low > 0), (last == high - 1) & (high < shape[axis])

    faces = []
    for axis, plane, row in ((0, z, y), (1, y, z)):
        low, high = shared(axis, plane, plane)
        on = low | high
        start, stop = runs.start[on] + x0, runs.stop[on] + x0
        faces.append((axis, plane[on], row[on], start, stop, runs.label[on]))
    low, high = shared(2, runs.start + x0, runs.stop + x0 - 1)
    sides = ((x0, low), (x1 - 1, high)) if x1 - x0 > 1 else ((x0, low | high),)
    for plane, on in sides:
        row, along, label = z[on], y[on], runs.label[on]
        begins = np.ones(row.size, bool)
        begins[1:] = (np.diff(row) != 0) | (np.diff(along) != 1) | (np.diff(label) != 0)
        first = np.flatnonzero(begins)
        last = np.append(first[1:], row.size)[: first.size] - 1
        faces.append((2, np.full(first.size, plane), row[first], along[first], along[last] + 1, label[first]))
    return np.concatenate([_table(*columns) for columns in faces])


def _table(axis: int, *columns: np.ndarray) -> np.ndarray:
    table = np.empty((columns[0].size, len(FACE_COLUMNS)), np.int32)
    table[:, 0] = axis
    for index, column in enumerate(columns, start=1):
        table[:, index] = column
    return table


@njit(nogil=True, cache=True)
def _join_faces(parent, item, row, start, stop, begins, axis, plane, connectivity):
    for group in range(begins.size - 2):
        here, there = begins[group], begins[group + 1]
        if axis[here] == axis[there] and plane[here] + 1 == plane[there]:
            join_planes(
                parent, item, row, start, stop, (here, there), (there, begins[group + 2]), 0, connectivity
            )
    flatten(parent)


def join_faces(faces: np.ndarray, item: np.ndarray, count: int, connectivity: int) -> np.ndarray:
    """Join the components of all blocks over the faces that they share.

    Two voxels next to each other in different blocks lie in neighbouring planes of some axis, at a
    boundary of the grid there.  Each plane is put together from all blocks that it crosses, so that
    joints over the blocks' edges and corners are found like any other.

    Parameters
    ----------
    faces : (M, 6) int32 ndarray
        Face runs of all blocks, in any order; columns :data:`FACE_COLUMNS`.
    item : (M,) int64 ndarray
        Component of each run, counted over all blocks from 0.
    count : int
        Components of all blocks.
    connectivity : {1, 2, 3}
        As for the blocks.

    Returns
    -------
    (count,) int64 ndarray
        The smallest component that each one is joined with.
    """
    check_connectivity(connectivity)
    parent = np.arange(count, dtype=np.int64)
    axis, plane, row, start, stop, _ = faces.T
    order = np.lexsort((start, row, plane, axis))
    axis, plane, row, start, stop, item = (column[order] for column in (axis, plane, row, start, stop, item))
    begins = np.flatnonzero((np.diff(axis, prepend=-1) != 0) | (np.diff(plane, prepend=-1) != 0))
    begins = np.append(begins, axis.size)
    _join_faces(parent, item, row, start, stop, begins, axis, plane, connectivity)
    return parent
