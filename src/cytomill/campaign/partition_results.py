"""What a partitioned dataset's results are, gathered for its page: plain data from its state and volumes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cytomill.campaign.pages import common_fields, write_dataset_page
from cytomill.campaign.pipeline import PageFacts
from cytomill.kernels.blocks import Region, region_shape, scale
from cytomill.kernels.cell_codes import CENSORED, CYTOPLASM, NUCLEUS
from cytomill.partitioning.conditions import rdf_by_condition
from cytomill.partitioning.masks import RefusedCell
from cytomill.partitioning.organelle_stages import open_organelle
from cytomill.partitioning.roster import RosterCell
from cytomill.partitioning.state import COMPARTMENTS, SHELLS, TABLES, TERRITORIES, PartitionState
from cytomill.reports.partition_examples import (
    ExampleCell,
    PlaneSlice,
    coarse_steps,
    encode,
)
from cytomill.reports.partition_page import render_partition
from cytomill.reports.partitioning import PartitionReport, PartitionRow
from cytomill.storage.durable import make_directories
from cytomill.storage.tables import read_table, write_table

#: Cells that a page draws; the others are in its tables.
EXAMPLES = 12
#: Voxels of a cell's box up to which its planes are cut from the box in memory.
BOX_VOXELS = 32_000_000
TABLE_NAMES = ("cells", "shells", "rdf", "profiles", "objects", "uptake")
BY_CONDITION = "rdf_by_condition"


def write_page(state: PartitionState, facts: PageFacts) -> tuple[PartitionRow, str]:
    """Write a dataset's page and its provenance; see :meth:`Pipeline.write_page`."""
    report, what, incomplete = write_dataset_page(
        state, facts, lambda with_volumes: partition_report(state, facts, with_volumes), render_partition
    )
    return PartitionRow.of(report, facts.link, what, facts.refusal), incomplete


def partition_report(state: PartitionState, facts: PageFacts, with_volumes: bool = True) -> PartitionReport:
    """The report of one dataset, as far as it came.

    Parameters
    ----------
    state : PartitionState
        With the results that it has.
    facts : PageFacts
        What the campaign knows of it.
    with_volumes : bool
        Read tables and volumes too.
    """
    config = state.config
    report = PartitionReport(
        name=state.dataset,
        method=config.method,
        field=config.field,
        n_shells=config.n_shells,
        voxel_size_nm=state.voxel_size_nm,
        shape=state.shape,
        condition=config.condition,
        replicate=config.replicate,
        notes=tuple(state.notes),
        **common_fields(state, facts),
    )
    if "survey" in state.results:
        survey = state.results["survey"]
        report.notes += tuple(str(note) for note in survey["notes"])
        refused = zip(survey["refused_label"].tolist(), survey["refused_sentence"].tolist(), strict=True)
        report.refused = [RefusedCell(label, sentence) for label, sentence in refused]
    if "cells" in state.results:
        done = state.results["cells"]
        report.refused += [
            RefusedCell(state.cells[index].label, sentence)
            for index, sentence in zip(done["index"].tolist(), done["refusal"].tolist(), strict=True)
            if sentence
        ]
    if "tables" in state.results and with_volumes:
        for name in TABLE_NAMES:
            if (state.folder / TABLES / f"{name}.parquet").exists():
                setattr(report, name, read_table(state.folder / TABLES / name))
        report.tables_path = TABLES
        refused_labels = {cell.label for cell in report.refused}
        shown = [cell for cell in state.cells if cell.label not in refused_labels]
        report.examples = [example_cell(state, cell) for cell in shown[:EXAMPLES]]
    return report


def example_cell(state: PartitionState, cell: RosterCell) -> ExampleCell:
    """Planes through a cell, and the cell on a coarse grid."""
    start = tuple(a for a, _ in cell.region)
    if cell.voxels <= BOX_VOXELS:
        codes = _codes(state, cell, cell.region)
        organelles = {o.name: _organelle(state, o, cell.region) for o in state.organelles}
        return ExampleCell.of(cell.label, codes, state.voxel_size_nm, organelles=organelles, start=start)
    centre = _centre(cell)
    planes = []
    for axis in (0,) if state.is_plane else range(3):
        region = tuple((c, c + 1) if a == axis else r for a, (c, r) in enumerate(zip(centre, cell.region)))
        codes = _codes(state, cell, region).squeeze(axis)
        organelles = {o.name: _organelle(state, o, region).squeeze(axis) for o in state.organelles}
        planes.append(PlaneSlice(axis, centre[axis], codes, None, organelles))
    if state.is_plane:
        return ExampleCell(cell.label, state.voxel_size_nm, planes)
    steps = coarse_steps(region_shape(cell.region), state.voxel_size_nm)
    (z0, z1), rows, columns = cell.region
    slices = [
        _codes(state, cell, ((z, z + 1), rows, columns))[:, :: steps[1], :: steps[2]]
        for z in range(z0 + steps[0] // 2, z1, steps[0])
    ]
    size = tuple(float(v * s) for v, s in zip(state.voxel_size_nm, steps))
    return ExampleCell(cell.label, state.voxel_size_nm, planes, np.concatenate(slices), size)


def _codes(state: PartitionState, cell: RosterCell, region: Region) -> np.ndarray:
    own = state.volume(TERRITORIES).read(region) == cell.label
    compartments = state.volume(COMPARTMENTS).read(region)
    cytoplasm = own & ((compartments == CYTOPLASM) | (compartments == CENSORED))
    shells = np.where(own, state.volume(SHELLS).read(region), np.uint8(0))
    return encode(shells, own & (compartments == NUCLEUS), cytoplasm)


def _organelle(state: PartitionState, organelle: Any, region: Region) -> np.ndarray:
    """An organelle's mask on the cells' grid: what is at the centre of each of its voxels."""
    with open_organelle(state, organelle) as volume:
        fine = volume.read(scale(region, organelle.factors)) != 0
    return fine[tuple(slice(f // 2, None, f) for f in organelle.factors)]


def _centre(cell: RosterCell) -> tuple[int, int, int]:
    """Centroid of the nucleus, from its runs."""
    nucleus = cell.nucleus
    length = (nucleus.stop - nucleus.start).astype(np.int64)
    total = int(length.sum())
    z = int(((nucleus.row // cell.height) * length).sum()) // total
    y = int(((nucleus.row % cell.height) * length).sum()) // total
    x = int(((nucleus.start.astype(np.int64) + nucleus.stop) * length).sum()) // (2 * total)
    return z, y, x


def condition_sections(states: Sequence[PartitionState], output: Path) -> list[Any]:
    """RDF by condition over all partitioned datasets, as a section of the campaign's page and a table."""
    from cytomill.reports.partitioning import condition_section

    rdf, cells = [], []
    for state in states:
        folder = state.folder / TABLES
        if "tables" in state.results and (folder / "rdf.parquet").exists():
            for name, tables in (("rdf", rdf), ("cells", cells)):
                table = read_table(folder / name)
                # Cells of different datasets may share a label.
                table["cell"] = [f"{state.dataset}/{cell}" for cell in table["cell"]]
                tables.append(table)
    if not rdf:
        return []
    config = states[0].config
    by_condition = rdf_by_condition(pd.concat(rdf), pd.concat(cells), config.seed, config.bootstrap)
    make_directories(output / TABLES)
    said = {key: by_condition.attrs[key] for key in ("columns", "notes")}
    write_table(by_condition, output / TABLES / BY_CONDITION, metadata=said)
    return [condition_section(by_condition, f"{TABLES}/{BY_CONDITION}.csv")]
