"""Masks and label volumes as runs along X.

Labels of cells are smooth: a volume of 10⁹ voxels is a few million runs, tens of megabytes.  Slabs are
encoded apart, their runs joined in order are those of the volume whatever the slabs, and what needs the
whole cell (:mod:`cytomill.kernels.run_topology`) works on the runs; a dense array is painted only for
the crop that somebody needs.

Runs are sorted by row, then by start, and do not overlap; ``row = z · Y + y`` counts the volume's rows.
A mask's runs are also as long as they can be (two of a row never touch), so that equal masks have
equal runs: every function here that returns a mask keeps to that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit

from cytomill.kernels.blocks import Region, region_shape
from cytomill.kernels.runs import scan_runs

#: Bytes of a run of labels: row and value int64, start and stop int32.
LABEL_RUN_BYTES = 24

#: Voxels that are encoded at once: the limit of :func:`scan_runs` is 2³¹.
_VOXELS_AT_ONCE = 2**30

#: Beyond every X: where a row has no further run.
_NOWHERE = np.int32(np.iinfo(np.int32).max)


@dataclass(frozen=True)
class MaskRuns:
    """A mask as runs.

    Parameters
    ----------
    row : (R,) int64 ndarray
        ``z · Y + y``, ascending.
    start, stop : (R,) int32 ndarray
        Half-open range along X.
    """

    row: np.ndarray
    start: np.ndarray
    stop: np.ndarray

    @property
    def count(self) -> int:
        """Number of runs."""
        return self.row.size

    @property
    def voxel_count(self) -> int:
        """Number of voxels."""
        return int(np.sum(self.stop, dtype=np.int64) - np.sum(self.start, dtype=np.int64))

    def take(self, chosen: np.ndarray | slice) -> MaskRuns:
        """Return some of the runs (a slice, a bool array or ascending indices) as a mask, without labels."""
        return MaskRuns(self.row[chosen], self.start[chosen], self.stop[chosen])


@dataclass(frozen=True)
class LabelRuns(MaskRuns):
    """A label volume as runs of equal non-zero values.

    Parameters
    ----------
    row, start, stop : (R,) ndarray
        See :class:`MaskRuns`.
    value : (R,) int64 ndarray
        Label of each run, not 0.
    """

    value: np.ndarray


def encode_runs(labels: np.ndarray, first_slice: int = 0) -> LabelRuns:
    """Turn a slab of labels into its runs.

    Parameters
    ----------
    labels : (Z, Y, X) bool or integer ndarray
        A mask or labels that fit int64.  Besides the runs, nothing is allocated for C-ordered input.
    first_slice : int
        Z of the slab in its volume.

    Returns
    -------
    LabelRuns
        Rows count those of the volume, so that slabs in order are joined by :func:`join_slabs`.
    """
    depth, height, width = labels.shape
    step = max(_VOXELS_AT_ONCE // max(height * width, 1), 1)
    pieces = []
    for begin in range(0, depth, step):
        row, start, stop, value = scan_runs(labels[begin : begin + step])
        row = row.astype(np.int64)
        row += (first_slice + begin) * height
        pieces.append(LabelRuns(row, start, stop, value.astype(np.int64)))
    return join_slabs(pieces)


def join_slabs(slabs: Sequence[LabelRuns]) -> LabelRuns:
    """Join the runs of slabs, which are given in ascending order of Z."""
    if len(slabs) == 1:
        return slabs[0]
    if not slabs:
        return LabelRuns(
            np.empty(0, np.int64), *(np.empty(0, np.int32) for _ in range(2)), np.empty(0, np.int64)
        )
    names = ("row", "start", "stop", "value")
    return LabelRuns(*(np.concatenate([getattr(slab, name) for slab in slabs]) for name in names))


def empty_runs() -> MaskRuns:
    """Return the runs of an empty mask."""
    return MaskRuns(np.empty(0, np.int64), np.empty(0, np.int32), np.empty(0, np.int32))


@njit(nogil=True, cache=True)
def _sweep(row_a, start_a, stop_a, row_b, start_b, stop_b, only_a, only_b, both, row, start, stop):
    """Write where exactly the wanted of two sets of runs are present; return the number of runs."""
    count, i, j = 0, 0, 0
    size_a, size_b = row_a.size, row_b.size
    while i < size_a or j < size_b:
        if j >= size_b or (i < size_a and row_a[i] < row_b[j]):
            line = row_a[i]
        else:
            line = row_b[j]
        in_a, in_b, inside = False, False, False
        while True:
            has_a = i < size_a and row_a[i] == line
            has_b = j < size_b and row_b[j] == line
            if not has_a and not has_b:
                break
            # The next X at which either of the two begins or ends.
            next_a = _NOWHERE if not has_a else stop_a[i] if in_a else start_a[i]
            next_b = _NOWHERE if not has_b else stop_b[j] if in_b else start_b[j]
            x = min(next_a, next_b)
            if has_a and next_a == x:
                i += in_a
                in_a = not in_a
            if has_b and next_b == x:
                j += in_b
                in_b = not in_b
            wanted = both if in_a and in_b else (only_a if in_a else only_b and in_b)
            if wanted == inside:
                continue
            inside = wanted
            if not wanted:
                stop[count] = x
                count += 1
            elif count and row[count - 1] == line and stop[count - 1] == x:
                # It goes on where the last one ended: one run.
                count -= 1
            else:
                row[count], start[count] = line, x
            # Runs of the other that touch end and begin at one X: what lies between has no voxel.
            if count and not wanted and start[count - 1] == x:
                count -= 1
    return count


def _combine(first: MaskRuns, second: MaskRuns, only_first: bool, only_second: bool, both: bool) -> MaskRuns:
    # A run begins where a run of one of the two begins or ends, and ends at another such place.
    room = first.count + second.count
    row, start, stop = np.empty(room, np.int64), np.empty(room, np.int32), np.empty(room, np.int32)
    count = _sweep(
        first.row, first.start, first.stop, second.row, second.start, second.stop,
        only_first, only_second, both, row, start, stop,
    )  # fmt: skip
    if count == room:
        return MaskRuns(row, start, stop)
    return MaskRuns(row[:count].copy(), start[:count].copy(), stop[:count].copy())


def union_of(first: MaskRuns, second: MaskRuns) -> MaskRuns:
    """Return the voxels of either mask."""
    return _combine(first, second, True, True, True)


def intersection_of(first: MaskRuns, second: MaskRuns) -> MaskRuns:
    """Return the voxels of both masks."""
    return _combine(first, second, False, False, True)


def difference_of(first: MaskRuns, second: MaskRuns) -> MaskRuns:
    """Return the voxels of the first mask that are not in the second."""
    return _combine(first, second, True, False, False)


def merge_touching(runs: MaskRuns) -> MaskRuns:
    """Make one run of those that touch, whatever their labels."""
    return _combine(runs, empty_runs(), True, False, False)


def complement_of(runs: MaskRuns, shape: Sequence[int]) -> MaskRuns:
    """Return the voxels of a box, (Z, Y, X), that the mask leaves out."""
    depth, height, width = shape
    rows = np.arange(depth * height, dtype=np.int64)
    whole = MaskRuns(rows, np.zeros(rows.size, np.int32), np.full(rows.size, width, np.int32))
    return difference_of(whole, runs)


def select_labels(runs: LabelRuns, values: Sequence[int] = ()) -> MaskRuns:
    """Make one mask of some labels.

    Parameters
    ----------
    runs : LabelRuns
    values : sequence of int
        Labels to take; every one where empty.

    Returns
    -------
    MaskRuns
    """
    if not len(values):
        return merge_touching(runs)
    return merge_touching(runs.take(np.isin(runs.value, np.asarray(values, np.int64))))


@njit(nogil=True, cache=True)
def _restrict(
    row, start, stop, value, mask_row, mask_start, mask_stop, out_row, out_start, out_stop, out_value
):
    """Count the parts of runs that lie in a mask, and write them where there is room."""
    count = 0
    for run in range(mask_row.size):
        at = np.searchsorted(row, mask_row[run])
        while at < row.size and row[at] == mask_row[run] and start[at] < mask_stop[run]:
            first, last = max(start[at], mask_start[run]), min(stop[at], mask_stop[run])
            if first < last:
                if out_row.size:
                    out_row[count], out_value[count] = row[at], value[at]
                    out_start[count], out_stop[count] = first, last
                count += 1
            at += 1
    return count


def restrict_labels(runs: LabelRuns, mask: MaskRuns) -> LabelRuns:
    """Return the labels within a mask; the cost is that of the mask's rows, not of all labels."""
    nothing = (np.empty(0, np.int64), np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.int64))
    given = (runs.row, runs.start, runs.stop, runs.value, mask.row, mask.start, mask.stop)
    room = [np.empty(_restrict(*given, *nothing), array.dtype) for array in nothing]
    _restrict(*given, *room)
    return LabelRuns(*room)


def bounding_box(runs: MaskRuns, height: int) -> Region:
    """Return the box around a mask that is not empty, in a volume of `height` rows a slice."""
    if not runs.count:
        raise ValueError("an empty mask has no bounding box")
    y = runs.row % height
    return (
        (int(runs.row[0]) // height, int(runs.row[-1]) // height + 1),
        (int(y.min()), int(y.max()) + 1),
        (int(runs.start.min()), int(runs.stop.max())),
    )


@njit(nogil=True, cache=True)
def _cut(row, start, stop, height, y0, y1, x0, x1, z0, out_row, out_start, out_stop):
    count = 0
    for run in range(row.size):
        z, y = row[run] // height, row[run] % height
        first, last = max(np.int64(start[run]), x0), min(np.int64(stop[run]), x1)
        if y0 <= y < y1 and first < last:
            out_row[count] = (z - z0) * (y1 - y0) + y - y0
            out_start[count], out_stop[count] = first - x0, last - x0
            count += 1
    return count


def _rows_of(runs: MaskRuns, z0: int, z1: int, height: int) -> slice:
    return slice(*np.searchsorted(runs.row, [z0 * height, z1 * height]))


def crop_runs(runs: MaskRuns, region: Region, height: int) -> MaskRuns:
    """Take a box out of a mask.

    Parameters
    ----------
    runs : MaskRuns
        Of a volume.
    region : Region
        The box; what of it lies outside the volume is background.
    height : int
        Y of the volume.

    Returns
    -------
    MaskRuns
        In the box: rows and X begin at its corner, and its Y is the number of rows a slice.
    """
    (z0, z1), (y0, y1), (x0, x1) = region
    inside = runs.take(_rows_of(runs, z0, z1, height))
    row, start, stop = (np.empty(inside.count, kind) for kind in (np.int64, np.int32, np.int32))
    count = _cut(inside.row, inside.start, inside.stop, height, y0, y1, x0, x1, z0, row, start, stop)
    return MaskRuns(row[:count].copy(), start[:count].copy(), stop[:count].copy())


def place_runs(runs: MaskRuns, region: Region, height: int) -> MaskRuns:
    """Put the runs of a box back into the volume: undo :func:`crop_runs`."""
    (z0, _), (y0, y1), (x0, _) = region
    z, y = np.divmod(runs.row, y1 - y0)
    return MaskRuns((z + z0) * height + y + y0, runs.start + np.int32(x0), runs.stop + np.int32(x0))


@njit(nogil=True, cache=True)
def _paint(out, row, start, stop, height, z0, y0, x0):
    depth, rows, width = out.shape
    for run in range(row.size):
        z, y = row[run] // height - z0, row[run] % height - y0
        if 0 <= y < rows:
            line = out[z, y]
            for x in range(max(start[run] - x0, 0), min(stop[run] - x0, width)):
                line[x] = True


def paint_mask(runs: MaskRuns, region: Region, height: int) -> np.ndarray:
    """Paint a box of a mask.

    Parameters
    ----------
    runs : MaskRuns
        Of a volume.
    region : Region
        The box; what of it lies outside the volume is background.
    height : int
        Y of the volume.

    Returns
    -------
    (dz, dy, dx) bool ndarray
        One byte a voxel, and nothing else.
    """
    (z0, z1), (y0, _), (x0, _) = region
    out = np.zeros(region_shape(region), bool)
    inside = runs.take(_rows_of(runs, z0, z1, height))
    _paint(out, inside.row, inside.start, inside.stop, height, z0, y0, x0)
    return out
