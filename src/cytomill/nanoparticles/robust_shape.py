"""Shapes behind the robust estimator: the background's right flank and the light of blurred particles."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import ndtr

BINS = 256
#: Width of the stretch of flank that a parabola is laid through, over the background's width at a third
#: of its height; limits in bins.  The parabola is tested on a third as many bins ahead.
WINDOW_SHARE, WINDOW_LEAST, WINDOW_MOST = 0.3, 6, 32
#: Where the bins ahead should hold fewer voxels than this, all bins beyond are looked at, and more than
#: these many voxels there are no stragglers.
FEWEST_AHEAD, FEWEST_LEFT = 25.0, 20.0
#: A separate mode rises above the valley before it by this many standard deviations, in a window of one of
#: these widths (bins); by more where nothing but the rise itself speaks for a foot.
MODE_SIGMAS, LONE_RISE_SIGMAS, MODE_WIDTHS = 3.0, 5.0, (4, 6, 8, 12, 16, 24, 36)
#: Straight-edge profile: distances from the edge in units of the blur.  Particles are a few voxels wide,
#: so that this band holds most of what they brighten, at least EDGE_LEAST.
EDGE_REACH = 3.5
EDGE_LEAST = 0.8
_DISTANCE = (np.arange(120) + 0.5) / 120 * 2 * EDGE_REACH - EDGE_REACH
_EDGE = ndtr(_DISTANCE)
_QUANTILES = np.linspace(-2.5, 2.5, 21)
_WEIGHTS = np.exp(-0.5 * _QUANTILES**2) / np.exp(-0.5 * _QUANTILES**2).sum()
_SHIFT_INDEX = np.arange(BINS)[None, :] - np.arange(BINS)[:, None]
#: The final fit begins at this share of the amplitude above the tissue's mean.
FIT_FROM = 0.42
#: The likelihood is climbed anew from its top at most so often.
RESTARTS = 6
#: A voxelised edge is a little sharper than a straight one through a continuous plane, since no voxel
#: centre lies on it: the log-odds of particle against rim are steeper by this factor, and lower by this
#: offset (both measured on phantoms of two kinds).
EDGE_STEEPNESS, EDGE_OFFSET = 1.35, -0.14


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
        if fit[1] < 0:
            trail.append(((seen - 1.25 * predicted - 3.0) / spread, k, fit))
        if seen > 1.25 * predicted + 5.0 * spread + 3.0:
            knee, ended = k, True
            break
        left = counts[k + 1 :].sum()
        far = np.arange(1, BINS - 1 - k, dtype=np.float64)
        due = float(np.exp(np.minimum(fit[0] + fit[1] * far + fit[2] * far**2, 50.0)).sum())
        if predicted < FEWEST_AHEAD and left > 3.0 * due + 5.0 * np.sqrt(due) + FEWEST_LEFT:
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


@dataclass(frozen=True)
class Light:
    """Distribution of the voxels that particles brighten, over 256 bins.

    Attributes
    ----------
    particle, rim : (256,) float64 ndarray
        Shares of particle voxels and of rim voxels (outside, brightened by blur); together they sum to 1.
    amplitude, spread : float
        Brightness of particles above the tissue, mean and standard deviation, bins.
    edge_share : float
        Share of the brightened voxels that lie near an edge.
    """

    particle: np.ndarray
    rim: np.ndarray
    amplitude: float
    spread: float
    edge_share: float


def blurred_light(tissue: np.ndarray, amplitude: float, spread: float, edge_share: float) -> Light:
    """Tissue brightened by particles seen through a symmetric blur.

    A voxel at signed distance d from a particle's edge (in units of the blur) receives Φ(d) of its
    amplitude; amplitudes are normal, d is uniform within ±3.5 for `edge_share` of the voxels, the others
    lie deep inside.  A voxel belongs to the particle where d > 0: the half-maximum rule.

    Parameters
    ----------
    tissue : (256,) float64 ndarray
        Probabilities of the tissue's grey levels; light adds to them, and saturates in the last bin.
    """
    level = np.maximum(amplitude + spread * _QUANTILES, 0.0)
    share = np.concatenate([np.full(len(_EDGE), edge_share / len(_EDGE)), [1.0 - edge_share]])
    added = level[:, None] * np.concatenate([_EDGE, [1.0]])[None, :]
    weight = _WEIGHTS[:, None] * share[None, :]
    inside = np.broadcast_to(np.concatenate([_DISTANCE > 0, [True]])[None, :], added.shape)
    whole = np.minimum(added.astype(np.int64), BINS - 2)
    part = np.minimum(added - whole, 1.0)
    shapes = []
    for mask in (inside, ~inside):
        w = np.where(mask, weight, 0.0)
        light = np.bincount(whole.ravel(), (w * (1 - part)).ravel(), BINS)
        light += np.bincount(whole.ravel() + 1, (w * part).ravel(), BINS)
        shapes.append(_add_light(tissue, light))
    return Light(shapes[0], shapes[1], float(amplitude), float(spread), float(edge_share))


def _add_light(tissue: np.ndarray, light: np.ndarray) -> np.ndarray:
    """Convolution of two distributions of grey levels, overflow kept in the last bin (no BLAS)."""
    shifted = np.where(_SHIFT_INDEX >= 0, tissue[np.maximum(_SHIFT_INDEX, 0)], 0.0)
    out = (light[:, None] * shifted).sum(0)
    out[-1] += float((light * _beyond(tissue)).sum())
    return out


def _beyond(tissue: np.ndarray) -> np.ndarray:
    """Probability that tissue plus x exceeds the last bin, for x = 0..255."""
    above = np.cumsum(tissue[::-1])
    return np.concatenate([[0.0], above[: BINS - 1]])


def fit_light(
    counts: np.ndarray, background: np.ndarray, knee: int, top: int
) -> tuple[Light, float, float, int, bool]:
    """Fit the particles' light to the counts beyond the knee.

    Parameters
    ----------
    counts : (256,) float64 ndarray
        Histogram of the stack.
    background : (256,) float64 ndarray
        Expected counts of the background alone, tail extrapolated.
    knee : int
        The background's foot, bin.
    top : int
        Bins from here on are counted together: some slices saturate there.

    Returns
    -------
    light : Light
    amount : float
        Voxels that particles brighten, the dim ones under the background included.
    deviance : float
        Poisson deviance a bin of the fit.
    steps : int
        Iterations taken.
    converged : bool
    """
    tissue = background / background.sum()
    typical = float((tissue * np.arange(BINS)).sum())
    excess = np.maximum(counts - background, 0.0)[knee + 1 :]
    reach = max(float((excess * np.arange(knee + 1, BINS)).sum() / max(excess.sum(), 1e-300)) - typical, 4.0)
    start = np.array([np.log(1.25 * reach), np.log(0.2 * reach), 0.0])
    theta, _, _, steps, _ = _climb(counts, background, tissue, knee + 1, top, start)
    # Curved edges have more dim rim than straight ones; what decides about particles is the half maximum
    # and all above, so only that is fitted in the end, wherever the foot lies.
    first = max(knee + 1, int(round(typical + FIT_FROM * np.exp(theta[0]))))
    first = min(first, knee + 1 + (BINS - 1 - knee) // 3)
    theta, amount, deviance, more, converged = _climb(counts, background, tissue, first, top, theta)
    return _light_of(tissue, theta), amount, deviance, steps + more, converged


def _light_of(tissue: np.ndarray, theta: np.ndarray) -> Light:
    edge = EDGE_LEAST + (1.0 - EDGE_LEAST) / (1.0 + np.exp(-theta[2]))
    return blurred_light(tissue, np.exp(theta[0]), np.exp(theta[1]), edge)


def _climb(
    counts: np.ndarray, background: np.ndarray, tissue: np.ndarray, first: int, top: int, start: np.ndarray
) -> tuple[np.ndarray, float, float, int, bool]:
    """Maximise the Poisson likelihood over (log amplitude, log spread, logit of the edge's share)."""
    top = max(min(top, BINS - 1), first + 1)

    def ranged(values: np.ndarray) -> np.ndarray:
        return np.concatenate([values[first:top], [values[top:].sum()]])

    seen, base = ranged(counts), ranged(background)
    excess = float(np.maximum(seen - base, 0.0).sum())

    def evaluate(theta: np.ndarray) -> tuple[float, np.ndarray]:
        light = _light_of(tissue, theta)
        shape = ranged(light.particle + light.rim)
        amount = excess / max(float(shape.sum()), 1e-12)
        return amount, base + amount * shape + 1e-9

    def deviance(theta: np.ndarray) -> float:
        expected = evaluate(theta)[1]
        # Weak priors hold what few voxels leave open: the spread near a sixth of the amplitude, the
        # edge's share in the middle of its range.
        loose = ((theta[1] - theta[0] + 1.75) / 0.5) ** 2 + (theta[2] / 3.0) ** 2
        ratio = np.where(seen > 0, seen / expected, 1.0)
        return float(2 * (seen * np.log(ratio) - seen + expected).sum() + loose)

    steps, best = 0, np.inf
    for _ in range(RESTARTS):
        # A simplex can collapse on a slope: it is laid out anew until that gains nothing.
        simplex = np.vstack([start, start + np.diag([0.08, 0.25, 1.0])])
        options = {"xatol": 1e-3, "fatol": 1e-2, "maxiter": 200, "initial_simplex": simplex}
        found = minimize(deviance, start, method="Nelder-Mead", options=options)
        steps += int(found.nit)
        converged = bool(found.success and best - found.fun < 0.05)
        start, best = found.x, min(best, float(found.fun))
        if converged:
            break
    return start, evaluate(start)[0], best / len(seen), steps, converged


def particle_share(light: Light, mode: int) -> np.ndarray:
    """Probability that a brightened voxel of each bin lies in the particle rather than its rim.

    It rises from the background's mode upwards and is zero up to it: where hardly any light falls, the
    ratio of the two is noise, which must not set a floor for the bins above.
    """
    total = light.particle + light.rim
    share = np.where(total > 1e-14, light.particle / np.maximum(total, 1e-14), 0.0)
    # Where the model has no mass on the bright side, everything is particle.
    last = np.flatnonzero(total > 1e-14)
    if last.size:
        share[last[-1] + 1 :] = 1.0
    above = np.clip(np.maximum.accumulate(share[mode + 1 :]), 1e-9, 1 - 1e-9)
    odds = np.log(above / (1 - above))
    out = np.zeros(BINS)
    out[mode + 1 :] = 1 / (1 + np.exp(-(EDGE_STEEPNESS * odds + EDGE_OFFSET)))
    return out
