"""The rules for one cell and its nucleus, as :mod:`cytomill.partitioning.masks` applies them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from cytomill.kernels.mask_runs import (
    LabelRuns,
    MaskRuns,
    difference_of,
    intersection_of,
    merge_touching,
    restrict_labels,
    union_of,
)
from cytomill.kernels.run_topology import (
    contact_fraction,
    count_overlap,
    exposed_faces,
    fill_holes,
    find_holes,
    label_components,
    shift_runs,
)

#: Share of a nucleus component's voxels inside the cell from which on it belongs to it.
INSIDE_FRACTION = 0.5
#: Share of its surface that the cell must wrap where the cell was given without its nucleus, and the
#: voxels of background that segmentations tend to leave between the two.
WRAPPED_FRACTION = 0.5
WRAPPED_GAP_VOXELS = 2
#: A surface of voxel faces is longer than the smooth one by the mean of |cos| summed over the axes.
_STAIRCASE = {2: 4 / np.pi, 3: 1.5}


class CellRefused(ValueError):
    """A cell that cannot be partitioned; the message is the sentence for the report."""


@dataclass(frozen=True)
class Rules:
    """What the rules go by; see :func:`cytomill.partitioning.masks.find_cells`."""

    shape: tuple[int, int, int]
    smallest_nucleus: float
    fill_cut_faces: bool
    voxel_size_nm: tuple[float, float, float]

    def fill(self, runs: MaskRuns) -> MaskRuns:
        """Return a mask with its holes filled."""
        return fill_holes(runs, self.shape, "surrounded" if self.fill_cut_faces else "open")


def face_names(cut_faces: np.ndarray, shape: Sequence[int]) -> str:
    """Name the faces of a volume that cut a cell: ``"z0,y1"``.

    Parameters
    ----------
    cut_faces : (3, 2) bool ndarray
        First and last plane of each axis.
    shape : sequence of int
        Of the volume; the two planes that bound an image are not what a cell is cut by.
    """
    cut = np.argwhere(cut_faces)
    return ",".join(f"{'zyx'[axis]}{side}" for axis, side in cut if shape[axis] > 1)


def plural(count: int, noun: str) -> str:
    """Write a number of things: ``"1,200 voxels"``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def percent(share: float) -> str:
    """Write a share as percent, three digits."""
    return f"{100 * share:.3g} %"


def join_nuclei(
    cell: MaskRuns, nucleus: MaskRuns, rules: Rules, notes: list[str]
) -> tuple[MaskRuns, MaskRuns]:
    """Return the cell, with nuclei that it was given without, and the nuclei in it (rule 3)."""
    label, sizes = label_components(nucleus, rules.shape)
    inside = count_overlap(nucleus, label, sizes.size, cell)
    if not (inside >= INSIDE_FRACTION * sizes).any():
        cell = close_at_faces(cell, nucleus, rules, notes)
        inside = count_overlap(nucleus, label, sizes.size, cell)
    belongs = inside >= INSIDE_FRACTION * sizes
    joined, wrapped = [], 0.0
    for component in np.flatnonzero(~belongs & (sizes >= rules.smallest_nucleus * sizes.max())):
        part = nucleus.take(label == component + 1)
        share = contact_fraction(part, cell, rules.shape, WRAPPED_GAP_VOXELS)
        wrapped = max(wrapped, share)
        if share >= WRAPPED_FRACTION:
            joined.append(component)
    belongs[joined] = True
    if not belongs.any():
        raise CellRefused(
            f"the nucleus lies outside the cell: {percent(inside.sum() / sizes.sum())} of its voxels are "
            f"inside, and the cell wraps at most {percent(wrapped)} of its surface; check that both masks "
            "belong to the same cell, are aligned and not swapped (a membrane must be closed but for cuts "
            "by the volume's faces)"
        )
    if not belongs.all():
        notes.append(
            f"{plural(int((~belongs).sum()), 'component')} of the nucleus mask "
            f"({plural(int(sizes[~belongs].sum()), 'voxel')}) outside the cell dropped"
        )
    keep = np.append(False, belongs)[label]
    kept = nucleus.take(keep)
    if joined:
        notes.append("the cell mask came without its nucleus: the two were united")
        cell = rules.fill(union_of(cell, kept))
    return cell, intersection_of(kept, cell)


def close_at_faces(cell: MaskRuns, nucleus: MaskRuns, rules: Rules, notes: list[str]) -> MaskRuns:
    """Fill the side with the nucleus of a membrane that the volume cuts open at several faces (rule 3).

    The membrane must divide the volume, and be thin: fewer voxels than the side.
    """
    pockets = find_holes(cell, rules.shape, "closed")
    if not pockets.count or not rules.fill_cut_faces:
        return cell
    label, sizes = label_components(pockets, rules.shape, 1)
    held = count_overlap(pockets, label, sizes.size, nucleus)
    chosen = int(np.argmax(held))
    both = cell.voxel_count + int(sizes[chosen])
    if 2 * held[chosen] < nucleus.voxel_count or both <= 2 * cell.voxel_count or both == prod(rules.shape):
        return cell
    notes.append(
        "the cell mask is a membrane that the volume's faces cut open: the side with the nucleus "
        f"({plural(int(sizes[chosen]), 'voxel')}) filled"
    )
    return union_of(cell, pockets.take(label == chosen + 1))


def choose_component(
    cell: MaskRuns, nucleus: MaskRuns, rules: Rules, notes: list[str]
) -> tuple[MaskRuns, MaskRuns]:
    """Return the cell's largest component with nucleus, and the nucleus in it (rule 4)."""
    label, sizes = label_components(cell, rules.shape)
    if sizes.size == 1:
        return cell, nucleus
    nucleus_voxels = count_overlap(cell, label, sizes.size, nucleus)
    chosen = int(np.argmax(np.where(nucleus_voxels > 0, sizes, 0)))
    others = sizes.size - 1
    note = (
        f"{plural(others, 'other component')} of the cell mask "
        f"({plural(int(sizes.sum() - sizes[chosen]), 'voxel')}) dropped"
    )
    if sizes[chosen] < sizes.max():
        note += f", one of them larger ({plural(int(sizes.max()), 'voxel')}) but without a nucleus"
    with_nucleus = int((nucleus_voxels > 0).sum()) - 1
    if with_nucleus:
        note += f", {with_nucleus} of them with nucleus (several cells need a label each)"
    notes.append(note)
    cell = cell.take(label == chosen + 1)
    return cell, intersection_of(nucleus, cell)


def drop_specks(nucleus: MaskRuns, rules: Rules, notes: list[str]) -> tuple[MaskRuns, int]:
    """Return the nucleus without specks, and the number of its components (rule 5)."""
    label, sizes = label_components(nucleus, rules.shape)
    keep = sizes >= rules.smallest_nucleus * sizes.max()
    if not keep.all():
        notes.append(
            f"{plural(int((~keep).sum()), 'speck')} of the nucleus mask "
            f"({plural(int(sizes[~keep].sum()), 'voxel')}) dropped, each below "
            f"{percent(rules.smallest_nucleus)} of the largest component"
        )
    nuclei = int(keep.sum())
    if nuclei > 1:
        notes.append(f"{nuclei} nuclei: their union is taken as the nucleus")
    return nucleus.take(np.append(False, keep)[label]), nuclei


def cut_fraction(cell: MaskRuns, face_voxels: np.ndarray, rules: Rules) -> float:
    """Estimate the share of a cell's surface that is a cut by the volume's faces."""
    size = np.array(rules.voxel_size_nm, float)
    across = np.array(rules.shape) > 1
    area = np.prod(np.where(across, size, 1)) / size * across
    cut = float((face_voxels.sum(1) * area).sum())
    surface = float((exposed_faces(cell, rules.shape) * area).sum())
    smooth = (surface - cut) / _STAIRCASE.get(int(across.sum()), 1)
    return cut / (cut + smooth) if cut else 0.0


def naked_faces(nucleus: MaskRuns, cell: MaskRuns, shape: Sequence[int]) -> int:
    """Count the nucleus's voxel faces within the volume that have no cell behind them."""
    steps = [(axis, step) for axis in range(3) if shape[axis] > 1 for step in (-1, 1)]
    return sum(difference_of(shift_runs(nucleus, shape, *step), cell).voxel_count for step in steps)


def clipped_voxels(before: MaskRuns, nucleus: MaskRuns, rules: Rules) -> int:
    """Count what was cut off those components of which something is left."""
    label, sizes = label_components(before, rules.shape)
    left = count_overlap(before, label, sizes.size, nucleus)
    return int((sizes - left)[left > 0].sum())


def without_other_cells(
    label: int, cell: MaskRuns, given: MaskRuns, labels: LabelRuns, notes: list[str]
) -> MaskRuns:
    """Give voxels that were filled in back to the cells whose labels they have."""
    within = restrict_labels(labels, difference_of(cell, given))
    foreign = merge_touching(within.take(within.value != label))
    if not foreign.count:
        return cell
    notes.append(f"{plural(foreign.voxel_count, 'enclosed voxel')} of other cells left to them")
    return difference_of(cell, foreign)
