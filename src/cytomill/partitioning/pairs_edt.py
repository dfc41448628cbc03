"""Shells from NE–PM pairs that follow the distance transform: for cells that are not star-shaped.

Directions from the nucleus' centre say little about a cell with a lobed nucleus or long processes: the
partner found by them may lie behind the nucleus or outside of the cell.  Here the field
``t = d_NE / (d_NE + d_PM)`` of the Euclidean distance transforms shows each surface point the way: its
streamline leads to the other membrane, and the point where it arrives gives the direction that angles
are measured from.  Of the points there, only those are admissible whose segment lies in the cytoplasm
for at least 95 % of its length and is not a detour (``length / (d_NE + d_PM)`` at most 1.5, the distances
taken at the segment's middle: 1 is the shortest way between the membranes).  The smallest angle wins (in
whole degrees: less is below a voxel), then the smallest ``length / (d_NE + d_PM)``.

A point from which no streamline arrives (in a pocket of the nucleus behind a narrow neck), or whose
streamline bends around a corner, starts no pair: pairs forced upon such points would cross others, and
the voxels there belong to the shells of the pairs nearest to them all the same.  From the pairs on, the
method is that of :mod:`cytomill.partitioning.pairs`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numba import njit
from scipy.spatial import cKDTree

from cytomill.kernels.distance import face_margin, surface_distance
from cytomill.kernels.voxel_size import checked_voxel_size
from cytomill.partitioning.pairing import (
    DEFAULT_STEP,
    every_nth_on_curve,
    no_membrane,
    surface_points,
    within_lengths,
)

#: Part of a pair's segment that lies in the cytoplasm, at least.
INSIDE_FRACTION = 0.95

#: A pair's length over d_NE + d_PM at its middle, at most; one voxel more is allowed.
LONGEST_DETOUR = 1.5

# Streamlines: steps of half a voxel, slopes over ±0.75 voxel, and where a membrane is reached.
_STRIDE = 0.5
_SLOPE_REACH = 0.75
_ARRIVED = 0.97
_STALLED_STEPS = 16
_STALLED_CHANGE = 1e-3
# Partners that are tried about the end of the streamline.
_PARTNERS = 16
# A surface point lies between two voxels: the ends of a segment are not looked at.
_END_VOXELS = 0.75


@njit(nogil=True, cache=True)
def _interpolate(field, z, y, x):
    """Trilinear value at (z, y, x) in voxels; beyond the border that of the border."""
    depth, height, width = field.shape
    z, y, x = min(max(z, 0.0), depth - 1.0), min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
    i, j, k = int(z), int(y), int(x)
    fz, fy, fx = z - i, y - j, x - k
    i1, j1, k1 = min(i + 1, depth - 1), min(j + 1, height - 1), min(k + 1, width - 1)
    near = (field[i, j, k] * (1 - fx) + field[i, j, k1] * fx) * (1 - fy)
    near += (field[i, j1, k] * (1 - fx) + field[i, j1, k1] * fx) * fy
    far = (field[i1, j, k] * (1 - fx) + field[i1, j, k1] * fx) * (1 - fy)
    far += (field[i1, j1, k] * (1 - fx) + field[i1, j1, k1] * fx) * fy
    return near * (1 - fz) + far * fz


@njit(nogil=True, cache=True)
def _trace(field, size, start, sign, end):
    """Follow the gradient of the field from each start to the other membrane; return which arrive."""
    stride = _STRIDE * size.min()
    longest = int(8 * (field.shape[0] + field.shape[1] + field.shape[2]) / _STRIDE)
    reach = _SLOPE_REACH
    arrived = np.zeros(start.shape[0], np.bool_)
    for i in range(start.shape[0]):
        z, y, x = start[i]
        before = -1.0
        for step in range(longest):
            t = _interpolate(field, z, y, x)
            t = t if sign > 0 else 1 - t
            if t > _ARRIVED:
                arrived[i] = True
                break
            if step % _STALLED_STEPS == 0:
                if t < before + _STALLED_CHANGE:
                    break
                before = t
            slope_z = _interpolate(field, z + reach, y, x) - _interpolate(field, z - reach, y, x)
            slope_y = _interpolate(field, z, y + reach, x) - _interpolate(field, z, y - reach, x)
            slope_x = _interpolate(field, z, y, x + reach) - _interpolate(field, z, y, x - reach)
            slope_z, slope_y, slope_x = slope_z / size[0], slope_y / size[1], slope_x / size[2]
            steepness = math.sqrt(slope_z**2 + slope_y**2 + slope_x**2)
            if steepness == 0:
                break
            factor = sign * stride / steepness
            z += factor * slope_z / size[0]
            y += factor * slope_y / size[1]
            x += factor * slope_x / size[2]
        end[i, 0], end[i, 1], end[i, 2] = z, y, x
    return arrived


@njit(nogil=True, cache=True)
def _lies_inside(cytoplasm, first, second):
    """Whether at least 95 % of the segment between two points (voxels) lies in the cytoplasm."""
    length = 0.0
    for k in range(3):
        length = max(length, abs(second[k] - first[k]))
    if length <= 2 * _END_VOXELS:
        return True
    trim = _END_VOXELS / length
    samples = max(2, int(2 * length))
    inside = 0
    for s in range(samples):
        a = trim + (1 - 2 * trim) * (s + 0.5) / samples
        z = int(round(first[0] + a * (second[0] - first[0])))
        y = int(round(first[1] + a * (second[1] - first[1])))
        x = int(round(first[2] + a * (second[2] - first[2])))
        inside += cytoplasm[
            min(max(z, 0), cytoplasm.shape[0] - 1),
            min(max(y, 0), cytoplasm.shape[1] - 1),
            min(max(x, 0), cytoplasm.shape[2] - 1),
        ]
    return inside >= INSIDE_FRACTION * samples


@njit(nogil=True, cache=True)
def _nearest_value(field, first, second):
    """Value at the voxel in the middle of two points."""
    z = min(max(int(round(0.5 * (first[0] + second[0]))), 0), field.shape[0] - 1)
    y = min(max(int(round(0.5 * (first[1] + second[1]))), 0), field.shape[1] - 1)
    x = min(max(int(round(0.5 * (first[2] + second[2]))), 0), field.shape[2] - 1)
    return field[z, y, x]


@njit(nogil=True, cache=True)
def _degrees(start, guide, partner, size):
    dot = guide_square = partner_square = 0.0
    for k in range(3):
        g, p = (guide[k] - start[k]) * size[k], (partner[k] - start[k]) * size[k]
        dot += g * p
        guide_square += g * g
        partner_square += p * p
    scale = math.sqrt(guide_square * partner_square)
    if scale == 0:
        return 180
    return int(round(math.degrees(math.acos(min(1.0, max(-1.0, dot / scale))))))


@njit(nogil=True, cache=True)
def _choose(start, guide, surface, candidates, cytoplasm, apart, size, chosen):
    """Best admissible partner of each start among its row of candidates, −1 where there is none."""
    for i in range(start.shape[0]):
        chosen[i] = -1
        best_degrees = 181
        best_ratio = np.inf
        for partner in candidates[i]:
            other = surface[partner]
            degrees = _degrees(start[i], guide[i], other, size)
            if degrees > best_degrees:
                continue
            square = 0.0
            for k in range(3):
                square += ((other[k] - start[i, k]) * size[k]) ** 2
            length = math.sqrt(square)
            shortest = _nearest_value(apart, start[i], other)
            ratio = length / max(shortest, 1e-30)
            if degrees == best_degrees and ratio >= best_ratio:
                continue
            if length > LONGEST_DETOUR * shortest + size.max():
                continue
            if _lies_inside(cytoplasm, start[i], other):
                best_degrees, best_ratio, chosen[i] = degrees, ratio, partner


def _partners(start, sign, surface, field, cytoplasm, apart, size, workers):
    """Starts with a partner on the other surface, and these partners: two (M, 3) arrays."""
    guide = np.empty_like(start)
    arrived = _trace(field, size, start, sign, guide)
    start, guide = start[arrived], guide[arrived]
    near = min(_PARTNERS, len(surface))
    _, candidates = cKDTree(surface * size).query(guide * size, k=near, workers=workers)
    chosen = np.empty(len(start), np.int64)
    _choose(start, guide, surface, candidates.reshape(-1, near), cytoplasm, apart, size, chosen)
    return start[chosen >= 0], surface[chosen[chosen >= 0]]


def find_pairs_edt(
    nucleus: np.ndarray,
    cell: np.ndarray,
    voxel_size_nm: Sequence[float] = (1.0, 1.0, 1.0),
    cut_faces: np.ndarray | None = None,
    step: int = DEFAULT_STEP,
    workers: int = 1,
) -> tuple[np.ndarray, int]:
    """Pair points of NE and PM along the streamlines of the distance transforms' ratio.

    Parameters
    ----------
    nucleus, cell : (Z, Y, X) bool ndarray
        A cell crop.
    voxel_size_nm : sequence of float
        (Z, Y, X).
    cut_faces : (3, 2) bool ndarray, optional
        Faces of the image volume at which the cell is cut: no membrane there.
    step : int
        Every `step`-th point of both surfaces starts a pair, at least 1.
    workers : int
        Threads of the nearest-neighbour searches; the pairs do not depend on it.

    Returns
    -------
    pairs : (K, 6) float64 ndarray
        NE z, y, x, PM z, y, x in voxels; each admissible and of some length, sorted by NE, then PM point.
    starts : int
        Pairs, and starts without an admissible partner.

    Raises
    ------
    ValueError
        For no NE or PM surface, a step below 1, or voxel sizes that are not positive.
    """
    if step < 1 or int(step) != step:
        raise ValueError(f"step must be a whole number from 1 on, got {step}")
    size = checked_voxel_size(voxel_size_nm)
    faces = no_membrane(nucleus.shape, cut_faces)
    # Beyond the crop is background, also where the cell reaches its border without being cut.
    margin = face_margin(cell, faces)
    if margin.any():
        nucleus, cell = np.pad(nucleus, margin), np.pad(cell, margin)
    ne, pm = (surface_points(mask, faces, size) for mask in (nucleus, cell))
    for name, points in (("NE", ne), ("PM", pm)):
        if not len(points):
            raise ValueError(
                f"the crop has no {name} surface: all its faces cut the cell, or the mask is empty"
            )
    cytoplasm = cell & ~nucleus
    apart = surface_distance(nucleus, tuple(size), faces)
    field = surface_distance(cell, tuple(size), faces)
    # In place: d_NE + d_PM, and t, which is 0 in the nucleus and 1 outside of the cell.
    _ratio(apart, field, nucleus, cell)
    ne_start, pm_start = (points[every_nth_on_curve(points * size, int(step))] for points in (ne, pm))
    where = (field, cytoplasm, apart, size, workers)
    outwards = np.hstack(_partners(ne_start, 1.0, pm, *where))
    inwards = np.hstack(_partners(pm_start, -1.0, ne, *where)[::-1])
    found = np.vstack([outwards, inwards])
    pairs = np.unique(found, axis=0)
    starts = len(ne_start) + len(pm_start) - (len(found) - len(pairs))
    pairs = within_lengths(pairs, size, None, None)
    return pairs - np.tile(margin[:, 0], 2), starts


@njit(nogil=True, cache=True)
def _ratio(distance_ne, distance_pm, nucleus, cell):
    """Replace d_NE by d_NE + d_PM and d_PM by t."""
    for z in range(cell.shape[0]):
        for y in range(cell.shape[1]):
            for x in range(cell.shape[2]):
                total = distance_ne[z, y, x] + distance_pm[z, y, x]
                if nucleus[z, y, x]:
                    t = np.float32(0)
                elif not cell[z, y, x]:
                    t = np.float32(1)
                elif total > 0:
                    t = distance_ne[z, y, x] / total
                else:
                    t = np.float32(0.5)
                distance_ne[z, y, x] = total
                distance_pm[z, y, x] = t
