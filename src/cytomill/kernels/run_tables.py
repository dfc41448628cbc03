"""What one pass over the runs of a label volume counts, and the mask of each label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit

from cytomill.kernels.mask_runs import LabelRuns, MaskRuns, merge_touching

#: Values up to here are counted by a table, larger ones are sorted.
_TABLE_SIZE = 2**22


@dataclass(frozen=True)
class LabelTable:
    """What one pass over the runs counts for each label.

    Parameters
    ----------
    value : (n,) int64 ndarray
        Labels, ascending.
    slot : (R,) int32 ndarray
        Index into `value` of each run.
    run_count, voxel_count : (n,) int64 ndarray
    box : (n, 3, 2) int64 ndarray
        Bounding box in the volume, half-open.
    face_voxels : (n, 3, 2) int64 ndarray
        Voxels on the first and last plane of each axis of the volume.
    """

    value: np.ndarray
    slot: np.ndarray
    run_count: np.ndarray
    voxel_count: np.ndarray
    box: np.ndarray
    face_voxels: np.ndarray


@njit(nogil=True, cache=True)
def _tally(row, start, stop, slot, depth, height, width, runs, voxels, box, faces):
    for run in range(row.size):
        z, y = row[run] // height, row[run] % height
        first, last = np.int64(start[run]), np.int64(stop[run])
        n, s = last - first, slot[run]
        runs[s] += 1
        voxels[s] += n
        box[s, 0, 0], box[s, 0, 1] = min(box[s, 0, 0], z), max(box[s, 0, 1], z + 1)
        box[s, 1, 0], box[s, 1, 1] = min(box[s, 1, 0], y), max(box[s, 1, 1], y + 1)
        box[s, 2, 0], box[s, 2, 1] = min(box[s, 2, 0], first), max(box[s, 2, 1], last)
        faces[s, 0, 0] += n * (z == 0)
        faces[s, 0, 1] += n * (z == depth - 1)
        faces[s, 1, 0] += n * (y == 0)
        faces[s, 1, 1] += n * (y == height - 1)
        faces[s, 2, 0] += first == 0
        faces[s, 2, 1] += last == width


def _number_values(value: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the labels, ascending, and the index of each run's label among them."""
    if value.size and value.min() >= 0 and value.max() < _TABLE_SIZE:
        present = np.zeros(int(value.max()) + 1, bool)
        present[value] = True
        table = np.cumsum(present, dtype=np.int32) - np.int32(1)
        return np.flatnonzero(present), table[value]
    values, slot = np.unique(value, return_inverse=True)
    return values, slot.astype(np.int32)


def tabulate(runs: MaskRuns, shape: Sequence[int]) -> LabelTable:
    """Count voxels, boxes and contacts with the volume's faces, for all labels in one pass.

    Parameters
    ----------
    runs : MaskRuns or LabelRuns
        A mask counts as one label, 1.
    shape : sequence of int
        Of the volume, (Z, Y, X).

    Returns
    -------
    LabelTable
    """
    if isinstance(runs, LabelRuns):
        value, slot = _number_values(runs.value)
    else:
        value, slot = np.ones(min(runs.count, 1), np.int64), np.zeros(runs.count, np.int32)
    n = value.size
    run_count, voxel_count = np.zeros(n, np.int64), np.zeros(n, np.int64)
    box = np.zeros((n, 3, 2), np.int64)
    box[:, :, 0] = np.iinfo(np.int64).max
    faces = np.zeros((n, 3, 2), np.int64)
    _tally(runs.row, runs.start, runs.stop, slot, *shape, run_count, voxel_count, box, faces)
    return LabelTable(value, slot, run_count, voxel_count, box, faces)


def split_labels(runs: LabelRuns, table: LabelTable) -> list[MaskRuns]:
    """Return the mask of each label of the table, in its order; linear in the runs."""
    order = np.argsort(table.slot, kind="stable")
    ends = np.cumsum(table.run_count)
    return [
        merge_touching(runs.take(chosen))
        for chosen in (order[end - count : end] for end, count in zip(ends, table.run_count, strict=True))
    ]
