"""Laplace's equation on the voxels of a mask: conjugate gradients preconditioned by multigrid.

Only the voxels of the mask are stored, numbered 1 … n in raster order; number 0 (and n + 1) is a sentinel
whose value and couplings are 0, so that no kernel asks whether a neighbour exists. The equation is kept as
a network of conductances: ``plus[k][i]`` couples voxel i to its next voxel on axis k, ``wall[i]`` to walls
of given value. A coarse level joins 2 voxels along each axis whose spacing is still small (so that
anisotropic voxels become isotropic first: semi-coarsening), adds the conductances of the faces between
them, and halves those along the joined axis, which is what the same equation gives on the coarse grid
(the over-correction of aggregation multigrid, D. Braess, Computing 55, 1995). One symmetric V-cycle,
Gauss–Seidel forward on the way down and backward on the way up, preconditions conjugate gradients
(O. Tatebe, 1993). Vectors are float32, sums float64; nothing depends on a number of threads.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

# Below this many voxels a level is solved by sweeps alone.
COARSEST_VOXELS = 64
COARSEST_SWEEPS = 16
# An axis is joined while its spacing is below this many times the smallest one.
JOINED_SPACING = 1.5
# Memory of the finest level, and of all levels with the solver's vectors; 6 bytes of walls included.
NETWORK_BYTES_A_VOXEL = 54
SOLVER_BYTES_A_VOXEL = 90


@dataclass
class Level:
    """Network of conductances between the n voxels of a mask; arrays have n + 2 places.

    Parameters
    ----------
    position : (n + 2,) int32 ndarray
        C-order index of each voxel in the box.
    shape : tuple of 3 int
        The box.
    minus, plus : (3, n + 2) int32 ndarray
        Number of the neighbour below and above on Z, Y and X; 0 for none.
    coupling : (3, n + 2) float32 ndarray
        Conductance to the neighbour above.
    wall : (n + 2,) float32 ndarray
        Conductance to walls of given value.
    inverse_diagonal : (n + 2,) float32 ndarray
        1 / (sum of a voxel's conductances).
    parent : (n + 2,) int32 ndarray or None
        Number on the next coarser level.
    side : (n + 2,) uint8 ndarray or None
        Bit k is set where the voxel is the upper one of its pair on axis k, bit k + 3 where axis k is joined.
    """

    position: np.ndarray
    shape: tuple[int, int, int]
    minus: np.ndarray
    plus: np.ndarray
    coupling: np.ndarray
    wall: np.ndarray
    inverse_diagonal: np.ndarray
    parent: np.ndarray | None = None
    side: np.ndarray | None = None

    @property
    def size(self) -> int:
        """Number of voxels."""
        return self.wall.size - 2


@njit(nogil=True, cache=True)
def number_voxels(mask, number, position):
    """Number the voxels of a flat mask in C order from 1, and note where each is."""
    count = 0
    for flat in range(mask.size):
        if mask[flat]:
            count += 1
            number[flat] = count
            position[count] = flat


@njit(nogil=True, cache=True)
def find_neighbours(position, number, shape, minus, plus):
    """Number of each voxel's neighbour below and above on every axis, 0 for none."""
    depth, height, width = shape
    plane = height * width
    for i in range(1, position.size - 1):
        flat = position[i]
        z = flat // plane
        rest = flat - z * plane
        y = rest // width
        x = rest - y * width
        minus[0, i] = number[flat - plane] if z > 0 else 0
        plus[0, i] = number[flat + plane] if z + 1 < depth else 0
        minus[1, i] = number[flat - width] if y > 0 else 0
        plus[1, i] = number[flat + width] if y + 1 < height else 0
        minus[2, i] = number[flat - 1] if x > 0 else 0
        plus[2, i] = number[flat + 1] if x + 1 < width else 0


@njit(nogil=True, cache=True)
def invert_diagonal(minus, coupling, wall, inverse):
    """1 / (sum of conductances) of every voxel; 0 for one without any."""
    for i in range(1, wall.size - 1):
        total = wall[i]
        for k in range(3):
            total += coupling[k, i] + coupling[k, minus[k, i]]
        inverse[i] = 1.0 / total if total > 0 else 0.0


@njit(nogil=True, cache=True)
def _join(position, shape, factor, coarse_shape, number, parent, side):
    """Number the coarse voxels in C order; find each voxel's parent and side; return their count."""
    plane = shape[1] * shape[2]
    width = shape[2]
    joined = 0
    for k in range(3):
        if factor[k] == 2:
            joined |= 8 << k
    for i in range(1, position.size - 1):
        flat = position[i]
        z = flat // plane
        rest = flat - z * plane
        y = rest // width
        x = rest - y * width
        coarse = (z // factor[0] * coarse_shape[1] + y // factor[1]) * coarse_shape[2] + x // factor[2]
        number[coarse] = 1
        parent[i] = coarse
        side[i] = joined | (z % factor[0]) | (y % factor[1]) << 1 | (x % factor[2]) << 2
    count = 0
    for coarse in range(number.size):
        if number[coarse]:
            count += 1
            number[coarse] = count
    for i in range(1, position.size - 1):
        parent[i] = number[parent[i]]
    return count


@njit(nogil=True, cache=True)
def _add_conductances(plus, coupling, wall, parent, factor, extra, coarse_coupling, coarse_wall):
    """Conductances of the coarse level from those of the fine one."""
    for i in range(1, wall.size - 1):
        here = parent[i]
        if wall[i] > 0:
            # In series with half a fine voxel: the coarse centre lies that much farther from the wall.
            coarse_wall[here] += wall[i] / (1 + extra * wall[i])
        for k in range(3):
            if coupling[k, i] > 0:
                there = parent[plus[k, i]]
                if there != here:
                    coarse_coupling[k, here] += coupling[k, i] / factor[k]


def coarsen(level: Level, spacing: np.ndarray) -> tuple[Level, np.ndarray]:
    """Build the next coarser level and set `level`'s parents.

    Parameters
    ----------
    level : Level
        The finer level.
    spacing : (3,) float64 ndarray
        Its voxel spacing.

    Returns
    -------
    Level, (3,) float64 ndarray
        The coarser level and its spacing.
    """
    extent = np.array(level.shape)
    smallest = spacing[extent > 1].min()
    factor = np.where((extent > 1) & (spacing < JOINED_SPACING * smallest), 2, 1)
    shape = tuple(int(size) for size in -(-extent // factor))
    number = np.zeros(int(np.prod(shape)), np.int32)
    level.parent = np.zeros(level.size + 2, np.int32)
    level.side = np.zeros(level.size + 2, np.uint8)
    count = _join(level.position, level.shape, factor, shape, number, level.parent, level.side)
    coarse = empty_level(count, shape)
    number_voxels(number, number, coarse.position)
    find_neighbours(coarse.position, number, shape, coarse.minus, coarse.plus)
    strongest = float(level.coupling.max())
    extra = 0.5 / strongest if strongest > 0 else 0.0
    _add_conductances(
        level.plus, level.coupling, level.wall, level.parent, factor, extra, coarse.coupling, coarse.wall
    )
    invert_diagonal(coarse.minus, coarse.coupling, coarse.wall, coarse.inverse_diagonal)
    return coarse, spacing * factor


def empty_level(count: int, shape: tuple[int, int, int]) -> Level:
    """Level of `count` voxels with all arrays zero."""
    return Level(
        position=np.zeros(count + 2, np.int32),
        shape=shape,
        minus=np.zeros((3, count + 2), np.int32),
        plus=np.zeros((3, count + 2), np.int32),
        coupling=np.zeros((3, count + 2), np.float32),
        wall=np.zeros(count + 2, np.float32),
        inverse_diagonal=np.zeros(count + 2, np.float32),
    )


@njit(nogil=True, cache=True)
def _sweep_forward(x, rhs, minus, plus, coupling, inverse):
    for i in range(1, x.size - 1):
        z, y = minus[0, i], minus[1, i]
        total = rhs[i] + coupling[0, z] * x[z] + coupling[0, i] * x[plus[0, i]]
        total += coupling[1, y] * x[y] + coupling[1, i] * x[plus[1, i]]
        # Without a neighbour along X the coupling is 0, whatever voxel comes next in the list.
        total += coupling[2, i] * x[i + 1] + coupling[2, i - 1] * x[i - 1]
        x[i] = total * inverse[i]


@njit(nogil=True, cache=True)
def _sweep_backward(x, rhs, minus, plus, coupling, inverse):
    for i in range(x.size - 2, 0, -1):
        z, y = minus[0, i], minus[1, i]
        total = rhs[i] + coupling[0, z] * x[z] + coupling[0, i] * x[plus[0, i]]
        total += coupling[1, y] * x[y] + coupling[1, i] * x[plus[1, i]]
        total += coupling[2, i - 1] * x[i - 1] + coupling[2, i] * x[i + 1]
        x[i] = total * inverse[i]


@njit(nogil=True, cache=True)
def _apply(x, minus, plus, coupling, inverse, out):
    """Out := A x; return xᵀ A x."""
    product = 0.0
    for i in range(1, x.size - 1):
        if inverse[i] == 0:
            out[i] = 0
            continue
        z, y = minus[0, i], minus[1, i]
        total = coupling[0, z] * x[z] + coupling[0, i] * x[plus[0, i]]
        total += coupling[1, y] * x[y] + coupling[1, i] * x[plus[1, i]]
        total += coupling[2, i - 1] * x[i - 1] + coupling[2, i] * x[i + 1]
        value = x[i] / inverse[i] - total
        out[i] = value
        product += value * x[i]
    return product


@njit(nogil=True, cache=True)
def _restrict(x, rhs, minus, plus, coupling, inverse, parent, side, coarse_minus, coarse_plus, coarse_rhs):
    """Transpose of :func:`_prolong`, applied to the residual."""
    coarse_rhs[:] = 0
    for i in range(1, x.size - 1):
        if inverse[i] == 0:
            continue
        z, y = minus[0, i], minus[1, i]
        total = rhs[i] + coupling[0, z] * x[z] + coupling[0, i] * x[plus[0, i]]
        total += coupling[1, y] * x[y] + coupling[1, i] * x[plus[1, i]]
        total += coupling[2, i - 1] * x[i - 1] + coupling[2, i] * x[i + 1]
        residual = total - x[i] / inverse[i]
        here = parent[i]
        bits = side[i]
        share = np.float32(1)
        for k in range(3):
            if bits >> (k + 3) & 1:
                near = coarse_plus[k, here] if bits >> k & 1 else coarse_minus[k, here]
                coarse_rhs[near] += np.float32(0.25) * residual
                share -= np.float32(0.25)
        coarse_rhs[here] += share * residual
    coarse_rhs[0] = 0


@njit(nogil=True, cache=True)
def _prolong(x, parent, side, coarse_minus, coarse_plus, coarse_x):
    """Add the coarse correction, linear between coarse centres, 0 where there is no coarse voxel."""
    for i in range(1, x.size - 1):
        here = parent[i]
        bits = side[i]
        share = np.float32(1)
        value = np.float32(0)
        for k in range(3):
            if bits >> (k + 3) & 1:
                near = coarse_plus[k, here] if bits >> k & 1 else coarse_minus[k, here]
                value += np.float32(0.25) * coarse_x[near]
                share -= np.float32(0.25)
        x[i] += value + share * coarse_x[here]


@njit(nogil=True, cache=True)
def _dot(a, b):
    total = 0.0
    for i in range(a.size):
        total += np.float64(a[i]) * b[i]
    return total


@njit(nogil=True, cache=True)
def _advance(u, residual, direction, product, step):
    """Take a step along the direction; return the squared norm of the new residual."""
    total = 0.0
    for i in range(1, u.size - 1):
        u[i] += step * direction[i]
        value = residual[i] - step * product[i]
        residual[i] = value
        total += value * value
    return total


@njit(nogil=True, cache=True)
def _turn(direction, correction, ratio):
    for i in range(direction.size):
        direction[i] = correction[i] + ratio * direction[i]


class Multigrid:
    """Levels of one network and the V-cycle over them.

    Parameters
    ----------
    finest : Level
        The network to solve.
    spacing : sequence of 3 float
        Its voxel spacing (Z, Y, X), in any one unit.
    """

    def __init__(self, finest: Level, spacing) -> None:
        self.levels = [finest]
        spacing = np.asarray(spacing, np.float64)
        while self.levels[-1].size > COARSEST_VOXELS:
            coarse, spacing = coarsen(self.levels[-1], spacing)
            self.levels.append(coarse)
        self._x = [np.zeros(level.size + 2, np.float32) for level in self.levels[1:]]
        self._rhs = [np.zeros(level.size + 2, np.float32) for level in self.levels[1:]]

    def cycle(self, x: np.ndarray, rhs: np.ndarray, depth: int = 0) -> None:
        """Overwrite `x` with one symmetric V-cycle's answer to A x = rhs."""
        level = self.levels[depth]
        network = (level.minus, level.plus, level.coupling, level.inverse_diagonal)
        x[:] = 0
        if depth + 1 == len(self.levels):
            for _ in range(COARSEST_SWEEPS):
                _sweep_forward(x, rhs, *network)
            for _ in range(COARSEST_SWEEPS):
                _sweep_backward(x, rhs, *network)
            return
        coarse = self.levels[depth + 1]
        _sweep_forward(x, rhs, *network)
        between = (level.parent, level.side, coarse.minus, coarse.plus)
        _restrict(x, rhs, *network, *between, self._rhs[depth])
        self.cycle(self._x[depth], self._rhs[depth], depth + 1)
        _prolong(x, *between, self._x[depth])
        _sweep_backward(x, rhs, *network)

    def solve(self, rhs: np.ndarray, tolerance: float, most: int) -> tuple[np.ndarray, int, float]:
        """Solve A u = rhs by preconditioned conjugate gradients from u = 0.

        Parameters
        ----------
        rhs : (n + 2,) float32 ndarray
            Right-hand side, overwritten by the residual.
        tolerance : float
            Stop when ‖rhs − A u‖₂ ≤ tolerance · ‖rhs‖₂.
        most : int
            Iterations to give up after.

        Returns
        -------
        u : (n + 2,) float32 ndarray
        iterations : int
        residual : float
            ‖rhs − A u‖₂ / ‖rhs‖₂ as conjugate gradients carry it.
        """
        finest = self.levels[0]
        network = (finest.minus, finest.plus, finest.coupling, finest.inverse_diagonal)
        u = np.zeros_like(rhs)
        norm = _dot(rhs, rhs) ** 0.5
        if norm == 0:
            return u, 0, 0.0
        correction = np.zeros_like(rhs)
        product = np.zeros_like(rhs)
        self.cycle(correction, rhs)
        direction = correction.copy()
        slope = _dot(rhs, correction)
        residual = 1.0
        for iteration in range(1, most + 1):
            step = slope / _apply(direction, *network, product)
            residual = _advance(u, rhs, direction, product, np.float32(step)) ** 0.5 / norm
            if residual <= tolerance:
                return u, iteration, residual
            self.cycle(correction, rhs)
            before, slope = slope, _dot(rhs, correction)
            _turn(direction, correction, np.float32(slope / before))
        return u, most, residual
