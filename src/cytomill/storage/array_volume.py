"""Volumes inside arrays that a library reads by index: HDF5 datasets and Zarr arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cytomill.kernels.blocks import Region, region_slices
from cytomill.storage.axes import SpatialAxes
from cytomill.storage.errors import VolumeError
from cytomill.storage.stores import region_buffer_bytes
from cytomill.storage.volumes import Volume


class ArrayVolume(Volume):
    """A volume taken from an indexable array.

    Parameters
    ----------
    path : Path
        The file or store.
    format : str
        Name of the format.
    array : object
        With `shape`, `dtype` and slicing by integers and slices.
    axes : SpatialAxes
        Where Z, Y and X are.
    chunks : sequence of int
        What is read at the least, for every axis of the array.
    voxel_size_nm : tuple of float or None
        (Z, Y, X) in nm.
    identity : callable
        Returns what tells a changed file.
    close : callable
        Closes the file.
    """

    def __init__(
        self,
        path: Path,
        format: str,
        array: Any,
        axes: SpatialAxes,
        chunks: Sequence[int],
        voxel_size_nm: tuple[float, float, float] | None,
        identity: Callable[[], dict[str, Any]],
        close: Callable[[], None],
    ) -> None:
        self.path = path
        self.format = format
        self.shape = axes.pick(array.shape)
        self.dtype = np.dtype(array.dtype).newbyteorder("=")
        self.chunks = axes.pick(chunks)
        self.voxel_size_nm = voxel_size_nm
        self._array = array
        self._axes = axes
        self._identity = identity
        self._close = close

    def identity(self) -> dict[str, Any]:
        return self._identity()

    def _read(self, region: Region) -> np.ndarray:
        try:
            taken = np.asarray(self._array[self._axes.index(region_slices(region))])
        except MemoryError:
            raise
        except Exception as error:  # HDF5 filters and Zarr codecs share no base class for what they raise
            raise VolumeError(f"{self.path} is damaged: region {region} cannot be read ({error}).") from error
        return np.ascontiguousarray(self._axes.arrange(taken), self.dtype)

    def reading_bytes(self, shape: Sequence[int]) -> int:
        voxels = super().reading_bytes(shape)
        shards = getattr(self._array, "shards", None)
        if not shards:
            return voxels
        return voxels + region_buffer_bytes(
            shape, self.shape, self._axes.pick(shards), self.chunks, self.dtype
        )

    def close(self) -> None:
        self._close()
