"""Figures of a partition: RDF, continuous profile, shell sizes, distances, and all cells together.

Every function takes the pipeline's tables and returns a :class:`~cytomill.reports.canvas.Picture`, or
None when there is nothing to draw.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from cytomill.partitioning.conditions import mean_over_cells
from cytomill.reports import captions
from cytomill.reports.canvas import LIGHT, Picture, new_figure, styled, to_picture
from cytomill.reports.partition_axes import (
    HALF,
    ceiling,
    even_line,
    numbers,
    radial_axis,
    same_numbers,
    shortened,
    spoken,
)
from cytomill.reports.partition_colours import hex_colour, shell_colours
from cytomill.reports.quantities import count_text, figures_text

#: Bins of the continuous profile as drawn; the table has more, which a small organelle does not fill.
_PROFILE_BINS = 50
_COMPARTMENTS = {
    "cytoplasm": "particle",
    "adsorbed": "background",
    "outside": "idle",
    "nucleus": "threshold",
}


def radial_profile(rdf: pd.DataFrame, profile: pd.DataFrame | None, what: str) -> Picture | None:
    """RDF of one organelle in one cell: by voxels and by objects, with intervals, and continuous.

    Parameters
    ----------
    rdf : pandas.DataFrame
        Rows of one cell and organelle, a row a shell.
    profile : pandas.DataFrame or None
        Rows of the same cell and organelle, a row a bin of t.
    what : str
        Organelle and cell in words; the caption (`captions.RDF` explains the figure once a page).
    """
    rdf = rdf.sort_values("shell")
    g = numbers(rdf, "g")
    if not np.isfinite(g).any():
        return None
    edges = np.linspace(0, 1, len(g) + 1)
    middle = 0.5 * (edges[1:] + edges[:-1])
    by_objects, uncensored = numbers(rdf, "g_objects"), numbers(rdf, "g_uncensored")
    low, high = numbers(rdf, "g_low"), numbers(rdf, "g_high")
    with styled():
        figure, (ax,) = new_figure(*HALF)
        even_line(ax)
        fine = continuous_profile(profile)
        if fine is not None:
            ax.stairs(fine[1], fine[0], baseline=None, color=LIGHT["stack"], lw=1.2, label="in fine steps")
        ax.fill_between(
            edges,
            np.append(low, low[-1:]),
            np.append(high, high[-1:]),
            step="post",
            color=LIGHT["particle"],
            alpha=0.20,
            lw=0,
        )
        ax.stairs(g, edges, baseline=None, color=LIGHT["particle"], lw=2.2, label="by voxels")
        if np.isfinite(uncensored).any() and not same_numbers(uncensored, g):
            ax.stairs(
                uncensored,
                edges,
                baseline=None,
                color=LIGHT["ink"],
                lw=1.2,
                ls=(0, (2, 1.5)),
                label="by voxels, without censored",
            )
        bars = np.vstack([by_objects - numbers(rdf, "g_objects_low"), numbers(rdf, "g_objects_high")])
        bars[1] -= by_objects
        bars = np.clip(np.nan_to_num(bars), 0, None)
        if np.isfinite(by_objects).any():
            ax.errorbar(
                middle,
                by_objects,
                bars,
                fmt="o",
                ms=4.5,
                lw=1.2,
                capsize=2.5,
                color=LIGHT["background"],
                label="by objects",
            )
        radial_axis(ax, len(g))
        ax.set_ylim(0, ceiling(g, high, by_objects + bars[1], None if fine is None else fine[1]))
        ax.legend(
            loc="lower left", bbox_to_anchor=(-0.02, 1.09), ncols=4, columnspacing=1.2, handlelength=1.6
        )
        return to_picture(figure, f"RDF of {what}: " + spoken(g), what)


def rdf_over_cells(rdf: pd.DataFrame, organelle: str) -> Picture | None:
    """RDF of one organelle in every cell as thin lines, their mean as a thick one."""
    rows = rdf[rdf["organelle"] == organelle]
    wide = rows.pivot_table(index="cell", columns="shell", values="g", dropna=False, observed=True)
    values = wide.to_numpy(dtype=np.float64)
    if len(values) < 2 or not np.isfinite(values).any():
        return None
    mean = mean_over_cells(values)
    edges = np.linspace(0, 1, values.shape[1] + 1)
    middle = 0.5 * (edges[1:] + edges[:-1])
    with styled():
        figure, (ax,) = new_figure(*HALF)
        even_line(ax)
        for i, line in enumerate(values):
            ax.plot(middle, line, color=LIGHT["stack"], lw=0.9, label="a cell" if i == 0 else None)
        ax.plot(middle, mean, color=LIGHT["particle"], lw=2.4, marker="o", ms=4.5, label="mean of cells")
        radial_axis(ax, values.shape[1])
        ax.set_ylim(0, ceiling(values))
        title = ax.set_title(
            f"{shortened(organelle)} · {len(values)} cells", loc="left", fontsize=9.5, pad=24
        )
        title.set_parse_math(False)
        ax.legend(loc="upper right", ncols=2)
        return to_picture(
            figure, f"RDF of {organelle} in {len(values)} cells, mean: " + spoken(mean), captions.RDF_CELLS
        )


def shell_sizes(shells: pd.DataFrame, n_shells: int, what: str = "the cell") -> Picture | None:
    """Volume (2-D: area) of every shell of a cell, the censored part pale."""
    shells = shells.sort_values("shell")
    column = "area_um2" if "area_um2" in shells else "volume_um3"
    sizes = numbers(shells, column)
    if not np.isfinite(sizes).any():
        return None
    unit = "µm²" if column == "area_um2" else "µm³"
    voxels = np.maximum(numbers(shells, "voxel_count"), 1)
    open_part = sizes * (1 - np.nan_to_num(numbers(shells, "censored_voxels")) / voxels)
    ids = shells["shell"].to_numpy()
    with styled():
        figure, (ax,) = new_figure(*HALF)
        colours = [hex_colour(rgb) for rgb in shell_colours(n_shells)]
        colours = [colours[int(i) - 1] for i in ids]
        if not same_numbers(open_part, sizes):
            ax.bar(ids, sizes, color=LIGHT["idle"], label="censored")
            ax.legend(loc="upper left")
        ax.bar(ids, open_part, color=colours, edgecolor=LIGHT["muted"], linewidth=0.6)
        for i, size in zip(ids, sizes) if len(ids) <= 12 else ():
            ax.annotate(
                figures_text(size),
                (i, size),
                (0, 2),
                textcoords="offset points",
                ha="center",
                va="bottom",
                fontsize=8,
            )
        ax.set_xlim(ids.min() - 0.6, ids.max() + 0.6)
        ax.xaxis.set_major_locator(MaxNLocator(16, integer=True))
        ax.set_ylim(0, max(np.nanmax(sizes), 1e-12) * 1.12)
        ax.set_xlabel("shell (1 at the nuclear envelope)")
        ax.set_ylabel(f"{'area' if unit == 'µm²' else 'volume'} ({unit})")
        return to_picture(
            figure,
            f"Size of {len(ids)} shells, {figures_text(np.nansum(sizes))} {unit} in all",
            f"{'area' if unit == 'µm²' else 'volume'} of the shells of {what}",
        )


def object_distances(objects: pd.DataFrame | None, organelle: str) -> Picture | None:
    """Distances of an organelle's objects from the nuclear envelope and from the plasma membrane."""
    if objects is None or objects.empty or "distance_ne_nm" not in objects:
        return None
    rows = objects[objects["organelle"] == organelle]
    panels = [
        (column, name)
        for column, name in (("distance_ne_nm", "nuclear envelope"), ("distance_pm_nm", "plasma membrane"))
        if column in rows and np.isfinite(numbers(rows, column)).any()
    ]
    if not panels:
        return None
    with styled():
        figure, axes = new_figure(8.4, 3.3, columns=len(panels), sharey=True)
        for ax, (column, name) in zip(axes, panels):
            values = numbers(rows, column) / 1000
            finite = values[np.isfinite(values)]
            top = max(float(finite.max()), 1e-9)
            bins = np.linspace(min(0.0, float(finite.min())), top, int(np.clip(finite.size**0.5, 8, 40)) + 1)
            parts = [
                (kind, values[(rows["compartment"] == kind).to_numpy() & np.isfinite(values)])
                for kind in _COMPARTMENTS
            ]
            parts = [(kind, part) for kind, part in parts if part.size]
            ax.hist(
                [part for _, part in parts],
                bins=bins,
                stacked=True,
                color=[LIGHT[_COMPARTMENTS[kind]] for kind, _ in parts],
                label=[f"{kind} ({count_text(part.size)})" for kind, part in parts],
            )
            ax.set_xlabel(f"distance from the {name} (µm)")
            ax.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes[0].set_ylabel("objects per bin")
        axes[0].legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=4)
        return to_picture(
            figure,
            f"Distances of {count_text(len(rows))} objects of {organelle} from NE and PM",
            captions.DISTANCES,
        )


def continuous_profile(profile: pd.DataFrame | None) -> tuple[np.ndarray, np.ndarray] | None:
    """Edges in t and enrichment in each bin; NaN where there is no cytoplasm, None without organelle."""
    if profile is None or profile.empty:
        return None
    profile = profile.sort_values("t_low")
    organelle, cytoplasm = (numbers(profile, f"{name}_voxels") for name in ("organelle", "cytoplasm"))
    edges = np.append(numbers(profile, "t_low"), numbers(profile, "t_high")[-1:])
    if len(organelle) > _PROFILE_BINS and len(organelle) % _PROFILE_BINS == 0:
        width = len(organelle) // _PROFILE_BINS
        organelle, cytoplasm = (v.reshape(-1, width).sum(axis=1) for v in (organelle, cytoplasm))
        edges = edges[::width]
    if organelle.sum() <= 0 or cytoplasm.sum() <= 0:
        return None
    share = np.where(cytoplasm > 0, organelle / np.where(cytoplasm > 0, cytoplasm, 1), np.nan)
    return edges, share / (organelle.sum() / cytoplasm.sum())
