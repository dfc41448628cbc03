"""An opened dataset, as one process sees it: what the state of every pipeline begins with."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from cytomill.kernels.devices import Device
from cytomill.runtime.layout import Layout
from cytomill.runtime.stage import Arrays
from cytomill.storage.stores import StoredArray, VolumeStore, open_store, spacing_name
from cytomill.storage.volumes import Volume, open_volume

#: Folders below that of a dataset: its volumes, and what waits between two stages.
STORE, PROVISIONAL = "store.zarr", "provisional"


@dataclass
class OpenDataset:
    """Input, store, configuration and results so far of one dataset.

    Parameters
    ----------
    dataset : str
        Name in the campaign.
    folder : Path
        Where its store and tables are written.
    input : str
        What `open_volume` reads.
    voxel_size_nm : tuple of float
        (Z, Y, X).
    config : dataclass
        Parameters of its pipeline.
    layout : Layout
        Units.
    device : Device
        Where this rank's kernels run.
    results : dict of str to dict of ndarray
        Reduced results of the stages so far, by stage.
    notes : tuple of str
        What was decided at opening, as sentences for the user.
    """

    dataset: str
    folder: Path
    input: str
    voxel_size_nm: tuple[float, float, float]
    config: Any
    layout: Layout = field(default_factory=Layout)
    device: Device = field(default_factory=Device)
    results: dict[str, Arrays] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @cached_property
    def source(self) -> Volume:
        """The input as it lies on disk."""
        return open_volume(self.input)

    @cached_property
    def input_identity(self) -> dict[str, Any]:
        """What tells a changed input: sizes, times, a checksum of the header; looked at once a process."""
        return self.source.identity()

    @cached_property
    def store(self) -> VolumeStore:
        """The dataset's own store."""
        return open_store(self.folder / STORE)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels of the input (Z, Y, X)."""
        return self.source.shape

    @property
    def spacing(self) -> str:
        """Name of the input's spacing, for example ``50-10-10``."""
        return spacing_name(self.voxel_size_nm)

    def options(self, *names: str) -> dict[str, Any]:
        """Options of the configuration, by name."""
        values = asdict(self.config)
        return {name: values[name] for name in names}

    def remove_provisional(self, *names: str) -> None:
        """Remove folders of what waited between two stages, those that are there."""
        for name in names:
            folder = self.folder / PROVISIONAL / name
            if folder.exists():
                shutil.rmtree(folder)

    def volume(self, group: str) -> StoredArray:
        """Open a volume that the dataset has written at the input's spacing."""
        return self.store.open(f"{group}/{self.spacing}")
