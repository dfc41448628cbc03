"""Counts of voxels per cell and shell, in integers, so that those of blocks add up exactly.

A block's voxels are visited once, whatever the number of cells and shells: each adds to the row of its
cell, and :func:`cytomill.kernels.keyed_rows.merge_rows` adds up the rows of blocks.

A voxel's ``compartment`` says how it is counted: see :mod:`cytomill.kernels.cell_codes`.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from cytomill.kernels.cell_codes import (
    CENSORED,
    CYTOPLASM,
    NUCLEUS,
    POSITION_ONE,
    SATURATED,
    check_shell_count,
)
from cytomill.kernels.keyed_rows import DONE, KeyedRows, enter
from cytomill.kernels.runs import scan_runs

#: Bins of the histogram of the radial position t over [0, 1].
PROFILE_BINS = 200
#: Bins of the distance to the nearest membrane; the last is open.
ROOM_BINS = 128

#: First columns of a row of a cell, voxels by compartment; then follow those of the cytoplasm in each of n
#: shells, the censored ones in each, and the histogram of t over both.  An organelle's rows have the same
#: columns; its row of cell 0 is what lies outside every cell and margin.
CELL_COLUMNS = ("cell", "outside", "margin", "cytoplasm", "censored", "nucleus")

_FIXED = len(CELL_COLUMNS)
_BINS, _LAST_BIN, _ONE = np.uint64(PROFILE_BINS), np.uint64(PROFILE_BINS - 1), np.uint64(POSITION_ONE)


@njit(nogil=True, cache=True)
def position_bin(position):
    """Return the bin, 0 … 199, of a position stored as round(65535 t)."""
    # Unsigned, so that the division by a constant becomes a product.
    return np.int64(min(np.uint64(position) * _BINS // _ONE, _LAST_BIN))


@njit(nogil=True, cache=True)
def _tally_cells(
    row,
    start,
    stop,
    slot,
    width,
    compartment,
    shell,
    position,
    near_ne,
    near_pm,
    bin_of,
    n_shells,
    rows,
    room,
):
    for run in range(row.size):
        base, own = np.int64(row[run]) * width, slot[run]
        for i in range(base + start[run], base + stop[run]):
            kind = np.int64(compartment[i])
            if kind > NUCLEUS:
                return i
            rows[own, 1 + kind] += 1
            if kind == CYTOPLASM or kind == CENSORED:
                s = np.int64(shell[i]) - 1
                if s < 0 or s >= n_shells:
                    return i
                rows[own, _FIXED + (kind - CYTOPLASM) * n_shells + s] += 1
                if position.size:
                    rows[own, _FIXED + 2 * n_shells + position_bin(position[i])] += 1
                if near_ne.size:
                    room[own, 1 + s * ROOM_BINS + bin_of[min(near_ne[i], near_pm[i])]] += 1
    return -1


@njit(nogil=True, cache=True)
def _tally_organelle(
    first,
    row,
    start,
    stop,
    width,
    territory,
    compartment,
    shell,
    position,
    n_shells,
    table,
    keys,
    count,
    rows,
):
    current, slot = np.int64(-1), np.int64(0)
    for run in range(first, row.size):
        base = np.int64(row[run]) * width
        for i in range(base + start[run], base + stop[run]):
            kind = np.int64(compartment[i])
            cell = np.int64(territory[i]) if kind else np.int64(0)
            if cell != current:
                if kind and cell <= 0:
                    return np.int64(DONE), i
                slot = enter(table, keys, count, 0, cell)
                if slot < 0:
                    start[run] = i - base
                    return np.int64(run), np.int64(-1)
                current = cell
                rows[slot, 0] = cell
            if kind > NUCLEUS:
                return np.int64(DONE), i
            rows[slot, 1 + kind] += 1
            if kind == CYTOPLASM or kind == CENSORED:
                s = np.int64(shell[i]) - 1
                if s < 0 or s >= n_shells:
                    return np.int64(DONE), i
                rows[slot, _FIXED + (kind - CYTOPLASM) * n_shells + s] += 1
                if position.size:
                    rows[slot, _FIXED + 2 * n_shells + position_bin(position[i])] += 1
    return np.int64(DONE), np.int64(-1)


@njit(nogil=True, cache=True)
def _tally_shells(row, start, stop, width, shells, censored, t, counts, uncensored, profile):
    for run in range(row.size):
        base = np.int64(row[run]) * width
        for i in range(base + start[run], base + stop[run]):
            s = shells[i]
            counts[s] += 1
            if censored.size and not censored[i]:
                uncensored[s] += 1
            if t.size and s:
                # NaN is not a position, and its conversion to an integer is not defined.
                if not 0 <= t[i] <= 1:
                    return i
                profile[min(np.int64(t[i] * PROFILE_BINS), PROFILE_BINS - 1)] += 1
    return -1


def flat_field(array: np.ndarray | None, shape: tuple[int, ...], dtype: type | None, name: str) -> np.ndarray:
    """Return an array of a block as one row, empty where not given; ValueError where it does not fit."""
    if array is None:
        return np.empty(0, dtype)
    if array.shape != shape:
        raise ValueError(f"{name} has the shape {array.shape} but the block is {shape}: cut both alike")
    if dtype is not None and array.dtype != dtype:
        raise ValueError(f"{name} must be {np.dtype(dtype)}, found {array.dtype}")
    return np.ascontiguousarray(array).reshape(-1)


def check_labels(array: np.ndarray, name: str) -> None:
    """Refuse what is not a three-dimensional mask or label volume."""
    if array.ndim != 3:
        raise ValueError(f"{name} must be (Z, Y, X), got the shape {array.shape}")
    if array.dtype != bool and not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"{name} must be a mask or labels (bool or integers), found {array.dtype}")


def refuse_voxel(voxel: int, territory: np.ndarray, compartment: np.ndarray, n_shells: int) -> None:
    """Say what is wrong with a voxel, given by its C-order index, that cannot be counted."""
    where = tuple(int(c) for c in np.unravel_index(voxel, territory.shape))
    kind, cell = int(compartment[where]), int(territory[where])
    if kind > NUCLEUS:
        raise ValueError(f"the voxel {where} of the block is of compartment {kind}: they end at {NUCLEUS}")
    if cell <= 0:
        raise ValueError(
            f"the voxel {where} of the block is of compartment {kind} but of cell {cell}: "
            "voxels with a compartment need the id of their cell, 1 or more, in the territory"
        )
    raise ValueError(
        f"the cytoplasm voxel {where} of the block has no shell in 1 … {n_shells}: "
        "partition the cell with the same number of shells that is counted"
    )


def tally_cells(
    territory: np.ndarray,
    compartment: np.ndarray,
    shell: np.ndarray,
    n_shells: int,
    position: np.ndarray | None = None,
    distance_ne: np.ndarray | None = None,
    distance_pm: np.ndarray | None = None,
    room_width: int = 1,
) -> tuple[np.ndarray, np.ndarray]:
    """Count the voxels of each cell of one block, by compartment, shell, position and room.

    Needs 16 bytes a run of `territory` along X beside the arrays; those that are not contiguous are copied.

    Parameters
    ----------
    territory : (Z, Y, X) integer ndarray
        Cell id, a margin outside the membrane included; 0 elsewhere.
    compartment : (Z, Y, X) uint8 ndarray
        See :mod:`cytomill.kernels.cell_codes`.
    shell : (Z, Y, X) uint8 ndarray
        1 … n in the cytoplasm.
    n_shells : int
        n, at most 250.
    position : (Z, Y, X) uint16 ndarray, optional
        round(65535 t).
    distance_ne, distance_pm : (Z, Y, X) uint16 ndarray, optional
        Distance to the nuclear and to the plasma membrane, in quanta.
    room_width : int
        Quanta in a bin of room.

    Returns
    -------
    cells : (K, 6 + 2n + 200) int64 ndarray
        A row a cell, sorted; see :func:`split_cells`.
    room : (K, 1 + 128n) int64 ndarray
        Cell, then the cytoplasm voxels of each shell by their distance to the nearest membrane, in bins
        of `room_width` quanta, the last open; zeros without distances.

    Raises
    ------
    ValueError
        For shapes, dtypes or shells that do not match.
    """
    check_shell_count(n_shells)
    check_labels(territory, "territory")
    if room_width < 1:
        raise ValueError(f"room_width must be at least one quantum, got {room_width}")
    shape = territory.shape
    fields = block_fields(shape, compartment, shell, position, distance_ne, distance_pm)
    row, start, stop, value = scan_runs(territory)
    ids, slot = np.unique(value, return_inverse=True)
    rows = np.zeros((ids.size, _FIXED + 2 * n_shells + PROFILE_BINS), np.int64)
    room = np.zeros((ids.size, 1 + ROOM_BINS * n_shells), np.int64)
    rows[:, 0] = room[:, 0] = ids
    bin_of = np.minimum(np.arange(SATURATED + 1) // room_width, ROOM_BINS - 1).astype(np.uint8)
    bad = _tally_cells(row, start, stop, slot, shape[2], *fields, bin_of, n_shells, rows, room)
    if bad >= 0:
        refuse_voxel(bad, territory, compartment, n_shells)
    return rows, room


def block_fields(
    shape: tuple[int, ...],
    compartment: np.ndarray,
    shell: np.ndarray,
    position: np.ndarray | None,
    distance_ne: np.ndarray | None,
    distance_pm: np.ndarray | None,
) -> tuple[np.ndarray, ...]:
    """Return the fields of a block as rows, empty where not given; ValueError where one does not fit."""
    if (distance_ne is None) != (distance_pm is None):
        raise ValueError("distance_ne and distance_pm belong together: give both or neither")
    return (
        flat_field(compartment, shape, np.uint8, "compartment"),
        flat_field(shell, shape, np.uint8, "shell"),
        flat_field(position, shape, np.uint16, "position"),
        flat_field(distance_ne, shape, np.uint16, "distance_ne"),
        flat_field(distance_pm, shape, np.uint16, "distance_pm"),
    )


def tally_organelle(
    organelle: np.ndarray,
    territory: np.ndarray,
    compartment: np.ndarray,
    shell: np.ndarray,
    n_shells: int,
    position: np.ndarray | None = None,
) -> np.ndarray:
    """Count the organelle's voxels of one block in each cell, by compartment, shell and position.

    Parameters
    ----------
    organelle : (Z, Y, X) bool or integer ndarray
        A mask or labels; what is not 0 is organelle.
    territory, compartment, shell, n_shells, position
        As for :func:`tally_cells`.

    Returns
    -------
    (K, 6 + 2n + 200) int64 ndarray
        Rows of :func:`tally_cells` for the organelle's voxels alone; cell 0 holds those outside.

    Raises
    ------
    ValueError
        For shapes, dtypes or shells that do not match.
    """
    check_shell_count(n_shells)
    check_labels(organelle, "the organelle")
    shape = organelle.shape
    cells = flat_field(territory, shape, None, "territory")
    fields = block_fields(shape, compartment, shell, position, None, None)[:3]
    row, start, stop, _ = scan_runs(organelle)
    found = KeyedRows(_FIXED + 2 * n_shells + PROFILE_BINS, room=16)
    bad = found.collect(_tally_organelle, row, start, stop, shape[2], cells, *fields, n_shells)
    if bad >= 0:
        refuse_voxel(bad, territory, compartment, n_shells)
    return found.filled(keys=1)


def tally_shells(
    organelle: np.ndarray,
    shells: np.ndarray,
    censored: np.ndarray | None = None,
    t: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Count the organelle's voxels in each shell of one volume.

    Parameters
    ----------
    organelle : (Z, Y, X) bool or integer ndarray
        What is not 0 is organelle.
    shells : (Z, Y, X) uint8 ndarray
        0 outside the cytoplasm.
    censored : (Z, Y, X) bool ndarray, optional
    t : (Z, Y, X) float32 ndarray, optional
        Radial position, in [0, 1] wherever there is a shell.

    Returns
    -------
    counts : (256,) int64 ndarray
        By shell; 0: outside the cytoplasm.
    uncensored : (256,) int64 ndarray
        The same without censored voxels; equal where nothing is censored.
    profile : (200,) int64 ndarray
        By t; zeros without `t`.

    Raises
    ------
    ValueError
        For shapes or dtypes that do not match, or a t outside [0, 1].
    """
    check_labels(organelle, "the organelle")
    shape = organelle.shape
    counts, uncensored = np.zeros(256, np.int64), np.zeros(256, np.int64)
    profile = np.zeros(PROFILE_BINS, np.int64)
    row, start, stop, _ = scan_runs(organelle)
    bad = _tally_shells(
        row,
        start,
        stop,
        shape[2],
        flat_field(shells, shape, np.uint8, "shells"),
        flat_field(censored, shape, np.bool_, "censored"),
        flat_field(t, shape, np.float32, "t"),
        counts,
        uncensored,
        profile,
    )
    if bad >= 0:
        where = tuple(int(c) for c in np.unravel_index(bad, shape))
        raise ValueError(f"t is {t[where]} at the voxel {where} of a shell: it must lie between 0 and 1")
    return counts, counts.copy() if censored is None else uncensored, profile


def split_cells(rows: np.ndarray, n_shells: int) -> dict[str, np.ndarray]:
    """Name the columns of :func:`tally_cells` and :func:`tally_organelle`.

    Returns
    -------
    dict of str to ndarray
        :data:`CELL_COLUMNS`, (N,) each, but ``cytoplasm`` with the censored voxels; ``shells`` and
        ``censored_shells``, (N, n): voxels of the cytoplasm, and those of them that are censored;
        ``profile``, (N, 200).
    """
    named = dict(zip(CELL_COLUMNS, rows.T, strict=False))
    censored = rows[:, _FIXED + n_shells : _FIXED + 2 * n_shells]
    return named | {
        "cytoplasm": named["cytoplasm"] + named["censored"],
        "shells": rows[:, _FIXED : _FIXED + n_shells] + censored,
        "censored_shells": censored,
        "profile": rows[:, _FIXED + 2 * n_shells :],
    }


def split_room(room: np.ndarray, n_shells: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the cells, (N,), and their room, (N, n, 128), of :func:`tally_cells`."""
    return room[:, 0], room[:, 1:].reshape(-1, n_shells, ROOM_BINS)
