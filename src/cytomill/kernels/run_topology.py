"""Components, holes and contacts of masks that are given as runs.

Foreground is connected by faces, edges or corners (26 neighbours), background by faces alone (6), so
that a closed membrane one voxel thick separates inside from outside.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit

from cytomill.kernels.blocks import region_shape
from cytomill.kernels.components import join_volume, number_components
from cytomill.kernels.mask_runs import (
    MaskRuns,
    bounding_box,
    complement_of,
    crop_runs,
    difference_of,
    encode_runs,
    intersection_of,
    merge_touching,
    paint_mask,
    place_runs,
    union_of,
)

#: How background that reaches the volume's faces is taken, see :func:`find_holes`.
FACES = ("open", "surrounded", "closed")


def label_components(
    runs: MaskRuns, shape: Sequence[int], connectivity: int = 3
) -> tuple[np.ndarray, np.ndarray]:
    """Find the connected components of a mask.

    Parameters
    ----------
    runs : MaskRuns
    shape : sequence of int
        Of the volume, (Z, Y, X).
    connectivity : {1, 2, 3}
        Voxels that share a face; or an edge; or a corner.

    Returns
    -------
    label : (R,) int32 ndarray
        Component of each run, 1 … n by first voxel in C order.
    voxel_count : (n,) int64 ndarray
        Voxels of each component.
    """
    parent = join_volume(runs.row, runs.start, runs.stop, shape[0], shape[1], connectivity)
    return number_components(parent, runs.start, runs.stop)


def _on_face(runs: MaskRuns, shape: Sequence[int], axis: int, side: int) -> np.ndarray:
    depth, height, width = shape
    if axis == 2:
        return runs.stop == width if side else runs.start == 0
    place = runs.row // height if axis == 0 else runs.row % height
    return place == (shape[axis] - 1 if side else 0)


def _plane_index(runs: MaskRuns, chosen: np.ndarray, height: int, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Return where, in the plane of a face, runs that touch the face begin."""
    z, y = np.divmod(runs.row[chosen], height)
    return ((y, runs.start[chosen]), (z, runs.start[chosen]), (z, y))[axis]


def _enclosed_in_face(runs: MaskRuns, shape: Sequence[int], axis: int, side: int) -> np.ndarray:
    """Mark the voxels of a face of the box that the mask surrounds within the face's plane."""
    region = [(0, size) for size in shape]
    region[axis] = (shape[axis] - 1, shape[axis]) if side else (0, 1)
    plane = np.moveaxis(paint_mask(runs, tuple(region), shape[1]), axis, 0)
    flat = encode_runs(plane)
    holes = find_holes(merge_touching(flat), plane.shape)
    return paint_mask(holes, tuple((0, size) for size in plane.shape), plane.shape[1])[0]


def find_holes(runs: MaskRuns, shape: Sequence[int], faces: str = "open") -> MaskRuns:
    """Find the holes of a mask: 6-connected background that does not reach the volume's border.

    In an image (Z = 1) only the borders in Y and X count.  Memory: about 60 bytes a run and a row of
    the mask's bounding box.

    Parameters
    ----------
    runs : MaskRuns
    shape : sequence of int
        Of the volume, (Z, Y, X).
    faces : {"open", "surrounded", "closed"}
        What a hole may reach.  "open": no face of the volume.  "surrounded": faces of the volume, but
        on each only in places that the mask surrounds within the face's plane.  So a membrane or an
        organelle that the volume's edge has cut open is closed there; a pocket that also opens
        elsewhere, or at an edge between two faces, stays outside.  (In an image a border is a line,
        and a bay between two protrusions would count as surrounded: there it is the same as "open".)
        "closed": every face of the volume, as long as the hole stays in the mask's bounding box, which
        it must leave no other way.

    Returns
    -------
    MaskRuns

    Raises
    ------
    ValueError
        For another value of `faces`.
    """
    if faces not in FACES:
        raise ValueError(f"faces must be one of {', '.join(FACES)}, got {faces!r}")
    if not runs.count:
        return runs
    height = shape[1]
    box = bounding_box(runs, height)
    size = region_shape(box)
    mask = crop_runs(runs, box, height)
    background = complement_of(mask, size)
    label, voxel_count = label_components(background, size, 1)
    is_outside = np.zeros(voxel_count.size + 1, bool)
    for axis in range(3):
        if axis == 0 and shape[0] == 1:
            continue
        for side in (0, 1):
            is_volume_face = box[axis][side] == (shape[axis] if side else 0)
            if is_volume_face and faces == "closed":
                continue
            touching = np.flatnonzero(_on_face(background, size, axis, side))
            if is_volume_face and faces == "surrounded" and shape[0] > 1 and touching.size:
                enclosed = _enclosed_in_face(mask, size, axis, side)
                touching = touching[~enclosed[_plane_index(background, touching, size[1], axis)]]
            is_outside[label[touching]] = True
    return place_runs(background.take(~is_outside[label]), box, height)


def fill_holes(runs: MaskRuns, shape: Sequence[int], faces: str = "open") -> MaskRuns:
    """Return the mask with its holes, see :func:`find_holes`."""
    return union_of(runs, find_holes(runs, shape, faces))


@njit(nogil=True, cache=True)
def _overlap(row_a, start_a, stop_a, label, row_b, start_b, stop_b, counts):
    i, j = 0, 0
    while i < row_a.size and j < row_b.size:
        if row_a[i] < row_b[j]:
            i += 1
        elif row_a[i] > row_b[j]:
            j += 1
        else:
            shared = min(stop_a[i], stop_b[j]) - max(start_a[i], start_b[j])
            if shared > 0:
                counts[label[i] - 1] += shared
            if stop_a[i] <= stop_b[j]:
                i += 1
            else:
                j += 1


def count_overlap(runs: MaskRuns, label: np.ndarray, count: int, other: MaskRuns) -> np.ndarray:
    """Count the voxels of each component that lie in another mask: (count,) int64, one pass.

    `label` is the component of each run, 1 … count, as :func:`label_components` gives it.
    """
    counts = np.zeros(count, np.int64)
    _overlap(runs.row, runs.start, runs.stop, label, other.row, other.start, other.stop, counts)
    return counts


def shift_runs(runs: MaskRuns, shape: Sequence[int], axis: int, step: int) -> MaskRuns:
    """Move a mask along an axis by whole voxels; what leaves the volume is lost."""
    depth, height, width = shape
    if axis == 2:
        start, stop = np.maximum(runs.start + step, 0), np.minimum(runs.stop + step, width)
        moved = MaskRuns(runs.row, start.astype(np.int32), stop.astype(np.int32))
        return moved.take(start < stop)
    place = (runs.row // height if axis == 0 else runs.row % height) + step
    moved = MaskRuns(runs.row + step * (height if axis == 0 else 1), runs.start, runs.stop)
    return moved.take((place >= 0) & (place < shape[axis]))


def _directions(shape: Sequence[int]) -> list[tuple[int, int]]:
    return [(axis, step) for axis in range(3) if shape[axis] > 1 for step in (-1, 1)]


def exposed_faces(runs: MaskRuns, shape: Sequence[int]) -> np.ndarray:
    """Count a mask's voxel faces that have background or the end of the volume behind them.

    Returns
    -------
    (3,) int64 ndarray
        Faces across each axis; 0 for an axis of one voxel.
    """
    faces = np.zeros(3, np.int64)
    for axis in range(3):
        if shape[axis] > 1:
            faces[axis] = 2 * difference_of(runs, shift_runs(runs, shape, axis, 1)).voxel_count
    return faces


def contact_fraction(runs: MaskRuns, other: MaskRuns, shape: Sequence[int], gap: int = 0) -> float:
    """Measure how far one mask is wrapped by another that it does not overlap.

    Parameters
    ----------
    runs, other : MaskRuns
    shape : sequence of int
        Of the volume, (Z, Y, X).
    gap : int
        Voxels of background that may lie between the two.

    Returns
    -------
    float
        Share of the first mask's voxel faces within the volume behind which, straight ahead, the other
        mask comes within `gap` voxels; 0 where there is no such face.
    """
    faces, contacts = 0, 0
    for axis, step in _directions(shape):
        ahead = difference_of(shift_runs(runs, shape, axis, step), runs)
        faces += ahead.voxel_count
        for _ in range(gap + 1):
            met = intersection_of(ahead, other)
            contacts += met.voxel_count
            ahead = difference_of(shift_runs(difference_of(ahead, met), shape, axis, step), runs)
    return contacts / faces if faces else 0.0
