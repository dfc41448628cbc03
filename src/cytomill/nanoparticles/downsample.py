"""Smoothing and block mean of a posterior volume, slab by slab.

The probabilities are smoothed as log-odds, where a Gaussian neither saturates nor leaves [0, 1], in
float32: clip, logit, Gaussian, logistic function, mean of each block.  Voxels that fill no whole
block are cropped.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import gaussian_filter

from cytomill.nanoparticles.posterior import round_posterior

#: Probabilities are kept this far from 0 and 1, where the log-odds are infinite.
MARGIN = 1e-5
#: The Gaussian ends at this many standard deviations.
TRUNCATE = 4.0
SIGMA = (0.5, 1.5, 1.5)


def downsampled_shape(shape: Sequence[int], factors: Sequence[int]) -> tuple[int, int, int]:
    """Shape (Z, Y, X) of the result: whole blocks of `factors` voxels.

    Raises
    ------
    ValueError
        If an axis has no whole block, or a factor is less than 1.
    """
    if min(factors) < 1 or any(extent < factor for extent, factor in zip(shape, factors)):
        raise ValueError(
            f"downsample factors must be at least 1 and no larger than the volume, "
            f"found {tuple(factors)} for shape {tuple(shape)}"
        )
    return tuple(extent // factor for extent, factor in zip(shape, factors))


def downsampled_voxel_size_nm(
    voxel_size_nm: Sequence[float], factors: Sequence[int]
) -> tuple[float, float, float]:
    """Voxel size (Z, Y, X) of the result in nm."""
    return tuple(size * factor for size, factor in zip(voxel_size_nm, factors))


def source_slices(
    start: int, stop: int, depth: int, factor_z: int, sigma_z: float = SIGMA[0]
) -> tuple[int, int]:
    """Source slices that the result's slices ``start … stop`` need, the Gaussian's halo included.

    Parameters
    ----------
    start, stop : int
        Half-open range of slices of the result.
    depth : int
        Slices of the source volume.
    factor_z : int
        Slices a block.
    sigma_z : float
        Standard deviation along Z, in source slices.

    Returns
    -------
    tuple of (int, int)
        Half-open range of source slices.
    """
    halo = int(TRUNCATE * sigma_z + 0.5)
    return max(start * factor_z - halo, 0), min(stop * factor_z + halo, depth)


def downsample_slab(
    slab: np.ndarray,
    first: int,
    start: int,
    stop: int,
    factors: Sequence[int],
    sigma: Sequence[float] = SIGMA,
) -> np.ndarray:
    """Downsample a slab; the same bits as the whole volume at once.

    Parameters
    ----------
    slab : (D, Y, X) float16 or uint8 ndarray
        Posterior of the source slices that :func:`source_slices` names (uint8: times 255).
    first : int
        Source slice that `slab` begins with.
    start, stop : int
        Half-open range of slices of the result.
    factors : sequence of int
        Voxels a block (Z, Y, X).
    sigma : sequence of float
        Standard deviations of the Gaussian (Z, Y, X), in source voxels.

    Returns
    -------
    (stop - start, Y // fy, X // fx) ndarray
        In the dtype of `slab`.
    """
    fz, fy, fx = factors
    _, rows, columns = downsampled_shape(slab.shape, (1, fy, fx))
    p = slab.astype(np.float32)
    if slab.dtype == np.uint8:
        p /= np.float32(255)
    np.clip(p, MARGIN, 1 - MARGIN, out=p)
    # Plain expressions in this order: scipy's logit and expit differ in the last bit.
    odds = np.subtract(1, p)
    np.divide(p, odds, out=odds)
    smooth = gaussian_filter(np.log(odds, out=odds), sigma, output=p, mode="reflect", truncate=TRUNCATE)
    del odds
    np.exp(np.negative(smooth, out=smooth), out=smooth)
    smooth += 1
    probability = np.divide(1, smooth, out=smooth)
    kept = probability[start * fz - first : stop * fz - first, : rows * fy, : columns * fx]
    blocks = kept.reshape(stop - start, fz, rows, fy, columns, fx)
    return round_posterior(blocks.mean(axis=(1, 3, 5)), slab.dtype.name)


def downsample_posterior(
    posterior: np.ndarray, factors: Sequence[int], sigma: Sequence[float] = SIGMA
) -> np.ndarray:
    """Downsample a posterior volume that lies in memory.

    Parameters
    ----------
    posterior : (Z, Y, X) float16 or uint8 ndarray
    factors : sequence of int
        Voxels a block (Z, Y, X).
    sigma : sequence of float
        Standard deviations of the Gaussian (Z, Y, X), in voxels.

    Returns
    -------
    (Z // fz, Y // fy, X // fx) ndarray
        In the dtype of `posterior`.

    Raises
    ------
    ValueError
        If an axis has no whole block.
    """
    depth, _, _ = downsampled_shape(posterior.shape, factors)
    return downsample_slab(posterior, 0, 0, depth, factors, sigma)
