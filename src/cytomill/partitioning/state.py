"""What the stages of one dataset of cells share: its inputs, its store, its options and their results."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from cytomill.partitioning.config import PartitioningConfig
from cytomill.partitioning.roster import RosterCell, read_roster
from cytomill.runtime.dataset import OpenDataset
from cytomill.runtime.stage import Arrays
from cytomill.storage.stores import default_shards, fit_chunks
from cytomill.storage.volumes import Volume, open_volume

TABLES = "tables"

SHELLS = "labels/shells"
COMPARTMENTS = "labels/compartments"
TERRITORIES = "labels/territories"
POSITION = "images/position"
DISTANCE_NE = "distances/nucleus"
DISTANCE_PM = "distances/membrane"

#: Distances are stored as whole numbers of this part of the finest voxel edge.
QUANTA_A_VOXEL = 16


@dataclass(frozen=True)
class Organelle:
    """A volume of organelles.

    Parameters
    ----------
    name : str
        In tables and figures.
    path : str
        What `open_volume` reads; where it is another dataset's result, it may not exist yet.
    shape : tuple of int
        Voxels (Z, Y, X).
    dtype : numpy.dtype
        Of its voxels.
    identity : dict
        What tells a changed volume.
    factors : tuple of int
        Its voxels a voxel of the cells, along each axis.
    dataset : str
        The dataset whose result it is; empty for a file.
    ready : callable
        Whether that result is there.
    table : Path or None
        Stem of that dataset's table of particles.
    """

    name: str
    path: str
    shape: tuple[int, int, int]
    dtype: np.dtype
    identity: Mapping[str, Any]
    factors: tuple[int, int, int] = (1, 1, 1)
    dataset: str = ""
    ready: Callable[[], bool] = field(default=lambda: True, compare=False)
    table: Path | None = None


@dataclass
class PartitionState(OpenDataset):
    """One dataset of the partitioning pipeline; its input is the cell (PM) masks or labels.

    Parameters
    ----------
    config : PartitioningConfig
        Parameters.
    organelles : tuple of Organelle
        Volumes whose voxels and objects are counted.
    """

    config: PartitioningConfig
    organelles: tuple[Organelle, ...] = ()
    _roster: tuple[Arrays, list[RosterCell]] | None = field(default=None, repr=False)

    @cached_property
    def nucleus(self) -> Volume:
        """The nucleus masks; the input itself where they are labels of it."""
        return open_volume(self.config.nucleus) if self.config.nucleus else self.source

    @cached_property
    def nucleus_identity(self) -> dict[str, Any]:
        """What tells changed nucleus masks."""
        return self.nucleus.identity()

    @property
    def is_plane(self) -> bool:
        """Whether the masks are one wide-field image."""
        return self.shape[0] == 1

    @property
    def quantum_nm(self) -> float:
        """Unit of the stored distances, nm."""
        return min(self.voxel_size_nm[1 if self.is_plane else 0 :]) / QUANTA_A_VOXEL

    @property
    def blocks_shape(self) -> tuple[int, ...]:
        """Shard of the volumes that are written."""
        return self.volume_layout[1]

    @property
    def cells(self) -> list[RosterCell]:
        """Every cell that was found, known once the survey is done; read once a result."""
        found = self.results["survey"]
        if self._roster is None or self._roster[0] is not found:
            self._roster = (found, read_roster(found, self.shape[1]))
        return self._roster[1]

    @property
    def volume_layout(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Chunks and shards of the volumes that the dataset writes, whatever their dtypes."""
        chunks = fit_chunks(self.shape, self.config.zarr_chunks)
        # Cut for the widest of them, so that one grid of blocks serves all.
        return chunks, default_shards(self.shape, np.uint32, chunks)
