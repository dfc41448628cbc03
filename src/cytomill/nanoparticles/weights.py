"""Mixing weight of particles in each slice: maximum a posteriori under a Beta prior.

For a slice with histogram ``h`` the weight minimises on [0, 1]

    f(pi) = -[sum h log(pi p_np + (1 - pi) p_bg + eps)
              + (alpha - 1) log(pi + eps) + (beta - 1) log(1 - pi + eps)],

which is convex for alpha, beta >= 1.  ``alpha = beta = 1`` is the maximum likelihood.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from scipy.optimize import minimize_scalar

#: Width of the bracket, or relative length of a step, at which Newton's iteration ends.
TOLERANCE = 1e-15
MAX_STEPS = 200


@njit(nogil=True, cache=True)
def _slopes(pi, h, p_np, p_bg, eps, alpha, beta):
    """First and second derivative of f, each summed in the order of the bins with compensation."""
    first = 0.0
    lost = 0.0
    second = 0.0
    for k in range(h.size):
        if h[k] == 0:
            continue
        ratio = (p_np[k] - p_bg[k]) / (pi * p_np[k] + (1.0 - pi) * p_bg[k] + eps)
        term = h[k] * ratio
        total = first + term
        # Neumaier: terms of both signs cancel at the root, where the last bits decide.
        if abs(first) >= abs(term):
            lost += (first - total) + term
        else:
            lost += (term - total) + first
        first = total
        second += term * ratio
    slope = -(first + lost)
    if alpha > 1.0:
        slope -= (alpha - 1.0) / (pi + eps)
        second += (alpha - 1.0) / (pi + eps) ** 2
    if beta > 1.0:
        slope += (beta - 1.0) / (1.0 - pi + eps)
        second += (beta - 1.0) / (1.0 - pi + eps) ** 2
    return slope, second


@njit(nogil=True, cache=True)
def _root(h, p_np, p_bg, eps, alpha, beta):
    slope, _ = _slopes(0.0, h, p_np, p_bg, eps, alpha, beta)
    if slope >= 0.0:
        return 0.0
    slope, _ = _slopes(1.0, h, p_np, p_bg, eps, alpha, beta)
    if slope <= 0.0:
        return 1.0
    low = 0.0
    high = 1.0
    pi = 0.5
    last = 1.0
    for _ in range(MAX_STEPS):
        slope, curvature = _slopes(pi, h, p_np, p_bg, eps, alpha, beta)
        if slope == 0.0:
            return pi
        if slope < 0.0:
            low = pi
        else:
            high = pi
        step = -slope / curvature if curvature > 0.0 else 0.0
        target = pi + step
        # A step that leaves the bracket, or does not halve the one before it, is a bisection.
        if not (low < target < high) or 2.0 * abs(step) > abs(last):
            # Small weights lie decades below one: halve the logarithm where the bracket spans them.
            if low > 0.0 and high > 4.0 * low:
                target = np.sqrt(low * high)
            elif low == 0.0 and high > 1e-12:
                target = high * 0.0625
            else:
                target = 0.5 * (low + high)
        last = target - pi
        pi = target
        if abs(last) <= TOLERANCE * pi or high - low <= TOLERANCE * high:
            return pi
    return pi


@njit(nogil=True, cache=True)
def _roots(hist, p_np, p_bg, eps, alpha, beta, out):
    # A slice is a loop of its own: neither BLAS nor a reduction over slices could let the
    # neighbours in a group change a bit.
    for z in range(hist.shape[0]):
        out[z] = _root(hist[z], p_np[z % p_np.shape[0]], p_bg[z % p_bg.shape[0]], eps, alpha, beta)


def _bounded(h, p_np, p_bg, eps, alpha, beta):
    def objective(pi):
        return -(
            np.sum(h * np.log(pi * p_np + (1 - pi) * p_bg + eps))
            + (alpha - 1) * np.log(pi + eps)
            + (beta - 1) * np.log(1 - pi + eps)
        )

    return minimize_scalar(objective, bounds=(0, 1), method="bounded").x


def _rows(p: np.ndarray, depth: int, name: str) -> np.ndarray:
    """`p` as (1, 256) or (depth, 256) float64."""
    p = np.atleast_2d(np.ascontiguousarray(p, np.float64))
    if p.shape[0] not in (1, depth) or p.ndim != 2:
        raise ValueError(f"{name} must have shape (256,) or ({depth}, 256), found {p.shape}")
    return p


def solve_pi(
    hist_slices: np.ndarray,
    p_np: np.ndarray,
    p_bg: np.ndarray,
    eps: float,
    beta_params: tuple[float, float],
    solver: str = "newton",
) -> np.ndarray:
    """Mixing weight of particles in each slice.

    Parameters
    ----------
    hist_slices : (Z, 256) int64 ndarray
    p_np, p_bg : (256,) or (Z, 256) float64 ndarray
        Distributions of particles and background; the same for all slices, or one a slice.
    eps : float
        Floor inside the logarithms.
    beta_params : tuple of (float, float)
        alpha and beta of the prior, both at least 1; (1, 1) gives the maximum likelihood.
    solver : {"newton", "bounded"}
        Safeguarded Newton on f' to the last digits (0 where f'(0) >= 0, 1 where f'(1) <= 0), or
        SciPy's bounded scalar minimisation, which stops some 1e-6 from the minimum.

    Returns
    -------
    (Z,) float64 ndarray
        In [0, 1]; a slice's bits do not depend on the slices beside it.

    Raises
    ------
    ValueError
        If the prior makes f non-convex, a shape is wrong or `solver` is unknown.
    """
    alpha, beta = (float(v) for v in beta_params)
    if not (alpha >= 1 and beta >= 1):
        raise ValueError(
            f"beta_params must both be at least 1, found ({alpha:g}, {beta:g}): below 1 the posterior of the "
            "mixing weight is not convex and its maximum not unique"
        )
    hist = np.ascontiguousarray(hist_slices, np.float64)
    if hist.ndim != 2:
        raise ValueError(f"hist_slices must have shape (Z, 256), found {hist.shape}")
    p_np = _rows(p_np, len(hist), "p_np")
    p_bg = _rows(p_bg, len(hist), "p_bg")
    out = np.zeros(len(hist))
    if solver == "newton":
        _roots(hist, p_np, p_bg, float(eps), alpha, beta, out)
    elif solver == "bounded":
        for z, h in enumerate(hist):
            out[z] = _bounded(h, p_np[z % len(p_np)], p_bg[z % len(p_bg)], eps, alpha, beta)
    else:
        raise ValueError(f"pi_solver must be newton or bounded, found {solver!r}")
    return out
