"""Figures that compare: RDF by condition, similarity of RDFs."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cytomill.reports import captions
from cytomill.reports.canvas import LIGHT, Picture, new_figure, styled, to_picture
from cytomill.reports.partition_axes import HALF, ceiling, even_line, numbers, radial_axis, shortened
from cytomill.reports.quantities import count_text

#: Roles of the conditions' lines, then the same ones dashed.
_LINES = ("background", "particle", "good", "threshold", "ink", "muted")
_DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)))
_WEIGHTS = {"g": "by voxels", "g_objects": "by objects, each at its centre"}


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
    if rows.empty or weight not in rows or not np.isfinite(numbers(rows, weight)).any():
        return None
    names = list(rows["condition"].unique())
    columns = 2 if 1 < len(names) and max(len(str(name)) for name in names) <= 20 else 1
    with styled():
        # The legend stands above: every line of it makes the figure higher, not the axes lower.
        figure, (ax,) = new_figure(HALF[0], HALF[1] + 0.17 * (-(-len(names) // columns) - 1))
        even_line(ax)
        drawn = []
        for i, name in enumerate(names):
            part = rows[rows["condition"] == name].sort_values("shell")
            g = numbers(part, weight)
            colour = LIGHT[_LINES[i % len(_LINES)]]
            shells = len(g)
            # Conditions stand a little apart, so that their intervals do not hide one another.
            shift = (i - 0.5 * (len(names) - 1)) * 0.12 / shells if len(names) <= 6 else 0.0
            middle = (np.arange(shells) + 0.5) / shells + shift
            low, high = numbers(part, f"{weight}_low"), numbers(part, f"{weight}_high")
            bars = np.clip(np.nan_to_num(np.vstack([g - low, high - g])), 0, None)
            line = ax.errorbar(
                middle,
                g,
                bars,
                color=colour,
                ls=_DASHES[i // len(_LINES) % len(_DASHES)],
                marker="o",
                ms=4,
                capsize=2.5,
                elinewidth=1.1,
                label=_condition_label(name, part, len(names) == 1),
            )
            line.lines[0].set_zorder(3)
            drawn += [g, high]
        radial_axis(ax, shells)
        ax.set_ylim(0, ceiling(*drawn))
        legend = ax.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.1), ncols=columns)
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
    names = [shortened(name) for name in matrix.index]
    count = len(names)
    with styled():
        figure, (ax,) = new_figure(HALF[0], float(np.clip(2.2 + 0.36 * count, 3.2, 6.0)))
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
        ax.set_xlabel(str(matrix.index.name or ""))
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


def _condition_label(name, rows: pd.DataFrame, alone: bool) -> str:
    label = shortened(name) or ("all cells" if alone else "no condition")
    if "cells" in rows:
        cells = int(rows["cells"].max())
        label += f" ({count_text(cells)} cell{'s' if cells != 1 else ''}"
        if "replicates" in rows:
            replicates = int(rows["replicates"].max())
            label += f", {replicates} replicate{'s' if replicates != 1 else ''}"
        label += ")"
    return label
