"""Stages that count organelles: what their volumes hold, their objects, where these lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields as dataclass_fields
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from cytomill.kernels.blocks import Region, grid, region_shape, scale
from cytomill.kernels.checksum import crc32c_of
from cytomill.kernels.closing import ball
from cytomill.kernels.components import Runs
from cytomill.kernels.keyed_rows import merge_rows
from cytomill.kernels.labelling import LabelMap, label_unit, merge_blocks, paint_unit, unit_bytes
from cytomill.kernels.object_tally import sample_points, tally_objects
from cytomill.kernels.tally import tally_organelle
from cytomill.partitioning.block_stages import BlockStage, ShellStage, block_of, read_block
from cytomill.partitioning.cell import CellFields
from cytomill.partitioning.mask_values import as_masks
from cytomill.partitioning.objects import centroid_voxels, merge_objects
from cytomill.partitioning.pieces import read_piece, write_piece
from cytomill.partitioning.state import Organelle, PartitionState
from cytomill.partitioning.survey_stage import PartitionStage, masks_or_refusal, refuse_dataset
from cytomill.runtime.arrays import digest_of, text_array
from cytomill.runtime.dataset import PROVISIONAL
from cytomill.runtime.stage import Arrays, DatasetRefused, Unit, UnitOutput
from cytomill.storage.volumes import Volume, open_volume

#: Stage of a nanoparticle dataset that writes its labels.
LABELS_OF_PARTICLES = "masks"

#: A mask needs no closing before its components are found.
NO_CLOSING = ball(0)
FULL_CONNECTIVITY = 3

#: Arrays of a :class:`LabelMap`, which the result of the first pass holds for each mask.
LABEL_MAP = tuple(f.name for f in dataclass_fields(LabelMap))


def open_organelle(state: PartitionState, organelle: Organelle) -> Volume:
    """Open an organelle's volume, which may be another dataset's result.

    Raises
    ------
    ValueError
        It is not there, or not as it was when the campaign was opened.
    """
    volume = open_volume(organelle.path)
    if volume.shape != organelle.shape:
        raise ValueError(
            f"dataset {state.dataset}: organelle {organelle.name} has {volume.shape} voxels now, and had "
            f"{organelle.shape} when the campaign was opened: {organelle.path}"
        )
    return volume


def particle_labels(state: PartitionState) -> list[tuple[str, str]]:
    """(dataset, stage) of every other dataset whose labels are read."""
    return [(o.dataset, LABELS_OF_PARTICLES) for o in state.organelles if o.dataset]


def organelle_unit(index: int, number: int, region: Region) -> Unit:
    """A unit of one organelle's volume: a box, and behind it the organelle's number."""
    return Unit(index, (*region, (number, number + 1)), float(prod(region_shape(region))))


def organelle_of(state: PartitionState, unit: Unit) -> tuple[int, Organelle, Region]:
    """Number, organelle and box of a unit that :func:`organelle_unit` made."""
    *region, (number, _) = unit.region
    return number, state.organelles[number], tuple(region)


class OrganelleStage(PartitionStage):
    """A stage that reads the organelles' volumes."""

    def fields(self) -> dict[str, Any]:
        return {f"input {organelle.name}": dict(organelle.identity) for organelle in self.state.organelles}

    def requires(self) -> Sequence[str | tuple[str, str]]:
        return particle_labels(self.state)

    def prepare(self, rank: int) -> None:
        if rank == 0:
            for organelle in self.state.organelles:
                if not organelle.ready():
                    raise DatasetRefused(
                        f"dataset {self.dataset}: organelle {organelle.name} is a result of dataset "
                        f"{organelle.dataset}, which is not complete"
                    )


class ContentStage(OrganelleStage):
    """Checksums of the organelles' slices, and whether each volume is a mask or holds labels."""

    name = "contents"

    def units(self) -> list[Unit]:
        units: list[Unit] = []
        for number, organelle in enumerate(self.state.organelles):
            depth, height, width = organelle.shape
            # 4 bytes a voxel whatever the dtype: a result of another dataset has none to look at yet.
            step = self.state.layout.slab_depth(depth, 4 * height * width)
            for z in range(0, depth, step):
                region = ((z, min(z + step, depth)), (0, height), (0, width))
                units.append(organelle_unit(len(units), number, region))
        return units

    def memory_bytes(self, units: Sequence[Unit]) -> int:
        def bytes_of(unit: Unit) -> int:
            *region, (number, _) = unit.region
            dtype = self.state.organelles[number].dtype
            # What is read, and what its format needs for it; floats are copied as integers.
            a_voxel = 1.6 * dtype.itemsize + (4 if dtype.kind == "f" else 0)
            return int(a_voxel * prod(region_shape(tuple(region))))

        return self.held_bytes() + max(map(bytes_of, units), default=0)

    def process(self, unit: Unit) -> UnitOutput:
        number, organelle, region = organelle_of(self.state, unit)
        rows = []
        with open_organelle(self.state, organelle) as volume:
            slab = volume.read(region)
        checksums = [crc32c_of(image) for image in slab]
        labels, refusal = masks_or_refusal(slab, organelle.path, region[0][0])
        for z, image in enumerate(labels, region[0][0]):
            inside = image[image != 0]
            least, most = (int(inside.min()), int(inside.max())) if inside.size else (0, 0)
            rows.append((number, z, inside.size, least, most, checksums[z - region[0][0]]))
        return UnitOutput({"slices": np.array(rows, np.int64), "refusal": text_array([refusal])})

    def reduce(self, partials: Arrays) -> Arrays:
        refuse_dataset(self.dataset, partials)
        slices = partials["slices"]
        is_mask = np.zeros(len(self.state.organelles), bool)
        result: Arrays = {}
        for number, organelle in enumerate(self.state.organelles):
            own = slices[slices[:, 0] == number]
            present = own[own[:, 2] > 0]
            single = len(present) == 0 or present[:, 3].min() == present[:, 4].max()
            wanted = self.state.config.objects
            is_mask[number] = single if wanted == "auto" else wanted == "components"
            result[f"crc32c {organelle.name}"] = own[:, 5].astype(np.uint32)
        return result | {"is_mask": is_mask}

    def fields(self) -> dict[str, Any]:
        return super().fields() | self.state.options("objects")


class ObjectStage(OrganelleStage):
    """First pass over organelles that are masks: the components of each block."""

    name = "components"

    def masks(self) -> list[int]:
        """Numbers of the organelles that are masks."""
        return np.flatnonzero(self.state.results["contents"]["is_mask"]).tolist()

    def fields(self) -> dict[str, Any]:
        return {
            "contents": digest_of(ContentStage(self.state).fields()),
            "zarr_chunks, blocks": list(self.state.blocks_shape),
        } | self.state.options("min_object_size")

    def units(self) -> list[Unit]:
        state = self.state
        units: list[Unit] = []
        for number in self.masks():
            factors = state.organelles[number].factors
            for region in grid(state.shape, block_of(state)):
                units.append(organelle_unit(len(units), number, scale(region, factors)))
        return units

    def memory_bytes(self, units: Sequence[Unit]) -> int:
        shapes = [region_shape(unit.region[:3]) for unit in units]
        largest = max((unit_bytes(s, NO_CLOSING, "uint8") + 9 * prod(s) for s in shapes), default=0)
        return self.held_bytes() + largest

    def path(self, number: int, block: int) -> Path:
        """Where the runs of a block wait for the second pass."""
        return self.state.folder / PROVISIONAL / "objects" / f"{number:03d}-{block:06d}.runs"

    def process(self, unit: Unit) -> UnitOutput:
        number, organelle, region = organelle_of(self.state, unit)
        with open_organelle(self.state, organelle) as volume:
            mask = as_masks(volume.read(region), organelle.path) != 0
        runs, partials = label_unit(
            np.where(mask, np.uint8(255), np.uint8(0)),
            region,
            organelle.shape,
            0.5,
            NO_CLOSING,
            FULL_CONNECTIVITY,
            "pad",
        )
        path = self.path(number, unit.index)
        path.unlink(missing_ok=True)
        if runs.row.size:
            write_piece(path, {f.name: getattr(runs, f.name) for f in dataclass_fields(Runs)})
        owner = {f"{name}_of": np.full(len(rows), number) for name, rows in partials.items()}
        return UnitOutput(partials | owner | {"unit": np.array([[unit.index, number]])}, [path])

    def reduce(self, partials: Arrays) -> Arrays:
        result: Arrays = {"units": partials.get("unit", np.empty((0, 2), np.int64))}
        names = [name for name in partials if f"{name}_of" in partials]
        for number in self.masks():
            own = {name: partials[name][partials[f"{name}_of"] == number] for name in names}
            merged = merge_blocks(own, FULL_CONNECTIVITY, self.state.config.min_object_size)
            result |= {f"{number}_{key}": array for key, array in merged.as_arrays().items()}
            result[f"{number}_regions"] = own["blocks"][:, :6]
        return result


class CountStage(BlockStage):
    """Voxels of organelles a cell and shell, and the sums of every object."""

    name = "organelles"

    def fields(self) -> dict[str, Any]:
        # The blocks are named because the runs of objects are those of exactly these blocks.
        found = self.state.results["components"]
        blocks = [found[name].tolist() for name in sorted(found) if name.endswith("_regions")]
        return {
            "shells": digest_of(ShellStage(self.state).fields()),
            "components": digest_of(ObjectStage(self.state).fields()),
            "blocks": digest_of(blocks),
        }

    def requires(self) -> Sequence[str]:
        return (ShellStage.name, ObjectStage.name, *particle_labels(self.state))

    def units(self) -> list[Unit]:
        found = self.state.results["components"]
        for number, organelle in enumerate(self.state.organelles):
            if f"{number}_regions" in found:
                bounds = found[f"{number}_regions"].reshape(-1, 3, 2) // np.array(organelle.factors)[:, None]
                regions = [tuple((int(a), int(b)) for a, b in box) for box in bounds]
                return Unit.boxes(regions)
        return super().units()

    def memory_bytes(self, units: Sequence[Unit]) -> int:
        block = self.largest(units)
        finest = max((prod(o.factors) for o in self.state.organelles), default=1)
        repeated = 0 if finest == 1 else prod(block) * finest * 12
        return self.held_bytes() + self.reading_bytes(block) + repeated + prod(block) * finest * 12

    def process(self, unit: Unit) -> UnitOutput:
        state = self.state
        territory, fields = read_block(state, unit.region)
        partials: Arrays = {}
        for number, organelle in enumerate(state.organelles):
            region = scale(unit.region, organelle.factors)
            labels = self._labels(number, organelle, unit.index, region)
            own_territory, own = repeat(territory, fields, organelle.factors)
            common = (own_territory, own.compartment, own.shell, state.config.n_shells, own.position)
            partials[f"cells_{number}"] = tally_organelle(labels, *common)
            origin = [start for start, _ in region]
            partials[f"objects_{number}"] = tally_objects(
                labels, *common, own.distance_ne, own.distance_pm, origin=origin
            )
        return UnitOutput(partials)

    def _labels(self, number: int, organelle: Organelle, block: int, region: Region) -> np.ndarray:
        """Objects of a block: labels of the volume, or the components of its mask."""
        found = self.state.results["components"]
        if f"{number}_final" not in found:
            with open_organelle(self.state, organelle) as volume:
                return as_masks(volume.read(region), organelle.path)
        own_units = found["units"][found["units"][:, 1] == number, 0]
        label_map = LabelMap(*(found[f"{number}_{key}"] for key in LABEL_MAP)).of_block(block)
        if label_map.size == 1:
            return np.zeros(region_shape(region), np.int32)
        runs = Runs(**read_piece(ObjectStage(self.state).path(number, int(own_units[block]))))
        return paint_unit(runs, region_shape(region), label_map)

    def reduce(self, partials: Arrays) -> Arrays:
        merged: Arrays = {}
        for name, rows in partials.items():
            merged[name] = merge_rows(rows) if name.startswith("cells") else merge_objects(rows)
        return merged


class PlaceStage(BlockStage):
    """What the volumes say at the centroid of every object."""

    name = "places"

    def fields(self) -> dict[str, Any]:
        return {"organelles": digest_of(CountStage(self.state).fields())}

    def requires(self) -> Sequence[str]:
        return (ShellStage.name,)

    def memory_bytes(self, units: Sequence[Unit]) -> int:
        return self.held_bytes() + self.reading_bytes(self.largest(units))

    def process(self, unit: Unit) -> UnitOutput:
        state = self.state
        origin = [start for start, _ in unit.region]
        partials: Arrays = {}
        territory, fields = None, None
        for number, organelle in enumerate(state.organelles):
            points = centroid_voxels(state.results["organelles"][f"objects_{number}"])
            points //= np.array(organelle.factors)
            bounds = np.array(unit.region)
            if territory is None and ((points >= bounds[:, 0]) & (points < bounds[:, 1])).all(1).any():
                territory, fields = read_block(state, unit.region)
            if territory is None:
                partials[f"points_{number}"] = np.empty((0, 7), np.int64)
                continue
            partials[f"points_{number}"] = sample_points(
                points,
                territory,
                fields.compartment,
                fields.shell,
                fields.position,
                fields.distance_ne,
                fields.distance_pm,
                origin,
            )
        return UnitOutput(partials)

    def reduce(self, partials: Arrays) -> Arrays:
        return {name: rows[np.argsort(rows[:, 0])] for name, rows in partials.items()}


def repeat(
    territory: np.ndarray, fields: CellFields, factors: Sequence[int]
) -> tuple[np.ndarray, CellFields]:
    """Territories and fields on a grid that is finer by whole factors."""
    if max(factors) == 1:
        return territory, fields

    def finer(array: np.ndarray) -> np.ndarray:
        for axis, factor in enumerate(factors):
            array = np.repeat(array, factor, axis) if factor > 1 else array
        return array

    return finer(territory), CellFields(**{n: finer(a) for n, a in fields.as_arrays().items()})
