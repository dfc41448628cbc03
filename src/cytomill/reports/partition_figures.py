"""Figures of a partition: RDF, continuous profile, shell sizes, distances, conditions, similarity.

Every function takes the pipeline's tables and returns a :class:`~cytomill.reports.canvas.Picture`, or
None when there is nothing to draw.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from cytomill.reports import captions
from cytomill.reports.canvas import LIGHT, Picture, new_figure, styled, to_picture
from cytomill.reports.partition_colours import hex_colour, shell_colours
from cytomill.reports.quantities import count_text, figures_text

_HALF = (6.2, 3.9)
#: Roles of lines that stand for conditions, then the same ones dashed.
LINES = ("background", "particle", "good", "threshold", "ink", "muted")
_DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)))
#: Bins of the continuous profile as drawn; the table has more, which a small organelle does not fill.
_PROFILE_BINS = 50
_POSITION = "normalised radial position t (0 nuclear envelope, 1 plasma membrane)"
_WEIGHTS = {"g": "by voxels", "g_objects": "by objects, each at its centre"}
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
    g = _numbers(rdf, "g")
    if not np.isfinite(g).any():
        return None
    edges = np.linspace(0, 1, len(g) + 1)
    middle = 0.5 * (edges[1:] + edges[:-1])
    by_objects, uncensored = _numbers(rdf, "g_objects"), _numbers(rdf, "g_uncensored")
    low, high = _numbers(rdf, "g_low"), _numbers(rdf, "g_high")
    with styled():
        figure, (ax,) = new_figure(*_HALF)
        ax.axhline(1, color=LIGHT["muted"], lw=1.0, ls=(0, (4, 3)))
        fine = continuous_profile(profile)
        if fine is not None:
            ax.stairs(fine[1], fine[0], baseline=None, color=LIGHT["stack"], lw=1.2, label="continuous in t")
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
        if np.isfinite(uncensored).any() and not _same(uncensored, g):
            ax.stairs(
                uncensored,
                edges,
                baseline=None,
                color=LIGHT["ink"],
                lw=1.2,
                ls=(0, (2, 1.5)),
                label="by voxels, without censored",
            )
        bars = np.vstack([by_objects - _numbers(rdf, "g_objects_low"), _numbers(rdf, "g_objects_high")])
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
        _radial_axis(ax, len(g))
        ax.set_ylim(0, _ceiling(g, high, by_objects + bars[1], None if fine is None else fine[1]))
        ax.set_ylabel("enrichment g (1 = even)")
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
    mean = column_means(values)
    edges = np.linspace(0, 1, values.shape[1] + 1)
    middle = 0.5 * (edges[1:] + edges[:-1])
    with styled():
        figure, (ax,) = new_figure(*_HALF)
        ax.axhline(1, color=LIGHT["muted"], lw=1.0, ls=(0, (4, 3)))
        for i, line in enumerate(values):
            ax.plot(middle, line, color=LIGHT["stack"], lw=0.9, label="a cell" if i == 0 else None)
        ax.plot(middle, mean, color=LIGHT["particle"], lw=2.4, marker="o", ms=4.5, label="mean of cells")
        _radial_axis(ax, values.shape[1])
        ax.set_ylim(0, _ceiling(values))
        ax.set_ylabel("enrichment g (1 = even)")
        title = ax.set_title(f"{organelle} · {len(values)} cells", loc="left", fontsize=9.5, pad=24)
        title.set_parse_math(False)
        ax.legend(loc="upper right", ncols=2)
        return to_picture(
            figure, f"RDF of {organelle} in {len(values)} cells, mean: " + spoken(mean), captions.RDF_CELLS
        )


def shell_sizes(shells: pd.DataFrame, n_shells: int, what: str = "the cell") -> Picture | None:
    """Volume (2-D: area) of every shell of a cell, the censored part pale."""
    shells = shells.sort_values("shell")
    column = "area_um2" if "area_um2" in shells else "volume_um3"
    sizes = _numbers(shells, column)
    if not np.isfinite(sizes).any():
        return None
    unit = "µm²" if column == "area_um2" else "µm³"
    voxels = np.maximum(_numbers(shells, "voxel_count"), 1)
    open_part = sizes * (1 - np.nan_to_num(_numbers(shells, "censored_voxels")) / voxels)
    ids = shells["shell"].to_numpy()
    with styled():
        figure, (ax,) = new_figure(*_HALF)
        colours = [hex_colour(rgb) for rgb in shell_colours(n_shells)]
        colours = [colours[int(i) - 1] for i in ids]
        if not _same(open_part, sizes):
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
        if column in rows and np.isfinite(_numbers(rows, column)).any()
    ]
    if not panels:
        return None
    with styled():
        figure, axes = new_figure(8.4, 3.3, columns=len(panels), sharey=True)
        for ax, (column, name) in zip(axes, panels):
            values = _numbers(rows, column) / 1000
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
        axes[0].set_ylabel("objects a bin")
        axes[0].legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=4)
        return to_picture(
            figure,
            f"Distances of {count_text(len(rows))} objects of {organelle} from NE and PM",
            captions.DISTANCES,
        )


def rdf_by_condition(table: pd.DataFrame, organelle: str, weight: str = "g") -> Picture | None:
    """RDF of an organelle averaged over the cells of each condition, with intervals.

    Parameters
    ----------
    table : pandas.DataFrame
        Rows condition, organelle, shell, cells, replicates, g, g_low, g_high, and the same of g_objects.
    organelle : str
        Which.
    weight : str
        ``g`` (by voxels) or ``g_objects``.
    """
    rows = table[table["organelle"] == organelle]
    if rows.empty or weight not in rows or not np.isfinite(_numbers(rows, weight)).any():
        return None
    names = list(rows["condition"].unique())
    with styled():
        figure, (ax,) = new_figure(*_HALF)
        ax.axhline(1, color=LIGHT["muted"], lw=1.0, ls=(0, (4, 3)))
        drawn = []
        for i, name in enumerate(names):
            part = rows[rows["condition"] == name].sort_values("shell")
            g = _numbers(part, weight)
            colour = LIGHT[LINES[i % len(LINES)]]
            shells = len(g)
            # Conditions stand a little apart, so that their intervals do not hide one another.
            shift = (i - 0.5 * (len(names) - 1)) * 0.12 / shells if len(names) <= 6 else 0.0
            middle = (np.arange(shells) + 0.5) / shells + shift
            low, high = _numbers(part, f"{weight}_low"), _numbers(part, f"{weight}_high")
            bars = np.clip(np.nan_to_num(np.vstack([g - low, high - g])), 0, None)
            line = ax.errorbar(
                middle,
                g,
                bars,
                color=colour,
                ls=_DASHES[i // len(LINES) % len(_DASHES)],
                marker="o",
                ms=4,
                capsize=2.5,
                elinewidth=1.1,
                label=_condition_label(name, part),
            )
            line.lines[0].set_zorder(3)
            drawn += [g, high]
        _radial_axis(ax, shells)
        ax.set_ylim(0, _ceiling(*drawn))
        ax.set_ylabel("enrichment g (1 = even)")
        legend = ax.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.1), ncols=2 if len(names) > 1 else 1)
        for text in legend.get_texts():
            text.set_parse_math(False)
        return to_picture(
            figure,
            f"RDF of {organelle} {_WEIGHTS[weight]} in {len(names)} conditions: {', '.join(map(str, names))}",
            f"{organelle}, {_WEIGHTS[weight]}",
        )


def similarity_matrix(matrix: pd.DataFrame | None, organelle: str) -> Picture | None:
    """Pearson r between the RDFs of conditions or cells as a coloured table.

    Parameters
    ----------
    matrix : pandas.DataFrame or None
        Square; index and columns are the names, values −1 to 1, NaN for none.
    organelle : str
        Whose RDFs.
    """
    if matrix is None or len(matrix) < 2:
        return None
    values = matrix.to_numpy(dtype=np.float64)
    names = [str(name) for name in matrix.index]
    count = len(names)
    with styled():
        figure, (ax,) = new_figure(_HALF[0], float(np.clip(1.9 + 0.36 * count, 3.0, 5.6)))
        shown = ax.pcolormesh(
            np.arange(count + 1) - 0.5,
            np.arange(count + 1) - 0.5,
            np.ma.masked_invalid(values),
            cmap="RdBu_r",
            vmin=-1,
            vmax=1,
            edgecolors=LIGHT["muted"],
            linewidth=0.4,
        )
        ax.invert_yaxis()
        ax.grid(False)
        for spine in ax.spines.values():
            spine.set_visible(False)
        ax.tick_params(length=0)
        crowded = count > 10
        ax.set_xticks(range(count), names, rotation=90 if crowded or max(map(len, names)) > 6 else 0)
        ax.set_yticks(range(count), names)
        for text in (*ax.get_xticklabels(), *ax.get_yticklabels()):
            text.set_parse_math(False)
        for i, j in np.ndindex(count, count) if count <= 14 else ():
            dark = np.isfinite(values[i, j]) and abs(values[i, j]) > 0.6
            # Text stands on the cell's own colour, so it is the same on light and dark paper.
            word = f"{values[i, j]:.2f}" if np.isfinite(values[i, j]) else "–"
            colour = LIGHT["muted"] if word == "–" else "#fefefe" if dark else "#111418"
            ax.text(j, i, word, ha="center", va="center", fontsize=7 if crowded else 8.5, color=colour)
        figure.colorbar(shown, ax=ax, label="Pearson r")
        return to_picture(
            figure, f"Similarity of {count} RDFs of {organelle}: {', '.join(names)}", captions.SIMILARITY
        )


def continuous_profile(profile: pd.DataFrame | None) -> tuple[np.ndarray, np.ndarray] | None:
    """Edges in t and enrichment in each bin; NaN where there is no cytoplasm, None without organelle."""
    if profile is None or profile.empty:
        return None
    profile = profile.sort_values("t_low")
    organelle, cytoplasm = (_numbers(profile, f"{name}_voxels") for name in ("organelle", "cytoplasm"))
    edges = np.append(_numbers(profile, "t_low"), _numbers(profile, "t_high")[-1:])
    if len(organelle) > _PROFILE_BINS and len(organelle) % _PROFILE_BINS == 0:
        width = len(organelle) // _PROFILE_BINS
        organelle, cytoplasm = (v.reshape(-1, width).sum(axis=1) for v in (organelle, cytoplasm))
        edges = edges[::width]
    if organelle.sum() <= 0 or cytoplasm.sum() <= 0:
        return None
    share = np.where(cytoplasm > 0, organelle / np.where(cytoplasm > 0, cytoplasm, 1), np.nan)
    return edges, share / (organelle.sum() / cytoplasm.sum())


def column_means(values: np.ndarray) -> np.ndarray:
    """Means of columns over their finite values; NaN for none."""
    finite = np.isfinite(values)
    number = finite.sum(axis=0)
    return np.where(number, np.where(finite, values, 0).sum(axis=0) / np.maximum(number, 1), np.nan)


def spoken(g: np.ndarray) -> str:
    """Values from NE to PM as words."""
    return ", ".join(figures_text(float(v)) for v in g)


def _condition_label(name, rows: pd.DataFrame) -> str:
    label = str(name) or "no condition"
    if "cells" in rows:
        cells = int(rows["cells"].max())
        label += f" ({count_text(cells)} cell{'s' if cells != 1 else ''}"
        if "replicates" in rows:
            replicates = int(rows["replicates"].max())
            label += f", {replicates} replicate{'s' if replicates != 1 else ''}"
        label += ")"
    return label


def _radial_axis(ax, n_shells: int) -> None:
    """Position below, shells above."""
    ax.set_xlim(0, 1)
    ax.set_xlabel(_POSITION)
    above = ax.secondary_xaxis("top")
    step = -(-n_shells // 16)
    names = [str(i) for i in range(1, n_shells + 1, step)]
    above.set_xticks((np.arange(0, n_shells, step) + 0.5) / n_shells, [f"shell {names[0]}", *names[1:]])
    above.tick_params(length=0, pad=1, labelsize=8)
    above.spines["top"].set_visible(False)


def _ceiling(*series) -> float:
    """Upper end of an axis of g: all of g, but no outlier of an interval may flatten the curve."""
    values = [np.ravel(np.asarray(s, np.float64)) for s in series if s is not None]
    main = values[0][np.isfinite(values[0])]
    rest = np.concatenate(values)
    rest = rest[np.isfinite(rest)]
    top = max(2.0, float(main.max()) * 1.1 if main.size else 0.0)
    return max(top, min(float(rest.max()) * 1.06, 1.7 * top)) if rest.size else top


def _numbers(table: pd.DataFrame, column: str) -> np.ndarray:
    """A column as floats; NaN throughout where the table has no such column."""
    if column not in table:
        return np.full(len(table), np.nan)
    return table[column].to_numpy(dtype=np.float64, na_value=np.nan)


def _same(first: np.ndarray, second: np.ndarray) -> bool:
    return bool(np.allclose(first, second, rtol=1e-9, atol=0, equal_nan=True))
