"""The sub-voxel surface of a binary mask, as sites and as a level function."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit

from cytomill.kernels.distance import column_distances, face_margin, plane_distances
from cytomill.kernels.sites import iterate_sites, surface_halo, surface_sites

__all__ = ["surface_halo", "surface_level", "surface_sites"]


@njit(nogil=True, cache=True)
def _set_level(mask, planes, width, level):
    """Turn distances into levels; next to the surface those to its tangent plane."""
    for y in range(mask.shape[0]):
        for x in range(mask.shape[1]):
            distance = level[y, x]
            if planes[y, x] < np.inf:
                distance = planes[y, x]
            part = 0.5 * min(distance / width, 1.0)
            level[y, x] = 0.5 + part if mask[y, x] else 0.5 - part


def surface_level(
    mask: np.ndarray, voxel_size_nm: Sequence[float], cut_faces: np.ndarray | None = None
) -> np.ndarray:
    """Level function of a mask whose level 0.5 is the sub-voxel surface.

    Parameters
    ----------
    mask : (Z, Y, X) bool ndarray
        One slice means two dimensions.
    voxel_size_nm : (float, float, float)
        Z, Y, X.
    cut_faces : (3, 2) bool ndarray, optional
        Faces of the array at which the mask is cut and has no surface.

    Returns
    -------
    (Z, Y, X) float32 ndarray
        ½ ± half the distance to the surface in units of the coarsest voxel size, within 0 … 1; above ½ in
        the mask and below outside. Linear between neighbouring voxel centres near the surface.

    Notes
    -----
    5 bytes a voxel besides the mask; time linear in voxels.
    """
    margin = face_margin(mask, cut_faces)
    padded = np.pad(mask, margin) if margin.any() else mask
    squared, offset_z = plane_distances(padded, 0, padded.shape[0], voxel_size_nm)
    level = column_distances(squared, offset_z, voxel_size_nm, out=squared)
    width = float(max(voxel_size_nm if mask.shape[0] > 1 else voxel_size_nm[1:]))
    for z, offsets in enumerate(iterate_sites(padded, 0, padded.shape[0], voxel_size_nm)):
        _set_level(padded[z], offsets[3], width, level[z])
    inner = tuple(slice(low, low + size) for (low, _), size in zip(margin, mask.shape, strict=True))
    return np.ascontiguousarray(level[inner])
