"""First look at a dataset's masks: slabs become runs, rank 0 finds and cleans the cells."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from typing import Any

import numpy as np

from cytomill.kernels.checksum import crc32c_of
from cytomill.kernels.mask_runs import LABEL_RUN_BYTES, LabelRuns, encode_runs
from cytomill.partitioning.mask_values import as_masks
from cytomill.partitioning.roster import find_roster
from cytomill.partitioning.state import PartitionState
from cytomill.runtime.arrays import text_array
from cytomill.runtime.stage import Arrays, DatasetRefused, Stage, Unit, UnitOutput
from cytomill.storage.volumes import Volume

#: Runs that rank 0 takes at the most; masks of cells have thousands of times fewer.
MOST_RUNS = 100_000_000
#: Voxels of a run, where masks are as ragged as one need expect.
VOXELS_A_RUN = 24

CELLS, NUCLEI = "cell", "nucleus"
RUN_ARRAYS = ("row", "start", "stop", "value")


class PartitionStage(Stage):
    """A stage of the partitioning pipeline: everything it needs is in the dataset's state."""

    def __init__(self, state: PartitionState) -> None:
        self.state = state
        self.dataset = state.dataset

    def accept(self, result: Arrays) -> None:
        self.state.results[self.name] = result

    def held_bytes(self) -> int:
        """Bytes of the cells' runs, which every rank holds once they are known."""
        return sum(array.nbytes for array in self.state.results.get("survey", {}).values())


class SurveyStage(PartitionStage):
    """Runs and checksums of every slice; on rank 0 the cells, cleaned."""

    name = "survey"

    def volumes(self) -> dict[str, Volume]:
        """Inputs by what they are."""
        state = self.state
        found = {CELLS: state.source}
        return found | ({NUCLEI: state.nucleus} if state.config.nucleus else {})

    def fields(self) -> dict[str, Any]:
        state = self.state
        fields = {"input": state.input_identity, "voxel_size_nm": list(state.voxel_size_nm)}
        if state.config.nucleus:
            fields["input nucleus"] = state.nucleus_identity
        return fields | state.options("pm_labels", "ne_labels", "cells", "adsorbed_nm")

    def read_depth(self) -> int:
        """Slices read at once: the coarsest of the inputs' own granularities."""
        return min(max(volume.chunks[0] for volume in self.volumes().values()), self.state.shape[0])

    def depth(self) -> int:
        """Slices of a unit."""
        depth, height, width = self.state.shape
        if not all(volume.region_readable for volume in self.volumes().values()):
            return depth  # a compressed stream has to be read from its beginning
        itemsize = sum(volume.dtype.itemsize for volume in self.volumes().values())
        return self.state.layout.slab_depth(depth, height * width * itemsize, self.read_depth())

    def units(self) -> list[Unit]:
        depth, height, width = self.state.shape
        regions = [((z, min(z + self.depth(), depth)),) for z in range(0, depth, self.depth())]
        return [Unit(i, r, float((r[0][1] - r[0][0]) * height * width)) for i, r in enumerate(regions)]

    def memory_bytes(self, units: Sequence[Unit]) -> int:
        depth, height, width = self.state.shape
        slab = (min(self.read_depth(), depth), height, width)
        reading = sum(volume.reading_bytes(slab) for volume in self.volumes().values())
        # Floats that hold labels are turned into integers.
        copies = sum(4 for volume in self.volumes().values() if volume.dtype.kind == "f")
        return reading + int(prod(slab) * (copies + LABEL_RUN_BYTES / VOXELS_A_RUN))

    def process(self, unit: Unit) -> UnitOutput:
        partials: Arrays = {}
        refusal = ""
        for name, volume in self.volumes().items():
            runs, checksums = [], []
            for z, slab in _slabs(volume, unit.region[0], self.read_depth()):
                checksums += [crc32c_of(image) for image in slab]
                labels, sentence = masks_or_refusal(slab, str(volume.path), z)
                refusal = refusal or sentence
                runs.append(encode_runs(labels, z))
                del slab, labels  # before the next is read
            for key in RUN_ARRAYS:
                partials[f"{name}_{key}"] = np.concatenate([getattr(part, key) for part in runs])
            partials[f"{name}_crc32c"] = np.array(checksums, np.uint32)
        return UnitOutput(partials | {"refusal": text_array([refusal])})

    def reduce(self, partials: Arrays) -> Arrays:
        state = self.state
        refuse_dataset(self.dataset, partials)
        count = sum(array.size for name, array in partials.items() if name.endswith("_row"))
        if count > MOST_RUNS:
            raise DatasetRefused(
                f"dataset {self.dataset}: the masks consist of {count} runs of voxels, expected at most "
                f"{MOST_RUNS}: they are no smooth cells but noise; segment them again, or smooth them first"
            )
        runs = {
            name: LabelRuns(*(partials[f"{name}_{key}"] for key in RUN_ARRAYS)) for name in self.volumes()
        }
        result = {"crc32c": partials[f"{CELLS}_crc32c"]}
        if state.config.nucleus:
            result["crc32c nucleus"] = partials[f"{NUCLEI}_crc32c"]
        try:
            nuclei = runs.get(NUCLEI, runs[CELLS])
            roster = find_roster(runs[CELLS], nuclei, state.shape, state.voxel_size_nm, state.config)
        except ValueError as refusal:
            raise DatasetRefused(f"dataset {self.dataset}: {refusal}") from refusal
        return result | roster


def _slabs(volume: Volume, bounds: tuple[int, int], depth: int) -> Iterator[tuple[int, np.ndarray]]:
    first, stop = bounds
    if not volume.region_readable:
        yield from volume.slabs(depth)
        return
    for z in range(first, stop, depth):
        yield z, volume.read(((z, min(z + depth, stop)),))


def masks_or_refusal(slab: np.ndarray, path: str, first_slice: int) -> tuple[np.ndarray, str]:
    """A slab as masks or labels; zeros and a sentence where its values are none.

    Wrong values stay wrong: no attempt at the unit is worth another, as it is for a volume that is damaged.
    """
    try:
        return as_masks(slab, path, first_slice), ""
    except ValueError as refusal:
        return np.zeros(slab.shape, bool), str(refusal)


def refuse_dataset(dataset: str, partials: Arrays) -> None:
    """Raise the first refusal that the units found in the values of their slabs.

    Raises
    ------
    DatasetRefused
        If there is one.
    """
    found = [sentence for sentence in partials.get("refusal", ()) if sentence]
    if found:
        raise DatasetRefused(f"dataset {dataset}: {found[0]}")
