"""Smoothing and block mean of a posterior volume, slab by slab.

The probabilities are smoothed as log-odds, where a Gaussian neither saturates nor leaves [0, 1], in
float32: clip, logit, Gaussian, logistic function, mean of each block.  Voxels that fill no whole
block are cropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from math import prod

import numpy as np

from cytomill.kernels.blocks import grid
from cytomill.kernels.smoothing import half_gaussian, logistic_block_means, reflected, smooth_tile
from cytomill.nanoparticles.posterior import round_posterior

#: Probabilities are kept this far from 0 and 1, where the log-odds are infinite.
MARGIN = 1e-5
#: The Gaussian ends at this many standard deviations.
TRUNCATE = 4.0
SIGMA = (0.5, 1.5, 1.5)
#: Source voxels (Z, Y, X) smoothed at a time: what a core's cache holds, halo and slices in reach included.
TILE = (32, 50, 256)


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


@cache
def log_odds_table(dtype: str) -> np.ndarray:
    """Log-odds of every code of a posterior volume, [0, 1] less `MARGIN` at either end.

    Parameters
    ----------
    dtype : {"float16", "uint8"}

    Returns
    -------
    (65536,) or (256,) float32 ndarray
    """
    if dtype == "uint8":
        p = np.arange(256, dtype=np.float32)
        p /= np.float32(255)
    else:
        p = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)
    np.clip(p, MARGIN, 1 - MARGIN, out=p)
    with np.errstate(invalid="ignore"):  # codes of no number
        # Plain expressions in this order: scipy's logit differs in the last bit.
        odds = np.subtract(1, p)
        np.divide(p, odds, out=odds)
        return np.log(odds, out=odds)


def halo_slices(sigma_z: float) -> int:
    """Slices on either side that a Gaussian of this standard deviation (slices) reaches."""
    return int(TRUNCATE * sigma_z + 0.5)


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
    halo = halo_slices(sigma_z)
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
    shape = (stop - start, *downsampled_shape(slab.shape, (1, *factors[1:]))[1:])
    table = log_odds_table(slab.dtype.name)
    codes = np.ascontiguousarray(slab).view(np.uint8 if slab.dtype == np.uint8 else np.uint16)
    weights = [half_gaussian(value, TRUNCATE) for value in sigma]
    indices = [reflected(size, w.size - 1) for size, w in zip(slab.shape, weights)]
    result = np.empty(shape, slab.dtype)
    tile = [max(size // factor, 1) for size, factor in zip(TILE, factors)]
    room = np.empty(prod(min(n, t) * factor for n, t, factor in zip(shape, tile, factors)), np.float32)
    for blocks in grid(shape, tile):
        extents = [b - a for a, b in blocks]
        size = [n * factor for n, factor in zip(extents, factors)]
        # Into memory that is used again: fresh pages cost as much as the smoothing.
        smooth = room[: prod(size)].reshape(size)
        corner = [a * factor for (a, _), factor in zip(blocks, factors)]
        corner[0] += start * factors[0] - first
        smooth_tile(codes, table, *weights, *indices, tuple(corner), smooth)
        # By NumPy: its exponential differs in the last bit from that of compiled code.
        np.exp(np.negative(smooth, out=smooth), out=smooth)
        means = np.empty(extents, np.float32)
        logistic_block_means(smooth, tuple(factors), means)
        result[tuple(slice(*interval) for interval in blocks)] = round_posterior(means, slab.dtype.name)
    return result


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
