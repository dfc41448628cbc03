"""The right flank of the background's histogram, followed down to its foot."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cytomill.kernels.histogram import BINS

#: Width of the stretch of flank that a parabola is laid through, over the background's width at a third
#: of its height; limits in bins.  The parabola is tested on a third as many bins ahead.
WINDOW_SHARE, WINDOW_LEAST, WINDOW_MOST = 0.3, 6, 32
#: The counts ahead exceed the parabola where they are more than so many times as many (its own error) and so
#: many voxels (stragglers in an empty tail), by so many standard deviations (chance).
EXCESS_RATIO, EXCESS_VOXELS, EXCESS_SIGMAS = 1.25, 3.0, 5.0
#: Where the bins ahead should hold fewer voxels than this, all bins beyond are looked at, and more than
#: these many voxels there are no stragglers.
FEWEST_AHEAD, FEWEST_LEFT = 25.0, 20.0
#: A separate mode rises above the valley before it by this many standard deviations, in a window of one of
#: these widths (bins); by more where nothing but the rise itself speaks for a foot.
MODE_SIGMAS, LONE_RISE_SIGMAS, MODE_WIDTHS = 3.0, 5.0, (4, 6, 8, 12, 16, 24, 36)


@dataclass(frozen=True)
class Flank:
    """The right flank of the background.

    Attributes
    ----------
    mode : int
        Bin of the background's mode.
    knee : int
        Last bin that the flank explains (the foot).
    tail : (256,) float64 ndarray
        Expected counts of the background alone: the histogram up to the knee, the extrapolation after it.
    ripple : float
        Relative scatter of the counts beyond Poisson's, see :func:`ripple_of`.
    ended : bool
        Whether counts beyond the knee exceed the extrapolation.
    recovered : bool
        Whether only a rise further on showed where the knee is.
    """

    mode: int
    knee: int
    tail: np.ndarray
    ripple: float
    ended: bool
    recovered: bool = False


def fill_comb(hist: np.ndarray) -> np.ndarray:
    """Spread counts over the empty bins that a stretched or equalised stack leaves.

    Each occupied bin is spread over the cell that reaches half-way to its occupied neighbours, so that
    nothing is lost; a histogram without gaps comes back as it was.  The ends (padding, saturation) stay.
    """
    hist = np.asarray(hist, np.float64)
    if not hist[1:-1].any():
        return hist.copy()
    inner = np.flatnonzero(hist[1:-1] > 0.01 * np.median(hist[1:-1][hist[1:-1] > 0])) + 1
    if len(inner) < 3 or np.median(np.diff(inner)) <= 1 and np.mean(np.diff(inner) > 1) < 0.05:
        return hist.copy()
    edges = np.concatenate([[inner[0] - 0.5], 0.5 * (inner[1:] + inner[:-1]), [inner[-1] + 0.5]])
    # The few counts outside the comb stay where they are: a cell has no end there.
    bins = np.arange(inner[0], inner[-1] + 1)
    cells = np.clip(np.searchsorted(edges, bins, side="left") - 1, 0, len(inner) - 1)
    total, size = np.bincount(cells, hist[bins], len(inner)), np.bincount(cells, minlength=len(inner))
    out = hist.copy()
    out[bins] = (total / np.maximum(size, 1))[cells]
    return out


def _parabola(x: np.ndarray, y: np.ndarray, weight: np.ndarray) -> tuple[float, float, float]:
    """Weighted least squares of ``y = a + b x + c x²`` with c ≤ 0 (log-concave)."""
    s = [float((weight * x**k).sum()) for k in range(5)]
    t = [float((weight * y * x**k).sum()) for k in range(3)]
    minors = s[2] * s[4] - s[3] ** 2, s[1] * s[4] - s[2] * s[3], s[1] * s[3] - s[2] ** 2
    determinant = s[0] * minors[0] - s[1] * minors[1] + s[2] * minors[2]
    c = 0.0
    if abs(determinant) > 1e-9 * max(s[0] * s[2] * s[4], 1e-300):
        last = s[0] * (s[2] * t[2] - t[1] * s[3]) - s[1] * (s[1] * t[2] - t[1] * s[2]) + t[0] * minors[2]
        c = min(last / determinant, 0.0)
    t0, t1 = t[0] - c * s[2], t[1] - c * s[3]
    slope = (s[0] * t1 - s[1] * t0) / max(s[0] * s[2] - s[1] ** 2, 1e-300)
    return (t0 - slope * s[1]) / s[0], slope, c


def ripple_of(counts: np.ndarray) -> float:
    """Relative standard deviation of the counts beyond Poisson's, from third differences.

    A smooth histogram has none, whatever its shape; the bins of a rescaled stack hold unequal numbers
    of its values and have some.
    """
    mean = np.convolve(counts, np.full(4, 0.25), mode="valid")
    third = np.diff(counts, n=3)
    seen = mean > 25
    if np.count_nonzero(seen) < 8:
        return 0.0
    # 20 is the sum of the squared coefficients (1, 3, 3, 1); 0.455 the median of chi-square of one degree.
    variance = third[seen] ** 2 / (20.0 * 0.455)
    return float(np.sqrt(max(np.median((variance - mean[seen]) / mean[seen] ** 2), 0.0)))


def scatter(total: float | np.ndarray, ripple: float) -> float | np.ndarray:
    """Standard deviation of the sum of neighbouring bins that is expected to be `total`."""
    # Ripples of neighbouring bins cancel in part only.
    return np.sqrt(total + 0.5 * (ripple * total) ** 2)


def find_rise(counts: np.ndarray, ripple: float) -> tuple[float, int]:
    """Largest rise of a window of counts above the lowest window before it.

    Faint modes need wide windows, steep ones narrow windows, so several widths are tried.

    Parameters
    ----------
    counts : (n,) float64 ndarray
    ripple : float
        See :func:`ripple_of`.

    Returns
    -------
    rise : float
        In standard deviations of the difference; 0 where there is none.
    valley : int
        Index of the middle of that lowest window.
    """
    sums, rise, valley = np.concatenate([[0.0], np.cumsum(counts)]), 0.0, 0
    for width in MODE_WIDTHS:
        window = sums[width:] - sums[:-width]
        if len(window) <= width:
            break
        lowest = np.minimum.accumulate(window)[:-width]
        later = window[width:]
        found = (later - lowest) / np.hypot(scatter(later + 1, ripple), scatter(lowest, ripple))
        k = int(np.argmax(found))
        if found[k] > rise:
            rise, valley = float(found[k]), int(np.argmin(window[: k + 1])) + width // 2
    return rise, valley


def find_flank(hist: np.ndarray, last: int = BINS - 3) -> Flank:
    """Follow the background's right flank down to its foot.

    A background that falls log-concavely lies below the parabola laid through the bins last seen (in
    log counts, curvature ≤ 0).  The foot, or knee, is the first bin after which the counts of the bins
    ahead exceed that parabola beyond their scatter.

    Where counts are few or the valley is shallow, the parabola may follow the counts through the valley
    without ever being exceeded that much.  But log-concave counts do not rise again: a rise after a
    valley (see :func:`find_rise`) proves a foot before the valley's middle, and it is then the bin after
    which the counts exceed the parabola most, in units of their scatter.

    Parameters
    ----------
    hist : (256,) ndarray
        Counts; bins 0 and 255 (padding, saturation) are not read.
    last : int
        The flank is followed to this bin at most.
    """
    counts = np.asarray(hist, np.float64).copy()
    counts[0] = counts[-1] = 0.0
    smooth = np.convolve(counts, np.full(5, 0.2), mode="same")
    mode = int(np.argmax(smooth))
    log = np.log(counts + 0.5)
    tail = counts.copy()
    ripple, ended = ripple_of(counts), False
    fit = (log[mode], 0.0, 0.0)
    # The flank begins where the background has fallen to a third; nearer the mode it has shoulders.
    below = np.flatnonzero(smooth[mode:] < smooth[mode] / 3)
    start = mode + (int(below[0]) if below.size else BINS)
    risen = np.flatnonzero(smooth[: mode + 1] < smooth[mode] / 3)
    width = start - (int(risen[-1]) if risen.size else 0)
    window = int(np.clip(round(WINDOW_SHARE * width), WINDOW_LEAST, WINDOW_MOST))
    last = min(max(last, start), BINS - 3)
    knee = last if start <= last else BINS - 2
    trail = []
    for k in range(start, last + 1):
        low = max(k - window + 1, mode)
        x = np.arange(low - k, 1, dtype=np.float64)
        fit = _parabola(x, log[low : k + 1], counts[low : k + 1] + 0.5)
        ahead = np.arange(1, min(max(window // 3, 2), BINS - 2 - k) + 1, dtype=np.float64)
        predicted = np.exp(fit[0] + fit[1] * ahead + fit[2] * ahead**2).sum()
        seen = counts[k + 1 : k + 1 + len(ahead)].sum()
        spread = float(scatter(max(predicted, 1.0), ripple))
        allowed = EXCESS_RATIO * predicted + EXCESS_VOXELS
        if fit[1] < 0:
            trail.append(((seen - allowed) / spread, k, fit))
        if seen > allowed + EXCESS_SIGMAS * spread:
            knee, ended = k, True
            break
        left = counts[k + 1 :].sum()
        far = np.arange(1, BINS - 1 - k, dtype=np.float64)
        due = float(np.exp(np.minimum(fit[0] + fit[1] * far + fit[2] * far**2, 50.0)).sum())
        if predicted < FEWEST_AHEAD and left > 3.0 * due + EXCESS_SIGMAS * np.sqrt(due) + FEWEST_LEFT:
            # Too few voxels for the bins just ahead to show it, but far more than due lie beyond.
            knee, ended = k, True
            break
        if due < 1.0:
            knee = k
            break
    rise, valley = find_rise(counts[start : BINS - 1], ripple)
    before = [candidate for candidate in trail if candidate[1] <= start + valley]
    recovered = bool(rise >= MODE_SIGMAS and start + valley < knee and before)
    if recovered:
        _, knee, fit = max(before, key=lambda candidate: candidate[0])
        ended = True
    x = np.arange(knee + 1, BINS) - float(knee)
    tail[knee + 1 :] = np.exp(np.minimum(fit[0] + fit[1] * x + fit[2] * x * x, log[mode]))
    return Flank(mode, knee, tail, ripple, ended, recovered)
