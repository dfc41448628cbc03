"""Which voxels are the cell and its nucleus: rules that turn two given masks into a cleaned pair.

Everything is done on runs (:mod:`cytomill.kernels.mask_runs`), so that a cell of any size is cleaned in
some tens of megabytes; a unit paints only the crop that it needs.  The rules, in order:

1. Labels: the cell is all voxels of `pm_labels`, the nucleus all of `ne_labels` (empty: every non-zero
   voxel); of many cells, cell i has cell label i and nucleus label i.
2. Holes of both are filled: background (6-connected) that does not reach the volume's border.  A hole
   that reaches a face of the volume is filled as well where the mask surrounds it within the face's
   plane: a cut membrane, or an organelle left out of the mask and cut in half, opens a cell no more
   than the cut itself does.
3. A component of the nucleus belongs to the cell where at least half of its voxels lie inside.  Where
   fewer do, but the cell wraps at least half of its surface, the cell was given without its nucleus
   and the two are united (and filled again).  A thin membrane that faces of the volume cut open, as at
   a corner, is filled on the side on which the nucleus lies.  Other nuclei are outside and dropped.
4. The cell is its largest component (26-connected) that holds nucleus; the nucleus is clipped to it.
5. Components of the nucleus smaller than a share of the largest are specks and dropped; of those left,
   the union is the nucleus.
6. Nothing of the nucleus left, or nothing of the cytoplasm: the cell is refused with a sentence.

Both results are free of holes, the nucleus lies in the cell, and the cell is one component.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from cytomill.kernels.blocks import Region
from cytomill.kernels.mask_runs import (
    LabelRuns,
    MaskRuns,
    encode_runs,
    intersection_of,
    paint_mask,
    select_labels,
)
from cytomill.kernels.run_tables import LabelTable, split_labels, tabulate
from cytomill.partitioning.config import CELLS
from cytomill.partitioning.mask_rules import (
    CellRefused,
    Rules,
    choose_component,
    clipped_voxels,
    cut_fraction,
    drop_specks,
    face_names,
    join_nuclei,
    naked_faces,
    percent,
    plural,
    without_other_cells,
)
from cytomill.partitioning.mask_values import as_masks, check_shapes

#: Labels that a sentence lists.
_LISTED = 8


@dataclass(frozen=True)
class CellMask:
    """A cleaned cell in its volume.

    Parameters
    ----------
    label : int
        The cell's label where there are many, else 1.
    shape : (Z, Y, X)
        Of the volume.
    nucleus, cell : MaskRuns
        In the volume; the cell contains the nucleus.
    box : Region
        Around the cell.
    cut_faces : (3, 2) bool ndarray
        Where the cell reaches the first or last plane of an axis of the volume; both of Z for an image.
    cut_fraction : float
        Estimated share of the cell's surface (outline, for an image) that is such a cut.
    cell_voxels, nucleus_voxels : int
    nuclei : int
        Components of the nucleus.
    notes : tuple of str
        What the rules changed, a sentence each.
    """

    label: int
    shape: tuple[int, int, int]
    nucleus: MaskRuns
    cell: MaskRuns
    box: Region
    cut_faces: np.ndarray
    cut_fraction: float
    cell_voxels: int
    nucleus_voxels: int
    nuclei: int
    notes: tuple[str, ...] = ()

    @property
    def cytoplasm_voxels(self) -> int:
        """Voxels of the cell without its nucleus."""
        return self.cell_voxels - self.nucleus_voxels

    def paint(self, region: Region) -> tuple[np.ndarray, np.ndarray]:
        """Paint a region of nucleus and cell: two bool arrays, background outside the volume."""
        return tuple(paint_mask(runs, region, self.shape[1]) for runs in (self.nucleus, self.cell))


class RefusedCell(NamedTuple):
    """A cell that was left out, and the sentence that says why."""

    label: int
    reason: str


class FoundCells(NamedTuple):
    """All cells of a volume: those cleaned (ascending labels), those refused, notes on the volume."""

    cells: list[CellMask]
    refused: list[RefusedCell]
    notes: list[str]


def _clean(
    label: int, cell: MaskRuns, nucleus: MaskRuns, rules: Rules, labels: LabelRuns | None = None
) -> CellMask:
    """Apply all rules to one cell; `labels` are all cells of the volume, which keep their voxels."""
    notes: list[str] = []
    given, given_nucleus = cell, nucleus.voxel_count
    cell, nucleus = rules.fill(cell), rules.fill(nucleus)
    for name, before, after in (("cell", given.voxel_count, cell), ("nucleus", given_nucleus, nucleus)):
        if after.voxel_count > before:
            notes.append(f"holes of the {name} filled ({plural(after.voxel_count - before, 'voxel')})")
    filled_nucleus = nucleus
    cell, nucleus = join_nuclei(cell, nucleus, rules, notes)
    cell, nucleus = choose_component(cell, nucleus, rules, notes)
    if labels is not None:
        cell = without_other_cells(label, cell, given, labels, notes)
        nucleus = intersection_of(nucleus, cell)
    if not nucleus.count:
        raise CellRefused(
            "nothing of the nucleus is left inside the cell: check that the masks belong together"
        )
    nucleus, nuclei = drop_specks(nucleus, rules, notes)
    clipped = clipped_voxels(filled_nucleus, nucleus, rules)
    if clipped:
        share = clipped / (clipped + nucleus.voxel_count)
        notes.append(f"{percent(share)} of the nucleus ({plural(clipped, 'voxel')}) outside the cell clipped")

    table, inner = tabulate(cell, rules.shape), tabulate(nucleus, rules.shape)
    cell_voxels, nucleus_voxels = int(table.voxel_count[0]), int(inner.voxel_count[0])
    if cell_voxels == nucleus_voxels:
        raise CellRefused(
            f"the nucleus fills the cell ({plural(cell_voxels, 'voxel')}), no cytoplasm is left: "
            "check pm_labels and ne_labels, and that the masks are not swapped"
        )
    naked = naked_faces(nucleus, cell, rules.shape)
    if naked:
        notes.append(f"the nucleus touches the outside at {plural(naked, 'voxel face')}: no cytoplasm there")
    cut_faces = table.face_voxels[0] > 0
    cut = cut_fraction(cell, table.face_voxels[0], rules)
    if cut:
        faces = face_names(cut_faces, rules.shape)
        notes.append(f"cut by the volume at {faces}: about {percent(cut)} of its surface is no membrane")
    box = tuple((int(low), int(high)) for low, high in table.box[0])
    return CellMask(
        label, rules.shape, cell=cell, nucleus=nucleus, box=box, cut_faces=cut_faces, cut_fraction=cut,
        cell_voxels=cell_voxels, nucleus_voxels=nucleus_voxels, nuclei=nuclei, notes=tuple(notes),
    )  # fmt: skip


def _listed(values: np.ndarray) -> str:
    text = ", ".join(str(value) for value in values[:_LISTED])
    return text + (f" … ({values.size} in all)" if values.size > _LISTED else "")


def _select(
    runs: LabelRuns, table: LabelTable, wanted: Sequence[int], name: str, notes: list[str]
) -> MaskRuns:
    missing = [value for value in wanted if value not in table.value]
    option = "ne_labels" if name == "nucleus" else "pm_labels"
    if not table.value.size:
        raise CellRefused(f"the {name} mask is empty: no voxel of the volume is set")
    if wanted and len(missing) == len(wanted):
        raise CellRefused(
            f"the {name} mask is empty: none of {option} = {list(wanted)} is in the volume, "
            f"which has the labels {_listed(table.value)}"
        )
    if missing:
        notes.append(f"not in the volume: {option} {_listed(np.array(missing))}")
    return select_labels(runs, wanted)


def _are_many(cells: LabelTable, nuclei: LabelTable) -> bool:
    """Guess whether labels are cells: several, most of them with a nucleus of the same label."""
    shared = np.isin(cells.value, nuclei.value).sum()
    return cells.value.size > 1 and 2 * int(shared) > cells.value.size


def find_cells(
    cell_runs: LabelRuns,
    nucleus_runs: LabelRuns,
    shape: Sequence[int],
    *,
    pm_labels: Sequence[int] = (),
    ne_labels: Sequence[int] = (),
    cells: str = "auto",
    smallest_nucleus: float = 0.1,
    fill_cut_faces: bool = True,
    voxel_size_nm: Sequence[float] = (1.0, 1.0, 1.0),
) -> FoundCells:
    """Find and clean the cells of a volume.

    Memory: about 110 bytes a run given, besides those (measured on one cell with its nucleus).

    Parameters
    ----------
    cell_runs, nucleus_runs : LabelRuns
        Of the volumes with the cell (PM) and the nucleus (NE); they may be one and the same.
    shape : sequence of int
        Of both volumes, (Z, Y, X).
    pm_labels, ne_labels : sequence of int
        Labels that make up the cell and the nucleus; every non-zero voxel where empty.  A cell may be
        given with or without its nucleus, or as a closed membrane only.  Of many cells, `pm_labels` are
        those to take (all where empty) and `ne_labels` has no meaning.
    cells : {"auto", "one", "many"}
        The volume holds one cell, of label 1; or cell label i belongs with nucleus label i.  "auto"
        takes two volumes without `pm_labels` and `ne_labels` as many cells where the first has several
        labels and the second has more than half of them, and says so.
    smallest_nucleus : float
        In [0, 1]: components of a nucleus below this share of its largest are specks.
    fill_cut_faces : bool
        Whether holes open to a face of the volume are filled where surrounded within it.
    voxel_size_nm : sequence of float
        (Z, Y, X); weighs the areas in `cut_fraction`, nothing else.

    Returns
    -------
    FoundCells
        Cells that could be cleaned, those that could not with a sentence each, and notes.

    Raises
    ------
    ValueError
        For another value of `cells`.
    """
    if cells not in CELLS:
        raise ValueError(f"cells must be one of {', '.join(CELLS)}, found {cells!r}")
    rules = Rules(tuple(shape), smallest_nucleus, fill_cut_faces, tuple(voxel_size_nm))
    found = FoundCells([], [], [])
    cell_table, nucleus_table = tabulate(cell_runs, shape), tabulate(nucleus_runs, shape)
    if cells == "auto" and not (pm_labels or ne_labels or cell_runs is nucleus_runs):
        cells = "many" if _are_many(cell_table, nucleus_table) else "one"
        if cell_table.value.size > 1:
            meaning = "one cell each" if cells == "many" else "one cell together"
            found.notes.append(f"{cell_table.value.size} labels in the cell volume taken as {meaning}")
    if cells != "many":
        try:
            cell = _select(cell_runs, cell_table, pm_labels, "cell", found.notes)
            nucleus = _select(nucleus_runs, nucleus_table, ne_labels, "nucleus", found.notes)
            found.cells.append(_clean(1, cell, nucleus, rules))
        except CellRefused as refusal:
            found.refused.append(RefusedCell(1, str(refusal)))
        return found
    masks = dict(zip(cell_table.value.tolist(), split_labels(cell_runs, cell_table), strict=True))
    nuclei = dict(zip(nucleus_table.value.tolist(), split_labels(nucleus_runs, nucleus_table), strict=True))
    for label in sorted(set(pm_labels)) or masks:
        try:
            for present, name in ((masks, "cell"), (nuclei, "nucleus")):
                if label not in present:
                    raise CellRefused(f"the {name} volume has no label {label}")
            found.cells.append(_clean(label, masks[label], nuclei[label], rules, cell_runs))
        except CellRefused as refusal:
            found.refused.append(RefusedCell(label, str(refusal)))
    alone = np.setdiff1d(nucleus_table.value, cell_table.value)
    if alone.size:
        found.notes.append(f"nucleus labels without a cell of the same label: {_listed(alone)}")
    if not masks:
        found.notes.append("the cell volume is empty: no voxel is set")
    return found


def clean_pair(
    nucleus: np.ndarray, cell: np.ndarray, **rules: object
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Clean a nucleus and a cell that lie in memory, by the rules of :func:`find_cells`.

    Parameters
    ----------
    nucleus, cell : (Z, Y, X) or (Y, X) ndarray
        Masks or labels of any dtype that :func:`as_masks` accepts.
    **rules
        Keywords of :func:`find_cells`, but for `cells`: there is one.

    Returns
    -------
    nucleus, cell : bool ndarray
        Cleaned, of the shape given.
    notes : tuple of str

    Raises
    ------
    ValueError
        Where shapes differ, values are no labels, or the cell cannot be partitioned.
    """
    check_shapes(np.shape(nucleus), np.shape(cell))
    given = np.shape(cell)
    cell_labels, nucleus_labels = as_masks(cell, "the PM mask"), as_masks(nucleus, "the NE mask")
    shape = cell_labels.shape
    found = find_cells(encode_runs(cell_labels), encode_runs(nucleus_labels), shape, cells="one", **rules)
    if found.refused:
        raise CellRefused(found.refused[0].reason)
    (mask,) = found.cells
    painted = mask.paint(tuple((0, size) for size in shape))
    return painted[0].reshape(given), painted[1].reshape(given), (*found.notes, *mask.notes)
