"""Counts of voxels per object and cell, in integers, so that those of blocks add up exactly.

As :mod:`cytomill.kernels.tally`, with a row an object and cell: a block's voxels are visited once, whatever
the number of objects.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit

from cytomill.kernels.cell_codes import CENSORED, CYTOPLASM, NUCLEUS, SATURATED, check_shell_count
from cytomill.kernels.keyed_rows import DONE, KeyedRows, enter
from cytomill.kernels.runs import scan_runs
from cytomill.kernels.tally import block_fields, check_labels, flat_field, refuse_voxel

#: First columns of a row of an object in a cell; then follow its cytoplasm voxels in each of n shells.
#: Sums of coordinates are in the volume; those of distances run over all its voxels with a compartment
#: in that cell, that of the position over its cytoplasm voxels; nearest: minima over its voxels.
OBJECT_COLUMNS = (
    "label", "cell", "outside", "margin", "cytoplasm", "censored", "nucleus",
    "sum_z", "sum_y", "sum_x", "sum_position", "sum_distance_ne", "sum_distance_pm",
    "nearest_ne", "nearest_pm",
)  # fmt: skip
OBJECT_MINIMA = (13, 14)

#: What :func:`sample_points` reports at a voxel.
POINT_COLUMNS = ("point", "cell", "compartment", "shell", "position", "distance_ne", "distance_pm")

_FIXED = len(OBJECT_COLUMNS)


@njit(nogil=True, cache=True)
def _tally_objects(
    first, row, start, stop, value, height, width, origin, territory, compartment, shell, position,
    near_ne, near_pm, n_shells, table, keys, count, rows,
):  # fmt: skip
    for run in range(first, row.size):
        label = np.int64(value[run])
        z, y = np.int64(row[run]) // height + origin[0], np.int64(row[run]) % height + origin[1]
        base = np.int64(row[run]) * width
        current, slot = np.int64(-1), np.int64(0)
        for i in range(base + start[run], base + stop[run]):
            kind = np.int64(compartment[i])
            cell = np.int64(territory[i]) if kind else np.int64(0)
            if cell != current:
                if kind and cell <= 0:
                    return np.int64(DONE), i
                slot = enter(table, keys, count, label, cell)
                if slot < 0:
                    start[run] = i - base
                    return np.int64(run), np.int64(-1)
                current = cell
                if rows[slot, 0] == 0:
                    rows[slot, 0], rows[slot, 1] = label, cell
                    rows[slot, 13] = rows[slot, 14] = SATURATED
            if kind > NUCLEUS:
                return np.int64(DONE), i
            rows[slot, 2 + kind] += 1
            rows[slot, 7] += z
            rows[slot, 8] += y
            rows[slot, 9] += i - base + origin[2]
            if kind == CYTOPLASM or kind == CENSORED:
                s = np.int64(shell[i]) - 1
                if s < 0 or s >= n_shells:
                    return np.int64(DONE), i
                rows[slot, _FIXED + s] += 1
                if position.size:
                    rows[slot, 10] += position[i]
            if kind and near_ne.size:
                rows[slot, 11] += near_ne[i]
                rows[slot, 12] += near_pm[i]
                rows[slot, 13] = min(rows[slot, 13], np.int64(near_ne[i]))
                rows[slot, 14] = min(rows[slot, 14], np.int64(near_pm[i]))
    return np.int64(DONE), np.int64(-1)


def tally_objects(
    labels: np.ndarray,
    territory: np.ndarray,
    compartment: np.ndarray,
    shell: np.ndarray,
    n_shells: int,
    position: np.ndarray | None = None,
    distance_ne: np.ndarray | None = None,
    distance_pm: np.ndarray | None = None,
    origin: Sequence[int] = (0, 0, 0),
) -> np.ndarray:
    """Count the voxels of each object of one block in each cell.

    Parameters
    ----------
    labels : (Z, Y, X) integer ndarray
        Objects; 0 is background.
    territory, compartment, shell, n_shells, position, distance_ne, distance_pm
        As for :func:`cytomill.kernels.tally.tally_cells`.
    origin : sequence of int
        The block's first voxel in the volume.

    Returns
    -------
    (K, 15 + n) int64 ndarray
        A row an object and cell (0: outside), sorted; :data:`OBJECT_COLUMNS`, then voxels a shell.

    Raises
    ------
    ValueError
        For shapes, dtypes or shells that do not match, or labels that do not fit int64.
    """
    check_shell_count(n_shells)
    check_labels(labels, "labels of objects")
    shape = labels.shape
    cells = flat_field(territory, shape, None, "territory")
    fields = block_fields(shape, compartment, shell, position, distance_ne, distance_pm)
    row, start, stop, value = scan_runs(labels)
    if value.size and (value.min() < 0 or value.max() >= 2**63):
        found = value.min() if value.min() < 0 else value.max()
        raise ValueError(f"labels of objects must lie between 1 and 2^63 - 1, found {found}")
    value = value.astype(np.int64)
    where = np.asarray(origin, np.int64)
    found = KeyedRows(_FIXED + n_shells, room=256)
    bad = found.collect(
        _tally_objects, row, start, stop, value, shape[1], shape[2], where, cells, *fields, n_shells
    )
    if bad >= 0:
        refuse_voxel(bad, territory, compartment, n_shells)
    return found.filled(keys=2)


def sample_points(
    points: np.ndarray,
    territory: np.ndarray,
    compartment: np.ndarray,
    shell: np.ndarray,
    position: np.ndarray | None = None,
    distance_ne: np.ndarray | None = None,
    distance_pm: np.ndarray | None = None,
    origin: Sequence[int] = (0, 0, 0),
) -> np.ndarray:
    """Read the fields at those points that lie in one block.

    Parameters
    ----------
    points : (N, 3) integer ndarray
        Voxels of the volume (Z, Y, X).
    territory, compartment, shell, position, distance_ne, distance_pm
        Of the block; what is not given is reported as 0, a distance as 65535.
    origin : sequence of int
        The block's first voxel in the volume.

    Returns
    -------
    (M, 7) int64 ndarray
        :data:`POINT_COLUMNS` of the points within the block; ``point`` counts `points` from 0.
    """
    local = np.asarray(points, np.int64).reshape(-1, 3) - np.asarray(origin, np.int64)
    inside = np.flatnonzero(((local >= 0) & (local < territory.shape)).all(axis=1))
    z, y, x = local[inside].T
    rows = np.zeros((inside.size, len(POINT_COLUMNS)), np.int64)
    rows[:, 0] = inside
    rows[:, 5:] = SATURATED
    for column, field in enumerate((territory, compartment, shell, position, distance_ne, distance_pm), 1):
        if field is not None:
            rows[:, column] = field[z, y, x]
    return rows


def split_objects(rows: np.ndarray) -> dict[str, np.ndarray]:
    """Name the columns of :func:`tally_objects`.

    Returns
    -------
    dict of str to ndarray
        :data:`OBJECT_COLUMNS`, (N,) each, but ``cytoplasm`` with the censored voxels; ``shells``, (N, n).
    """
    named = dict(zip(OBJECT_COLUMNS, rows.T, strict=False))
    cytoplasm = named["cytoplasm"] + named["censored"]
    return named | {"cytoplasm": cytoplasm, "shells": rows[:, _FIXED:]}
