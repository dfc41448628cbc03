"""One cell, from its masks to everything that is counted: shells, positions, distances, compartments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from cytomill.kernels.cell_codes import CENSORED, CYTOPLASM, MARGIN, NUCLEUS, OUTSIDE, SATURATED
from cytomill.kernels.distance import surface_distance
from cytomill.partitioning.config import PartitioningConfig
from cytomill.partitioning.distances import censored, edt_position, quantize_position, shells_of
from cytomill.partitioning.shells import pair_shells, position_with_notes

#: Names of :class:`CellFields`, in which pieces are stored.
FIELD_NAMES = ("shell", "position", "compartment", "distance_ne", "distance_pm")


@dataclass(frozen=True)
class CellFields:
    """The fields of a cell in a box of the volume.

    Parameters
    ----------
    shell : (Z, Y, X) uint8 ndarray
        1 … n in the cytoplasm, 0 elsewhere.
    position : (Z, Y, X) uint16 ndarray
        round(65535 t) in the cytoplasm, 0 elsewhere.
    compartment : (Z, Y, X) uint8 ndarray
        See :mod:`cytomill.kernels.cell_codes`.
    distance_ne, distance_pm : (Z, Y, X) uint16 ndarray
        Distance to the nuclear and plasma membrane in quanta, 65535 beyond what these can say.
    """

    shell: np.ndarray
    position: np.ndarray
    compartment: np.ndarray
    distance_ne: np.ndarray
    distance_pm: np.ndarray

    def as_arrays(self) -> dict[str, np.ndarray]:
        """By name."""
        return {name: getattr(self, name) for name in FIELD_NAMES}


def quantize_distance(distance_nm: np.ndarray, quantum_nm: float) -> np.ndarray:
    """Distances as whole quanta, uint16, saturated."""
    return np.minimum(distance_nm * np.float32(1 / quantum_nm) + np.float32(0.5), SATURATED).astype(np.uint16)


def fields_of(
    nucleus: np.ndarray,
    cell: np.ndarray,
    distance_ne_nm: np.ndarray,
    distance_pm_nm: np.ndarray,
    voxel_size_nm: Sequence[float],
    cut_faces: np.ndarray,
    config: PartitioningConfig,
    quantum_nm: float,
    t: np.ndarray | None = None,
    shell: np.ndarray | None = None,
    band: tuple[int, int] | None = None,
) -> CellFields:
    """Derive the fields of a box of a cell from its distances; every voxel by itself.

    Parameters
    ----------
    nucleus, cell : (Z, Y, X) bool ndarray
        Cleaned masks.
    distance_ne_nm, distance_pm_nm : (Z, Y, X) float32 ndarray
        To the sub-voxel surfaces.
    voxel_size_nm : sequence of float
        (Z, Y, X).
    cut_faces : (3, 2) bool ndarray
        Where the cell's box ends at a face of the volume that cuts it.
    config : PartitioningConfig
    quantum_nm : float
        Unit of the stored distances.
    t : (Z, Y, X) float32 ndarray, optional
        Radial position by another field than the ratio of distances.
    shell : (Z, Y, X) uint8 ndarray, optional
        Shells by another method than from t.
    band : tuple of (int, int), optional
        Where the arrays are a band of the cell's box: its first row, and the rows of the box.
    """
    cytoplasm = cell & ~nucleus
    if t is None:
        t = edt_position(distance_ne_nm, distance_pm_nm, cytoplasm)
    cut_shell = shells_of(t, config.n_shells) if shell is None else shell
    compartment = np.zeros(cell.shape, np.uint8)
    compartment[~cell & (distance_pm_nm <= config.adsorbed_nm)] = MARGIN
    compartment[cytoplasm] = CYTOPLASM
    if shell is not None:
        # The published program leaves voxels without a shell; they are counted with what is outside.
        compartment[cytoplasm & (shell == 0)] = OUTSIDE
        cytoplasm &= shell > 0
    compartment[nucleus] = NUCLEUS
    first_row, rows = (0, cell.shape[1]) if band is None else band
    compartment[censored(distance_pm_nm, cytoplasm, voxel_size_nm, cut_faces, first_row, rows)] = CENSORED
    return CellFields(
        cut_shell,
        quantize_position(t),
        compartment,
        quantize_distance(distance_ne_nm, quantum_nm),
        quantize_distance(distance_pm_nm, quantum_nm),
    )


def partition_cell(
    nucleus: np.ndarray,
    cell: np.ndarray,
    voxel_size_nm: Sequence[float],
    cut_faces: np.ndarray,
    config: PartitioningConfig,
    quantum_nm: float,
    raw: tuple[np.ndarray, np.ndarray] | None = None,
) -> tuple[CellFields, list[str]]:
    """Partition one cell.

    Parameters
    ----------
    nucleus, cell : (Z, Y, X) bool ndarray
        Cleaned masks of the cell's box.
    voxel_size_nm : sequence of float
        (Z, Y, X).
    cut_faces : (3, 2) bool ndarray
        Where the box ends at a face of the volume that cuts the cell.
    config : PartitioningConfig
        Method, number of shells.
    quantum_nm : float
        Unit of the stored distances.
    raw : tuple of two (Z, Y, X) ndarray, optional
        Nucleus and cell as they were given, for `compat`.

    Returns
    -------
    fields : CellFields
        Positions of methods that work by pairs are those of the distances.
    notes : list of str
        What the reader of the results should know.

    Raises
    ------
    ValueError
        The cell has no shells; one sentence.
    """
    distances = [surface_distance(mask, voxel_size_nm, cut_faces) for mask in (nucleus, cell)]
    t, shell, notes = _by_method(nucleus, cell, voxel_size_nm, cut_faces, config, raw)
    fields = fields_of(
        nucleus, cell, *distances, voxel_size_nm, cut_faces, config, quantum_nm, t=t, shell=shell
    )
    return fields, notes


def _by_method(
    nucleus: np.ndarray,
    cell: np.ndarray,
    voxel_size_nm: Sequence[float],
    cut_faces: np.ndarray,
    config: PartitioningConfig,
    raw: tuple[np.ndarray, np.ndarray] | None,
) -> tuple[np.ndarray | None, np.ndarray | None, list[str]]:
    """Position or shells of what is not derived from the distances alone, and notes."""
    where = (voxel_size_nm, cut_faces)
    if config.compat:
        from cytomill.partitioning.pairs_compat import extract_ne_pm_edges, partition_pure

        raw_nucleus, raw_cell = (nucleus, cell) if raw is None else raw
        _, ne_edge, pm_edge = extract_ne_pm_edges(raw_cell, raw_nucleus)
        shell = partition_pure(ne_edge, pm_edge, cell.shape, config.n_shells, raw_cell, raw_nucleus)
        # Its region is that of its own filling; what is counted is the cytoplasm.
        return None, np.where(cell & ~nucleus, shell, 0).astype(np.uint8), []
    if config.method != "normalized":
        shell, notes = pair_shells(nucleus, cell, config.n_shells, config.method, *where)
        return None, shell, notes
    if config.field == "edt":
        return None, None, []  # its distances are known already
    t, notes = position_with_notes(nucleus, cell, config.field, *where)
    return t, None, notes


#: Peak bytes a voxel of a cell's box, by method: measured, and rounded up. Masks and fields are 10 of them.
BYTES_A_VOXEL = {"edt": 31, "ray": 31, "pairs": 34, "pairs_edt": 34, "compat": 90}


def cell_bytes(shape: Sequence[int], config: PartitioningConfig, cytoplasm_voxels: int | None = None) -> int:
    """Peak bytes of partitioning a cell whose box has this shape; all of it cytoplasm where not known."""
    if config.method == "normalized" and config.field == "laplace":
        from cytomill.partitioning.laplace import laplace_bytes

        return laplace_bytes(tuple(shape), cytoplasm_voxels) + 10 * prod(shape)
    name = "compat" if config.compat else config.field if config.method == "normalized" else config.method
    return prod(shape) * BYTES_A_VOXEL[name]
