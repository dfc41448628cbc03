"""Figures of a dataset's fit and particles: histograms, posterior, mixing weight, sizes.

Every function takes plain arrays and returns a :class:`~cytomill.reports.canvas.Picture` with its
caption and its alternative text, or None when there is nothing to draw.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.ticker import FuncFormatter, MaxNLocator

from cytomill.reports import captions
from cytomill.reports.canvas import LIGHT, Picture, log_y_axis, new_figure, styled, to_picture
from cytomill.reports.data import BINS, DatasetReport
from cytomill.reports.quantities import count_text, figures_text, level_text, percent_text

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
            if not report.nothing_found:
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
        ax.set_ylim(0.5, max(10.0, 4 * stack.max()))
        log_y_axis(ax)
        ax.set_xlim(*_occupied(stack))
        ax.set_xlabel(_intensity_label(report))
        ax.set_ylabel("voxels per bin (log scale)")
        ax.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=5, columnspacing=1.4)
        caption = captions.NO_PARTICLES if report.nothing_found else captions.HISTOGRAMS
        marks = _thresholds(report)
        sentences = {"low": captions.LOW_THRESHOLD, "high": captions.HIGH_THRESHOLD}
        caption += "".join(sentences[name] for _, name, _ in marks)
        alt = f"Intensity histogram of {count_text(int(total))} voxels on a log scale"
        if marks:
            alt += f", {' and '.join(f'{name} threshold at {value}' for value, name, _ in marks)}"
        if report.w_bg is not None:
            alt += f"; fitted background weight {figures_text(report.w_bg, 4)}"
        return to_picture(figure, alt, caption)


def posterior_rows(report: DatasetReport) -> list[tuple[str, int, np.ndarray]]:
    """Tables worth drawing: those of the slices with least, median and most particles.

    Returns
    -------
    list of (str, int, (256,) float64 ndarray)
        What the slice is, its index, the posterior that was applied to it; fewer where slices are few.
    """
    if report.tables is None or report.pi_map is None:
        return []
    used = np.flatnonzero(_usable(report, len(report.pi_map)))
    order = used[np.argsort(np.asarray(report.pi_map)[used], kind="stable")]
    if not order.size:
        return []
    places = {0: "least", order.size - 1: "most", order.size // 2: "median"}
    return [
        (places[place], int(order[place]), np.asarray(report.tables[order[place]], np.float64))
        for place in sorted(places)
    ]


def posterior_curve(report: DatasetReport) -> Picture | None:
    """Posterior probability of being particle against intensity, as it was applied to typical slices."""
    rows = posterior_rows(report)
    if not rows or report.hist_stack is None or report.pi_map is None:
        return None
    shades = {
        "least": (LIGHT["background"], (0, (4, 2))),
        "median": (LIGHT["ink"], "-"),
        "most": (LIGHT["particle"], (0, (4, 2))),
    }
    bins = np.arange(BINS)
    seen = np.asarray(report.hist_stack) > 0
    with styled():
        figure, (ax,) = new_figure(*_HALF)
        for name, z, table in rows:
            colour, dashes = shades[name]
            label = f"{name} load: slice {z}, π = {percent_text(float(report.pi_map[z]))}"
            ax.plot(bins, np.where(seen, table, np.nan), color=colour, ls=dashes, label=label)
        if report.posterior_th is not None:
            label = f"labelled from {report.posterior_th:g}"
            ax.axhline(report.posterior_th, color=LIGHT["threshold"], lw=1.0, label=label)
        ax.set_xlim(*_occupied(report.hist_stack))
        ax.set_ylim(-0.02, 1.04)
        ax.set_xlabel(_intensity_label(report))
        ax.set_ylabel("posterior of being particle")
        ax.legend(loc="upper left")
        return to_picture(
            figure,
            "Posterior probability of being particle against intensity in slices "
            + ", ".join(f"{z} ({name} load)" for name, z, _ in rows),
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
        ax.plot(
            z,
            np.where(usable, 100 * pi_map, np.nan),
            color=LIGHT["particle"],
            lw=2.4,
            marker=marker,
            ms=3.5,
            label="with prior (MAP), used",
        )
        if report.pi_ml is not None:
            # The two often agree: open rings and thin dashes let what lies below show.
            ax.plot(
                z,
                np.where(usable, 100 * np.asarray(report.pi_ml), np.nan),
                color=LIGHT["background"],
                lw=1.0,
                ls=(0, (4, 3)),
                marker=marker,
                ms=7,
                mfc="none",
                mew=1.0,
                label="without prior (ML)",
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
            up, down = ("darker", "brighter") if report.polarity == "dark" else ("brighter", "darker")
            caption += captions.DRIFT.format(up=up, down=down)
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
        ax.set_ylabel("clusters per bin")
        ax.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        return to_picture(
            figure,
            f"Size distribution of {count_text(values.size)} clusters, median {figures_text(median)} {unit}",
            captions.SIZES,
        )


def particles_along_z(report: DatasetReport) -> Picture | None:
    """Number of clusters by the slice of their centre."""
    table, size = report.particles, report.voxel_size_nm
    if table is None or table.empty or not report.shape:
        return None
    if "centroid_z_nm" not in table or size is None:
        return None
    centre = table["centroid_z_nm"].to_numpy(dtype=np.float64) / size[0]
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
        ax.set_ylabel("clusters per slice" if step == 1 else f"clusters per {step} slices")
        return to_picture(
            figure,
            f"Centres of clusters along {depth} slices.",
            captions.ALONG_Z,
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
    if report.bin_width != 1:
        label += f", {level_text(report.bin_width)} grey levels each"
    return label + ("; reversed: particles are dark)" if report.polarity == "dark" else ")")


def _usable(report: DatasetReport, depth: int) -> np.ndarray:
    return np.ones(depth, bool) if report.usable is None else np.asarray(report.usable, bool)


def _thresholds(report: DatasetReport) -> list[tuple[int, str, str]]:
    """Value, name and side of the thresholds; one at the end of the scale excludes nothing."""
    if report.th_low is None or report.th_high is None:
        return []
    marks = [(report.th_low, "low", "right"), (report.th_high, "high", "left")]
    return [mark for mark in marks if mark[0] < BINS]


def _mark_thresholds(ax, report: DatasetReport) -> None:
    for value, name, side in _thresholds(report):
        ax.axvline(value, color=LIGHT["threshold"], lw=1.0, ls=(0, (1.5, 1.5)))
        ax.annotate(
            f"{name} threshold {value}",
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
