"""Faces that blocks share: the components of all blocks are joined over them.

The runs of a block's faces travel to where blocks are merged, a row a run (:data:`FACE_COLUMNS`):

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

import numpy as np
from numba import njit

from cytomill.kernels.blocks import Region
from cytomill.kernels.components import Runs, check_connectivity, join_planes
from cytomill.kernels.union_find import flatten

FACE_COLUMNS = ("axis", "plane", "row", "start", "stop", "label")


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
