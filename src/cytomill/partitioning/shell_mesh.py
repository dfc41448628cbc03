"""The surface of nested shells, cut open, as triangles."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter
from skimage.measure import marching_cubes

#: Longest side of the grid that is drawn, in cells: what a figure of some inches can show.
GRID = 84
#: Where the light comes from, (Z, Y, X).
_LIGHT = np.array([0.75, -0.25, 0.6])


def shell_mesh(
    ids: np.ndarray, voxel_size: Sequence[float], grid: int = GRID
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mesh all shells together, without the octant at small y and large x and z.

    Parameters
    ----------
    ids : (Z, Y, X) integer ndarray
        Shell ids, 0 is background; at least one voxel is set.
    voxel_size : sequence of float
        (Z, Y, X), in any unit: that of the corners.
    grid : int
        The volume is taken at this many places along its longest side.

    Returns
    -------
    (N, 3, 3) float32 ndarray
        Corners (Z, Y, X) of the triangles.
    (N,) integer ndarray
        Shell of each.
    (N,) float32 ndarray
        Brightness of each, in [0, 1].
    """
    size = np.asarray(voxel_size, np.float64)
    extent = np.array(ids.shape) * size
    pitch = extent.max() / grid
    # Samples at cell centres of a cubic grid, with two cells of background around.
    places = [
        np.minimum((((np.arange(max(1, round(n * s / pitch))) + 0.5) * pitch) / s).astype(int), n - 1)
        for n, s in zip(ids.shape, size, strict=True)
    ]
    small = np.pad(ids[np.ix_(*places)], 2)
    if not small.any():
        raise ValueError("the shells are thinner than what a picture of them can show")
    filled = small > 0
    level = gaussian_filter(filled.astype(np.float32), 0.7)
    occupied = [np.flatnonzero(filled.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    middle = [(first[0] + first[-1]) / 2 for first in occupied]
    z, y, x = np.ogrid[: small.shape[0], : small.shape[1], : small.shape[2]]
    cut = np.maximum.reduce(np.broadcast_arrays(middle[0] - z, y - middle[1], middle[2] - x))
    # The cut is a plane between the samples: half a cell on either side of it.
    level = np.minimum(level, np.clip(0.5 + cut, 0, 1).astype(np.float32))
    corners, triangles, _, _ = marching_cubes(level, 0.5)
    corners = corners[triangles]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    # A closed surface whose triangles face outwards encloses a positive volume.
    if np.einsum("ij,ij->", corners[:, 0], normal) < 0:
        normal = -normal
    normal /= np.linalg.norm(normal, axis=1, keepdims=True) + 1e-12
    nearest = distance_transform_edt(~filled, return_distances=False, return_indices=True)
    inside = np.rint(corners.mean(axis=1) - 0.5 * normal).astype(int)
    inside = np.clip(inside, 0, np.array(small.shape) - 1)
    shells = small[tuple(nearest[(slice(None), *inside.T)])]
    light = 0.58 + 0.42 * np.clip(normal @ (_LIGHT / np.linalg.norm(_LIGHT)), 0, 1)
    return ((corners - 2 + 0.5) * pitch - size / 2).astype(np.float32), shells, light.astype(np.float32)
