"""The light of blurred particles: which grey levels they give the voxels that they brighten."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import ndtr

from cytomill.nanoparticles.robust_shape import BINS

#: Straight-edge profile: distances from the edge in units of the blur.  Particles are a few voxels wide,
#: so that this band holds most of what they brighten, at least EDGE_LEAST.
EDGE_REACH = 3.5
EDGE_LEAST = 0.8
_DISTANCE = (np.arange(120) + 0.5) / 120 * 2 * EDGE_REACH - EDGE_REACH
_EDGE = ndtr(_DISTANCE)
_QUANTILES = np.linspace(-2.5, 2.5, 21)
_WEIGHTS = np.exp(-0.5 * _QUANTILES**2) / np.exp(-0.5 * _QUANTILES**2).sum()
_SHIFT_INDEX = np.arange(BINS)[None, :] - np.arange(BINS)[:, None]
#: Logarithm of the largest amplitude: the scale has no more bins.  Where particles saturate, the counts
#: themselves set no limit.
MOST_LIGHT = float(np.log(BINS - 1))
#: The final fit begins at this share of the amplitude above the tissue's mean.
FIT_FROM = 0.42
#: Nearly all particles have one grey level (drawn, denoised, or clipped before export) where the central
#: nine tenths of the voxels beyond the foot span less than this share of what the tissue's span, and not
#: the better part of the way to the foot: else blurred edges hide under the tissue.
LONE_SPIKE = 1 / 3
#: The likelihood is climbed anew from its top at most so often.
RESTARTS = 6
#: A voxelised edge is a little sharper than a straight one through a continuous plane, since no voxel
#: centre lies on it: the log-odds of particle against rim are steeper by this factor, and lower by this
#: offset (both measured on phantoms of two kinds).
EDGE_STEEPNESS, EDGE_OFFSET = 1.35, -0.14


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


def lone_spike(counts: np.ndarray, background: np.ndarray, knee: int) -> tuple[Light, float] | None:
    """Light of particles that are nearly all of one grey level, where they are.

    Light that adds to tissue varies at least as much as the tissue, so nothing can be fitted to such a
    spike.  But it is a class of its own, and the half maximum tells where it begins.

    Parameters
    ----------
    counts, background, knee
        As for :func:`fit_light`.

    Returns
    -------
    light : Light
    amount : float
        Voxels that particles brighten.
        None where the voxels beyond the foot are no such spike.
    """
    excess = np.maximum(counts - background, 0.0)
    excess[: knee + 1] = excess[-1] = 0.0
    low, middle, high = _at_shares(excess, (0.05, 0.5, 0.95))
    least, _, most = _at_shares(background, (0.05, 0.5, 0.95))
    if high - low >= min(LONE_SPIKE * (most - least), 2 * (low - knee)):
        return None
    excess[-1] = max(counts[-1] - background[-1], 0.0)
    bins = np.arange(BINS)
    typical = float((background * bins).sum() / background.sum())
    half = 0.5 * (typical + middle)
    # One voxel spread over the bins of each side lets the half maximum decide about empty bins too.
    particle, rim = (np.where(side, excess + 1.0 / side.sum(), 0.0) for side in (bins > half, bins <= half))
    amount = float(particle.sum() + rim.sum())
    spread = float(np.sqrt((excess * (bins - middle) ** 2)[bins > half].sum() / excess[bins > half].sum()))
    light = Light(particle / amount, rim / amount, float(middle - typical), spread, 0.0)
    return light, amount


def _at_shares(counts: np.ndarray, shares: tuple[float, ...]) -> np.ndarray:
    """Bins below which these shares of the counts lie."""
    return np.searchsorted(np.cumsum(counts), np.array(shares) * counts.sum())


def fit_light(
    counts: np.ndarray, background: np.ndarray, knee: int, top: int
) -> tuple[Light, float, int, bool]:
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
    steps : int
        Iterations taken.
    converged : bool
    """
    tissue = background / background.sum()
    typical = float((tissue * np.arange(BINS)).sum())
    excess = np.maximum(counts - background, 0.0)[knee + 1 :]
    reach = max(float((excess * np.arange(knee + 1, BINS)).sum() / max(excess.sum(), 1e-300)) - typical, 4.0)
    start = np.array([np.log(1.25 * reach), np.log(0.2 * reach), 0.0])
    theta, _, steps, _ = _climb(counts, background, tissue, knee + 1, top, start)
    # Curved edges have more dim rim than straight ones; what decides about particles is the half maximum
    # and all above, so only that is fitted in the end, wherever the foot lies.
    first = max(knee + 1, int(round(typical + FIT_FROM * np.exp(theta[0]))))
    first = min(first, knee + 1 + (BINS - 1 - knee) // 3, max(top - 1, knee + 1))
    theta, amount, more, converged = _climb(counts, background, tissue, first, top, theta)
    return _light_of(tissue, theta), amount, steps + more, converged


def _light_of(tissue: np.ndarray, theta: np.ndarray) -> Light:
    edge = EDGE_LEAST + (1.0 - EDGE_LEAST) / (1.0 + np.exp(-theta[2]))
    return blurred_light(tissue, *np.exp(np.minimum(theta[:2], MOST_LIGHT)), edge)


def _climb(
    counts: np.ndarray, background: np.ndarray, tissue: np.ndarray, first: int, top: int, start: np.ndarray
) -> tuple[np.ndarray, float, int, bool]:
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
        loose += 1e3 * float((np.maximum(theta[:2] - MOST_LIGHT, 0.0) ** 2).sum())
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
    return start, evaluate(start)[0], steps, converged


def particle_share(light: Light, mode: int, top: int = BINS - 1) -> np.ndarray:
    """Probability that a brightened voxel of each bin lies in the particle rather than its rim.

    It rises from the background's mode upwards and is zero up to it: where hardly any light falls, the
    ratio of the two is noise, which must not set a floor for the bins above.  The bins from `top` on were
    fitted as one, and have one share.
    """
    total = light.particle + light.rim
    saturated = float(light.particle[top:].sum() / max(total[top:].sum(), 1e-300))
    share = np.where(total > 1e-14, light.particle / np.maximum(total, 1e-14), 0.0)
    # Where the model has no mass on the bright side, everything is particle.
    last = np.flatnonzero(total > 1e-14)
    if last.size:
        share[last[-1] + 1 :] = 1.0
    share[top:] = np.maximum(share[top:], saturated)
    above = np.clip(np.maximum.accumulate(share[mode + 1 :]), 1e-9, 1 - 1e-9)
    odds = np.log(above / (1 - above))
    out = np.zeros(BINS)
    out[mode + 1 :] = 1 / (1 + np.exp(-(EDGE_STEEPNESS * odds + EDGE_OFFSET)))
    return out
