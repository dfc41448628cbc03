"""What the page of a partitioned dataset shows, as plain data: the campaign collects it, pages draw it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from cytomill.partitioning.masks import RefusedCell
from cytomill.partitioning.rdf import similarity
from cytomill.reports import captions, condition_figures
from cytomill.reports.data import SetAside, StageTiming
from cytomill.reports.partition_examples import ExampleCell
from cytomill.reports.quantities import figures_text
from cytomill.reports.sections import WORDS, Column, Section, text_table

#: Lines of a table on a page; the full tables lie beside it.
MOST_LINES = 60

_CONDITION_COLUMNS = (
    Column("condition", "Condition", WORDS),
    Column("organelle", "Organelle", WORDS),
    Column("shell", "Shell", 0),
    Column("cells", "Cells", 0),
    Column("replicates", "Replicates", 0),
    Column("g", "g by voxels"),
    Column("g_low", "from"),
    Column("g_high", "to"),
    Column("g_objects", "g by objects"),
    Column("g_objects_low", "from"),
    Column("g_objects_high", "to"),
)


@dataclass
class PartitionReport:
    """Everything on the page of a partitioned dataset: one volume, one cell or many.

    Tables are those that the pipeline writes, one row each; None where the dataset never got there.

    Parameters
    ----------
    name, pipeline : str
        Dataset and pipeline.
    method, field : str
        How shells were cut: ``normalized``, ``pairs``, ``pairs_edt``; of ``normalized`` the field of the
        radial position: ``edt``, ``laplace``, ``ray``.
    n_shells : int
        Shells from NE to PM.
    voxel_size_nm : tuple of float or None
        (Z, Y, X), nm.
    shape : tuple of int
        (Z, Y, X) of the image volume; Z is 1 for a 2-D image.
    condition, replicate : str
        Of the experiment; empty for none.
    notes : sequence of str
        Sentences on this dataset.
    refused : list of RefusedCell
        Cells that could not be partitioned.
    cells, shells, rdf, profiles, objects, uptake : pandas.DataFrame or None
        ``cells``: cell, condition, replicate, cytoplasm_voxels, {cell,nucleus,cytoplasm}_volume_um3 (2-D:
        ``_area_um2``), nuclei, censored_fraction, cut_faces, note. ``shells``: cell, shell, t_low, t_high,
        voxel_count, volume_um3 (2-D: area_um2), censored_voxels. ``rdf``: cell, organelle, shell,
        organelle_voxels, cytoplasm_voxels, g, g_uncensored, g_low, g_high, objects, expected_objects,
        g_objects, g_objects_low, g_objects_high. ``profiles``: cell, organelle, t_low, t_high,
        organelle_voxels, cytoplasm_voxels. ``objects``: organelle, label, cell, compartment,
        distance_ne_nm, distance_pm_nm. ``uptake``: cell, organelle, compartment, objects, voxels,
        volume_um3.
    examples : list of ExampleCell
        Cells to draw.
    tables_path : str
        Folder of the full tables, as shown to the reader.
    provenance : dict
        Nested and JSON-able.
    set_aside : list of SetAside
        Units given up.
    timings : list of StageTiming
        Stages in order.
    campaign, campaign_link : str
        Name and page of the campaign, for the link back; empty for none.
    refusal : str
        Why the dataset was set aside, one sentence; empty for none.
    """

    name: str
    pipeline: str = "partitioning"
    method: str = "normalized"
    field: str = "edt"
    n_shells: int = 8
    voxel_size_nm: tuple[float, float, float] | None = None
    shape: tuple[int, ...] = ()
    condition: str = ""
    replicate: str = ""
    notes: tuple[str, ...] = ()
    refused: list[RefusedCell] = dataclasses.field(default_factory=list)
    cells: pd.DataFrame | None = None
    shells: pd.DataFrame | None = None
    rdf: pd.DataFrame | None = None
    profiles: pd.DataFrame | None = None
    objects: pd.DataFrame | None = None
    uptake: pd.DataFrame | None = None
    examples: list[ExampleCell] = dataclasses.field(default_factory=list)
    tables_path: str = ""
    provenance: dict[str, Any] = dataclasses.field(default_factory=dict)
    set_aside: list[SetAside] = dataclasses.field(default_factory=list)
    timings: list[StageTiming] = dataclasses.field(default_factory=list)
    campaign: str = ""
    campaign_link: str = ""
    refusal: str = ""

    @property
    def flat(self) -> bool:
        """True for a 2-D image: sizes are areas."""
        return len(self.shape) == 3 and self.shape[0] == 1

    @property
    def size(self) -> str:
        """Column of the tables that holds a size."""
        return "area_um2" if self.flat else "volume_um3"

    @property
    def size_unit(self) -> str:
        """Its unit in words."""
        return "µm²" if self.flat else "µm³"

    @property
    def organelles(self) -> list[str]:
        """Names of organelles in the order of the tables."""
        for table in (self.rdf, self.uptake, self.objects):
            if table is not None and not table.empty:
                return [str(name) for name in table["organelle"].unique()]
        return []

    @property
    def seconds(self) -> float | None:
        """Wall time of its stages, added up; None where there are none."""
        return sum(t.seconds for t in self.timings) if self.timings else None


@dataclass
class PartitionRow:
    """A partitioned dataset's line on the campaign's page.

    Parameters
    ----------
    name, state, pipeline, condition, replicate : str
        ``state`` is ``finished``, ``set aside``, ``stopped``, ``incomplete`` or ``running``.
    link : str
        Path of the dataset's page relative to the campaign's page; empty for none.
    reason : str
        Why it was set aside, one sentence; empty for none.
    method : str
        Method and field in words.
    n_shells, cells, refused : int or None
        Shells; cells partitioned and refused.
    organelles : tuple of str
        Their names.
    objects : int or None
        Objects in cells; None when not counted.
    cytoplasm : float or None
        Median cytoplasm of a cell, µm³ (2-D: µm²).
    flat : bool
        True where sizes are areas.
    censored : float or None
        Median censored fraction of the cells, 0 to 1.
    shape : tuple of int
        (Z, Y, X).
    voxel_size_nm : tuple of float or None
        (Z, Y, X), nm.
    units_set_aside : int
        Given up by the runtime.
    seconds : float or None
        Wall time.
    """

    name: str
    state: str = "finished"
    link: str = ""
    pipeline: str = "partitioning"
    condition: str = ""
    replicate: str = ""
    reason: str = ""
    method: str = ""
    n_shells: int | None = None
    cells: int | None = None
    refused: int | None = None
    organelles: tuple[str, ...] = ()
    objects: int | None = None
    cytoplasm: float | None = None
    flat: bool = False
    censored: float | None = None
    shape: tuple[int, ...] = ()
    voxel_size_nm: tuple[float, float, float] | None = None
    units_set_aside: int = 0
    seconds: float | None = None

    @classmethod
    def of(
        cls, report: PartitionReport, link: str = "", state: str = "finished", reason: str = ""
    ) -> PartitionRow:
        """The line that belongs to a dataset's page."""
        return cls(
            name=report.name,
            state=state,
            link=link,
            condition=report.condition,
            replicate=report.replicate,
            reason=reason,
            method=method_text(report),
            n_shells=report.n_shells,
            cells=None if report.cells is None else len(report.cells),
            refused=None if report.cells is None else len(report.refused),
            organelles=tuple(report.organelles),
            objects=None if report.objects is None else len(report.objects),
            cytoplasm=median_of(report.cells, f"cytoplasm_{report.size}"),
            flat=report.flat,
            censored=median_of(report.cells, "censored_fraction"),
            shape=report.shape,
            voxel_size_nm=report.voxel_size_nm,
            units_set_aside=len(report.set_aside),
            seconds=report.seconds,
        )


def method_text(report: PartitionReport) -> str:
    """Method and, where it has one, field: ``normalized (edt)``."""
    return f"{report.method} ({report.field})" if report.method == "normalized" else report.method


def median_of(table: pd.DataFrame | None, column: str) -> float | None:
    """Median of a column's finite values; None without any."""
    if table is None or column not in table:
        return None
    values = table[column].to_numpy(dtype=np.float64)
    values = values[np.isfinite(values)]
    return float(np.median(values)) if values.size else None


def condition_section(by_condition: pd.DataFrame, table_path: str = "") -> Section:
    """RDF of every organelle by condition, for the campaign's page.

    Parameters
    ----------
    by_condition : pandas.DataFrame
        Rows condition, organelle, shell, cells, replicates, g, g_low, g_high, and the same of g_objects.
    table_path : str
        Where the table is, as shown to the reader; empty for not said.

    Returns
    -------
    Section
        Two figures an organelle (by voxels, by objects), with three conditions or more the similarity of
        each two, and the table.
    """
    named = any(str(name) for name in by_condition["condition"].unique())
    title = "RDF by condition" if named else "RDF over all cells"
    section = Section(
        title, "conditions", [captions.ENRICHMENT, captions.CONDITIONS if named else captions.ALL_CELLS]
    )
    for organelle in by_condition["organelle"].unique():
        for weight in ("g", "g_objects"):
            picture = condition_figures.rdf_by_condition(by_condition, organelle, weight)
            section.pictures += [] if picture is None else [picture]
        rows = by_condition[by_condition["organelle"] == organelle]
        matrix = similarity_of(rows, "condition")
        if len(matrix) == 2:
            first, second = matrix.index
            r = figures_text(matrix.iloc[0, 1])
            section.words.append(f"Pearson's r of {organelle} in {first} and {second}, shell by shell: {r}.")
        picture = condition_figures.similarity_matrix(matrix, organelle) if len(matrix) > 2 else None
        section.pictures += [] if picture is None else [picture]
    section.table = text_table(by_condition, _CONDITION_COLUMNS, MOST_LINES)
    hints = []
    if section.table.total > len(section.table.rows):
        hints.append(f"The first {len(section.table.rows)} of {section.table.total} lines.")
    if table_path:
        hints.append(f"Full table: {table_path}")
    section.hint = " ".join(hints)
    return section


def similarity_of(rdf: pd.DataFrame, by: str) -> pd.DataFrame:
    """Pearson's r between the RDFs of one organelle, each two of its conditions or cells.

    Parameters
    ----------
    rdf : pandas.DataFrame
        Rows of one organelle: shell, g and the column `by`.
    by : str
        ``condition`` or ``cell``.

    Returns
    -------
    pandas.DataFrame
        Square; NaN where r has no value.
    """
    wide = rdf.pivot(index=by, columns="shell", values="g")
    values = wide.to_numpy(dtype=np.float64)
    matrix = [[similarity(first, second)["pearson_r"] for second in values] for first in values]
    return pd.DataFrame(matrix, index=wide.index, columns=wide.index, dtype=np.float64)
