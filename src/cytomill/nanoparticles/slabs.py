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
from cytomill.nanoparticles.fitting import StackHistograms


def slab_ranges(slab: np.ndarray) -> np.ndarray:
    """Levels of each slice, from which a stack's binning is chosen.

    Parameters
    ----------
    slab : (D, Y, X) uint8 or uint16 ndarray

    Returns
    -------
    (D, 5) int64 ndarray
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
    slab: np.ndarray, first: int, stack: StackHistograms, halo_pad: int, min_size: int
) -> np.ndarray:
    """Histogram of each slice's background.

    Parameters
    ----------
    slab : (D, Y, X) uint8 or uint16 ndarray
    first : int
        Slice of the stack that `slab` begins with.
    stack : StackHistograms
        Of all slices of the stack.
    halo_pad, min_size : int
        See :func:`cytomill.kernels.background.background_histogram`.

    Returns
    -------
    (D, 256) int64 ndarray
        Zero for slices set aside, and in bins that are padding.
    """
    out = np.zeros((len(slab), BINS), np.int64)
    for i, image in enumerate(slab):
        z = first + i
        if not stack.thresholds.usable[z]:
            continue
        bins, counts = to_bins(image, stack.binning), stack.hist_slices[z]
        lost = np.flatnonzero(counts != stack.hist_data[z])
        if lost.size:
            # Padding is no candidate, or its box would cover the slice.
            blackened = np.arange(BINS, dtype=np.uint8)
            blackened[lost] = 0
            bins = apply_table(bins, blackened)
            counts = np.bincount(blackened, counts, BINS).astype(np.int64)
        low, high = stack.thresholds.of_slice(z)
        out[i] = background_histogram(bins, counts, low, high, halo_pad, min_size)
        if lost.size:
            out[i, [0, *lost]] = 0
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
