"""Slices of a stack, judged by their histograms: which can be used, and how their brightness drifts."""

from __future__ import annotations

import numpy as np

#: A slice is blank or saturated where the first or the last bin holds more than this fraction of it.
END_FRACTION = 0.5
#: A slice with fewer occupied bins than this has no tissue to speak of (constant, or two-valued).
FEWEST_BINS = 8
#: Drift below these (bins: root mean square, largest slice) is not told from a change of tissue, and
#: not corrected.
SMALLEST_DRIFT, SMALLEST_JUMP = 1.25, 5.0
#: The two ends of a slice may disagree on its offset by this much, bins.
FURTHEST_APART = 8.0
#: Quantiles that place the two ends of the tissue's histogram.  Its ends move with brightness only,
#: its middle also with the share of nuclei, cytoplasm and resin in the slice.
LOWER_END = np.linspace(0.003, 0.05, 12)
UPPER_END = np.linspace(0.95, 0.997, 12)


def judge_slices(hist_slices: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Set aside blank, constant and saturated slices.

    Parameters
    ----------
    hist_slices : (Z, 256) int ndarray

    Returns
    -------
    usable : (Z,) bool ndarray
    notes : tuple of str
        A sentence a reason, naming the slices.
    """
    total = hist_slices.sum(1)
    half = END_FRACTION * total
    empty = total == 0
    constant = ~empty & (np.count_nonzero(hist_slices, axis=1) < FEWEST_BINS)
    blank = ~empty & ~constant & (hist_slices[:, 0] > half)
    saturated = ~empty & ~constant & (hist_slices[:, -1] > half)
    notes = []
    for mask, word in (
        (empty, "without voxels"),
        (constant, f"blank or constant (fewer than {FEWEST_BINS} grey levels)"),
        (blank, "blank (more than half of the voxels in the lowest bin)"),
        (saturated, "saturated (more than half of the voxels in the highest bin)"),
    ):
        if mask.any():
            found = np.flatnonzero(mask)
            number = "1 slice" if len(found) == 1 else f"{len(found)} slices"
            notes.append(f"{number} set aside, {word}: {_enumerate(found)}")
    return ~(empty | constant | blank | saturated), tuple(notes)


def _enumerate(indices: np.ndarray, most: int = 12) -> str:
    shown = ", ".join(str(int(i)) for i in indices[:most])
    return shown + (f" and {len(indices) - most} more" if len(indices) > most else "")


def tissue_quantiles(hist: np.ndarray, levels: np.ndarray, last_bin: int) -> np.ndarray:
    """Quantiles (in bins, interpolated) of a histogram cut after `last_bin`, its padding left out.

    The lowest bin holds the padding of a registered stack rather than tissue.
    """
    cumulative = np.cumsum(hist[1 : last_bin + 1].astype(np.float64))
    if cumulative.size == 0 or cumulative[-1] <= 0:
        return np.full(len(levels), np.nan)
    occupied = np.flatnonzero(np.diff(cumulative, prepend=0.0) > 0)
    return np.interp(levels, cumulative[occupied] / cumulative[-1], occupied + 1.0)


def brightness_shift(hist_slices: np.ndarray, usable: np.ndarray, knee_of) -> np.ndarray:
    """Brightness offset of each slice against the stack's median slice, in bins.

    Parameters
    ----------
    hist_slices : (Z, 256) int ndarray
    usable : (Z,) bool ndarray
    knee_of : callable
        Takes a (256,) float64 histogram, returns the bin where its background's right flank ends.
        Voxels beyond it (particles, whose share differs from slice to slice) place no quantile.

    Returns
    -------
    (Z,) float64 ndarray
        0 for slices that are not usable; all 0 where the drift is too small to be told from a
        change of tissue.
    """
    rows = np.flatnonzero(usable)
    shift = np.zeros(len(hist_slices))
    if len(rows) < 2:
        return shift
    # The dark end first: particles hardly move it.
    ends = np.array([tissue_quantiles(hist_slices[z], LOWER_END, 254) for z in rows])
    dark = estimate = _against_median(ends)
    for _ in range(3):
        knee = knee_of(align(hist_slices[rows], estimate).sum(0))
        both = []
        for z, offset in zip(rows, estimate):
            last = int(np.clip(round(knee + offset), 2, 254))
            both.append(tissue_quantiles(hist_slices[z], np.concatenate([LOWER_END, UPPER_END]), last))
        estimate = _against_median(np.array(both))
        # A slice so full of particles that its bright end is lost has its dark end still.
        estimate = np.where(np.abs(estimate - dark) > FURTHEST_APART, dark, estimate)
    if np.sqrt(np.mean(estimate**2)) < SMALLEST_DRIFT and np.abs(estimate).max() < SMALLEST_JUMP:
        return shift
    shift[rows] = estimate
    return shift


def _against_median(quantiles: np.ndarray) -> np.ndarray:
    offset = np.mean(quantiles - np.median(quantiles, axis=0), axis=1)
    offset = np.where(np.isfinite(offset), offset, 0.0)
    return np.round(offset - np.median(offset), 6)


def align(rows: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Move histograms (or probabilities) to the stack's brightness: row ``v`` comes from ``v + shift``.

    Counts are shared between neighbouring bins in proportion and none is lost: what leaves the scale
    is kept in its first or last bin.  What these two held stays there: padding and saturated voxels do
    not move with the brightness, and would be a false mode inside the scale.

    Parameters
    ----------
    rows : (Z, 256) ndarray
    shift : (Z,) float64 ndarray
        Offset of each row, in bins.

    Returns
    -------
    (Z, 256) float64 ndarray
    """
    rows = np.asarray(rows, np.float64)
    if not np.any(shift):
        return rows.copy()
    bins = rows.shape[1]
    inner = rows[:, 1:-1]
    out = np.zeros_like(rows)
    out[:, [0, -1]] = rows[:, [0, -1]]
    for z, offset in enumerate(shift):
        whole = int(np.floor(offset))
        part = offset - whole
        target = np.arange(1, bins - 1) - whole
        for step, weight in ((0, 1.0 - part), (-1, part)):
            if weight > 0:
                out[z] += np.bincount(np.clip(target + step, 0, bins - 1), weight * inner[z], bins)
    return out
