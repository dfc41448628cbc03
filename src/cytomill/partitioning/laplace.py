"""Radial position by the lengths of the streamlines of a harmonic field.

Between the nuclear envelope (u = 0) and the plasma membrane (u = 1) the field u is harmonic; its streamlines
run from one to the other, cross neither each other nor a membrane, and end perpendicular to both. With L_NE
and L_PM the lengths of a voxel's streamline back to the NE and on to the PM, t = L_NE / (L_NE + L_PM)
(A. Yezzi and J. L. Prince, IEEE Trans. Med. Imaging 22, 1332, 2003). u itself is no radial fraction.

Both membranes are taken where they cut the edges between voxel centres (sub-voxel, the 0.5 level): the
conductance of such an edge is that of its part inside the cytoplasm (F. Gibou et al., J. Comput. Phys. 176,
205, 2002), which keeps the matrix symmetric.

Rules
-----
- Through cut faces, and the Z faces of a 2-D image, nothing flows: streamlines run along them.
- Where the field is flat there are no streamlines: a pocket of cytoplasm that touches only one of the two
  membranes, or the depth of a long narrow protrusion. These voxels take their distances to the NE and PM in
  place of the lengths, so that t is that of the EDT field; they are counted.
- Where the nucleus touches the membrane there is no cytoplasm, and nothing to decide.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from cytomill.kernels.distance import surface_distance
from cytomill.kernels.levels import LEVEL_BYTES_A_VOXEL, surface_level
from cytomill.kernels.multigrid import (
    NETWORK_BYTES_A_VOXEL,
    SOLVER_BYTES_A_VOXEL,
    Level,
    Multigrid,
    empty_level,
    find_neighbours,
    invert_diagonal,
    number_voxels,
)
from cytomill.kernels.streamlines import STREAMLINE_BYTES_A_VOXEL, WALL_STEPS, streamline_lengths
from cytomill.partitioning.mask_values import check_crop
from cytomill.partitioning.pairing import no_membrane

# A membrane is at least this far from a voxel centre, in steps (0.05 voxel): conductances stay bounded.
NEAREST_WALL = 6
# The field is flat where |∇u|, in 1 / finest voxel, is not above this many times the tolerance.
FLAT_TOLERANCES = 10
MOST_ITERATIONS = 200
# Of the distances that stand in for streamlines, while the field is held.
DISTANCE_BYTES_A_VOXEL = 10
# Small arrays, and what the allocator does not give back.
FIXED_BYTES = 16 << 20


@njit(nogil=True, cache=True)
def _steps_to_surface(here, there):
    """Distance from a voxel centre to the 0.5 level between it and the next, in steps."""
    if (here > 0.5) != (there > 0.5):
        fraction = (here - 0.5) / (here - there)
    elif (here > 0.5) == (here > there):
        # The level surface passes on the other side of the next centre: the wall is at that centre …
        fraction = 1.0
    else:
        # … or has left this voxel's centre behind.
        fraction = 0.0
    return max(round(WALL_STEPS * fraction), NEAREST_WALL)


@njit(nogil=True, cache=True)
def _place_walls(position, mask, inside, level, sealed, sign, walls):
    """Fill in the walls towards voxels where `mask` is `inside`."""
    depth, height, width = mask.shape
    shape = (depth, height, width)
    stride = (height * width, width, 1)
    mask = mask.reshape(-1)
    level = level.reshape(-1)
    for i in range(1, position.size - 1):
        flat = position[i]
        z = flat // stride[0]
        y = (flat - z * stride[0]) // width
        at = (z, y, flat - z * stride[0] - y * width)
        for k in range(3):
            for side in range(2):
                if at[k] == (shape[k] - 1 if side else 0):
                    if not inside and not sealed[k, side]:
                        walls[i, 2 * k + side] = sign * (WALL_STEPS // 2)
                    continue
                other = flat + (stride[k] if side else -stride[k])
                if mask[other] == inside:
                    walls[i, 2 * k + side] = sign * _steps_to_surface(level[flat], level[other])


@njit(nogil=True, cache=True)
def _set_conductances(plus, walls, spacing, coupling, wall, rhs):
    """Conductances of the network, relative to that between neighbours on the finest axis."""
    smallest = min(spacing[0], spacing[1], spacing[2])
    for i in range(1, wall.size - 1):
        for k in range(3):
            strength = (smallest / spacing[k]) ** 2
            if plus[k, i]:
                coupling[k, i] = strength
            for side in range(2):
                steps = walls[i, 2 * k + side]
                if steps != 0:
                    conductance = strength * WALL_STEPS / abs(steps)
                    wall[i] += conductance
                    if steps > 0:
                        rhs[i] += conductance


def _number(cytoplasm: np.ndarray) -> Level:
    """Level of the cytoplasm's voxels with their neighbours."""
    level = empty_level(int(np.count_nonzero(cytoplasm)), cytoplasm.shape)
    number = np.zeros(cytoplasm.size, np.int32)
    number_voxels(cytoplasm.reshape(-1), number, level.position)
    find_neighbours(level.position, number, level.shape, level.minus, level.plus)
    return level


def _solve(level: Level, walls: np.ndarray, spacing: np.ndarray, tolerance: float):
    """Harmonic field u of the voxels, iterations, relative residual."""
    rhs = np.zeros(level.size + 2, np.float32)
    _set_conductances(level.plus, walls, spacing, level.coupling, level.wall, rhs)
    invert_diagonal(level.minus, level.coupling, level.wall, level.inverse_diagonal)
    u, iterations, residual = Multigrid(level, spacing).solve(rhs, tolerance, MOST_ITERATIONS)
    return np.clip(u, 0, 1, out=u), iterations, residual


def laplace_bytes(shape: tuple[int, int, int], cytoplasm_voxels: int | None = None) -> int:
    """Peak memory of :func:`laplace_field`, in bytes, the two masks and the result included.

    Parameters
    ----------
    shape : tuple of 3 int
        The crop.
    cytoplasm_voxels : int, optional
        Voxels of cytoplasm; the whole crop by default, which is two to four times too much for most cells.
    """
    box = math.prod(shape)
    count = box if cytoplasm_voxels is None else cytoplasm_voxels
    # Masks, cytoplasm and t; then the smoothing of a mask, or the levels, or distances, or the streamlines.
    smoothing = LEVEL_BYTES_A_VOXEL * box + NETWORK_BYTES_A_VOXEL * count
    distances = DISTANCE_BYTES_A_VOXEL * box + 45 * count
    solving = max(SOLVER_BYTES_A_VOXEL, STREAMLINE_BYTES_A_VOXEL) * count
    return 7 * box + max(smoothing, distances, solving) + FIXED_BYTES


def laplace_field(
    nucleus: np.ndarray,
    cell: np.ndarray,
    voxel_size_nm,
    cut_faces: np.ndarray | None = None,
    tolerance: float = 1e-6,
) -> tuple[np.ndarray, dict]:
    """Radial position of every cytoplasm voxel from the streamlines of the harmonic field.

    Parameters
    ----------
    nucleus, cell : (Z, Y, X) bool ndarray
        A cell crop: cell ⊇ nucleus, no holes, background around the cell except at cut faces.
    voxel_size_nm : sequence of 3 float
        Voxel size (Z, Y, X), nm.
    cut_faces : (3, 2) bool ndarray, optional
        True where the cell is cut by the crop's border on that axis and side; none by default.
    tolerance : float
        Relative residual ‖b − A u‖₂ / ‖b‖₂ at which the solver stops; float32 fields leave about 1e-6, so
        that less gains nothing.

    Returns
    -------
    t : (Z, Y, X) float32 ndarray
        0 at the NE, 1 at the PM; NaN outside the cytoplasm.
    info : dict
        ``iterations`` and ``residual`` of the solver, ``flat_voxels`` (decided by distance), ``bytes``
        (projected peak memory).

    Raises
    ------
    ValueError
        For masks of different shapes or of 2³¹ voxels and more, an empty nucleus, a missing membrane, or
        where the solver does not reach the tolerance.
    """
    check_crop(nucleus, cell)
    if cell.size >= 2**31:
        raise ValueError(
            f'field = "laplace" takes crops below {2**31} voxels, found {cell.size}: use field = "edt"'
        )
    nucleus, cell = np.ascontiguousarray(nucleus, bool), np.ascontiguousarray(cell, bool)
    spacing = np.asarray(voxel_size_nm, np.float64)
    sealed = no_membrane(cell.shape, cut_faces)
    if cell.shape[0] == 1:
        # Nothing happens along Z: the in-plane size keeps the levels and the flatness in proportion.
        spacing = np.array([spacing[1:].min(), *spacing[1:]])
    cytoplasm = cell & ~nucleus
    t = np.full(cell.shape, np.nan, np.float32)
    if not cytoplasm.any():
        return t, {"iterations": 0, "residual": 0.0, "flat_voxels": 0, "bytes": laplace_bytes(cell.shape, 0)}
    level = _number(cytoplasm)
    walls = np.zeros((level.size + 2, 6), np.int8)
    for mask, inside, sign in ((nucleus, True, -1), (cell, False, 1)):
        surface = surface_level(mask, voxel_size_nm, sealed)
        _place_walls(level.position, mask, inside, surface, sealed, sign, walls)
        del surface
    u, iterations, residual = _solve(level, walls, spacing, tolerance)
    if not residual <= tolerance:
        raise ValueError(
            f"the harmonic field reached a residual of {residual:.1e} in {iterations} iterations, expected "
            f'{tolerance:.1e}: raise the tolerance, or use field = "edt"'
        )
    minus, plus = level.minus, level.plus
    level = None

    def distances(flat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        where = np.zeros(cell.shape, bool)
        where[cytoplasm] = flat
        found = tuple(surface_distance(mask, voxel_size_nm, sealed, where)[where] for mask in (nucleus, cell))
        for name, distance in zip(("nuclear envelope", "plasma membrane"), found, strict=True):
            if not np.isfinite(distance).all():
                raise ValueError(
                    f"the cell has no {name} in the image (it is cut at every face), but a radial position "
                    "needs both surfaces: leave this cell out or give an image that shows more of it"
                )
        return found

    flattest = FLAT_TOLERANCES * tolerance / spacing.min()
    from_nucleus, to_membrane, flat = streamline_lengths(u, minus, plus, walls, spacing, flattest, distances)
    to_membrane += from_nucleus
    # Both surfaces through one voxel centre: half-way, as everywhere.
    from_nucleus[to_membrane == 0] = 0.5
    to_membrane[to_membrane == 0] = 1
    t[cytoplasm] = np.divide(from_nucleus, to_membrane, out=from_nucleus)
    return t, {
        "iterations": iterations,
        "residual": residual,
        "flat_voxels": flat,
        "bytes": laplace_bytes(cell.shape, int(np.count_nonzero(cytoplasm))),
    }
