"""The cells of a dataset as arrays: found and cleaned once on rank 0, known to every rank from then on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, prod

import numpy as np

from cytomill.kernels.blocks import Region, region_shape
from cytomill.kernels.mask_runs import LabelRuns, MaskRuns, paint_mask
from cytomill.partitioning.config import PartitioningConfig
from cytomill.partitioning.masks import find_cells
from cytomill.runtime.arrays import text_array
from cytomill.runtime.stage import Arrays

#: Background that surface estimation wants around a cell, voxels.
LEAST_PADDING = 3

_RUNS = ("row", "start", "stop")


@dataclass(frozen=True)
class RosterCell:
    """One cell.

    Parameters
    ----------
    index : int
        Position in the roster.
    label : int
        Its id in the input; 1 where the volume is one cell.
    region : Region
        The box around it, with the margin in which distances are known.
    cut_faces : (3, 2) bool ndarray
        Where the box ends at a face of the volume that cuts the cell.
    nucleus, cell : MaskRuns
        Cleaned masks, in the volume.
    height : int
        Rows of the volume a slice.
    """

    index: int
    label: int
    region: Region
    cut_faces: np.ndarray
    nucleus: MaskRuns
    cell: MaskRuns
    height: int

    @property
    def voxels(self) -> int:
        """Voxels of the box."""
        return prod(region_shape(self.region))

    def mask(self, name: str, region: Region) -> np.ndarray:
        """Its ``nucleus`` or ``cell`` in a box, bool (Z, Y, X)."""
        return paint_mask(getattr(self, name), region, self.height)

    def masks(self, region: Region) -> tuple[np.ndarray, np.ndarray]:
        """Nucleus and cell in a box, bool (Z, Y, X)."""
        return self.mask("nucleus", region), self.mask("cell", region)


def find_roster(
    cells: LabelRuns,
    nuclei: LabelRuns,
    shape: tuple[int, int, int],
    voxel_size_nm: tuple[float, float, float],
    config: PartitioningConfig,
) -> Arrays:
    """Find and clean the cells of a dataset (rank 0).

    Parameters
    ----------
    cells, nuclei : LabelRuns
        Of the whole volumes.
    shape : tuple of int
        Of the volumes (Z, Y, X).
    voxel_size_nm : tuple of float
        (Z, Y, X).
    config : PartitioningConfig
        Which labels are what.

    Returns
    -------
    dict of str to ndarray
        To be read by :func:`read_roster`; further `cell_voxels`, `nucleus_voxels`, `nuclei`, `note` a cell,
        `refused_label` and `refused_sentence` a cell that cannot be used, and `notes`.

    Raises
    ------
    ValueError
        Not one cell can be used; one sentence.
    """
    survey = find_cells(
        cells,
        nuclei,
        shape,
        pm_labels=config.pm_labels,
        ne_labels=config.ne_labels,
        cells=config.cells,
        voxel_size_nm=voxel_size_nm,
    )
    found = survey.cells
    if not found:
        reasons = "; ".join(cell.reason for cell in survey.refused[:3]) or "the cell mask is empty"
        raise ValueError(f"no cell can be partitioned: {reasons}")
    regions = [padded_box(cell.box, shape, voxel_size_nm, config.adsorbed_nm) for cell in found]
    arrays = {
        "label": np.array([cell.label for cell in found], np.int64),
        "region": np.array(regions, np.int64),
        "cut_faces": np.array([cell.cut_faces for cell in found], bool),
        "cell_voxels": np.array([cell.cell.voxel_count for cell in found], np.int64),
        "nucleus_voxels": np.array([cell.nucleus.voxel_count for cell in found], np.int64),
        "nuclei": np.array([cell.nuclei for cell in found], np.int64),
        "note": text_array(["; ".join(cell.notes) for cell in found]),
        "refused_label": np.array([cell.label for cell in survey.refused], np.int64),
        "refused_sentence": text_array([cell.reason for cell in survey.refused]),
        "notes": text_array(survey.notes),
    }
    for name in ("cell", "nucleus"):
        masks = [getattr(cell, name) for cell in found]
        arrays[f"{name}_offsets"] = np.cumsum([0, *(mask.count for mask in masks)])
        for key in _RUNS:
            arrays[f"{name}_{key}"] = np.concatenate([getattr(mask, key) for mask in masks])
    return arrays


def padded_box(
    box: Region, shape: Sequence[int], voxel_size_nm: Sequence[float], margin_nm: float
) -> list[tuple[int, int]]:
    """The box around a cell with room for its surface and the margin, within the volume."""
    padded = []
    for (start, stop), length, size in zip(box, shape, voxel_size_nm, strict=True):
        padding = LEAST_PADDING + ceil(margin_nm / size)
        padded.append((max(start - padding, 0), min(stop + padding, length)))
    return padded


def read_roster(arrays: Arrays, height: int) -> list[RosterCell]:
    """The cells of :func:`find_roster`, in a volume of `height` rows a slice."""
    cells = []
    for index, label in enumerate(arrays["label"].tolist()):
        masks = {}
        for name in ("nucleus", "cell"):
            own = slice(*arrays[f"{name}_offsets"][index : index + 2])
            masks[name] = MaskRuns(*(arrays[f"{name}_{key}"][own] for key in _RUNS))
        region = tuple((int(a), int(b)) for a, b in arrays["region"][index])
        cut = arrays["cut_faces"][index].astype(bool)
        cells.append(RosterCell(index, label, region, cut, **masks, height=height))
    return cells
