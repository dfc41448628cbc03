"""Shells of the cytoplasm from pairs of points on the nuclear envelope and the plasma membrane.

The documented pair method: shell surface k of n consists of the points at t = k/n along every pair, and
a voxel belongs to a shell by its distances to the surfaces, with the 60/40 rule.  A voxel nearest to
surface 0 is in shell 1, to surface n in shell n.  Nearest to a surface k between them, it compares
``r = d(k+1) / (d(k−1) + d(k+1))``: r > 0.6 is shell k, r < 0.4 shell k + 1, and in between the voxel's
own t along its nearest pair (the pair of the nearest point of surface k) decides: t < k/n is shell k.
Then small pits are closed (:func:`close_shells`).

Distances are exact.  A search tree a surface would ask every voxel for every surface; instead boxes are
halved until they hold a few voxels, and each keeps only the pairs that can still be nearest to one of
its voxels, of the surfaces that can still matter.  Lists of neighbouring voxels are built once, which is
what makes the method linear in the voxels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit

from cytomill.partitioning.pairing import (
    DEFAULT_STEP,
    checked_voxel_size,
    find_pairs,
    nucleus_center,
    surface_points,
)

#: Most shells that fit the uint8 result with room for its marks.
MAX_SHELLS = 250

_INNER, _OUTER = 0.6, 0.4
# A box of at most this many voxels is searched voxel by voxel.
_LEAF_VOXELS = 32
_LEVELS = 64


# Without NaN and signed zeros a minimum may be taken in several lanes; no other freedom is given, so that
# every value is the one of plain float64 arithmetic.
_njit_min = njit(nogil=True, cache=True, fastmath={"nnan", "nsz"})


@dataclass(frozen=True)
class PairsInfo:
    """What a partition by pairs was made of.

    Parameters
    ----------
    pairs : int
        NE–PM pairs.
    dropped_pairs : int
        Pairs outside of the limits of length, or without an admissible partner.
    median_length_nm : float
        Of the pairs.
    closed_voxels : int
        Voxels that the closing moved to another shell.
    """

    pairs: int
    dropped_pairs: int
    median_length_nm: float
    closed_voxels: int


@njit(nogil=True, cache=True)
def _any_voxel(mask, low, high):
    for z in range(low[0], high[0]):
        for y in range(low[1], high[1]):
            for x in range(low[2], high[2]):
                if mask[z, y, x]:
                    return True
    return False


@_njit_min
def _squares(point, start, stop, z, y, x, square):
    """Squared distances of candidates start … stop from (z, y, x), and the smallest of them."""
    best = np.inf
    for c in range(start, stop):
        dz = point[0, c] - z
        dy = point[1, c] - y
        dx = point[2, c] - x
        d = (dz * dz + dy * dy) + dx * dx
        square[c - start] = d
        best = d if d < best else best
    return best


@_njit_min
def _smallest_square(point, start, stop, z, y, x):
    best = np.inf
    for c in range(start, stop):
        dz = point[0, c] - z
        dy = point[1, c] - y
        dx = point[2, c] - x
        d = (dz * dz + dy * dy) + dx * dx
        best = d if d < best else best
    return best


@njit(nogil=True, cache=True)
def _decide(pairs, point, pair, begins, first, last, n, z, y, x):
    """Shell of the voxel at (z, y, x) nm by the 60/40 rule, from the candidates of surfaces first … last."""
    nearest = inner = outer = previous = np.inf
    surface = first
    for k in range(first, last + 1):
        square = _smallest_square(point, begins[k], begins[k + 1], z, y, x)
        if square < nearest:
            nearest, surface = square, k
            inner, outer = previous, np.inf
        elif k == surface + 1:
            outer = square
        previous = square
    if surface == 0:
        return 1
    if surface == n:
        return n
    before, after = math.sqrt(inner), math.sqrt(outer)
    if after > _INNER * (before + after):
        return surface
    if after < _OUTER * (before + after):
        return surface + 1
    for c in range(begins[surface], begins[surface + 1]):
        dz, dy, dx = point[0, c] - z, point[1, c] - y, point[2, c] - x
        if (dz * dz + dy * dy) + dx * dx == nearest:
            i = pair[c]
            break
    dz, dy, dx = pairs[i, 3], pairs[i, 4], pairs[i, 5]
    along = (z - pairs[i, 0]) * dz + (y - pairs[i, 1]) * dy + (x - pairs[i, 2]) * dx
    return surface if along * n < surface * (dz * dz + dy * dy + dx * dx) else surface + 1


@njit(nogil=True, cache=True)
def _split(shape, size):
    """The axis along which a box is longest, of those with more than one voxel."""
    axis = -1
    for k in range(3):
        if shape[k] > 1 and (axis < 0 or shape[k] * size[k] > shape[axis] * size[axis]):
            axis = k
    return axis


@njit(nogil=True, cache=True)
def _assign(pairs, mask, size, n, low, high, shells):
    """Fill the shells of the voxels of one box.

    `pairs` holds NE z, y, x and PM − NE z, y, x in nm.  Candidates are points of surfaces with their
    pair, in ascending order of pairs.  `begins[level, k]` is where those of surface k begin for the box
    that was halved last on this level; those of deeper levels follow, and are overwritten once both
    halves are done.
    """
    count = pairs.shape[0]
    begins = np.zeros((_LEVELS, n + 2), np.int64)
    first = np.zeros(_LEVELS, np.int64)
    last = np.zeros(_LEVELS, np.int64)
    point = np.empty((3, 2 * count * (n + 1) + 1024))
    pair = np.empty(point.shape[1], np.int32)
    for k in range(n + 1):
        for i in range(count):
            for axis in range(3):
                point[axis, k * count + i] = pairs[i, axis] + (k / n) * pairs[i, 3 + axis]
            pair[k * count + i] = i
        begins[0, k + 1] = (k + 1) * count
    last[0] = n
    smallest = np.empty(n + 1)
    square = np.empty(count)
    stack = np.empty((2 * _LEVELS, 7), np.int64)
    stack[0, :3], stack[0, 3:6], stack[0, 6] = low, high, 0
    waiting = 1
    while waiting:
        waiting -= 1
        low, high = stack[waiting, :3].copy(), stack[waiting, 3:6].copy()
        level = stack[waiting, 6]
        if not _any_voxel(mask, low, high):
            continue
        z, y, x = 0.5 * (low + high - 1) * size
        half = 0.5 * (high - low - 1) * size
        f, g = first[level], last[level]
        here = level + 1
        used = begins[level, g + 1]
        if used + used - begins[level, f] > pair.size:
            point, pair = _larger(point, pair, used)
        closest = f
        for k in range(f, g + 1):
            champion[k] = _nearest(point, begins[level, k], begins[level, k + 1], z, y, x, square)
            smallest[k] = square[champion[k]]
            if smallest[k] < smallest[closest]:
                closest = k
        # A candidate counts if some voxel of the box may be as near to it as to its surface's champion,
        # and a surface may be the nearest one if that holds for the nearest champion of all.
        lowest, highest = g, f
        for k in range(f, g + 1):
            rival = champion[closest]
            near = _rivals(point, begins[level, k], begins[level, k + 1], rival, half, square)
            if near:
                lowest, highest = min(lowest, k), max(highest, k)

        first[here], last[here] = max(f, lowest - 1), min(g, highest + 1)
        shape = high - low
        if shape[0] * shape[1] * shape[2] > _LEAF_VOXELS:
            axis = _split(shape, size)
            for side in range(2):
                stack[waiting, :3], stack[waiting, 3:6], stack[waiting, 6] = low, high, here
                stack[waiting, axis + 3 * side] = (low[axis] + high[axis]) // 2
                waiting += 1
            continue
        for z in range(low[0], high[0]):
            for y in range(low[1], high[1]):
                for x in range(low[2], high[2]):
                    if mask[z, y, x]:
                        at = z * size[0], y * size[1], x * size[2]
                        shells[z, y, x] = _decide(
                            pairs, point, pair, begins[here], first[here], last[here], n, at[0], at[1], at[2]
                        )


@njit(nogil=True, cache=True)
def _larger(point, pair, used):
    more_points = np.empty((3, 2 * pair.size))
    more_pairs = np.empty(2 * pair.size, np.int32)
    more_points[:, :used] = point[:, :used]
    more_pairs[:used] = pair[:used]
    return more_points, more_pairs


@njit(nogil=True, cache=True)
def _count_neighbours(shells, z, y, x, shell):
    depth, height, width = shells.shape
    count = 0
    if z > 0:
        count += shells[z - 1, y, x] == shell
    if z + 1 < depth:
        count += shells[z + 1, y, x] == shell
    if y > 0:
        count += shells[z, y - 1, x] == shell
    if y + 1 < height:
        count += shells[z, y + 1, x] == shell
    if x > 0:
        count += shells[z, y, x - 1] == shell
    if x + 1 < width:
        count += shells[z, y, x + 1] == shell
    return count


@njit(nogil=True, cache=True)
def _close(shells, closed):
    depth, height, width = shells.shape
    moved = 0
    for z in range(depth):
        for y in range(height):
            for x in range(width):
                own = shells[z, y, x]
                if own == 0 or _count_neighbours(shells, z, y, x, own) > 1:
                    continue
                best, most = own, 2
                for side in range(6):
                    i = z + (side == 0) - (side == 1)
                    j = y + (side == 2) - (side == 3)
                    k = x + (side == 4) - (side == 5)
                    if i < 0 or j < 0 or k < 0 or i == depth or j == height or k == width:
                        continue
                    other = shells[i, j, k]
                    if other == 0 or other == own:
                        continue
                    votes = _count_neighbours(shells, z, y, x, other)
                    if votes > most or (votes == most and best != own and other < best):
                        best, most = other, votes
                if best != own:
                    closed[z, y, x] = best
                    moved += 1
    return moved


def close_shells(shells: np.ndarray) -> tuple[np.ndarray, int]:
    """Close pits and pinholes of shells, all shells at once.

    A voxel with at most one neighbour of its own shell (of 6) goes to the shell that at least three of
    its neighbours belong to, the most frequent one, the lower of equals.  Closing shell after shell would
    let the later ones grow at the cost of the earlier ones.

    Parameters
    ----------
    shells : (Z, Y, X) uint8 ndarray
        0 outside the cytoplasm.

    Returns
    -------
    closed : (Z, Y, X) uint8 ndarray
    moved : int
        Voxels that changed.
    """
    closed = shells.copy()
    moved = _close(shells, closed)
    return closed, moved


def check_shell_count(n: int) -> None:
    """Refuse a number of shells that is not 1 … 250."""
    if int(n) != n or not 1 <= n <= MAX_SHELLS:
        raise ValueError(f"the number of shells must be 1 to {MAX_SHELLS}, got {n}")


def shells_from_pairs(
    pairs: np.ndarray,
    cytoplasm: np.ndarray,
    n: int,
    voxel_size_nm: Sequence[float] = (1.0, 1.0, 1.0),
    workers: int = 1,
) -> np.ndarray:
    """Give every voxel of the cytoplasm its shell by the distances to the shell surfaces of pairs.

    Parameters
    ----------
    pairs : (K, 6) ndarray
        NE z, y, x, PM z, y, x in voxels.
    cytoplasm : (Z, Y, X) bool ndarray
    n : int
        Shells, 1 to 250.
    voxel_size_nm : sequence of float
        (Z, Y, X).
    workers : int
        Threads; the result does not depend on it.

    Returns
    -------
    (Z, Y, X) uint8 ndarray
        1 … `n`, 0 outside the cytoplasm. Before closing.

    Raises
    ------
    ValueError
        For no pair, another shape or dtype, a wrong `n` or voxel size.

    Notes
    -----
    1 byte a voxel for the result; 48 bytes a pair, and 56 a pair and surface for the candidates.
    """
    check_shell_count(n)
    size = checked_voxel_size(voxel_size_nm)
    if cytoplasm.ndim != 3 or cytoplasm.dtype != bool:
        raise ValueError(
            f"cytoplasm must be a bool (Z, Y, X) array, found {cytoplasm.dtype} {cytoplasm.shape}"
        )
    pairs = np.asarray(pairs, np.float64)
    if pairs.ndim != 2 or pairs.shape[1] != 6 or not len(pairs):
        raise ValueError(
            f"shells need NE-PM pairs as rows of 6 coordinates, found an array of shape {pairs.shape}: "
            "widen the limits of length, or check that the cytoplasm is not empty"
        )
    vectors = np.hstack([pairs[:, :3] * size, (pairs[:, 3:] - pairs[:, :3]) * size])
    mask = np.ascontiguousarray(cytoplasm)
    shells = np.zeros(mask.shape, np.uint8)
    edges = np.linspace(0, mask.shape[0], min(max(1, workers), mask.shape[0]) + 1).astype(np.int64)

    def fill(slab: int) -> None:
        low = np.array([edges[slab], 0, 0])
        high = np.array([edges[slab + 1], mask.shape[1], mask.shape[2]])
        _assign(vectors, mask, size, n, low, high, shells)

    if len(edges) == 2:
        fill(0)
    else:
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(fill, range(len(edges) - 1)))
    return shells


def check_masks(nucleus: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """Return the cytoplasm ``cell & ~nucleus`` of one cell.

    Raises
    ------
    ValueError
        For masks of different shape or dtype, an empty nucleus, a nucleus outside of the cell, or no
        cytoplasm.
    """
    for name, mask in (("nucleus", nucleus), ("cell", cell)):
        if mask.ndim != 3 or mask.dtype != bool:
            raise ValueError(
                f"the {name} must be a bool (Z, Y, X) array, found {mask.dtype} of shape {mask.shape}"
            )
    if nucleus.shape != cell.shape:
        raise ValueError(f"nucleus {nucleus.shape} and cell {cell.shape} must have the same shape")
    if not nucleus.any():
        raise ValueError("the nucleus has no voxel: check the NE mask and its labels")
    if (nucleus & ~cell).any():
        raise ValueError("the nucleus reaches outside of the cell: clean the masks first")
    cytoplasm = cell & ~nucleus
    if not cytoplasm.any():
        raise ValueError("the cell has no cytoplasm: nucleus and cell are the same voxels")
    return cytoplasm


def partition_by_pairs(
    pairs: np.ndarray, found: int, cytoplasm: np.ndarray, n: int, size: np.ndarray, workers: int
) -> tuple[np.ndarray, PairsInfo]:
    """Assign, close and sum up; `found` counts pairs before the limits of length."""
    if not len(pairs):
        raise ValueError(f"none of {found} NE-PM pairs is left after the limits of length: widen them")
    shells, moved = close_shells(shells_from_pairs(pairs, cytoplasm, n, size, workers))
    length = np.linalg.norm((pairs[:, 3:] - pairs[:, :3]) * size, axis=1)
    return shells, PairsInfo(len(pairs), found - len(pairs), float(np.median(length)), moved)


def pairs_shells(
    nucleus: np.ndarray,
    cell: np.ndarray,
    n: int,
    voxel_size_nm: Sequence[float] = (1.0, 1.0, 1.0),
    cut_faces: np.ndarray | None = None,
    step: int = DEFAULT_STEP,
    min_length_nm: float | None = None,
    max_length_nm: float | None = None,
    xp: Any = np,
    workers: int = 1,
) -> tuple[np.ndarray, PairsInfo]:
    """Partition a cell's cytoplasm into shells by NE–PM pairs.

    Parameters
    ----------
    nucleus, cell : (Z, Y, X) bool ndarray
        A cell crop; edges and region come from these same masks.
    n : int
        Shells, 1 to 250.
    voxel_size_nm : sequence of float
        (Z, Y, X).
    cut_faces : (3, 2) bool ndarray, optional
        Faces of the image volume at which the cell is cut: no membrane there. A single slice is
        partitioned in its plane.
    step, min_length_nm, max_length_nm, xp, workers
        See :func:`cytomill.partitioning.pairing.find_pairs`.

    Returns
    -------
    shells : (Z, Y, X) uint8 ndarray
        1 … `n` from the nucleus outwards, 0 outside the cytoplasm; no cytoplasm voxel is 0.
    info : PairsInfo

    Raises
    ------
    ValueError
        For masks that are no cell crop, no NE or PM surface, no pair within the limits, or a wrong
        option.

    Notes
    -----
    About 3 bytes a voxel of the crop beside the masks, and 100 bytes a surface point.
    """
    check_shell_count(n)
    size = checked_voxel_size(voxel_size_nm)
    cytoplasm = check_masks(nucleus, cell)
    ne, pm = surface_points(nucleus, cut_faces), surface_points(cell, cut_faces)
    pairs = find_pairs(nucleus_center(nucleus), ne, pm, step, size, xp=xp, workers=workers)
    length = np.linalg.norm((pairs[:, 3:] - pairs[:, :3]) * size, axis=1)
    low = -np.inf if min_length_nm is None else min_length_nm
    high = np.inf if max_length_nm is None else max_length_nm
    kept = pairs[(length >= low) & (length <= high)]
    return partition_by_pairs(kept, len(pairs), cytoplasm, n, size, workers)
