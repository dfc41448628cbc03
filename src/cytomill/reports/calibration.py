"""Figure of calibration: the posterior against a known truth."""

from __future__ import annotations

import numpy as np

from cytomill.reports import captions
from cytomill.reports.canvas import LIGHT, Picture, log_y_axis, new_figure, styled, to_picture
from cytomill.reports.quantities import figures_text
from cytomill.reports.truth import FEWEST_VOXELS, Calibration


def calibration_curve(curve: Calibration | None) -> Picture | None:
    """Posterior against the true share of particle voxels."""
    if curve is None:
        return None
    rows = curve.rows
    if len(rows) < 2:
        return None
    predicted, observed, counts, trusted = (np.array(column) for column in zip(*rows))
    worst = figures_text(curve.largest_deviation)
    with styled():
        figure, (ax, below) = new_figure(6.2, 3.7, rows=2, sharex=True, height_ratios=(3, 1))
        ax.plot([0, 1], [0, 1], color=LIGHT["muted"], lw=1.0, ls=(0, (4, 2)), label="perfect")
        points = {"color": LIGHT["particle"], "marker": "o", "ms": 4}
        ax.plot(predicted[trusted], observed[trusted], label="this stack", **points)
        if not trusted.all():
            few = {"color": LIGHT["muted"], "marker": "o", "mfc": "none", "ls": "none", "ms": 4}
            ax.plot(predicted[~trusted], observed[~trusted], label=f"below {FEWEST_VOXELS} voxels", **few)
        ax.set_ylim(-0.02, 1.04)
        ax.set_xlim(-0.02, 1.02)
        ax.set_ylabel("truly particle")
        ax.legend(loc="upper left")
        below.bar(predicted, counts, width=0.05, color=LIGHT["stack"])
        log_y_axis(below, between_decades=False)
        below.set_ylabel("voxels")
        below.set_xlabel("posterior")
        return to_picture(
            figure,
            f"Calibration curve, largest deviation {worst}.",
            captions.CALIBRATION.format(worst=worst),
        )
