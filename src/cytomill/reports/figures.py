"""Figures of a dataset's fit and particles: histograms, posterior, mixing weight, sizes, calibration.

Every function takes plain arrays and returns a :class:`~cytomill.reports.canvas.Picture` with its
caption and its alternative text, or None when there is nothing to draw.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.ticker import FuncFormatter, MaxNLocator

from cytomill.reports import captions
from cytomill.reports.canvas import LIGHT, Picture, new_figure, styled, to_picture
from cytomill.reports.data import BINS, Calibration, DatasetReport
from cytomill.reports.quantities import count_text, figures_text, percent_text

_HALF = (6.2, 3.7)
_WIDE = (8.4, 3.9)
#: Column, quantity and unit of a particle's size, the best first.
_SIZES = {
    "equivalent_diameter_um": ("equivalent diameter", "µm"),
    "volume_um3": ("volume", "µm³"),
    "voxel_count": ("volume", "voxels"),
}
_EDGES = np.arange(BINS + 1) - 0.5


def histograms(report: DatasetReport) -> Picture | None:
    """Stack and background histograms on a log scale, with the fitted mixture and the thresholds."""
    if report.hist_stack is None:
        return None
    stack = np.asarray(report.hist_stack, dtype=np.float64)
    total = stack.sum()
    with styled():
        figure, (ax,) = new_figure(*_WIDE)
        ax.stairs(
            _positive(stack), _EDGES, baseline=0.5, fill=True, color=LIGHT["stack"], label="whole stack"
        )
        if report.hist_bg is not None:
            ax.stairs(
                _positive(report.hist_bg),
                _EDGES,
                baseline=None,
                color=LIGHT["muted"],
                lw=1.0,
                label="background, as found",
            )
        if report.p_bg is not None and report.p_np is not None and report.w_bg is not None:
            bins = np.arange(BINS)
            background = total * report.w_bg * report.p_bg
            particles = total * (1 - report.w_bg) * report.p_np
            ax.plot(bins, _positive(background), color=LIGHT["background"], label="fit: background")
            ax.plot(bins, _positive(particles), color=LIGHT["particle"], label="fit: nanoparticles")
            ax.plot(
                bins,
                _positive(background + particles),
                color=LIGHT["ink"],
                lw=1.0,
                ls=(0, (4, 2)),
                label="fit: sum",
            )
        _mark_thresholds(ax, report)
        ax.set_yscale("log")
        ax.set_ylim(0.5, max(10.0, 4 * stack.max()))
        ax.set_xlim(*_occupied(stack))
        ax.set_xlabel(_intensity_label(report))
        ax.set_ylabel("voxels a bin (log scale)")
        ax.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=5, columnspacing=1.4)
        alt = f"Intensity histogram of {count_text(int(total))} voxels on a log scale"
        if report.th_low is not None:
            alt += f", thresholds at {report.th_low} and {report.th_high}"
        if report.w_bg is not None:
            alt += f"; fitted background weight {figures_text(report.w_bg, 4)}"
        return to_picture(
            figure,
            alt,
            captions.HISTOGRAMS,
        )


def posterior_curve(report: DatasetReport) -> Picture | None:
    """Posterior probability of being particle against intensity, at typical mixing weights."""
    if report.p_bg is None or report.p_np is None or report.hist_stack is None:
        return None
    weights = {}
    if report.w_bg is not None:
        weights["whole stack"] = 1 - report.w_bg
    if report.pi_map is not None:
        used = np.asarray(report.pi_map)[_usable(report, len(report.pi_map))]
        if used.size:
            weights["slice with least load"] = float(used.min())
            weights["slice with most load"] = float(used.max())
    shades = {
        "whole stack": (LIGHT["ink"], "-"),
        "slice with least load": (LIGHT["background"], (0, (4, 2))),
        "slice with most load": (LIGHT["particle"], (0, (4, 2))),
    }
    bins = np.arange(BINS)
    seen = np.asarray(report.hist_stack) > 0
    with styled():
        figure, (ax,) = new_figure(*_HALF)
        for name, weight in weights.items():
            particles = weight * report.p_np
            mix = particles + (1 - weight) * report.p_bg
            curve = np.where(seen & (mix > 0), particles / np.where(mix > 0, mix, 1), np.nan)
            colour, dashes = shades[name]
            ax.plot(bins, curve, color=colour, ls=dashes, label=f"{name}, π = {percent_text(weight)}")
        if report.posterior_th is not None:
            ax.axhline(report.posterior_th, color=LIGHT["threshold"], lw=1.0)
            ax.annotate(
                f"labelled from {report.posterior_th:g}",
                (1, report.posterior_th),
                (-2, -3),
                xycoords=("axes fraction", "data"),
                textcoords="offset points",
                ha="right",
                va="top",
                color=LIGHT["threshold"],
                fontsize=8.5,
            )
        ax.set_xlim(*_occupied(report.hist_stack))
        ax.set_ylim(-0.02, 1.04)
        ax.set_xlabel(_intensity_label(report))
        ax.set_ylabel("posterior of being particle")
        if weights:
            ax.legend(loc="upper left")
        return to_picture(
            figure,
            "Posterior probability of being particle against intensity",
            captions.POSTERIOR,
        )


def mixing_weight(report: DatasetReport) -> Picture | None:
    """π along z with (MAP) and without (ML) the prior; slices set aside marked; drift below."""
    if report.pi_map is None or not len(report.pi_map):
        return None
    pi_map = np.asarray(report.pi_map, dtype=np.float64)
    z = np.arange(len(pi_map))
    usable = _usable(report, len(z))
    shift = None if report.slice_shift is None else np.asarray(report.slice_shift, dtype=np.float64)
    drifting = shift is not None and bool(np.any(np.abs(shift) > 0))
    marker = "o" if len(z) <= 80 else None
    with styled():
        figure, axes = new_figure(
            *_HALF, rows=2 if drifting else 1, sharex=True, height_ratios=(3, 1.2) if drifting else None
        )
        ax = axes[0]
        if report.pi_ml is not None:
            ax.plot(
                z,
                np.where(usable, 100 * np.asarray(report.pi_ml), np.nan),
                color=LIGHT["background"],
                lw=1.0,
                marker=marker,
                ms=2.5,
                label="without prior (ML)",
            )
        ax.plot(
            z,
            np.where(usable, 100 * pi_map, np.nan),
            color=LIGHT["particle"],
            marker=marker,
            ms=3.5,
            label="with prior (MAP), used",
        )
        for axis in axes:
            _mark_slices(axis, z[~usable])
        ax.set_ylim(bottom=0)
        ax.set_ylabel("particle share π (%)")
        ax.margins(y=0.15)
        _, top = ax.get_ylim()
        ax.set_ylim(0, top if top > 1e-6 else 1.0)
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, 1.16), ncols=3)
        if drifting:
            axes[1].plot(z, np.where(usable, shift, np.nan), color=LIGHT["muted"], marker=marker, ms=2.5)
            axes[1].set_ylabel("shift (bins)")
        _slice_axis(axes[-1], len(z))
        aside = int(np.count_nonzero(~usable))
        span = "no slice used"
        if usable.any():
            used = pi_map[usable]
            span = f"from {percent_text(used.min())} to {percent_text(used.max())}"
        caption = captions.MIXING_WEIGHT
        if drifting:
            caption += captions.DRIFT
        if aside:
            caption += captions.slices_set_aside(aside)
        return to_picture(figure, f"Particle share of {len(z)} slices, {span}; {aside} set aside.", caption)


def size_distribution(particles: pd.DataFrame | None) -> Picture | None:
    """Equivalent diameter on a log axis, with count and median; volume in voxels where nm are unknown."""
    sizes = _sizes(particles)
    if sizes is None:
        return None
    values, quantity, unit = sizes
    low, high = values.min(), values.max()
    if high / low < 1.2:
        low, high = low / 1.2, high * 1.2
    count = int(np.clip(np.sqrt(values.size) * 1.5, 8, 40))
    edges = np.geomspace(low * 0.999, high * 1.001, count + 1)
    median = float(np.median(values))
    with styled():
        figure, (ax,) = new_figure(*_HALF)
        histogram, _ = np.histogram(values, edges)
        ax.stairs(histogram, edges, fill=True, color=LIGHT["particle"], alpha=0.85)
        ax.axvline(median, color=LIGHT["ink"], lw=1.2, ls=(0, (4, 2)))
        ax.set_xscale("log")
        ax.set_ylim(0, histogram.max() * 1.18)
        right = median < np.sqrt(low * high)
        ax.annotate(
            f"median {figures_text(median)} {unit}\nn = {count_text(values.size)}",
            (median, 1),
            (5 if right else -5, -2),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            ha="left" if right else "right",
            va="top",
        )
        _plain_log_ticks(ax, low, high)
        ax.set_xlabel(f"{quantity} ({unit}, log scale)")
        ax.set_ylabel("particles a bin")
        ax.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        return to_picture(
            figure,
            f"Size distribution of {count_text(values.size)} particles, median {figures_text(median)} {unit}",
            captions.SIZES,
        )


def particles_along_z(report: DatasetReport) -> Picture | None:
    """Number of particles by the slice of their centre."""
    table, size = report.particles, report.voxel_size_nm
    if table is None or table.empty or not report.shape:
        return None
    if "centroid_z" in table:
        centre = table["centroid_z"].to_numpy(dtype=np.float64)
    elif "centroid_z_nm" in table and size is not None:
        centre = table["centroid_z_nm"].to_numpy(dtype=np.float64) / size[0]
    else:
        return None
    depth = report.shape[0]
    step = max(1, int(np.ceil(depth / 64)))
    edges = np.append(np.arange(0, depth, step), depth) - 0.5
    histogram, _ = np.histogram(np.clip(centre, -0.5, depth - 0.5), edges)
    with styled():
        figure, (ax,) = new_figure(*_HALF)
        ax.stairs(histogram, edges, fill=True, color=LIGHT["particle"], alpha=0.85)
        _mark_slices(ax, np.flatnonzero(~_usable(report, depth)))
        _slice_axis(ax, depth)
        ax.set_ylim(0, max(1, histogram.max()) * 1.1)
        ax.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        ax.set_ylabel("particles a slice" if step == 1 else f"particles per {step} slices")
        return to_picture(
            figure,
            f"Particle centres along {depth} slices.",
            captions.ALONG_Z,
        )


def calibration(curve: Calibration | None) -> Picture | None:
    """Posterior against the true share of particle voxels."""
    if curve is None:
        return None
    counts = np.asarray(curve.counts)
    filled = counts > 0
    if not filled.any():
        return None
    predicted, observed = np.asarray(curve.predicted)[filled], np.asarray(curve.observed)[filled]
    worst = float(np.abs(predicted - observed).max())
    with styled():
        figure, (ax, below) = new_figure(*_HALF, rows=2, sharex=True, height_ratios=(3, 1))
        ax.plot([0, 1], [0, 1], color=LIGHT["muted"], lw=1.0, ls=(0, (4, 2)), label="perfect")
        ax.plot(predicted, observed, color=LIGHT["particle"], marker="o", ms=4, label="this stack")
        ax.set_ylim(-0.02, 1.04)
        ax.set_xlim(-0.02, 1.02)
        ax.set_ylabel("truly particle")
        ax.legend(loc="upper left")
        below.bar(predicted, counts[filled], width=0.05, color=LIGHT["stack"])
        below.set_yscale("log")
        below.set_ylabel("voxels")
        below.set_xlabel("posterior")
        return to_picture(
            figure,
            f"Calibration curve, largest deviation {figures_text(worst)}.",
            captions.CALIBRATION.format(worst=figures_text(worst)),
        )


def _sizes(particles: pd.DataFrame | None) -> tuple[np.ndarray, str, str] | None:
    """The best size that the table has: positive values, quantity, unit."""
    for column, (quantity, unit) in _SIZES.items():
        if particles is None or column not in particles:
            continue
        values = particles[column].to_numpy(dtype=np.float64)
        values = values[np.isfinite(values) & (values > 0)]
        if values.size:
            return values, quantity, unit
    return None


def _positive(values: np.ndarray) -> np.ndarray:
    """Zeros leave a gap on a log axis instead of a line to minus infinity."""
    values = np.asarray(values, dtype=np.float64)
    return np.where(values > 0.05, values, np.nan)


def _occupied(histogram: np.ndarray) -> tuple[float, float]:
    filled = np.flatnonzero(histogram)
    if not filled.size:
        return -0.5, BINS - 0.5
    low, high = int(filled[0]), int(filled[-1])
    return max(-0.5, low - 4.5), min(BINS - 0.5, high + 4.5)


def _intensity_label(report: DatasetReport) -> str:
    label = "intensity (bin of 256"
    return label + (", reversed: particles are dark)" if report.polarity == "dark" else ")")


def _usable(report: DatasetReport, depth: int) -> np.ndarray:
    return np.ones(depth, bool) if report.usable is None else np.asarray(report.usable, bool)


def _mark_thresholds(ax, report: DatasetReport) -> None:
    if report.th_low is None or report.th_high is None:
        return
    for value, name, side in ((report.th_low, "low", "right"), (report.th_high, "high", "left")):
        ax.axvline(value, color=LIGHT["threshold"], lw=1.0, ls=(0, (1.5, 1.5)))
        ax.annotate(
            f"{name} {value}",
            (value, 1),
            (-4 if side == "right" else 4, -2),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            ha=side,
            va="top",
            color=LIGHT["threshold"],
            fontsize=8.5,
        )


def _mark_slices(ax, slices: np.ndarray) -> None:
    """Shade runs of slices, one rectangle a run."""
    if not slices.size:
        return
    for run in np.split(slices, np.flatnonzero(np.diff(slices) > 1) + 1):
        ax.axvspan(run[0] - 0.5, run[-1] + 0.5, color=LIGHT["threshold"], alpha=0.22, lw=0)


def _slice_axis(ax, depth: int) -> None:
    ax.set_xlim(-0.5, depth - 0.5)
    if depth < 3:
        ax.set_xticks(range(depth))
    else:
        ax.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    ax.set_xlabel("slice z")


def _plain_log_ticks(ax, low: float, high: float) -> None:
    """Ticks at 1, 2, 5 as plain numbers: a size axis rarely spans many decades."""
    decades = np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    steps = (1, 2, 5) if high / low < 1000 else (1,)
    ticks = [m * 10.0**d for d in decades for m in steps if low * 0.98 <= m * 10.0**d <= high * 1.02]
    ax.set_xticks(ticks)
    ax.set_xticks([], minor=True)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: figures_text(value, 1)))
