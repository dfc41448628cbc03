"""Smoothing of masks: a Gaussian, then a closing, the same on every side of the volume."""

from __future__ import annotations

import math

import numpy as np
from scipy import ndimage

#: Standard deviations at which the Gaussian ends.
_TRUNCATE = 4.0
#: Voxels that are filtered at once.
_SLAB_VOXELS = 2**22


def smooth_mask(mask: np.ndarray, sigma: float = 1.0, close_iter: int = 2) -> np.ndarray:
    """Smooth a mask by a Gaussian (its level 0.5) and a closing.

    Values are not smoothed but whether they are above 0, so that a mask of 0 and 255 or a label does not
    grow; and the mask is continued over the faces of the volume, so that the closing eats nothing there.
    Away from the faces, a mask of 0 and 1 gives the voxels of the published reference.

    Parameters
    ----------
    mask : (Z, Y, X) or (Y, X) ndarray
        Above 0 is inside.
    sigma : float
        Of the Gaussian, voxels; 0: none.
    close_iter : int
        Iterations of the closing by the neighbours that share a face; 0: none.

    Returns
    -------
    uint8 ndarray
        0 and 1, of the shape of `mask`.  Memory: 2 to 3 bytes a voxel beside the mask.

    Raises
    ------
    ValueError
        If `sigma` or `close_iter` is negative, or there are other than 2 or 3 axes.
    """
    mask = np.asarray(mask)
    if not (sigma >= 0 and math.isfinite(sigma)) or close_iter < 0:
        raise ValueError(
            f"smoothing needs sigma and close_iter of at least 0; found {sigma} and {close_iter}"
        )
    if mask.ndim not in (2, 3):
        raise ValueError(f"a mask is a plane or a volume; found {mask.ndim} axes")
    inside = mask if mask.dtype == bool else mask > 0
    if inside.ndim == 2:
        return smooth_mask(inside[None], sigma, close_iter)[0]
    if sigma > 0:
        inside = _above_half(inside, sigma)
    if close_iter > 0:
        # A plane has no neighbours along Z: the continuation gives it equal ones.
        padded = np.pad(inside, close_iter, mode="edge")
        closed = ndimage.binary_closing(padded, iterations=close_iter, border_value=0)
        inside = closed[(slice(close_iter, -close_iter),) * 3] | inside
    return inside.astype(np.uint8)


def _above_half(inside: np.ndarray, sigma: float) -> np.ndarray:
    """Where the Gaussian of the mask is above one half, slab by slab: float64 for few slices at a time."""
    halo = int(_TRUNCATE * sigma + 0.5)
    depth = max(1, _SLAB_VOXELS // math.prod(inside.shape[1:]), halo)
    result = np.empty(inside.shape, bool)
    for first in range(0, inside.shape[0], depth):
        last = min(first + depth, inside.shape[0])
        # Beyond the volume the filter reflects, which a slab may do only where the volume ends.
        low, high = max(0, first - halo), min(inside.shape[0], last + halo)
        level = ndimage.gaussian_filter(inside[low:high].astype(np.float64), sigma, truncate=_TRUNCATE)
        result[first:last] = level[first - low : last - low] > 0.5
    return result
