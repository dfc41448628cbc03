"""From files and masks to the membranes of a cleaned cell, and back from its crop into the volume."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from cytomill.kernels.blocks import Region
from cytomill.kernels.devices import to_host
from cytomill.kernels.mask_runs import encode_runs
from cytomill.partitioning.loader import require_file
from cytomill.partitioning.mask_values import as_masks, check_shapes
from cytomill.partitioning.masks import CellMask, FoundCells, find_cells
from cytomill.partitioning.pairing import nucleus_center, surface_points
from cytomill.partitioning.smoothing import smooth_mask
from cytomill.storage.volumes import open_volume, parse_selector

#: Background around a cell, for its surface.
MARGIN_VOXELS = 2


def read_mask(
    path: str | os.PathLike, labels: Sequence[int], name: str
) -> tuple[np.ndarray, tuple[float, ...] | None]:
    """A mask, read slab by slab, and the voxel size of its file."""
    require_file(parse_selector(os.fspath(path))[0])
    with open_volume(path) as volume:
        mask = np.empty(volume.shape, bool)
        depth = max(1, volume.chunks[0])
        for z, slab in volume.slabs(depth):
            values = as_masks(slab, f"{name} ({volume.path})", z)
            mask[z : z + depth] = np.isin(values, labels) if labels else values
        return mask, volume.voxel_size_nm


def as_volume_points(points: Any) -> np.ndarray:
    """Points on the host, those of a plane as points of a volume."""
    points = to_host(points)
    return np.insert(points, 0, 0, axis=-1) if points.shape[-1:] == (2,) else points


def crop_of(cell: CellMask) -> Region:
    """The box of a cell with a margin of background, but where the volume cuts it.

    The crop may reach beyond the volume, where painting puts background; so `cell.cut_faces` are its own.
    """
    return tuple(
        (low - MARGIN_VOXELS * (not first), high + MARGIN_VOXELS * (not last))
        for (low, high), (first, last) in zip(cell.box, cell.cut_faces.tolist(), strict=True)
    )


def clean_cells(
    pm_mask: np.ndarray,
    ne_mask: np.ndarray,
    pm_labels: Sequence[int],
    ne_labels: Sequence[int],
    cells: str,
    voxel_size_nm: Sequence[float],
) -> tuple[FoundCells, tuple[str, ...]]:
    """Cells of two volumes, cleaned, and what was changed.

    Parameters
    ----------
    pm_mask, ne_mask : (Z, Y, X) or (Y, X) ndarray
        Masks or labels; a bool mask has no labels to choose from.
    pm_labels, ne_labels, cells, voxel_size_nm
        As for :func:`~cytomill.partitioning.masks.find_cells`.

    Raises
    ------
    ValueError
        If the arrays are no masks of one shape, or no cell is left; one sentence.
    """
    check_shapes(np.shape(ne_mask), np.shape(pm_mask))
    pm, ne = as_masks(pm_mask, "the PM mask"), as_masks(ne_mask, "the NE mask")
    pm_runs = encode_runs(pm)
    found = find_cells(
        pm_runs,
        pm_runs if ne_mask is pm_mask else encode_runs(ne),
        pm.shape,
        pm_labels=() if pm.dtype == bool else pm_labels,
        ne_labels=() if ne.dtype == bool else ne_labels,
        cells=cells,
        voxel_size_nm=voxel_size_nm,
    )
    if not found.cells:
        reasons = [refused.reason for refused in found.refused] or found.notes
        raise ValueError(reasons[0])
    refusals = (f"cell {refused.label} left out: {refused.reason}" for refused in found.refused)
    return found, (*found.notes, *(note for cell in found.cells for note in cell.notes), *refusals)


def membrane_points(
    cell: CellMask, smooth_sigma: float, smooth_close_iter: int, voxel_size_nm: Sequence[float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centre of the nucleus, and points (N, 3) on the NE and on the PM, (Z, Y, X) in voxels of the volume.

    Raises
    ------
    ValueError
        If smoothing leaves nothing of the nucleus or the cell.
    """
    crop = crop_of(cell)
    corner = np.array([low for low, _ in crop])
    masks = cell.paint(crop)
    center = nucleus_center(masks[0]) + corner
    edges = []
    for name, mask in zip(("nucleus", "cell"), masks, strict=True):
        if smooth_sigma > 0:
            mask = smooth_mask(mask, smooth_sigma, smooth_close_iter).view(bool)
            if not mask.any():
                raise ValueError(
                    f"nothing of the {name} is left after smoothing by {smooth_sigma} voxels: use a smaller "
                    "smooth_sigma (0: none)"
                )
        edges.append(surface_points(mask, cell.cut_faces, voxel_size_nm) + corner)
    return center, edges[0], edges[1]


def place_shells(parts: Iterable[tuple[Region, np.ndarray]], volume: Sequence[int]) -> np.ndarray:
    """Shells of crops in a volume of 0; what lies outside of it is cut."""
    whole = np.zeros(tuple(volume), np.uint8)
    for crop, shells in parts:
        inside = [(max(0, low), min(size, high)) for (low, high), size in zip(crop, volume, strict=True)]
        place = whole[tuple(slice(*bounds) for bounds in inside)]
        source = tuple(slice(a - low, b - low) for (a, b), (low, _) in zip(inside, crop, strict=True))
        np.maximum(place, shells[source], out=place)
    return whole


def paint_edge(edge: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """The voxels of an edge."""
    mask = np.zeros(tuple(shape), bool)
    voxels = np.rint(edge[:, -len(shape) :]).astype(np.int64)
    # A surface point may lie half a voxel outside.
    voxels = np.clip(voxels, 0, np.array(shape) - 1)
    mask[tuple(voxels.T)] = True
    return mask
