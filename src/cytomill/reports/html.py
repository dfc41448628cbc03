"""Pages: one self-contained HTML file a dataset and a campaign, nothing to load, no script."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from numbers import Integral, Real
from typing import Any
from urllib.parse import quote

import jinja2
import numpy as np
import pandas as pd

from cytomill.nanoparticles.model import FLAGGED, NO_PARTICLES, PARTICLES
from cytomill.reports import balance, calibration, figures, quantities, slices
from cytomill.reports.campaign import CampaignReport, DatasetRow
from cytomill.reports.canvas import Picture
from cytomill.reports.data import DatasetReport
from cytomill.reports.partitioning import PartitionRow
from cytomill.reports.sections import column_text, number_text

#: Rows of the particle table on the page; the full table lies beside it.
TOP_PARTICLES = 20
#: Longer lists in the provenance are cut: a checksum a slice is for programs, not for readers.
_LONGEST_LIST = 24

_TONES = {PARTICLES: "good", NO_PARTICLES: "neutral", FLAGGED: "warn"}

#: Column, heading, divisor to the heading's unit, significant figures of the largest value; 0 for a count.
_COLUMNS = (
    ("label", "Label", 1, 0),
    ("volume_um3", "Volume (µm³)", 1, 3),
    ("equivalent_diameter_um", "Diameter (µm)", 1, 3),
    ("voxel_count", "Voxels", 1, 0),
    ("posterior_volume_um3", "Σ posterior (µm³)", 1, 3),
    ("centroid_z_nm", "Centre z (µm)", 1000, 4),
    ("centroid_y_nm", "Centre y (µm)", 1000, 4),
    ("centroid_x_nm", "Centre x (µm)", 1000, 4),
    ("mean_intensity", "Mean intensity", 1, 4),
    ("mean_posterior", "Mean posterior", 1, 3),
)


def render_dataset(report: DatasetReport) -> str:
    """Draw the page of a dataset.

    Parameters
    ----------
    report : DatasetReport
        Plain data; missing parts are said on the page.

    Returns
    -------
    str
        HTML, UTF-8; the same text for the same data and library versions.
    """
    empty = report.particles is not None and report.particles.empty
    return (
        environment()
        .get_template("dataset.html.j2")
        .render(
            report=report,
            tone=verdict_tone(report.verdict, report.converged),
            median_diameter=_median(report.particles, "equivalent_diameter_um"),
            panels=example_panels(report),
            heat=_gradient(slices.heat_steps(9)),
            fit_figures=fit_figures(report),
            calibration_figure=calibration.calibration_curve(report.calibration),
            particle_figures=present(
                figures.size_distribution(report.particles), figures.particles_along_z(report)
            ),
            no_particles=empty,
            table=top_particles(report.particles),
            balance=balance.rank_balance(report.timings),
            provenance=list(provenance_lines(report.provenance)),
        )
    )


def example_panels(report: DatasetReport) -> list[slices.SlicePanels]:
    """Pictures of the example slices; of a stack without particles the images alone, side by side."""
    if not report.nothing_found:
        return [slices.slice_panels(example, report.voxel_size_nm) for example in report.examples]
    seen = [example for example in report.examples if np.ptp(example.image) > 0]
    return [slices.image_row(seen, report.voxel_size_nm)] if seen else []


def fit_figures(report: DatasetReport) -> list[Picture]:
    """Figures of the fit that have something to show."""
    if report.nothing_usable:
        return []
    if report.nothing_found:
        return present(figures.histograms(report))
    return present(figures.histograms(report), figures.posterior_curve(report), figures.mixing_weight(report))


def render_campaign(report: CampaignReport) -> str:
    """The page of a campaign, with links to the pages of its datasets.

    Parameters
    ----------
    report : CampaignReport
        Plain data.

    Returns
    -------
    str
        HTML, UTF-8; the same text for the same data and library versions.
    """
    partitions = [row for row in report.datasets if isinstance(row, PartitionRow)]
    stacks = [row for row in report.datasets if isinstance(row, DatasetRow)]
    measured = [row for row in stacks if row.particles is not None]
    counted = [row for row in partitions if row.cells is not None]
    return (
        environment()
        .get_template("campaign.html.j2")
        .render(
            report=report,
            stacks=stacks,
            tones=[verdict_tone(row.verdict, row.converged) for row in stacks],
            unusable=[0 < row.slices_set_aside == row.shape[0] for row in stacks],
            reasons={row.name: own_words(row.reason, row.name) for row in report.datasets},
            partitions=partitions,
            cells=sum(row.cells for row in counted) if counted else None,
            refused=sum(row.refused or 0 for row in counted),
            state_tone="good" if report.state == "finished" else "bad",
            finished=sum(row.state == "finished" for row in report.datasets),
            lost=[row for row in report.datasets if row.state == "set aside"],
            clusters=sum(row.particles for row in measured) if measured else None,
            highest_load=max((row.load or 0.0 for row in stacks), default=0.0),
            balance=balance.rank_balance(report.timings),
            provenance=list(provenance_lines(report.provenance)),
        )
    )


def top_particles(table: pd.DataFrame | None, rows: int = TOP_PARTICLES) -> dict[str, Any] | None:
    """The largest clusters as text.

    Parameters
    ----------
    table : pandas.DataFrame or None
        One row a label.
    rows : int
        How many to keep.

    Returns
    -------
    dict or None
        ``headings`` (list of str), ``rows`` (list of list of str), ``total`` (int); None without particles.
    """
    if table is None or table.empty:
        return None
    order = [c for c in ("volume_um3", "voxel_count") if c in table][:1]
    keys = order + [c for c in ("label",) if c in table]
    if keys:
        # The keys alone are sorted: of a million rows one copy is enough.
        ranked = table[keys].sort_values(keys, ascending=[c == "label" for c in keys], kind="stable")
        top = table.loc[ranked.index[:rows]]
    else:
        top = table.head(rows)
    columns = [c for c in _COLUMNS if c[0] in table]
    fields = [column_text(top[name] / scale, digits) for name, _, scale, digits in columns]
    body = [list(line) for line in zip(*fields)]
    headings = [heading for _, heading, _, _ in columns]
    axes = sorted(c for c in table if str(c).startswith("axis_") and str(c).endswith("_um"))
    if axes:
        headings.append("Principal axes (µm)")
        for line, (_, row) in zip(body, top.iterrows()):
            line.append(" × ".join(number_text(row[axis], 2) for axis in axes))
    return {"headings": headings, "rows": body, "total": len(table)}


def provenance_lines(tree: Any, depth: int = 0) -> Iterator[tuple[int, str, str]]:
    """A nested mapping as (depth, key, value) lines; a key with children has an empty value."""
    items = tree.items() if isinstance(tree, dict) else ((str(i), v) for i, v in enumerate(tree))
    for key, value in items:
        if _is_nested(value):
            yield depth, str(key), ""
            yield from provenance_lines(value, depth + 1)
        else:
            yield depth, str(key), _leaf(value)


def verdict_tone(verdict: str, converged: bool = True) -> str:
    """How a verdict is coloured: ``good``, ``neutral``, ``warn`` or, for anything else, ``bad``.

    No verdict of a fit that did not converge looks better than ``warn``.
    """
    tone = _TONES.get(verdict, "neutral" if not verdict else "bad")
    return tone if converged or tone == "bad" else "warn"


@cache
def environment() -> jinja2.Environment:
    """Templates with autoescape on: names come from files, and files come from anywhere."""
    env = jinja2.Environment(
        loader=jinja2.PackageLoader("cytomill.reports", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters |= {
        "count": quantities.count_text,
        "figures": quantities.figures_text,
        "percent": quantities.percent_text,
        "scaled": scaled_text,
        "level": quantities.level_text,
        "probability": quantities.probability_text,
        "seconds": quantities.seconds_text,
        "sentence": sentence_text,
        "table_seconds": quantities.table_seconds_text,
        "time": quantities.time_text,
        "whole_percent": whole_percent_text,
        "shape": quantities.shape_text,
        "voxel": quantities.voxel_text,
        "link": page_link,
    }
    return env


def page_link(path: str) -> str:
    """A relative path as a link; quoting the colon keeps any scheme from being one."""
    return quote(path, safe="/.-_~")


def scaled_text(value: float | None, factor: float) -> str:
    """A number in the unit of its column's head."""
    return quantities.NOTHING if value is None else quantities.figures_text(value * factor)


def sentence_text(words: str) -> str:
    """A remark as a sentence: a capital in front and a full stop at the end."""
    words = words.strip()
    return words[:1].upper() + words[1:] + ("" if not words or words.endswith((".", "!", "?", ":")) else ".")


def own_words(sentence: str, dataset: str) -> str:
    """A sentence without the name of the dataset that it stands beside."""
    return sentence.removeprefix(f"dataset {dataset}: ")


def whole_percent_text(share: float | None) -> str:
    """Per cent without fractions, for a column of them."""
    return quantities.NOTHING if share is None else f"{100 * share:.0f}"


def present(*pictures) -> list:
    """The pictures that there are."""
    return [picture for picture in pictures if picture is not None]


def _gradient(steps: np.ndarray) -> str:
    """Colours as a CSS gradient, for the legend of the posterior."""
    return "linear-gradient(to right," + ",".join(f"rgb({r},{g},{b})" for r, g, b in steps) + ")"


def _median(table: pd.DataFrame | None, column: str) -> float | None:
    if table is None or table.empty or column not in table:
        return None
    value = float(table[column].median())
    return value if np.isfinite(value) else None


def _is_nested(value: Any) -> bool:
    if isinstance(value, dict):
        return bool(value)
    return isinstance(value, (list, tuple)) and any(isinstance(v, (dict, list, tuple)) for v in value)


def _leaf(value: Any) -> str:
    if value is None or value == {}:
        return quantities.NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return _list_text(value)
    if isinstance(value, Real) and not isinstance(value, Integral):
        return f"{float(value):.10g}"
    return quantities.time_text(str(value))


def _list_text(values: Sequence[Any]) -> str:
    if not values:
        return quantities.NOTHING
    text = ", ".join(_leaf(v) for v in values[:_LONGEST_LIST])
    more = len(values) - _LONGEST_LIST
    return f"{text} … and {more} more" if more > 0 else text
