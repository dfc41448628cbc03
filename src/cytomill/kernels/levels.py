"""A smooth function whose level 0.5 is the surface of a binary mask, to a fraction of a voxel.

A mask says on which side of a surface each voxel centre lies; a Gaussian of it puts the surface between them,
but draws a curved one towards its centre of curvature by about s²/R. To leading order the level deviates by
that shift times the slope there, which falls as 1/s, so that 2 G(s) − G(2s) has no shift, whatever the
direction of the surface. s is the same length along all axes.

This is the second of two definitions of a mask's surface, and both are needed. A ray, or a wall between two
voxel centres, needs a function that has a value all along a line: that is this level, which the fields
laplace and ray go by. A distance needs places to be the nearest of, found slab by slab, and right too where
slices lie so far apart that smoothing would bridge them: these are the sites of
:mod:`cytomill.kernels.surface`, which all distances and the points of the pair methods go by. Both keep
each voxel centre on its side of the surface; they agree to a fraction of a voxel, not to the bit.

The level never contradicts the mask: where smoothing would take a voxel to the other side (a sheet thinner
than s), the surface passes at that voxel's centre, and half-way between two such voxels.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

# s, in voxel sizes (of anisotropic voxels: the edge of a cube of their volume).
SMOOTHING_VOXELS = 2.0
# Gaussians end at this many standard deviations.
TRUNCATION = 3.0
# How far from 0.5 a voxel is kept on its side.
SMALLEST_LEVEL = 1e-3
LEVEL_BYTES_A_VOXEL = 13


def _half_gaussian(sigma: float) -> np.ndarray:
    """Weights of a Gaussian (σ in voxels) at 0, 1, …; their symmetric sum is 1.

    It ends at the voxel at or beyond `TRUNCATION`, where that of :mod:`cytomill.kernels.smoothing` rounds as
    SciPy does: the two are not interchangeable.
    """
    radius = int(math.ceil(TRUNCATION * sigma))
    weights = np.exp(-0.5 * (np.arange(radius + 1) / max(sigma, 1e-6)) ** 2)
    return (weights / (2 * weights.sum() - weights[0])).astype(np.float32)


@njit(nogil=True, cache=True)
def _smooth_columns(source, weights, target):
    """Smooth (N, X) rows across the rows; the first and the last row go on beyond the ends."""
    rows = source.shape[0]
    for i in range(rows):
        out = target[i]
        line = source[i]
        for x in range(out.size):
            out[x] = weights[0] * line[x]
        for k in range(1, weights.size):
            before = source[max(i - k, 0)]
            after = source[min(i + k, rows - 1)]
            weight = weights[k]
            for x in range(out.size):
                out[x] += weight * (before[x] + after[x])


@njit(nogil=True, cache=True)
def _smooth_row(row, weights, padded):
    """Smooth a row in place; its end values go on."""
    width = row.size
    radius = weights.size - 1
    padded[:radius] = row[0]
    padded[radius : radius + width] = row
    padded[radius + width : 2 * radius + width] = row[width - 1]
    for x in range(width):
        row[x] *= weights[0]
    for k in range(1, weights.size):
        before = padded[radius - k : radius - k + width]
        after = padded[radius + k : radius + k + width]
        weight = weights[k]
        for x in range(width):
            row[x] += weight * (before[x] + after[x])


@njit(nogil=True, cache=True)
def _smooth(volume, along_z, along_y, along_x):
    """Smooth a float32 volume in place by a separable symmetric kernel."""
    depth, height, width = volume.shape
    padded = np.empty(width + 2 * along_x.size, np.float32)
    plane = np.empty((height, width), np.float32)
    for z in range(depth):
        empty = True
        for y in range(height):
            row = volume[z, y]
            plane[y] = row
            for x in range(width):
                if row[x] != 0:
                    empty = False
                    _smooth_row(plane[y], along_x, padded)
                    break
        if not empty:
            _smooth_columns(plane, along_y, volume[z])
    if along_z.size > 1:
        slab = np.empty((depth, width), np.float32)
        for y in range(height):
            for z in range(depth):
                slab[z] = volume[z, y]
            _smooth_columns(slab, along_z, volume[:, y])


@njit(nogil=True, cache=True)
def _combine(narrow, wide, mask, smallest):
    """2 · narrow − wide, kept on the mask's side of 0.5, into `narrow`."""
    for i in range(narrow.size):
        value = 2 * narrow[i] - wide[i]
        if mask[i]:
            narrow[i] = max(value, np.float32(0.5 + smallest))
        else:
            narrow[i] = min(value, np.float32(0.5 - smallest))


def surface_level(mask: np.ndarray, voxel_size_nm, cut_faces: np.ndarray | None = None) -> np.ndarray:
    """Smooth function above 0.5 in the mask and below outside, 0.5 at its surface.

    Parameters
    ----------
    mask : (Z, Y, X) bool ndarray
        One object or several. A single slice is smoothed within the plane.
    voxel_size_nm : sequence of 3 float
        Voxel size (Z, Y, X), nm.
    cut_faces : (3, 2) bool ndarray, optional
        True where the mask goes on beyond the array's border, by its border voxels; beyond the other
        borders is background.

    Returns
    -------
    (Z, Y, X) float32 ndarray
        Linear interpolation between voxel centres puts the surface at 0.5; voxels far from the mask hold 0.

    Notes
    -----
    13 bytes a voxel at peak, 4 of them the result; the mask's bounding box alone is smoothed.
    """
    level = np.zeros(mask.shape, np.float32)
    spans = [np.flatnonzero(mask.any(axis=tuple(j for j in range(3) if j != k))) for k in range(3)]
    if spans[0].size == 0:
        return level
    planar = mask.shape[0] == 1
    edge = math.prod(voxel_size_nm[planar:]) ** (1 / (3 - planar))
    sigma = [SMOOTHING_VOXELS * edge / size for size in voxel_size_nm]
    if planar:
        sigma[0] = 0.0
    kernels = [[_half_gaussian(scale * value) for value in sigma] for scale in (1.0, 2.0)]
    box, inner, padding = [], [], []
    for k, span in enumerate(spans):
        margin = kernels[1][k].size - 1
        first, stop = max(int(span[0]) - margin, 0), min(int(span[-1]) + 1 + margin, mask.shape[k])
        # Smoothing goes on beyond the box by its border: a mask that touches one needs background there.
        before = int(span[0] == 0 and k >= planar and not (cut_faces is not None and cut_faces[k][0]))
        touches = span[-1] == mask.shape[k] - 1
        after = int(touches and k >= planar and not (cut_faces is not None and cut_faces[k][1]))
        box.append(slice(first, stop))
        inner.append(slice(before, before + stop - first))
        padding.append((before, after))
    box, inner = tuple(box), tuple(inner)
    inside = np.pad(mask[box], padding)
    narrow = inside.astype(np.float32)
    wide = narrow.copy()
    _smooth(narrow, *kernels[0])
    _smooth(wide, *kernels[1])
    _combine(narrow.reshape(-1), wide.reshape(-1), inside.reshape(-1), SMALLEST_LEVEL)
    level[box] = narrow[inner]
    return level
