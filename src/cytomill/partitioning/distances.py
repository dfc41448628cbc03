"""Radial position from Euclidean distances: t = d_NE / (d_NE + d_PM), and what every field shares.

Distances are exact, anisotropic and taken to the sub-voxel surfaces (:mod:`cytomill.kernels.surface`).
For a cell that does not fit memory, the two stages of :mod:`cytomill.kernels.distance` are called on slabs
and on bands of rows, and :func:`edt_position` on each band: the bits are those of :func:`edt_field`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit

from cytomill.kernels.cell_codes import POSITION_ONE, check_shell_count
from cytomill.kernels.distance import surface_distance


@njit(nogil=True, cache=True)
def _positions(distance_ne_nm, distance_pm_nm, cytoplasm, position):
    """Write the positions; returns which surface is missing: 0 none, 1 NE, 2 PM."""
    for i in range(position.size):
        if not cytoplasm[i]:
            position[i] = np.nan
            continue
        inner = np.float64(distance_ne_nm[i])
        outer = np.float64(distance_pm_nm[i])
        if inner == np.inf:
            return 1
        if outer == np.inf:
            return 2
        total = inner + outer
        position[i] = min(inner / total, 1.0) if total > 0.0 else 0.5
    return 0


def edt_position(distance_ne_nm: np.ndarray, distance_pm_nm: np.ndarray, cytoplasm: np.ndarray) -> np.ndarray:
    """Radial position from the distances to both surfaces.

    Parameters
    ----------
    distance_ne_nm, distance_pm_nm : (Z, Y, X) float32 ndarray
        Distance of each voxel's centre to the nuclear envelope and to the plasma membrane.
    cytoplasm : (Z, Y, X) bool ndarray

    Returns
    -------
    (Z, Y, X) float32 ndarray
        0 at the nuclear envelope, 1 at the plasma membrane, ½ where both pass through the voxel's centre;
        NaN outside the cytoplasm.

    Raises
    ------
    ValueError
        Where a distance is infinite: the cell has no such surface.
    """
    position = np.empty(cytoplasm.shape, np.float32)
    missing = _positions(
        *(np.ravel(a) for a in (distance_ne_nm, distance_pm_nm, cytoplasm)), position.reshape(-1)
    )
    if missing:
        surface, reason = (
            ("nuclear envelope", "the nucleus is empty or reaches every face of the image around it")
            if missing == 1
            else ("plasma membrane", "the cell is cut at every face of the image around it")
        )
        raise ValueError(
            f"the cell has no {surface} in the image ({reason}), but a radial position needs both surfaces: "
            "leave this cell out or give an image that shows more of it"
        )
    return position


def edt_field(
    nucleus: np.ndarray,
    cell: np.ndarray,
    voxel_size_nm: Sequence[float],
    cut_faces: np.ndarray | None = None,
) -> np.ndarray:
    """Radial position t = d_NE / (d_NE + d_PM) of every cytoplasm voxel.

    Parameters
    ----------
    nucleus, cell : (Z, Y, X) bool ndarray
        Cleaned masks; one slice means two dimensions.
    voxel_size_nm : (float, float, float)
        Z, Y, X.
    cut_faces : (3, 2) bool ndarray, optional
        Faces of the arrays at which the cell is cut: no membrane there.

    Returns
    -------
    (Z, Y, X) float32 ndarray
        0 at the nuclear envelope, 1 at the plasma membrane; NaN outside the cytoplasm.

    Raises
    ------
    ValueError
        If the masks differ in shape, or a surface is missing from the image.

    Notes
    -----
    10 bytes a voxel besides the masks (24 with three layers to a slice); time linear in voxels.
    """
    if nucleus.shape != cell.shape:
        raise ValueError(
            f"nucleus and cell masks must have one shape, found {nucleus.shape} and {cell.shape}: "
            "crop both alike"
        )
    cytoplasm = cell & ~nucleus
    distance_ne_nm = surface_distance(nucleus, voxel_size_nm, cut_faces, cytoplasm)
    distance_pm_nm = surface_distance(cell, voxel_size_nm, cut_faces, cytoplasm)
    return edt_position(distance_ne_nm, distance_pm_nm, cytoplasm)


@njit(nogil=True, cache=True)
def _mark_censored(distance_pm_nm, cytoplasm, first, shape, cut, size_nm, marked):
    rows, width = marked.shape[1:]
    for z in range(marked.shape[0]):
        for y in range(rows):
            for x in range(width):
                marked[z, y, x] = False
                if not cytoplasm[z, y, x]:
                    continue
                away = np.inf
                place = (first[0] + z, first[1] + y, first[2] + x)
                for axis in range(3):
                    if cut[axis, 0]:
                        away = min(away, (place[axis] + 0.5) * size_nm[axis])
                    if cut[axis, 1]:
                        away = min(away, (shape[axis] - place[axis] - 0.5) * size_nm[axis])
                marked[z, y, x] = away < distance_pm_nm[z, y, x]


def censored(
    distance_pm_nm: np.ndarray,
    cytoplasm: np.ndarray,
    voxel_size_nm: Sequence[float],
    cut_faces: np.ndarray | None,
    first_row: int = 0,
    rows: int | None = None,
) -> np.ndarray:
    """Mark the voxels nearer to a cut face than to the plasma membrane: the true one may be nearer still.

    Parameters
    ----------
    distance_pm_nm : (Z, Y, X) float32 ndarray
        Distance to the plasma membrane in the image.
    cytoplasm : (Z, Y, X) bool ndarray
    voxel_size_nm : (float, float, float)
        Z, Y, X.
    cut_faces : (3, 2) bool ndarray or None
        Faces of the crop at which the cell is cut. The Z faces of a single slice do not count.
    first_row, rows : int, optional
        Where the arrays are a band of rows of the crop: its first row, and the rows of the crop.

    Returns
    -------
    (Z, Y, X) bool ndarray
        The face's plane lies half a voxel outside the outermost voxel centres.
    """
    if cut_faces is None or not np.any(cut_faces):
        return np.zeros(cytoplasm.shape, bool)
    cut = np.array(cut_faces, dtype=bool)
    if cytoplasm.shape[0] == 1:
        cut[0] = False
    marked = np.empty(cytoplasm.shape, bool)
    first = np.array([0, first_row, 0])
    shape = np.array(cytoplasm.shape)
    shape[1] = shape[1] if rows is None else rows
    _mark_censored(
        distance_pm_nm, cytoplasm, first, shape, cut, np.asarray(voxel_size_nm, np.float64), marked
    )
    return marked


@njit(nogil=True, cache=True)
def _fill_shells(position, count, shell):
    for i in range(position.size):
        t = position[i]
        # NaN compares false.
        shell[i] = min(count, int(np.floor(count * np.float64(t))) + 1) if t >= 0.0 else 0


def shells_of(position: np.ndarray, shells: int) -> np.ndarray:
    """Shell of each voxel: min(n, ⌊n·t⌋ + 1), 0 outside the cytoplasm.

    Parameters
    ----------
    position : ndarray of float32
        Radial position, NaN outside the cytoplasm.
    shells : int
        Number of shells, 1 … 250.

    Returns
    -------
    uint8 ndarray of the same shape

    Raises
    ------
    ValueError
        For a number of shells out of range.
    """
    check_shell_count(shells)
    shell = np.empty(position.shape, np.uint8)
    _fill_shells(np.ravel(position), int(shells), shell.reshape(-1))
    return shell


@njit(nogil=True, cache=True)
def _quantize(position, steps):
    for i in range(position.size):
        t = position[i]
        steps[i] = int(np.rint(np.float64(t) * POSITION_ONE)) if t >= 0.0 else 0


def quantize_position(position: np.ndarray) -> np.ndarray:
    """Radial position as the store keeps it: round(65535·t), 0 outside the cytoplasm.

    Parameters
    ----------
    position : ndarray of float32
        0 … 1, NaN outside the cytoplasm.

    Returns
    -------
    uint16 ndarray of the same shape
    """
    steps = np.empty(position.shape, np.uint16)
    _quantize(np.ravel(position), steps.reshape(-1))
    return steps
