"""Radial position along the ray from the centre of the nucleus, for star-shaped cells.

t = (r − r_NE) / (r_PM − r_NE), where r is a voxel's distance from the centre of the nucleus and r_NE, r_PM
are the distances, in its direction, at which the ray leaves the nucleus and the cell. The two radii are
measured once for each direction of a cube map (six square grids on the faces of a cube about the centre) on
the sub-voxel surfaces, and interpolated bilinearly at the voxels: cost linear in voxels.

Rules
-----
- The centre is the centroid of the nucleus; where that lies outside the nucleus (a bent nucleus, two nuclei),
  the nucleus voxel nearest to it.
- r_NE is the last exit from the nucleus, r_PM the first exit from the cell after it; t is cut to [0, 1].
  Cytoplasm between two lobes of the nucleus has t = 0, a part of the cell behind a gap t = 1. The fraction of
  cytoplasm voxels whose ray crosses a surface more than once says how far a cell is from star-shaped.
- Behind a cut face the masks go on as at the face, so that a ray that leaves the volume there meets the
  membrane where that continuation ends, at the latest one diagonal of the crop away from the centre.
- A 2-D image has rays in its plane only.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from cytomill.kernels.levels import surface_level
from cytomill.partitioning.mask_values import check_crop
from cytomill.partitioning.pairing import no_membrane, nucleus_center

# Marching step, and spacing of the rays at the farthest membrane, in finest voxels.
STEP_VOXELS = 1.0
RAY_SPACING_VOXELS = 1.5
# Most steps of rays, per voxel of the cell (in finest voxels): the cost stays linear in voxels.
STEPS_A_VOXEL = 32
FEWEST_RAYS, MOST_RAYS = 16, 1024


@njit(nogil=True, cache=True)
def _march(level, centre, spacing, sealed, rays, start, stop, step, last, radius, often):
    """Where each ray of the cube map leaves the level's inside.

    ``rays``: grid points a face on (axis 1, axis 2) for each axis that is normal to a pair of faces;
    ``start``: (6, A, B) radii to start from; ``last``: the last exit before ``stop`` rather than the first;
    ``often`` is set where there is more than one. The level is trilinear between voxel centres, goes on
    behind sealed faces by its border, and is 0 behind the others.
    """
    depth, height, width = level.shape
    ends = np.array([depth - 1.0, height - 1.0, width - 1.0])
    low, high = np.zeros(3), ends.copy()
    for k in range(3):
        if sealed[k, 0]:
            low[k] = -np.inf
        if sealed[k, 1]:
            high[k] = np.inf
    direction = np.empty(3, np.float64)
    for face in range(6):
        axis = face // 2
        first, second = (axis + 1) % 3, (axis + 2) % 3
        rows, columns = rays[axis, 0], rays[axis, 1]
        for i in range(rows):
            for j in range(columns):
                direction[axis] = 1.0 if face % 2 else -1.0
                direction[first] = _coordinate(i, rows)
                direction[second] = _coordinate(j, columns)
                norm = math.sqrt(direction[0] ** 2 + direction[1] ** 2 + direction[2] ** 2)
                for k in range(3):
                    direction[k] /= norm * spacing[k]
                r = start[face, i, j] - step
                before = np.float32(0)
                found = start[face, i, j]
                exits = 0
                while r < stop:
                    r += step
                    z = centre[0] + r * direction[0]
                    y = centre[1] + r * direction[1]
                    x = centre[2] + r * direction[2]
                    after = np.float32(0)
                    if low[0] <= z <= high[0] and low[1] <= y <= high[1] and low[2] <= x <= high[2]:
                        z = min(max(z, 0.0), ends[0])
                        y = min(max(y, 0.0), ends[1])
                        x = min(max(x, 0.0), ends[2])
                        z0, y0, x0 = int(z), int(y), int(x)
                        z1, y1, x1 = min(z0 + 1, depth - 1), min(y0 + 1, height - 1), min(x0 + 1, width - 1)
                        fz, fy, fx = np.float32(z - z0), np.float32(y - y0), np.float32(x - x0)
                        a = level[z0, y0, x0] + fx * (level[z0, y0, x1] - level[z0, y0, x0])
                        b = level[z0, y1, x0] + fx * (level[z0, y1, x1] - level[z0, y1, x0])
                        c = level[z1, y0, x0] + fx * (level[z1, y0, x1] - level[z1, y0, x0])
                        d = level[z1, y1, x0] + fx * (level[z1, y1, x1] - level[z1, y1, x0])
                        a += fy * (b - a)
                        after = a + fz * (c + fy * (d - c) - a)
                    if before > 0.5 and after <= 0.5:
                        exits += 1
                        if last or exits == 1:
                            found = r - step * (0.5 - after) / (before - after)
                    before = after
                if before > 0.5 and (last or exits == 0):
                    found = stop
                radius[face, i, j] = found
                if exits > 1:
                    often[face, i, j] = True


@njit(nogil=True, cache=True)
def _coordinate(index, count):
    """Place of a grid point on a face −1 … 1: one point beyond each edge, so that all is interpolated."""
    if count == 1:
        return 0.0
    return (index - 1) * 2.0 / (count - 3) - 1.0


@njit(nogil=True, cache=True)
def _interpolate(cytoplasm, centre, spacing, rays, inner, outer, often, t):
    """Write t of every cytoplasm voxel; return how many lie on a ray that crosses a surface often."""
    depth, height, width = cytoplasm.shape
    offset = np.empty(3, np.float64)
    ambiguous = 0
    for z in range(depth):
        for y in range(height):
            for x in range(width):
                if not cytoplasm[z, y, x]:
                    t[z, y, x] = np.nan
                    continue
                offset[0] = (z - centre[0]) * spacing[0]
                offset[1] = (y - centre[1]) * spacing[1]
                offset[2] = (x - centre[2]) * spacing[2]
                axis = 0
                if abs(offset[1]) > abs(offset[axis]):
                    axis = 1
                if abs(offset[2]) > abs(offset[axis]):
                    axis = 2
                longest = abs(offset[axis])
                if longest == 0:
                    t[z, y, x] = 0
                    continue
                face = 2 * axis + (offset[axis] > 0)
                rows, columns = rays[axis, 0], rays[axis, 1]
                u = v = 0.0
                if rows > 1:
                    u = (offset[(axis + 1) % 3] / longest + 1) * (rows - 3) / 2 + 1
                if columns > 1:
                    v = (offset[(axis + 2) % 3] / longest + 1) * (columns - 3) / 2 + 1
                i, j = int(u), int(v)
                fu, fv = u - i, v - j
                i1, j1 = min(i + 1, rows - 1), min(j + 1, columns - 1)
                r_inner = (1 - fu) * ((1 - fv) * inner[face, i, j] + fv * inner[face, i, j1]) + fu * (
                    (1 - fv) * inner[face, i1, j] + fv * inner[face, i1, j1]
                )
                r_outer = (1 - fu) * ((1 - fv) * outer[face, i, j] + fv * outer[face, i, j1]) + fu * (
                    (1 - fv) * outer[face, i1, j] + fv * outer[face, i1, j1]
                )
                r = math.sqrt((offset * offset).sum())
                if r <= r_inner:
                    t[z, y, x] = 0
                elif r >= r_outer:
                    t[z, y, x] = 1
                else:
                    t[z, y, x] = (r - r_inner) / (r_outer - r_inner)
                if often[face, int(u + 0.5), int(v + 0.5)]:
                    ambiguous += 1
    return ambiguous


def _centre(nucleus: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Centroid of the nucleus in voxels, or the nucleus voxel nearest to it where it lies outside."""
    centre = nucleus_center(nucleus)
    if nucleus[tuple(np.rint(centre).astype(int))]:
        return centre
    inside = np.argwhere(nucleus).astype(np.int32)
    distance = sum(((inside[:, k] - centre[k]) * spacing[k]) ** 2 for k in range(3))
    return inside[int(np.argmin(distance))].astype(np.float64)


def _reach(mask: np.ndarray, centre: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Largest distance along each axis from the centre to the mask, and a voxel; 0 along a single slice."""
    reach = np.zeros(3)
    for k in range(3):
        if mask.shape[k] == 1:
            continue
        line = np.flatnonzero(mask.any(axis=tuple(j for j in range(3) if j != k)))
        reach[k] = (max(centre[k] - line[0], line[-1] - centre[k]) + 1) * spacing[k]
    return reach


def _rays_a_face(cell: np.ndarray, reach: np.ndarray, finest: float, spacing: np.ndarray) -> np.ndarray:
    """Grid points (rows, columns) on the faces normal to each axis, an extra one beyond each edge."""
    planar = cell.shape[0] == 1
    wanted = 2 * reach.max() / (RAY_SPACING_VOXELS * finest)
    # Rays times steps stay in proportion to the cell's voxels, however long and thin the cell is.
    voxels = np.count_nonzero(cell) * (spacing[planar:] / finest).prod()
    affordable = STEPS_A_VOXEL * voxels * STEP_VOXELS * finest / math.sqrt((reach**2).sum())
    affordable = affordable / 4 if planar else math.sqrt(affordable / 6)
    count = int(min(max(min(wanted, affordable), FEWEST_RAYS), MOST_RAYS)) + 3
    if planar:
        return np.array([[1, 1], [count, 1], [1, count]])
    return np.full((3, 2), count)


def ray_positions(
    nucleus: np.ndarray, cell: np.ndarray, voxel_size_nm, cut_faces: np.ndarray | None = None
) -> tuple[np.ndarray, dict]:
    """Radial position of every cytoplasm voxel along its ray, and how far the cell is from star-shaped.

    Parameters
    ----------
    nucleus, cell : (Z, Y, X) bool ndarray
        A cell crop: cell ⊇ nucleus, no holes, background around the cell except at cut faces.
    voxel_size_nm : sequence of 3 float
        Voxel size (Z, Y, X), nm.
    cut_faces : (3, 2) bool ndarray, optional
        True where the cell is cut by the crop's border on that axis and side; none by default.

    Returns
    -------
    t : (Z, Y, X) float32 ndarray
        0 at the NE, 1 at the PM; NaN outside the cytoplasm.
    info : dict
        ``crossing_fraction``: cytoplasm voxels whose ray crosses a surface more than once, of all;
        ``centre_nm``: where the rays start, from the first voxel's centre (Z, Y, X); ``rays``: their number.

    Raises
    ------
    ValueError
        For masks of different shapes or an empty nucleus.

    Notes
    -----
    At most 18 bytes a voxel of the crop beside the masks; time linear in voxels.
    """
    check_crop(nucleus, cell)
    spacing = np.asarray(voxel_size_nm, np.float64)
    sealed = no_membrane(cell.shape, cut_faces)
    planar = cell.shape[0] == 1
    finest = spacing[planar:].min()
    centre = _centre(nucleus, spacing)
    reach = _reach(cell, centre, spacing)
    rays = _rays_a_face(cell, reach, finest, spacing)
    radii = np.zeros((2, 6, rays.max(), rays.max()), np.float32)
    often = np.zeros(radii.shape[1:], bool)
    start = np.zeros(radii.shape[1:], np.float32)
    diagonal = math.sqrt(((np.array(cell.shape) * spacing)[planar:] ** 2).sum())
    for which, mask in enumerate((nucleus, cell)):
        stop = diagonal if sealed[planar:].any() else math.sqrt((_reach(mask, centre, spacing) ** 2).sum())
        level = surface_level(mask, voxel_size_nm, sealed)
        _march(
            level,
            centre,
            spacing,
            sealed,
            rays,
            start,
            stop,
            STEP_VOXELS * finest,
            which == 0,
            radii[which],
            often,
        )
        start = radii[0]
    del level
    t = np.empty(cell.shape, np.float32)
    cytoplasm = cell & ~nucleus
    crossing = _interpolate(cytoplasm, centre, spacing, rays, radii[0], radii[1], often, t)
    return t, {
        "crossing_fraction": crossing / max(1, int(np.count_nonzero(cytoplasm))),
        "centre_nm": tuple(float(value) for value in centre * spacing),
        "rays": int(2 * rays.prod(axis=1).sum()),
    }
