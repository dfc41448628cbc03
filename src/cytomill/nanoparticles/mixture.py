"""Two-component intensity mixture: background known, nanoparticles found by EM (reference estimator).

The stack's histogram is explained as ``w p_bg + (1 - w) p_np``: the background's distribution is
measured away from bright candidates, the weight and the particles' distribution are fitted by
expectation-maximisation (Dempster, Laird & Rubin 1977) over the 256 bins.  Every slice then gets its
own mixing weight as the maximum a posteriori under a Beta prior (empirical Bayes).

The operations and their order are those of the published reference, so that thresholds, iterations
and the float16 posterior come out bit for bit; its limits come with them: percentile thresholds fit
one particle load, and blank slices spoil the fit (`estimator = "robust"` is the default for that).
"""

from __future__ import annotations

import numpy as np

from cytomill.nanoparticles.config import NanoparticleSegConfig
from cytomill.nanoparticles.model import PARTICLES, Mixture, SlicePosterior, Thresholds, norm
from cytomill.nanoparticles.posterior import posterior_tables
from cytomill.nanoparticles.weights import solve_pi


def percentile_bin(p_stack: np.ndarray, percent: float) -> int:
    """First bin at which the cumulated probability reaches `percent`; 256 where none does."""
    return int(np.searchsorted(np.cumsum(p_stack), percent / 100))


def fit_em(
    p_stack: np.ndarray,
    p_bg: np.ndarray,
    p_np: np.ndarray,
    w_bg: float,
    *,
    eps: float,
    nll_tol: float,
    max_iter: int,
) -> tuple[np.ndarray, float, float, int, bool]:
    """Fit the particles' distribution and the background's weight by EM.

    Parameters
    ----------
    p_stack, p_bg : (256,) float64 ndarray
        Distributions of the stack and of its background (fixed).
    p_np : (256,) float64 ndarray
        First guess of the particles' distribution.
    w_bg : float
        First guess of the background's weight.
    eps : float
        Floor of probabilities.
    nll_tol : float
        The fit stops when the negative log-likelihood gains less than this.
    max_iter : int
        Iterations at the most, at least 1.

    Returns
    -------
    p_np : (256,) float64 ndarray
    w_bg : float
    nll : float
        Negative log-likelihood a pixel (nat).
    nit : int
        0-based index of the last iteration.
    converged : bool

    Raises
    ------
    RuntimeError
        If no weight is left for the particles.
    ValueError
        If `max_iter` is less than 1.
    """
    if max_iter < 1:
        raise ValueError(f"max_iter must be at least 1, found {max_iter}: EM needs one to give a result")
    previous = np.inf
    mix = w_bg * p_bg + (1 - w_bg) * p_np + eps
    for iteration in range(max_iter):
        responsibility = w_bg * p_bg / mix
        rest = (1 - responsibility) * p_stack
        if not rest.sum() > eps:
            raise RuntimeError(
                f"EM collapsed at iteration {iteration}: no weight is left for nanoparticles, "
                "the background explains the whole histogram"
            )
        p_np = norm(rest, eps)
        w_bg = min(max(float((p_stack * responsibility).sum()), eps), 1 - eps)
        mix = w_bg * p_bg + (1 - w_bg) * p_np + eps
        nll = -float((p_stack * np.log(mix)).sum())
        if previous - nll < nll_tol:
            return p_np, w_bg, nll, iteration, True
        previous = nll
    return p_np, w_bg, nll, max_iter - 1, False


class ReferenceEstimator:
    """The published method's thresholds, EM and mixing weights (see the module's text).

    Parameters
    ----------
    config : NanoparticleSegConfig
        Uses ``eps``, ``nll_tol``, ``max_iter``, ``percent_th_low``, ``percent_th_high``,
        ``beta_params``, ``pi_solver`` and ``posterior_dtype``.
    """

    def __init__(self, config: NanoparticleSegConfig) -> None:
        self.config = config

    def thresholds(self, hist_slices: np.ndarray, sampled: np.ndarray) -> Thresholds:
        """Percentiles of the sampled slices' histogram.

        Parameters
        ----------
        hist_slices : (Z, 256) int64 ndarray
        sampled : (Z,) bool ndarray

        Returns
        -------
        Thresholds

        Raises
        ------
        ValueError
            If there is no slice or no pixel.
        """
        hist_slices = np.asarray(hist_slices)
        if hist_slices.shape[0] == 0 or not hist_slices.any():
            raise ValueError(
                f"the stack has {hist_slices.shape[0]} slices and no pixels: there is nothing to fit; "
                "check the path and the shape of the volume"
            )
        p_stack = norm(hist_slices[sampled].sum(axis=0), self.config.eps)
        return Thresholds(
            th_low=percentile_bin(p_stack, self.config.percent_th_low),
            th_high=percentile_bin(p_stack, self.config.percent_th_high),
            usable=np.ones(len(hist_slices), bool),
        )

    def fit(
        self,
        hist_slices: np.ndarray,
        hist_bg_slices: np.ndarray,
        thresholds: Thresholds,
        sampled: np.ndarray,
    ) -> Mixture:
        """EM over the histograms of the sampled slices.

        Parameters
        ----------
        hist_slices, hist_bg_slices : (Z, 256) int64 ndarray
            Counts of each slice and of its background.
        thresholds : Thresholds
            What :meth:`thresholds` returned.
        sampled : (Z,) bool ndarray

        Returns
        -------
        Mixture

        Raises
        ------
        RuntimeError
            If EM collapses.
        ValueError
            If no slice has a background pixel.
        """
        config = self.config
        hist_stack = np.asarray(hist_slices)[sampled].sum(axis=0)
        hist_bg = np.asarray(hist_bg_slices)[sampled].sum(axis=0)
        if not hist_bg.any():
            raise ValueError(
                f"no pixel of the stack is background (below {thresholds.th_high}, outside the boxes around "
                f"pixels above {thresholds.th_low}): the stack is constant, blank or saturated, or halo_pad "
                f"= {config.halo_pad} covers every slice"
            )
        p_stack = norm(hist_stack, config.eps)
        p_bg = norm(hist_bg, config.eps)
        bright = p_stack.copy()
        bright[: thresholds.th_low] = 0
        p_np, w_bg, nll, nit, converged = fit_em(
            p_stack,
            p_bg,
            norm(bright, config.eps),
            float(hist_bg.sum() / hist_stack.sum()),
            eps=config.eps,
            nll_tol=config.nll_tol,
            max_iter=config.max_iter,
        )
        notes = thresholds.notes
        if not converged:
            notes += (
                f"EM did not converge within {config.max_iter} iterations (nll_tol = {config.nll_tol:g}); "
                "the last iteration is used",
            )
        return Mixture(
            hist_stack=hist_stack,
            hist_bg=hist_bg,
            p_stack=p_stack,
            p_bg=p_bg,
            p_np=p_np,
            th_low=thresholds.th_low,
            th_high=thresholds.th_high,
            w_bg=w_bg,
            nll=nll,
            nit=nit,
            converged=converged,
            verdict=PARTICLES,
            usable=thresholds.usable,
            slice_shift=np.zeros(len(hist_slices)),
            notes=notes,
        )

    def posterior(self, mixture: Mixture, hist_slices: np.ndarray) -> SlicePosterior:
        """Mixing weight and posterior table of every slice.

        Parameters
        ----------
        mixture : Mixture
        hist_slices : (Z, 256) int64 ndarray
            Every slice's histogram, sampled or not.

        Returns
        -------
        SlicePosterior
            Tables in ``config.posterior_dtype``.
        """
        config = self.config
        model = (hist_slices, mixture.p_np, mixture.p_bg, config.eps)
        pi_map = solve_pi(*model, config.beta_params, solver=config.pi_solver)
        return SlicePosterior(
            pi_map=pi_map,
            pi_ml=solve_pi(*model, (1.0, 1.0), solver=config.pi_solver),
            tables=posterior_tables(
                pi_map, mixture.p_np, mixture.p_bg, config.eps, dtype=config.posterior_dtype
            ),
        )


def sampled_slices(depth: int, sampling_step: int) -> np.ndarray:
    """Mask of the slices that take part in the fit: every `sampling_step`-th, the first included.

    Returns
    -------
    (depth,) bool ndarray
    """
    sampled = np.zeros(depth, bool)
    sampled[::sampling_step] = True
    return sampled


