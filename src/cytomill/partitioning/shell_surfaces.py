"""Which shell a voxel belongs to, by its distances to the shell surfaces of NE–PM pairs.

Distances are exact.  A search tree a surface would ask every voxel for every surface; instead boxes are
halved until they hold a few voxels, and each keeps only the pairs that can still be nearest to one of
its voxels, of the surfaces that can still matter.  Lists of neighbouring voxels are built once, which is
what makes the method linear in the voxels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numba import njit

from cytomill.kernels.cell_codes import check_shell_count
from cytomill.kernels.voxel_size import checked_voxel_size

_INNER, _OUTER = 0.6, 0.4
# A box of at most this many voxels is searched voxel by voxel.
_LEAF_VOXELS = 64
_LEVELS = 64


# Without NaN and signed zeros a minimum may be taken in several lanes; no other freedom is given, so that
# every value is the one of plain float64 arithmetic.
_njit_min = njit(nogil=True, cache=True, fastmath={"nnan", "nsz"})


@njit(nogil=True, cache=True)
def _any_voxel(mask, low, high):
    for z in range(low[0], high[0]):
        for y in range(low[1], high[1]):
            for x in range(low[2], high[2]):
                if mask[z, y, x]:
                    return True
    return False


@_njit_min
def _champion(point, start, stop, z, y, x, square, shift):
    """Write squared distances of candidates from (z, y, x), and return the first nearest candidate."""
    best = np.inf
    for c in range(start, stop):
        dz = point[0, c] - z
        dy = point[1, c] - y
        dx = point[2, c] - x
        d = (dz * dz + dy * dy) + dx * dx
        square[c - shift] = d
        best = d if d < best else best
    for c in range(start, stop):
        if square[c - shift] == best:
            return c
    return start


@njit(nogil=True, cache=True)
def _first_rival(point, start, stop, champion, half, square, shift):
    """First candidate that may be as near as `champion` to some point of a box; `stop` if there is none.

    The points as near to both form a plane, and the box reaches `half` from the centre to which squared
    distances were taken: the candidate's side of the plane meets the box if
    ``|c − centre|² − |champion − centre|² ≤ 2 Σ |c − champion| half``.
    """
    own = square[champion - shift]
    slack = 1e-9 * (own + half[0] * half[0] + half[1] * half[1] + half[2] * half[2])
    for c in range(start, stop):
        dz = abs(point[0, c] - point[0, champion])
        dy = abs(point[1, c] - point[1, champion])
        dx = abs(point[2, c] - point[2, champion])
        # Rounding must not lose a candidate at the limit itself.
        if square[c - shift] - own <= 2 * (dz * half[0] + dy * half[1] + dx * half[2]) + slack:
            return c
    return stop


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
    champion = np.empty(n + 1, np.int64)
    square = np.empty(count * (n + 1))
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
        start, used = begins[level, f], begins[level, g + 1]
        if used + used - start > pair.size:
            point, pair = _larger(point, pair, used)
        nearest = -1
        for k in range(f, g + 1):
            best = _champion(point, begins[level, k], begins[level, k + 1], z, y, x, square, start)
            champion[k] = best
            if nearest < 0 or square[best - start] < square[nearest - start]:
                nearest = best
        # Surfaces that may be nearest to a voxel of the box, and one beyond on each side for the rule.
        lowest, highest = g, f
        for k in range(f, g + 1):
            stop = begins[level, k + 1]
            if _first_rival(point, begins[level, k], stop, nearest, half, square, start) < stop:
                lowest, highest = min(lowest, k), max(highest, k)
        here = level + 1
        first[here], last[here] = max(f, lowest - 1), min(g, highest + 1)
        for k in range(first[here], last[here] + 1):
            begins[here, k] = used
            c, stop = begins[level, k], begins[level, k + 1]
            while True:
                c = _first_rival(point, c, stop, champion[k], half, square, start)
                if c == stop:
                    break
                point[0, used], point[1, used], point[2, used] = point[0, c], point[1, c], point[2, c]
                pair[used] = pair[c]
                used += 1
                c += 1
        begins[here, last[here] + 1] = used
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
