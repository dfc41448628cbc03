"""What is computed a slab of slices: levels, histograms, backgrounds, posterior.

The class of one stack in one process and the stages of a campaign call the same functions; rows
belong to slices, so that how a stack is cut into slabs changes nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cytomill.kernels.background import background_histogram
from cytomill.kernels.binning import Binning, slice_range, to_bins
from cytomill.kernels.devices import on_gpu, to_host
from cytomill.kernels.histogram import BINS, histogram_256
from cytomill.kernels.lookup import apply_table
from cytomill.nanoparticles.model import Thresholds
from cytomill.nanoparticles.padding import padding_counts


def slab_ranges(slab: np.ndarray) -> np.ndarray:
    """Levels of each slice, from which a stack's binning is chosen.

    Parameters
    ----------
    slab : (D, Y, X) uint8 or uint16 ndarray

    Returns
    -------
    (D, 6) int64 ndarray
        Rows of :func:`cytomill.kernels.binning.slice_range`.
    """
    return np.stack([slice_range(image) for image in slab])


def slab_histograms(slab: Any, binning: Binning) -> np.ndarray:
    """Histogram of each slice's bins.

    Parameters
    ----------
    slab : (D, Y, X) uint8 or uint16 array, on the host or on a device
    binning : Binning

    Returns
    -------
    (D, 256) int64 ndarray
    """
    return np.stack([to_host(histogram_256(to_bins(image, binning))) for image in slab])


def slab_backgrounds(
    slab: np.ndarray,
    first: int,
    binning: Binning,
    hist_slices: np.ndarray,
    thresholds: Thresholds,
    halo_pad: int,
    min_size: int,
    padding: np.ndarray | None = None,
) -> np.ndarray:
    """Histogram of each slice's background.

    Parameters
    ----------
    slab : (D, Y, X) uint8 or uint16 ndarray
    first : int
        Slice of the stack that `slab` begins with.
    binning : Binning
    hist_slices : (Z, 256) int64 ndarray
        Histograms of all slices of the stack, padding included.
    thresholds : Thresholds
    halo_pad, min_size : int
        See :func:`cytomill.kernels.background.background_histogram`.
    padding : (Z, 2) int64 ndarray, optional
        As :func:`cytomill.nanoparticles.padding.slab_padding` returns it.

    Returns
    -------
    (D, 256) int64 ndarray
        Zero for slices set aside, and in bins that are padding.
    """
    out = np.zeros((len(slab), BINS), np.int64)
    for i, image in enumerate(slab):
        z = first + i
        if not thresholds.usable[z]:
            continue
        low, high = thresholds.of_slice(z)
        bins, counts = to_bins(image, binning), hist_slices[z]
        lost = np.zeros(0, np.int64)
        if padding is not None:
            lost = np.flatnonzero(padding_counts(hist_slices[z : z + 1], padding[z : z + 1])[0])
        if (lost > low).any():
            # Padding is no candidate: its box would cover the slice.
            blackened = np.arange(BINS, dtype=np.uint8)
            blackened[lost] = 0
            bins = apply_table(bins, blackened, None if bins is image else bins)
            counts = np.bincount(blackened, counts, BINS).astype(np.int64)
            lost = np.append(lost, 0)
        out[i] = background_histogram(bins, counts, low, high, halo_pad, min_size)
        out[i, lost] = 0
    return out


def slab_posterior(slab: Any, binning: Binning, tables: np.ndarray) -> np.ndarray:
    """Posterior of each voxel.

    Parameters
    ----------
    slab : (D, Y, X) uint8 or uint16 array, on the host or on a device
    binning : Binning
    tables : (D, 256) float16 or uint8 ndarray
        Posterior table of each slice of the slab.

    Returns
    -------
    (D, Y, X) ndarray of the tables' dtype
    """
    out = np.empty(slab.shape, tables.dtype)
    for image, table, target in zip(slab, tables, out, strict=True):
        bins = to_bins(image, binning)
        if on_gpu(bins):
            target[:] = to_host(apply_table(bins, table))
        else:
            apply_table(bins, table, target)
    return out
