"""Shells of one cell that lies in memory, by any of the methods."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


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
    # Each method's kernels are compiled when they are asked for.
    if method == "pairs":
        from cytomill.partitioning.pairs import pairs_shells

        return pairs_shells(nucleus, cell, n, voxel_size_nm, cut_faces, workers=workers)[0]
    if method == "pairs_edt":
        from cytomill.partitioning.pairs_edt import pairs_edt_shells

        return pairs_edt_shells(nucleus, cell, n, voxel_size_nm, cut_faces, workers=workers)[0]
    if method != "normalized":
        raise ValueError(f"method must be normalized, pairs or pairs_edt; found {method!r}")
    from cytomill.partitioning.distances import shells_of

    return shells_of(radial_position(nucleus, cell, field, voxel_size_nm, cut_faces), n)


def radial_position(
    nucleus: np.ndarray,
    cell: np.ndarray,
    field: str = "edt",
    voxel_size_nm: Sequence[float] = (1.0, 1.0, 1.0),
    cut_faces: np.ndarray | None = None,
) -> np.ndarray:
    """Normalised radial position t, (Z, Y, X) float32, NaN outside the cytoplasm; as :func:`cell_shells`."""
    if field == "edt":
        from cytomill.partitioning.distances import edt_field

        return edt_field(nucleus, cell, voxel_size_nm, cut_faces)
    if field == "laplace":
        from cytomill.partitioning.laplace import laplace_field

        return laplace_field(nucleus, cell, voxel_size_nm, cut_faces)[0]
    if field == "ray":
        from cytomill.partitioning.ray import ray_field

        return ray_field(nucleus, cell, voxel_size_nm, cut_faces)
    raise ValueError(f"field must be edt, laplace or ray; found {field!r}")
