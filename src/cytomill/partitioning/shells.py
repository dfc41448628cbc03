"""Shells of one cell that lies in memory, by any of the methods."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

#: Share of the cytoplasm on rays that cross a surface often, from which it is said.
SAID_CROSSING = 0.01


def cell_shells(
    nucleus: np.ndarray,
    cell: np.ndarray,
    n: int,
    method: str = "normalized",
    field: str = "edt",
    voxel_size_nm: Sequence[float] = (1.0, 1.0, 1.0),
    cut_faces: np.ndarray | None = None,
    workers: int = 1,
) -> np.ndarray:
    """Partition a cell crop.

    Parameters
    ----------
    nucleus, cell : (Z, Y, X) bool ndarray
        Cleaned masks of one cell.
    n : int
        Shells, 1 to 250.
    method : {"normalized", "pairs", "pairs_edt"}
    field : {"edt", "laplace", "ray"}
        Radial position of method "normalized".
    voxel_size_nm : sequence of float
        (Z, Y, X).
    cut_faces : (3, 2) bool ndarray, optional
        Faces of the crop at which the cell is cut.
    workers : int
        Threads; the result does not depend on it.

    Returns
    -------
    (Z, Y, X) uint8 ndarray
        1 (at the nuclear envelope) to `n` in the cytoplasm, 0 elsewhere.

    Raises
    ------
    ValueError
        For an unknown method or field, or a cell that cannot be partitioned.
    """
    if method == "normalized":
        from cytomill.partitioning.distances import shells_of

        return shells_of(radial_position(nucleus, cell, field, voxel_size_nm, cut_faces), n)
    return pair_shells(nucleus, cell, n, method, voxel_size_nm, cut_faces, workers)[0]


def pair_shells(
    nucleus: np.ndarray,
    cell: np.ndarray,
    n: int,
    method: str,
    voxel_size_nm: Sequence[float] = (1.0, 1.0, 1.0),
    cut_faces: np.ndarray | None = None,
    workers: int = 1,
) -> tuple[np.ndarray, list[str]]:
    """Shells by pairs of NE and PM, and what their reader should know; parameters of :func:`cell_shells`."""
    # Each method's kernels are loaded when they are asked for.
    from cytomill.partitioning.pairs import find_pairs_by_direction, pairs_shells

    find = find_pairs_by_direction
    if method == "pairs_edt":
        from cytomill.partitioning.pairs_edt import find_pairs_edt as find
    elif method != "pairs":
        raise ValueError(f"method must be normalized, pairs or pairs_edt; found {method!r}")
    shells, info = pairs_shells(nucleus, cell, n, voxel_size_nm, cut_faces, workers=workers, find=find)
    return shells, [f"{info.pairs} pairs of NE and PM"]


def radial_position(
    nucleus: np.ndarray,
    cell: np.ndarray,
    field: str = "edt",
    voxel_size_nm: Sequence[float] = (1.0, 1.0, 1.0),
    cut_faces: np.ndarray | None = None,
) -> np.ndarray:
    """Normalised radial position t, (Z, Y, X) float32, NaN outside the cytoplasm; as :func:`cell_shells`."""
    return position_with_notes(nucleus, cell, field, voxel_size_nm, cut_faces)[0]


def position_with_notes(
    nucleus: np.ndarray,
    cell: np.ndarray,
    field: str,
    voxel_size_nm: Sequence[float],
    cut_faces: np.ndarray | None,
) -> tuple[np.ndarray, list[str]]:
    """Radial position of :func:`radial_position`, and what its reader should know."""
    if field == "edt":
        from cytomill.partitioning.distances import edt_field

        return edt_field(nucleus, cell, voxel_size_nm, cut_faces), []
    if field == "laplace":
        from cytomill.partitioning.laplace import laplace_field

        t, info = laplace_field(nucleus, cell, voxel_size_nm, cut_faces)
        note = f"Laplace residual {info['residual']:.1e} after {info['iterations']} iterations"
        if info["flat_voxels"]:
            note += f", {info['flat_voxels']} voxels without a gradient placed by their distances"
        return t, [note]
    if field == "ray":
        from cytomill.partitioning.ray import ray_positions

        t, info = ray_positions(nucleus, cell, voxel_size_nm, cut_faces)
        crossing = info["crossing_fraction"]
        if crossing <= SAID_CROSSING:
            return t, []
        note = f"{crossing:.1%} of the cytoplasm lies on rays that cross a surface more than once"
        return t, [f"{note}: the cell is not star-shaped, prefer field edt"]
    raise ValueError(f"field must be edt, laplace or ray; found {field!r}")
