"""Rows of integers found by a key of two numbers, made as keys appear, and merged over blocks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numba import njit

#: Returned in place of the run to go on with.
DONE = -1


@njit(nogil=True, cache=True)
def _first_probe(label, cell, mask):
    # Odd multipliers spread consecutive ids over the table; the low bits alone would collide.
    mixed = np.uint64(label) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(cell) * np.uint64(0xC2B2AE3D27D4EB4F)
    return np.int64((mixed >> np.uint64(33)) & np.uint64(mask))


@njit(nogil=True, cache=True)
def _find_slot(table, keys, label, cell):
    """Return the row of a key, or −1 − the place in `table` where a new one goes."""
    mask = table.size - 1
    probe = _first_probe(label, cell, mask)
    while table[probe] >= 0:
        slot = table[probe]
        if keys[slot, 0] == label and keys[slot, 1] == cell:
            return np.int64(slot)
        probe = (probe + 1) & mask
    return -1 - probe


@njit(nogil=True, cache=True)
def _rehash(table, keys):
    for slot in range(keys.shape[0]):
        table[-1 - _find_slot(table, keys, keys[slot, 0], keys[slot, 1])] = slot


class KeyedRows:
    """Rows by key that grow: a kernel that finds them full returns, and goes on once there is room.

    Arrays that a kernel replaces in its loop cost it tens of nanoseconds a voxel.
    """

    def __init__(self, columns: int, room: int) -> None:
        self.count = np.zeros(1, np.int64)
        self.keys = np.zeros((room, 2), np.int64)
        self.rows = np.zeros((room, columns), np.int64)
        self.table = np.full(4 * room, -1, np.int32)

    def grow(self) -> None:
        """Double the room."""
        self.keys = np.concatenate([self.keys, np.zeros_like(self.keys)])
        self.rows = np.concatenate([self.rows, np.zeros_like(self.rows)])
        self.table = np.full(2 * self.table.size, -1, np.int32)
        _rehash(self.table, self.keys[: self.count[0]])

    def collect(self, kernel: Callable[..., tuple[int, int]], *arguments: Any) -> int:
        """Run a kernel over all runs, making room as often as it asks for it.

        Parameters
        ----------
        kernel : callable
            Of the first run, `arguments`, and the arrays `table`, `keys`, `count` and `rows`; returns the
            run to go on with (:data:`DONE` at the end), and the index of a voxel that it refuses, or −1.
        *arguments
            Passed on.

        Returns
        -------
        int
            The voxel refused, or −1.
        """
        run, refused = 0, -1
        while run != DONE:
            run, refused = kernel(run, *arguments, self.table, self.keys, self.count, self.rows)
            if run != DONE:
                self.grow()
        return refused

    def filled(self, keys: int) -> np.ndarray:
        """Return the rows in use, sorted by their first `keys` columns."""
        return sort_rows(self.rows[: self.count[0]], keys)


@njit(nogil=True, cache=True)
def enter(table, keys, count, label, cell):
    """Return the row of a key of :class:`KeyedRows`, made where there is none; −1 where there is no room."""
    slot = _find_slot(table, keys, label, cell)
    if slot < 0:
        if count[0] == keys.shape[0]:
            return np.int64(-1)
        place, slot = -1 - slot, count[0]
        table[place] = slot
        keys[slot, 0], keys[slot, 1] = label, cell
        count[0] += 1
    return slot


def sort_rows(rows: np.ndarray, keys: int) -> np.ndarray:
    """Sort rows by their first `keys` columns."""
    return rows[np.lexsort(rows[:, keys - 1 :: -1].T)] if len(rows) else rows


def merge_rows(rows: np.ndarray, keys: int = 1, minima: Sequence[int] = ()) -> np.ndarray:
    """Add up the rows of blocks, key by key.

    Parameters
    ----------
    rows : (M, C) int64 ndarray
        Rows of all blocks, in any order.
    keys : int
        How many of the first columns are the key.
    minima : sequence of int
        Columns of which the least is kept; the others are added.

    Returns
    -------
    (N, C) int64 ndarray
        A row a key, sorted.
    """
    if not len(rows):
        return rows.copy()
    rows = sort_rows(rows, keys)
    new = (np.diff(rows[:, :keys], axis=0) != 0).any(axis=1)
    begins = np.flatnonzero(np.r_[True, new])
    merged = np.add.reduceat(rows, begins)
    merged[:, :keys] = rows[begins, :keys]
    least = list(minima)
    merged[:, least] = np.minimum.reduceat(rows[:, least], begins)
    return merged
