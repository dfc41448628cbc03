"""Padding of registered stacks: pixels without data, told from dark and from saturated specimen.

Registration moves and turns slices and fills what it uncovers with one value, black or white.  Counted
as specimen, this fill is a separate mode of its own: the polarity is guessed wrong, and with dark
particles the black margin is particle from end to end.

The rule looks at the darkest and the brightest bin of each slice and calls its pixels padding where

1. they hold the frame (the outermost ring of pixels): at least 10 % of it, or a whole side where a side
   is less.  A shift uncovers whole sides, a turn half of each; particles at the frame are small, and
   noise and texture break up what is merely dark;
2. more of them than not hang on the left or the right edge, in rows of nothing else.  That is where
   padding lies, as the specimen between its two ends is convex; dark or saturated specimen lies inside
   as well.  It makes a pixel of that bin padding rather than specimen, so that the bin's posterior is
   set to zero; with most of them inside it would take the particles' posterior away;
3. at least a tenth of the slice is left; otherwise it is a blank slice, which the estimator sets aside.

What hangs on the edges is taken out of the slice's histogram; the same bin inside the slice stays.  A
slice decides for itself, so that nothing depends on how a stack is cut.

Limits: a fill between darkest and brightest (the mean grey level) is not found, and neither are wedges on
less than a tenth of the frame.  Particles as black (white) as the padding around them are lost in the
slices that have it.  A margin of resin that saturates evenly counts as padding: it holds no data.
"""

from __future__ import annotations

import numpy as np

from cytomill.kernels.binning import Binning, to_bins
from cytomill.nanoparticles.config import NanoparticleSegConfig

#: Share of the frame that padding holds at least, and of the slice that is left at least.
FRAME_SHARE, LEFT_SHARE = 0.1, 0.1
#: In smaller slices (pixels a side) edge and inside are not told apart.
SMALLEST_SIDE = 16
#: Rows looked at together, so that no copy of a slice is made.
ROWS = 16


def slab_padding(slab: np.ndarray, binning: Binning, hist_slices: np.ndarray) -> np.ndarray:
    """Pixels of padding in the darkest and in the brightest bin of each slice.

    Parameters
    ----------
    slab : (D, Y, X) uint8 or uint16 ndarray
    binning : Binning
    hist_slices : (D, 256) int64 ndarray
        Histograms of the slab's slices under `binning`.

    Returns
    -------
    (D, 2) int64 ndarray
        0 where the bin is no padding.
    """
    out = np.zeros((len(slab), 2), np.int64)
    for i, (image, counts) in enumerate(zip(slab, hist_slices, strict=True)):
        ends = _end_bins(counts)
        if min(image.shape) < SMALLEST_SIDE or ends[0] == ends[1]:
            continue
        frame = to_bins(np.concatenate([image[0], image[-1], image[1:-1, 0], image[1:-1, -1]]), binning)
        least = min(FRAME_SHARE * frame.size, min(image.shape))
        for k, level in enumerate(ends):
            if np.count_nonzero(frame == level) >= least:
                hanging = _hanging_on_edges(image, binning, level)
                out[i, k] = hanging if 2 * hanging > counts[level] else 0
        if out[i].sum() > (1 - LEFT_SHARE) * counts.sum():
            out[i] = 0
    return out


def padding_of(
    config: NanoparticleSegConfig, slab: np.ndarray, binning: Binning, hist_slices: np.ndarray
) -> np.ndarray:
    """:func:`slab_padding`, or none with the reference estimator, whose definition counts every pixel."""
    if config.estimator == "reference":
        return np.zeros((len(slab), 2), np.int64)
    return slab_padding(slab, binning, hist_slices)


def _end_bins(counts: np.ndarray) -> tuple[int, int]:
    """The darkest and the brightest bin that a slice occupies."""
    occupied = np.flatnonzero(counts)
    return (int(occupied[0]), int(occupied[-1])) if occupied.size else (0, 0)


def _hanging_on_edges(image: np.ndarray, binning: Binning, level: int) -> int:
    """Pixels of bin `level` with nothing else between them and the left or the right edge."""
    count, width = 0, image.shape[1]
    for start in range(0, image.shape[0], ROWS):
        other = to_bins(image[start : start + ROWS], binning) != level
        full = ~other.any(axis=1)
        left, right = other.argmax(axis=1), other[:, ::-1].argmax(axis=1)
        count += int(np.where(full, width, left + right).sum())
    return count


def padding_counts(hist_slices: np.ndarray, padding: np.ndarray) -> np.ndarray:
    """The pixels of padding as histograms.

    Parameters
    ----------
    hist_slices : (Z, 256) int64 ndarray
        Counts of all pixels.
    padding : (Z, 2) int64 ndarray
        As :func:`slab_padding` returns it.

    Returns
    -------
    (Z, 256) int64 ndarray
        To be taken away from `hist_slices`; more than 0 in bins that are padding.
    """
    out = np.zeros_like(hist_slices)
    for z in np.flatnonzero(padding.any(axis=1)):
        out[z, _end_bins(hist_slices[z])] = padding[z]
    return out


def describe_padding(hist_slices: np.ndarray, padding: np.ndarray) -> tuple[str, ...]:
    """Say how much of a stack is padding; no sentence where there is none."""
    found = padding.any(axis=1)
    if not found.any():
        return ()
    share, slices = 100 * padding.sum() / hist_slices.sum(), int(found.sum())
    return (
        f"padding: {share:.3g} % of the voxels hang on the edges of {slices} slice{'s' * (slices > 1)} in "
        "one grey level, as registration leaves them; they count as no data and their posterior is 0",
    )
