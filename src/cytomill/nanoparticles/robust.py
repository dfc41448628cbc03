"""Robust estimator of nanoparticles from histograms: identifiable, and able to say that there are none.

Model
-----
The stack, its slices aligned in brightness, holds tissue with grey levels ``p_tissue`` and voxels that
particles brighten.  Free mixture weights and free component shapes cannot be told apart from one
histogram (any weight ``w <= min(p / p_tissue)`` fits perfectly; at fixed w the best component is the
water-filling ``max(p / lambda - w p_tissue, 0)``), so three assumptions make the answer unique:

1. *The background's right flank is log-concave from its foot on.*  The foot (knee) is the first bin
   after which the counts exceed the parabola laid through the log counts before it; they never rise
   before it.  Beyond the foot the tissue is the parabola, before it what lies outside candidates' boxes.
2. *Light adds, and blur is symmetric.*  A voxel at signed distance d from a particle's edge receives
   Phi(d) of the particle's amplitude, and amplitudes are normal.  Four numbers (amount, mean and
   standard deviation of the amplitude, share of voxels near an edge) are fitted by Poisson likelihood
   to the counts beyond the foot, and say how much dim light lies under the background.
3. *Half maximum.*  A brightened voxel is particle where it receives more than half of the amplitude;
   the others are rim, voxels of the background.  Without this no histogram can say where an edge is.

Particles of one grey level (drawn, denoised, clipped before export) break assumption 2: the sum of light and
tissue varies at least as tissue does.  Where the voxels beyond the foot are such a spike, well away from it,
nothing is fitted: all above half way from the tissue's mean to the spike is particle.  Otherwise the
amplitude is at most the number of bins.

The ratio of particle to background is made monotone from the background's mode upwards and zero below
it; posteriors below 2**-10 are zero.  A slice's posterior is ``E S``: E, the probability that a voxel is
brightened, from the slice's own weight; S, that it is then particle rather than rim, common to the stack.
The weight is solved on the histogram with the bins up to the foot merged into one: bright tissue adds none.

Slices that are blank, constant or saturated are set aside.  Drift of brightness moves tissue and
particles together; it is measured at the ends of the tissue's histogram, and left alone below a root
mean square of 1.25 bins, where a change of tissue looks the same.

Verdicts
--------
"no particles": the counts beyond the foot do not exceed the tissue's.  "flagged: no separate mode":
they do, but they fall without a valley (bright tissue, charging, a few dim particles), or all of them are
saturated, or the upper mode is too large for particles.  Intensity cannot decide: posteriors are zero.
Rules and limits are in :mod:`cytomill.nanoparticles.robust_verdict`.

Limits
------
Particles dimmer than about three standard deviations of the tissue, bright tissue with a mode of its
own (calcified or heavily stained bodies are called particles), slices whose contrast (not brightness)
changes, and loads above 25 %.  Voxels in the last bin count as particles where there are any; padding
that :mod:`cytomill.nanoparticles.padding` finds has left the histograms before.  Below some 3500
particle voxels in the stack the valley may not show, and the verdict is a flag; below some 100 it is
"no particles".

On phantoms of two kinds the largest reliability error of a decile is 0.02 to 0.045 on average, and up to
0.1 on single stacks: the amplitude misjudged by one bin shifts the middle deciles by 0.03, and a
histogram does not tell much of the rim that goes with a particle (an amplitude with a skew of its own
fits the counts better and the particles worse).  At 0.05 % load the labels at 0.95 have a Dice up to
0.05 below the oracle's: the share of rim among a few thousand voxels differs from stack to stack.

Where the voxels lie does not help cheaply: the mean of eroded candidates favours large and bright clusters
(3 to 10 bins above the amplitude that calibrates, by another offset for each kind of phantom), and the half
maximum of lightly smoothed images has a bias of its own, +1 % of the particles' voxels on one kind, -2 % on
the other, where the fit's scatter is 1 %.  Blends of such a share with the model's gained on the phantoms
they were chosen on, and not on fresh ones; a higher share for small loads gained by overconfidence alone.
Where most particles saturate, labels stay good, but reliability errors reach 0.3.

Sources: McLachlan & Peel, Finite Mixture Models (2000); Walther, Stat. Sci. 24 (2009) 319, on
log-concave components; the half-maximum rule is common practice for edges under a symmetric blur.
The steepness and offset of S were measured on phantoms (seeds other than those of the tests).
"""

from __future__ import annotations

import numpy as np

from cytomill.nanoparticles.config import NanoparticleSegConfig
from cytomill.nanoparticles.model import NO_PARTICLES, PARTICLES, Mixture, SlicePosterior, Thresholds, norm
from cytomill.nanoparticles.posterior import round_posterior
from cytomill.nanoparticles.robust_light import fit_light, lone_spike, particle_share
from cytomill.nanoparticles.robust_shape import BINS, Flank, fill_comb, find_flank
from cytomill.nanoparticles.robust_slices import align, brightness_shift, judge_slices
from cytomill.nanoparticles.robust_verdict import percent, separate_mode
from cytomill.nanoparticles.weights import solve_pi

#: Smaller posteriors are written as zero: they are of no use, and keep the volume from compressing.
LEAST_POSTERIOR = 2.0**-10
#: The flank is followed this many bins further outside the candidates' boxes than in the whole stack.
FURTHER = 10


def knee_of(hist: np.ndarray) -> int:
    """Bin at which the right flank of a histogram's background ends."""
    return find_flank(fill_comb(hist)).knee


def guess_polarity(hist_slices: np.ndarray) -> tuple[str, str]:
    """Guess whether particles are bright or dark.

    Parameters
    ----------
    hist_slices : (Z, 256) int ndarray
        Histograms as acquired (not reversed).

    Returns
    -------
    polarity : {"bright", "dark"}
    sentence : str, for the log and the report
    """
    found = {}
    for polarity, rows in (("bright", hist_slices), ("dark", hist_slices[:, ::-1])):
        # Padding is the lowest bin of the acquired stack; it must not look like dark particles.
        usable = judge_slices(hist_slices)[0]
        shift = brightness_shift(rows, usable, knee_of)
        counts = fill_comb(align(rows[usable], shift[usable]).sum(0)) if usable.any() else np.zeros(BINS)
        flank = find_flank(counts)
        verdict = separate_mode(counts, flank, _reaching(rows[usable], shift[usable]))[0]
        excess = float(np.maximum(counts - flank.tail, 0)[flank.knee + 1 : BINS - 1].sum())
        found[polarity] = (verdict == PARTICLES, excess)
    if found["dark"][0] and (not found["bright"][0] or found["dark"][1] > found["bright"][1]):
        return "dark", "polarity guessed: dark, for the histogram has a separate mode on its dark side"
    if found["bright"][0]:
        return "bright", "polarity guessed: bright, for the histogram has a separate mode on its bright side"
    return "bright", "polarity assumed: bright, for the histogram has no separate mode on either side"


class RobustEstimator:
    """The default estimator (see the module's text).

    Parameters
    ----------
    config : NanoparticleSegConfig
        Uses ``eps``, ``beta_params``, ``pi_solver`` and ``posterior_dtype``.
    """

    def __init__(self, config: NanoparticleSegConfig) -> None:
        self.config = config

    def thresholds(self, hist_slices: np.ndarray, sampled: np.ndarray) -> Thresholds:
        """Foot of the background's right flank, and the slices set aside.

        Parameters
        ----------
        hist_slices : (Z, 256) int64 ndarray
        sampled : (Z,) bool ndarray

        Returns
        -------
        Thresholds
            ``th_high`` is 256: outside the candidates' boxes everything is background.

        Raises
        ------
        ValueError
            If there is no slice.
        """
        hist_slices = np.asarray(hist_slices)
        if hist_slices.shape[0] == 0:
            raise ValueError("the stack has 0 slices: there is nothing to fit; check the path and the shape")
        usable, notes = judge_slices(hist_slices)
        shift = brightness_shift(hist_slices, usable, knee_of)
        taken = self._taken(usable, np.asarray(sampled, bool))
        if not taken.any():
            return Thresholds(BINS - 1, BINS, usable, notes)
        flank = find_flank(fill_comb(align(hist_slices[taken], shift[taken]).sum(0)))
        if shift.any():
            span = f"{shift.min():+.1f} to {shift.max():+.1f}"
            notes += (f"brightness drifts by {span} bins; thresholds follow",)
        return Thresholds(
            flank.knee, BINS, usable, notes, np.rint(shift).astype(np.int64) if shift.any() else None
        )

    @staticmethod
    def _taken(usable: np.ndarray, sampled: np.ndarray) -> np.ndarray:
        # Thinning must not leave only slices that are set aside.
        both = usable & sampled
        return both if both.any() else usable

    def fit(
        self,
        hist_slices: np.ndarray,
        hist_bg_slices: np.ndarray,
        thresholds: Thresholds,
        sampled: np.ndarray,
    ) -> Mixture:
        """Tissue, particles and their rim, from the histograms of the slices and of their background.

        Parameters
        ----------
        hist_slices, hist_bg_slices : (Z, 256) int64 ndarray
        thresholds : Thresholds
        sampled : (Z,) bool ndarray

        Returns
        -------
        Mixture
            With `verdict` other than "particles", `p_np` is zero but for its floor and `w_bg` is 1.
        """
        hist_slices, hist_bg_slices = np.asarray(hist_slices), np.asarray(hist_bg_slices)
        usable, notes = thresholds.usable, thresholds.notes
        taken = self._taken(usable, np.asarray(sampled, bool))
        shift = brightness_shift(hist_slices, usable, knee_of)
        hist_stack, hist_bg = hist_slices[taken].sum(0), hist_bg_slices[taken].sum(0)
        counts = fill_comb(align(hist_slices[taken], shift[taken]).sum(0))
        outside = fill_comb(align(hist_bg_slices[taken], shift[taken]).sum(0))
        p_stack = norm(counts, self.config.eps)
        common = {
            "hist_stack": hist_stack,
            "hist_bg": hist_bg,
            "p_stack": p_stack,
            "th_low": thresholds.th_low,
            "th_high": thresholds.th_high,
            "usable": usable,
            "slice_shift": shift,
        }
        if not taken.any():
            return self._nothing(common, NO_PARTICLES, (*notes, "no particles: every slice is set aside"))
        flank = find_flank(counts)
        whole = _reaching(hist_slices[taken], shift[taken])
        verdict, sentence = separate_mode(counts, flank, whole)
        if verdict != PARTICLES:
            return self._nothing(common, verdict, (*notes, sentence))
        background, knee = _background(counts, outside, flank)
        # Slices brighter than the stack saturate before its last bin, rescaled stacks in the last two in use.
        top = BINS - 1 - int(np.ceil(max(float(shift[taken].max()), 0.0)))
        top = min(top, int(np.flatnonzero(counts)[-1]) - 1) if counts[-1] == 0 else top
        spike = lone_spike(counts, background, knee)
        if spike is not None:
            (light, amount), nit, converged = spike, 0, True
            kind = ", all of nearly the same grey level"
        else:
            light, amount, nit, converged = fit_light(counts, background, knee, top)
            kind = ""
        if light.amplitude > 0.99 * (BINS - 1):
            kind = ", or more: most of them saturate, so that it cannot be told"
        if not converged:
            notes += ("the fit of the particles' light did not converge; its last step is used",)
        share = particle_share(light, flank.mode, top)
        bright = light.particle + light.rim
        particle, rim = bright * share, bright * (1 - share)
        total = float(counts.sum())
        lit = min(amount / total, 0.5)
        weight = lit * particle.sum()
        tissue = background / background.sum()
        p_np = norm(particle, self.config.eps)
        p_bg = norm((1 - lit) * tissue + lit * rim, self.config.eps)
        w_bg = float(1 - weight)
        mix = w_bg * p_bg + weight * p_np + self.config.eps
        return Mixture(
            **common,
            p_bg=p_bg,
            p_np=p_np,
            w_bg=w_bg,
            nll=-float((p_stack * np.log(mix)).sum()),
            nit=nit,
            converged=bool(converged),
            verdict=PARTICLES,
            notes=(
                *notes,
                sentence,
                f"particles are {light.amplitude:.0f} ± {light.spread:.0f} bins (mean ± standard deviation) "
                f"brighter than tissue{kind}",
                f"estimated load: {percent(weight)} of the voxels lie in particles, by a fit to the whole "
                "stack's histogram",
            ),
            p_tissue=tissue,
            p_rim=norm(rim, self.config.eps),
            rim_ratio=float(rim.sum() / particle.sum()),
        )

    def _nothing(self, common: dict, verdict: str, notes: tuple[str, ...]) -> Mixture:
        p_stack = common["p_stack"]
        return Mixture(
            **common,
            p_bg=p_stack,
            p_np=norm(np.zeros(BINS), self.config.eps),
            w_bg=1.0,
            nll=-float((p_stack * np.log(p_stack + self.config.eps)).sum()),
            nit=0,
            converged=True,
            verdict=verdict,
            notes=notes,
            p_tissue=p_stack,
            p_rim=norm(np.zeros(BINS), self.config.eps),
        )

    def posterior(self, mixture: Mixture, hist_slices: np.ndarray) -> SlicePosterior:
        """Mixing weight and posterior table of every slice.

        Parameters
        ----------
        mixture : Mixture
        hist_slices : (Z, 256) int64 ndarray

        Returns
        -------
        SlicePosterior
            Zero for slices set aside and where the verdict is not "particles".
        """
        hist_slices = np.asarray(hist_slices)
        depth = len(hist_slices)
        pi_map, pi_ml = np.zeros(depth), np.zeros(depth)
        posterior = np.zeros((depth, BINS))
        dtype = self.config.posterior_dtype
        rows = np.flatnonzero(mixture.usable)
        if mixture.verdict != PARTICLES or not rows.size:
            return SlicePosterior(pi_map, pi_ml, round_posterior(posterior, dtype))
        ratio = mixture.rim_ratio
        bright = (mixture.p_np + ratio * mixture.p_rim) / (1 + ratio)
        share = mixture.p_np / (mixture.p_np + ratio * mixture.p_rim)
        back = -mixture.slice_shift[rows]
        lit = align(np.broadcast_to(bright, (len(rows), BINS)), back)
        tissue = align(np.broadcast_to(mixture.p_tissue, (len(rows), BINS)), back)
        # A probability that was spread over two bins stays one where it is divided by the same spread.
        inside = align(np.broadcast_to(bright * share, (len(rows), BINS)), back) / np.maximum(lit, 1e-300)
        first = np.clip(np.rint(mixture.th_low + mixture.slice_shift[rows]), 0, BINS - 2).astype(np.int64)
        # Slices darker than the stack reach bins that the aligned scale holds in its last one.
        last = np.clip(BINS - 1 + np.floor(mixture.slice_shift[rows]), first + 1, BINS - 1).astype(np.int64)
        merged = [_merge(a, first, last) for a in (hist_slices[rows], lit, tissue)]
        solve = dict(eps=self.config.eps, solver=self.config.pi_solver)
        weights = []
        for prior in (self.config.beta_params, (1.0, 1.0)):
            weights.append(solve_pi(merged[0], merged[1], merged[2], beta_params=prior, **solve))
        pi_map[rows], pi_ml[rows] = weights[0] / (1 + ratio), weights[1] / (1 + ratio)
        weight = weights[0][:, None]
        probability = weight * lit / np.maximum(weight * lit + (1 - weight) * tissue, 1e-300) * inside
        mode = np.clip(np.rint(int(np.argmax(mixture.p_tissue)) + mixture.slice_shift[rows]), 0, BINS - 1)
        probability[np.arange(BINS)[None, :] <= mode[:, None]] = 0.0
        posterior[rows] = np.clip(np.maximum.accumulate(probability, axis=1), 0.0, 1.0)
        posterior[posterior < LEAST_POSTERIOR] = 0.0
        return SlicePosterior(pi_map, pi_ml, round_posterior(posterior, dtype))


def _merge(rows: np.ndarray, first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Bins 0..first of each row gathered in bin 0, those from `last` on in the last bin.

    A coarser histogram has a likelihood too.
    """
    bins = np.arange(BINS)[None, :]
    low, high = bins <= first[:, None], bins >= last[:, None]
    out = np.where(low | high, 0, rows)
    out[:, 0], out[:, -1] = np.where(low, rows, 0).sum(1), np.where(high, rows, 0).sum(1)
    return out


def _reaching(rows: np.ndarray, shift: np.ndarray) -> np.ndarray | None:
    """Aligned histogram of the slices no brighter than the stack; none where brightness does not drift."""
    return fill_comb(align(rows[shift <= 0], shift[shift <= 0]).sum(0)) if np.any(shift) else None


def _background(counts: np.ndarray, outside: np.ndarray, flank: Flank) -> tuple[np.ndarray, int]:
    """Expected counts of the tissue alone, and the foot that they leave.

    Outside the candidates' boxes the flank goes on further than in the whole stack, but lone small
    particles end it there too.  Where the boxes leave too little, the stack's own flank has to do.
    """
    core = slice(1, flank.mode + 1)
    if outside[core].sum() < 0.05 * counts[core].sum():
        return flank.tail, flank.knee
    apart = find_flank(outside, flank.knee + FURTHER)
    scale = counts[core].sum() / outside[core].sum()
    return apart.tail * scale, max(flank.knee, apart.knee)
