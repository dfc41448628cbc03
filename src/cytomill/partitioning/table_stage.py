"""The last stage: counts of all blocks become tables."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cytomill.kernels.tally import split_cells
from cytomill.partitioning.block_stages import ROOM_QUANTA, ShellStage
from cytomill.partitioning.cell_stages import CELLS_BETWEEN, CellStage
from cytomill.partitioning.mask_rules import face_names
from cytomill.partitioning.objects import object_table, uptake_table
from cytomill.partitioning.organelle_stages import CountStage
from cytomill.partitioning.placement import object_rdf
from cytomill.partitioning.rdf import frame, profile_table, rdf_table, shell_table, voxel_measure_um
from cytomill.partitioning.slab_stages import PLANES_BETWEEN, ColumnStage, PlaneStage
from cytomill.partitioning.state import TABLES, Organelle
from cytomill.partitioning.survey_stage import PartitionStage
from cytomill.runtime.arrays import digest_of
from cytomill.runtime.stage import Arrays, Unit, UnitOutput
from cytomill.storage.tables import read_table, write_table

CELLS_METADATA = {
    "cell": "id of the cell",
    "condition": "condition that the cell belongs to",
    "replicate": "biological replicate that the cell belongs to",
    "cell_voxels": "voxels of the cell, nucleus included, as cleaned",
    "nucleus_voxels": "voxels of the nucleus",
    "cytoplasm_voxels": "voxels of the cell without the nucleus",
    **{f"{what}_volume_um3": f"volume of the {what}, µm³" for what in ("cell", "nucleus", "cytoplasm")},
    **{f"{what}_area_um2": f"area of the {what}, µm²" for what in ("cell", "nucleus", "cytoplasm")},
    "nuclei": "nuclei, whose union is taken as the nucleus",
    "censored_fraction": "share of the cytoplasm nearer to a face of the volume than to the plasma membrane",
    "cut_faces": "faces of the volume that cut the cell: axis, 0 for the first and 1 for the last plane",
    "note": "what was decided about its masks",
}

#: Draws of a bootstrap that are held at once, and what libraries take for tables.
INTERVAL_BYTES = 100 * 2**20

#: Columns that a table of particles gains.
PARTICLE_COLUMNS = (
    "cell", "compartment", "shell", "t", "distance_ne_nm", "distance_pm_nm", "nearest_ne_nm", "nearest_pm_nm",
)  # fmt: skip


class TableStage(PartitionStage):
    """Writes the tables of a dataset, on rank 0."""

    name = "tables"

    def __init__(self, state) -> None:
        super().__init__(state)
        self._files: list[Path] = []

    def fields(self) -> dict[str, Any]:
        state = self.state
        fields = {"shells": digest_of(ShellStage(state).fields())}
        fields |= state.options("condition", "replicate", "bootstrap", "seed", "adsorbed_nm")
        if state.organelles:
            fields["organelles"] = digest_of(CountStage(state).fields())
        return fields

    def units(self) -> list[Unit]:
        return []

    def memory_bytes(self, units: Sequence[Unit]) -> int:
        objects = sum(array.nbytes for array in self.state.results.get("organelles", {}).values())
        return self.held_bytes() + 4 * objects + INTERVAL_BYTES

    def process(self, unit: Unit) -> UnitOutput:
        raise ValueError(f"the {self.name} stage has no units, but unit {unit.index} was asked for")

    def reduce(self, partials: Arrays) -> Arrays:
        state = self.state
        folder = state.folder / TABLES
        folder.mkdir(parents=True, exist_ok=True)
        tables = {"cells": self.cell_table(), "shells": self.shells()} | self.organelle_tables()
        self._files = []
        for name, table in tables.items():
            columns = table.attrs.pop("columns", {})
            self._files += write_table(table, folder / name, metadata={"columns": columns})
        return {"cells": np.array(len(tables["cells"]))}

    def files(self) -> Sequence[Path]:
        return self._files

    def releases(self) -> Sequence[str]:
        # The runs of objects stay: they are small, and costlier to make again.
        return (CellStage.name, PlaneStage.name, ColumnStage.name)

    def remove_released(self) -> None:
        self.state.remove_provisional(CELLS_BETWEEN, PLANES_BETWEEN)

    def cell_table(self) -> pd.DataFrame:
        """A row a cell."""
        state, survey = self.state, self.state.results["survey"]
        rows = state.results["shells"]["cells"]
        counts = split_cells(rows, state.config.n_shells)
        index = {cell.label: cell.index for cell in state.cells}
        order = [index[int(label)] for label in counts["cell"]]
        done = state.results["cells"]
        computed = dict(zip(done["index"].tolist(), done["note"].tolist(), strict=True))
        suffix, unit = voxel_measure_um(state.voxel_size_nm, state.is_plane)
        voxels = {
            "cell": survey["cell_voxels"][order],
            "nucleus": survey["nucleus_voxels"][order],
            "cytoplasm": counts["cytoplasm"],
        }
        notes = ["; ".join(filter(None, (str(survey["note"][i]), computed.get(i, "")))) for i in order]
        return frame(
            {
                "cell": counts["cell"],
                "condition": np.full(len(order), state.config.condition, object),
                "replicate": np.full(len(order), state.config.replicate, object),
                **{f"{what}_voxels": count for what, count in voxels.items()},
                **{f"{what}_{suffix}": count * unit for what, count in voxels.items()},
                "nuclei": survey["nuclei"][order],
                "censored_fraction": counts["censored"] / np.maximum(counts["cytoplasm"], 1),
                "cut_faces": [face_names(survey["cut_faces"][i], state.shape) for i in order],
                "note": notes,
            },
            CELLS_METADATA,
        )

    def shells(self) -> pd.DataFrame:
        """A row a cell and shell."""
        state = self.state
        rows = state.results["shells"]["cells"]
        return shell_table(rows, state.config.n_shells, state.voxel_size_nm, state.is_plane)

    def organelle_tables(self) -> dict[str, pd.DataFrame]:
        """RDFs, profiles, objects and uptake of all organelles; particles where a dataset has them."""
        state, n_shells = self.state, self.state.config.n_shells
        if not state.organelles:
            return {}
        cells, room = (state.results["shells"][name] for name in ("cells", "room"))
        parts: dict[str, list[pd.DataFrame]] = {"rdf": [], "profiles": [], "objects": []}
        particles: dict[str, pd.DataFrame] = {}
        for number, organelle in enumerate(state.organelles):
            own = state.results["organelles"][f"cells_{number}"]
            # In voxels of the organelle's own grid.
            finer = np.concatenate([cells[:, :1], cells[:, 1:] * prod(organelle.factors)], axis=1)
            objects = self._objects(number, organelle)
            weighted = object_rdf(
                cells,
                room,
                state.results["organelles"][f"objects_{number}"],
                objects,
                n_shells,
                self._size_nm(organelle),
                ROOM_QUANTA * state.quantum_nm,
                state.is_plane,
                state.config.seed,
                state.config.bootstrap,
            )
            parts["rdf"].append(rdf_table(organelle.name, finer, own, n_shells, weighted))
            parts["profiles"].append(profile_table(organelle.name, finer, own, n_shells))
            parts["objects"].append(objects)
            if organelle.table is not None:
                particles[f"particles_{organelle.name}"] = particle_columns(organelle, objects)
        tables = {name: _joined(own) for name, own in parts.items()}
        names = [organelle.name for organelle in state.organelles]
        tables["uptake"] = uptake_table(tables["objects"], cells[:, 0].tolist(), names)
        return tables | particles

    def _size_nm(self, organelle: Organelle) -> tuple[float, ...]:
        pairs = zip(self.state.voxel_size_nm, organelle.factors, strict=True)
        return tuple(size / factor for size, factor in pairs)

    def _objects(self, number: int, organelle: Organelle) -> pd.DataFrame:
        state, size = self.state, self._size_nm(organelle)
        return object_table(
            organelle.name,
            state.results["organelles"][f"objects_{number}"],
            state.config.n_shells,
            size,
            state.quantum_nm,
            state.config.adsorbed_nm,
            state.results["places"][f"points_{number}"],
            [(fine - coarse) / 2 for fine, coarse in zip(size, state.voxel_size_nm, strict=True)],
            state.is_plane,
        )


def particle_columns(organelle: Organelle, objects: pd.DataFrame) -> pd.DataFrame:
    """The table of a dataset's particles with what the cells say of each of them.

    Parameters
    ----------
    organelle : Organelle
        Labels of a nanoparticle dataset.
    objects : pandas.DataFrame
        The same labels as objects.
    """
    table = read_table(organelle.table)
    known = objects.set_index("label")[list(PARTICLE_COLUMNS)]
    joined = table.join(known, on="label")
    joined.attrs["columns"] = {
        **table.attrs.get("columns", {}),
        **{name: objects.attrs["columns"][name] for name in PARTICLE_COLUMNS},
    }
    return joined


def _joined(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    joined = pd.concat(tables, ignore_index=True)
    joined.attrs["columns"] = tables[0].attrs["columns"]
    return joined
