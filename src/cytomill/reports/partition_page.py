"""The page of a partitioned dataset: one self-contained HTML file, nothing to load, no script."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from cytomill.reports import balance, captions, condition_figures, partition_figures, quantities
from cytomill.reports.canvas import Picture
from cytomill.reports.html import environment, present, provenance_lines
from cytomill.reports.nested_shells import nested_shells
from cytomill.reports.partition_colours import ORGANELLE_COLOURS, hex_colour, shell_colours
from cytomill.reports.partition_examples import ExampleCell
from cytomill.reports.partition_slices import orthogonal_planes
from cytomill.reports.partitioning import MOST_LINES, PartitionReport, median_of, method_text, similarity_of
from cytomill.reports.sections import WORDS, Column, TextTable, number_text, text_table, word_text

#: Cells with figures of their own; the others are in the tables.
MOST_CELLS = 12
#: Organelles with a figure in every cell.
MOST_ORGANELLES = 4
#: Cells that are compared each with each.
_MOST_COMPARED = 40


@dataclass
class CellSection:
    """What the page shows of one cell."""

    cell: int
    facts: str
    planes: Picture | None = None
    nested: Picture | None = None
    figures: list[Picture] = field(default_factory=list)
    shells: TextTable | None = None


def render_partition(report: PartitionReport) -> str:
    """Draw the page of a partitioned dataset.

    Parameters
    ----------
    report : PartitionReport
        Plain data; missing parts are said on the page.

    Returns
    -------
    str
        HTML, UTF-8; the same text for the same data and library versions.
    """
    organelles = report.organelles
    overview = [picture for name in organelles for picture in overview_figures(report.rdf, name)]
    return (
        environment()
        .get_template("partition.html.j2")
        .render(
            report=report,
            unit=report.size_unit,
            method=method_text(report),
            cytoplasm=median_of(report.cells, f"cytoplasm_{report.size}"),
            censored=median_of(report.cells, "censored_fraction"),
            organelles=organelles,
            colours=[hex_colour(rgb) for rgb in shell_colours(report.n_shells)],
            outlines=[
                hex_colour(ORGANELLE_COLOURS[i % len(ORGANELLE_COLOURS)]) for i in range(len(organelles))
            ],
            overview=present(*overview),
            explained={"g": captions.ENRICHMENT, "rdf": captions.RDF, "sizes": captions.SHELL_SIZES},
            cells=None
            if report.cells is None
            else text_table(_cell_rows(report.cells), _cell_columns(report), MOST_LINES),
            sections=[cell_section(report, example) for example in report.examples[:MOST_CELLS]],
            uptake=uptake_table(report),
            distances=present(
                *(partition_figures.object_distances(report.objects, name) for name in organelles)
            ),
            balance=balance.rank_balance(report.timings),
            provenance=list(provenance_lines(report.provenance)),
        )
    )


def overview_figures(rdf: pd.DataFrame | None, organelle: str) -> list[Picture]:
    """An organelle's RDF in all cells, and how alike the cells are; nothing for a single cell."""
    if rdf is None or rdf.empty:
        return []
    rows = rdf[rdf["organelle"] == organelle]
    pictures = present(partition_figures.rdf_over_cells(rows, organelle))
    if 3 <= rows["cell"].nunique() <= _MOST_COMPARED:
        pictures += present(condition_figures.similarity_matrix(similarity_of(rows, "cell"), organelle))
    return pictures


def cell_section(report: PartitionReport, example: ExampleCell) -> CellSection:
    """Pictures, figures and the table of shells of one cell."""
    cell = example.cell
    rdf, profiles = _of_cell(report.rdf, cell), _of_cell(report.profiles, cell)
    shells = _of_cell(report.shells, cell)
    section = CellSection(cell, cell_facts(report, cell))
    if example.planes:
        section.planes = orthogonal_planes(example, report.n_shells)
    if example.coarse is not None and not report.flat:
        section.nested = nested_shells(
            example.coarse, example.coarse_voxel_size_nm, report.n_shells, f"cell {cell}"
        )
    for name in report.organelles[:MOST_ORGANELLES] if rdf is not None else ():
        rows = rdf[rdf["organelle"] == name]
        profile = None if profiles is None else profiles[profiles["organelle"] == name]
        if not rows.empty:
            picture = partition_figures.radial_profile(rows, profile, f"{name} in cell {cell}")
            section.figures += present(picture)
    if shells is not None and not shells.empty:
        section.figures += present(partition_figures.shell_sizes(shells, report.n_shells, f"cell {cell}"))
        section.shells = shell_lines(shells, rdf, report)
    return section


def cell_facts(report: PartitionReport, cell: int) -> str:
    """A line on a cell: sizes, censored share, what was noted."""
    rows = _of_cell(report.cells, cell)
    if rows is None or rows.empty:
        return ""
    row = rows.iloc[0]
    facts = []
    for part in ("cytoplasm", "nucleus"):
        size = row.get(f"{part}_{report.size}")
        if pd.notna(size):
            facts.append(f"{part} {quantities.figures_text(float(size))} {report.size_unit}")
    if pd.notna(row.get("nuclei")) and int(row["nuclei"]) > 1:
        facts.append(f"{int(row['nuclei'])} nuclei, taken together")
    if pd.notna(row.get("censored_fraction")) and row["censored_fraction"] > 0:
        facts.append(f"{quantities.percent_text(float(row['censored_fraction']))} of the cytoplasm censored")
    note = str(row.get("note") or "")
    if row.get("cut_faces") and _cut_at(row["cut_faces"]) not in note:
        facts.append(_cut_at(row["cut_faces"]))
    if note:
        facts.append(note)
    return " · ".join(facts)


def shell_lines(shells: pd.DataFrame, rdf: pd.DataFrame | None, report: PartitionReport) -> TextTable:
    """A cell's shells as a table: one line a shell, one column of g an organelle."""
    shells = shells.sort_values("shell")
    total = float(shells["voxel_count"].sum())
    names = [] if rdf is None else [str(name) for name in rdf["organelle"].unique()]
    headings = [
        "Shell",
        "t",
        "Voxels",
        f"{'Area' if report.flat else 'Volume'} ({report.size_unit})",
        "Share (%)",
        "Censored (%)",
    ]
    for name in names:
        headings += [f"{name}: voxels", "g", "95 % interval", "without censored", "g by objects"]
    rows = []
    for _, shell in shells.iterrows():
        voxels = float(shell["voxel_count"])
        censored = shell.get("censored_voxels", np.nan)
        line = [
            number_text(shell["shell"], 0),
            f"{shell['t_low']:.3g}–{shell['t_high']:.3g}",
            number_text(shell["voxel_count"], 0),
            number_text(shell.get(report.size, np.nan), 3),
            number_text(100 * voxels / total if total else np.nan, 3),
            number_text(100 * censored / voxels if voxels else np.nan, 3),
        ]
        for name in names:
            found = rdf[(rdf["organelle"] == name) & (rdf["shell"] == shell["shell"])]
            line += _rdf_fields(None if found.empty else found.iloc[0])
        rows.append(line)
    return TextTable([(heading, False) for heading in headings], rows, len(rows))


def uptake_table(report: PartitionReport) -> TextTable | None:
    """Uptake as text, without the lines that count nothing; None where nothing was counted."""
    if report.uptake is None:
        return None
    columns = [
        Column("cell", "Cell", 0),
        Column("organelle", "Organelle", WORDS),
        Column("compartment", "Where", WORDS),
        Column("objects", "Objects", 0),
        Column("voxels", "Voxels", 0),
        _size_column(report, "", "Area" if report.flat else "Volume"),
    ]
    found = report.uptake[(report.uptake["objects"] > 0) | (report.uptake["voxels"] > 0)]
    return text_table(found, columns, MOST_LINES)


def _cell_rows(cells: pd.DataFrame) -> pd.DataFrame:
    """The table of cells, its notes without what another column says."""
    if "note" not in cells or "cut_faces" not in cells:
        return cells
    notes = [
        word_text(note).replace(f"{_cut_at(faces)}: ", "")
        for note, faces in zip(cells["note"], cells["cut_faces"], strict=True)
    ]
    return cells.assign(note=notes)


def _cut_at(faces: object) -> str:
    return f"cut by the volume at {faces}"


def _cell_columns(report: PartitionReport) -> list[Column]:
    return [
        Column("cell", "Cell", 0),
        *(_size_column(report, f"{part}_", part.capitalize()) for part in ("cell", "nucleus", "cytoplasm")),
        Column("cytoplasm_voxels", "Cytoplasm (voxels)", 0),
        Column("nuclei", "Nuclei", 0),
        Column("censored_fraction", "Censored (%)", factor=100),
        Column("cut_faces", "Cut at face", WORDS),
        Column("note", "Note", WORDS),
    ]


def _size_column(report: PartitionReport, prefix: str, heading: str) -> Column:
    return Column(f"{prefix}{report.size}", f"{heading} ({report.size_unit})")


def _rdf_fields(row: pd.Series | None) -> list[str]:
    if row is None:
        return [quantities.NOTHING] * 5
    low, high = (number_text(row.get(name, np.nan), 3) for name in ("g_low", "g_high"))
    interval = quantities.NOTHING if quantities.NOTHING in (low, high) else f"{low} to {high}"
    values = [number_text(row.get(name, np.nan), 3) for name in ("g", "g_uncensored", "g_objects")]
    return [number_text(row.get("organelle_voxels", np.nan), 0), values[0], interval, *values[1:]]


def _of_cell(table: pd.DataFrame | None, cell: int) -> pd.DataFrame | None:
    return None if table is None else table[table["cell"] == cell]
