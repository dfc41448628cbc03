"""Verdict of the robust estimator: whether the voxels beyond the background are a mode of their own."""

from __future__ import annotations

import numpy as np

from cytomill.nanoparticles.model import FLAGGED, NO_PARTICLES, PARTICLES
from cytomill.nanoparticles.robust_shape import BINS, LONE_RISE_SIGMAS, MODE_SIGMAS, Flank, find_rise

#: Fewest voxels beyond the foot, and their smallest share of the stack, that count as a finding.
FEWEST_VOXELS, SMALLEST_SHARE = 100, 1e-5
#: Largest share of a stack that is believed to be particles.
LARGEST_SHARE = 0.25
#: Saturated voxels that the flank does not explain are noted above this share: 16-bit stacks are binned
#: so that up to 1e-4 saturate.
SATURATED_SHARE = 5e-4


def percent(share: float) -> str:
    """A share as a percentage of three significant digits, the same way in every sentence."""
    return f"{100 * share:#.3g}".rstrip(".") + " %"


def separate_mode(counts: np.ndarray, flank: Flank, whole: np.ndarray | None = None) -> tuple[str, str]:
    """Judge whether the counts beyond the flank's foot are a mode of their own.

    Parameters
    ----------
    counts : (256,) ndarray
        Histogram of the usable slices, aligned.
    flank : Flank
    whole : (256,) ndarray, optional
        Histogram of those slices alone whose scale reaches the end of the aligned one.  Slices brighter
        than the stack saturate before it, so that the counts of all fall there, and hide a mode that lies
        at the end of the scale.  By default, no slice does.

    Returns
    -------
    verdict, sentence : str
    """
    beyond = counts[flank.knee + 1 : BINS - 1]
    excess = float(np.maximum(beyond - flank.tail[flank.knee + 1 : BINS - 1], 0.0).sum())
    least = max(FEWEST_VOXELS, SMALLEST_SHARE * counts.sum())
    unexplained = flank.ended and excess >= least
    if not unexplained and _saturated(counts, flank) > SATURATED_SHARE * counts.sum():
        return FLAGGED, (
            f"flagged: no separate mode; {counts[-1]:.0f} voxels lie in the last bin and may be particles, "
            "bright tissue: acquire or export the stack without saturation"
        )
    if not flank.ended:
        return NO_PARTICLES, "no particles: the background's right flank explains the histogram to its end"
    if excess < least:
        return NO_PARTICLES, (
            f"no particles: beyond the background's foot (bin {flank.knee}) the voxels exceed its flank by "
            f"{excess:.0f}; {least:.0f} would be a finding"
        )
    tested = [beyond] if whole is None else [beyond, whole[flank.knee + 1 : BINS - 1]]
    rise = max(find_rise(part, flank.ripple)[0] for part in tested)
    if rise < (LONE_RISE_SIGMAS if flank.recovered else MODE_SIGMAS):
        return FLAGGED, (
            f"flagged: no separate mode; {excess:.0f} voxels exceed the background's flank beyond "
            f"bin {flank.knee}, but no clear valley lies before them, so intensity alone cannot tell "
            "particles from bright tissue"
        )
    if excess > LARGEST_SHARE * counts.sum():
        return FLAGGED, (
            f"flagged: no separate mode of particles; the bright mode holds {percent(excess / counts.sum())} "
            f"of the voxels, more than the {100 * LARGEST_SHARE:g} % believed to be particles"
        )
    return PARTICLES, (
        f"particles: a separate mode of bright voxels beyond bin {flank.knee}; "
        f"{percent(excess / counts.sum())} of the voxels lie there and are too many for tissue"
    )


def _saturated(counts: np.ndarray, flank: Flank) -> float:
    """Voxels of the last bin, less three times what the flank would leave there and beyond."""
    before, at = flank.tail[-2:]
    due = at / (1.0 - at / before) if at < before else at
    return float(counts[-1] - 3.0 * due)
