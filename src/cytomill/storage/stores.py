"""Stores of volumes: named arrays, written shard by shard, whatever the file format below."""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cytomill.kernels.blocks import Region, region_shape
from cytomill.storage.errors import DamagedShard, LayoutDiffers, VolumeError
from cytomill.storage.regions import complete_region

__all__ = [
    "DamagedShard",
    "StoredArray",
    "VolumeError",
    "VolumeStore",
    "default_shards",
    "fit_chunks",
    "open_store",
    "parse_spacing",
    "reading_buffer_bytes",
    "region_buffer_bytes",
    "spacing_name",
    "writing_buffer_bytes",
]

#: Raw bytes of a shard at the most: small enough to write in one go, large enough for few files.
SHARD_BYTES = 64 * 2**20

#: Shards along Z at the least (where chunks allow), so that small stacks can be shared out too.
LAYERS = 16


class StoredArray(ABC):
    """One array of a store.

    Attributes
    ----------
    name : str
        Name in the store, for example ``labels/nps/masks/50-10-10``.
    root : Path
        Folder of the store; records of shards are relative to it.
    shape, chunks, shards : tuple of int
        Voxels (Z, Y, X). A shard is the unit of writing, a chunk that of reading.
    dtype : numpy.dtype
        Native-endian type of the voxels.
    voxel_size_nm : tuple of float or None
        Voxel size (Z, Y, X) in nm.
    """

    name: str
    root: Path
    shape: tuple[int, ...]
    dtype: np.dtype
    chunks: tuple[int, ...]
    shards: tuple[int, ...]
    voxel_size_nm: tuple[float, float, float] | None

    @property
    @abstractmethod
    def attributes(self) -> dict[str, Any]:
        """The array's own attributes, JSON-able."""

    @abstractmethod
    def update_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Add or replace attributes, atomically. One process at a time."""

    @abstractmethod
    def shard_paths(self, region: Region | None = None) -> list[Path]:
        """Return the absolute paths of the shard files that `region` touches, in raster order.

        A shard that holds fill values only has no file; its path is listed all the same.
        """

    @abstractmethod
    def _write(self, region: Region, data: np.ndarray) -> None:
        """Write whole shards, leaving no stale file behind."""

    @abstractmethod
    def _read(self, region: Region) -> np.ndarray:
        """Read voxels, raising :class:`DamagedShard` where they cannot be decoded."""

    def write(self, region: Region, data: np.ndarray) -> None:
        """Write a region that nobody else writes.

        Parameters
        ----------
        region : tuple of (int, int)
            Half-open ranges (Z, Y, X), axes left out are whole; along each axis the region starts at
            a shard and ends at a shard or at the edge of the array.
        data : ndarray
            Voxels of the region, of the array's own dtype.

        Raises
        ------
        ValueError
            If the region is not made of whole shards (two writers in one shard lose data silently),
            or the data's shape or dtype is another.
        """
        whole = complete_region(region, self.shape)
        for (start, stop), shard, extent in zip(whole, self.shards, self.shape):
            if start % shard or (stop % shard and stop != extent):
                raise ValueError(
                    f"Region {whole} of {self.name} is not made of whole shards of {self.shards} voxels: "
                    "start it at a shard and end it at a shard or at the array's edge."
                )
        if data.shape != region_shape(whole) or data.dtype != self.dtype:
            raise ValueError(
                f"Data of shape {data.shape} and type {data.dtype} was given for region {whole} of "
                f"{self.name}, which takes {region_shape(whole)} and {self.dtype}."
            )
        self._write(whole, data)

    def read(self, region: Region | None = None) -> np.ndarray:
        """Read a region into a fresh C-contiguous array.

        Parameters
        ----------
        region : tuple of (int, int), or None
            Half-open ranges (Z, Y, X); axes left out are whole.

        Raises
        ------
        DamagedShard
            If a shard cannot be decoded or fails its checksum.
        """
        return self._read(complete_region(region, self.shape))

    def reading_bytes(self, shape: Sequence[int]) -> int:
        """Estimate the peak memory of reading a region of this shape, the voxels returned included."""
        voxels = math.prod(shape) * self.dtype.itemsize
        return voxels + region_buffer_bytes(shape, self.shape, self.shards, self.chunks, self.dtype)


class VolumeStore(ABC):
    """A folder of named arrays.

    Attributes
    ----------
    root : Path
        Absolute path of the store.
    """

    root: Path

    @abstractmethod
    def create(
        self,
        name: str,
        shape: Sequence[int],
        dtype: Any,
        chunks: Sequence[int],
        shards: Sequence[int] | None = None,
        voxel_size_nm: Sequence[float] | None = None,
        attributes: Mapping[str, Any] | None = None,
        overwrite: bool = False,
        is_labels: bool | None = None,
    ) -> StoredArray:
        """Create an array, or open the one that is there if it is laid out the same.

        One process at a time creates arrays in a store.

        Parameters
        ----------
        name : str
            Path in the store; the last component names the spacing (:func:`spacing_name`).
        shape, chunks, shards : sequence of int
            Voxels (Z, Y, X); shards are multiples of chunks (default: :func:`default_shards`).
        dtype : dtype-like
            Type of the voxels.
        voxel_size_nm : sequence of float, optional
            (Z, Y, X) in nm; by default what the last component of `name` says.
        attributes : mapping, optional
            JSON-able attributes of the array (``processing``, ``inputs``, ...).
        overwrite : bool
            Delete what is there, data included, and start afresh. Without it the data of an array
            of the same layout is kept, and its attributes are updated.
        is_labels : bool, optional
            Whether the voxels are labels; by default integers of 16 bits and more below ``labels/``.

        Raises
        ------
        VolumeError
            If an array of another layout is there, or a name, shape or spacing makes no sense.
        """

    def create_or_replace(
        self,
        name: str,
        shape: Sequence[int],
        dtype: Any,
        chunks: Sequence[int],
        shards: Sequence[int],
        attributes: Mapping[str, Any],
        voxel_size_nm: Sequence[float] | None = None,
        is_labels: bool | None = None,
    ) -> StoredArray:
        """Create an array; one of another layout that is there gives way, data included.

        For stages whose layout is among their fields: what is there then belongs to an older epoch, and an
        epoch with committed units never finds another layout. Parameters are those of :meth:`create`.
        """
        layout = (name, shape, dtype, chunks, shards, voxel_size_nm, attributes)
        try:
            return self.create(*layout, is_labels=is_labels)
        except LayoutDiffers:
            return self.create(*layout, overwrite=True, is_labels=is_labels)

    @abstractmethod
    def open(self, name: str) -> StoredArray:
        """Open an array.

        Raises
        ------
        VolumeError
            If there is no such array.
        """

    @abstractmethod
    def exists(self, name: str) -> bool:
        """Whether there is an array of this name."""

    @abstractmethod
    def keep_only(self, group: str, names: Collection[str]) -> None:
        """Delete the arrays of a group but those named, from its metadata too. One process at a time.

        Parameters
        ----------
        group : str
            For example ``labels/nps/masks``; nothing happens where there is no such group.
        names : collection of str
            Last components of the arrays to keep.
        """


def open_store(root: str | Path, kind: str = "zarr") -> VolumeStore:
    """Open a store; nothing is written before an array is created.

    Parameters
    ----------
    root : path-like
        Folder of the store.
    kind : str
        ``"zarr"`` for OME-Zarr 0.5 (Zarr v3, sharded).

    Raises
    ------
    VolumeError
        If the kind is not known.
    """
    if kind != "zarr":
        raise VolumeError(f"Stores of kind {kind!r} are not known; use 'zarr'.")
    from cytomill.storage.ome_zarr import OmeZarrStore

    return OmeZarrStore(Path(root))


def spacing_name(voxel_size_nm: Sequence[float]) -> str:
    """Return the name of a spacing: (50, 10, 10) nm gives ``"50-10-10"``.

    Up to six significant digits are kept, without an exponent, as its sign would read as a separator.

    Raises
    ------
    VolumeError
        If there are not three positive finite numbers.
    """
    sizes = tuple(float(size) for size in voxel_size_nm)
    if len(sizes) != 3 or not all(math.isfinite(size) and size > 0 for size in sizes):
        raise VolumeError(f"Voxel size {sizes} nm is not three positive numbers (Z, Y, X).")
    return "-".join(np.format_float_positional(float(f"{size:g}"), trim="-") for size in sizes)


def parse_spacing(name: str) -> tuple[float, float, float]:
    """Return the voxel size (Z, Y, X) in nm that a spacing's name says.

    Raises
    ------
    VolumeError
        If the name is not three positive numbers joined by hyphens.
    """
    try:
        z, y, x = (float(part) for part in name.split("-"))
    except ValueError:
        z = y = x = math.nan
    if not all(math.isfinite(size) and size > 0 for size in (z, y, x)):
        raise VolumeError(f"Spacing {name!r} is not Z-Y-X in nm, for example 50-10-10.")
    return z, y, x


def fit_chunks(shape: Sequence[int], chunks: Sequence[int]) -> tuple[int, ...]:
    """Return `chunks` cut to `shape`, so that small volumes are not padded."""
    return tuple(max(1, min(int(chunk), int(extent))) for chunk, extent in zip(chunks, shape))


def codec_threads() -> int:
    """Shards that the codec pipeline encodes or decodes at once, in the order in which they come."""
    named = os.environ.get("RAYON_NUM_THREADS", "")
    return int(named) if named.isdecimal() and int(named) else len(os.sched_getaffinity(0))


def _in_flight_bytes(shape: Sequence[int], shards: Sequence[int], dtype: Any) -> int:
    """Raw bytes of the shards of a region that are handled at once."""
    cut = [min(shard, extent) for shard, extent in zip(shards, shape, strict=True)]
    count = math.prod(-(-extent // shard) for shard, extent in zip(cut, shape))
    return min(count, codec_threads()) * math.prod(cut) * np.dtype(dtype).itemsize


def reading_buffer_bytes(
    shape: Sequence[int], shards: Sequence[int], dtype: Any, encoded: float = 1.0
) -> int:
    """Estimate what reading a region takes beside its voxels: whole shards as they are stored.

    Parameters
    ----------
    shape : sequence of int
        Of the region, voxels (Z, Y, X).
    shards : sequence of int
        Of the array.
    dtype : dtype-like
        Of the array.
    encoded : float
        Bytes stored a byte of voxels, at the most.
    """
    return int(encoded * _in_flight_bytes(shape, shards, dtype))


def region_buffer_bytes(
    shape: Sequence[int],
    extent: Sequence[int],
    shards: Sequence[int],
    chunks: Sequence[int],
    dtype: Any,
) -> int:
    """Estimate what reading a region takes beside its voxels, wherever in the array it lies.

    A shard that the region holds whole is read whole, as it is stored; of one that it cuts, a chunk at a time
    is read and decoded.

    Parameters
    ----------
    shape : sequence of int
        Of the region, voxels (Z, Y, X).
    extent, shards, chunks : sequence of int
        Of the array, its shards and its chunks.
    dtype : dtype-like
        Of the array.
    """
    whole = []
    for size, total, shard in zip(shape, extent, shards, strict=True):
        last = total % shard or shard
        whole.append(shard if size >= shard else last if size >= last else 0)
    if all(whole):
        return reading_buffer_bytes(shape, whole, dtype)
    return 2 * codec_threads() * math.prod(chunks) * np.dtype(dtype).itemsize


def writing_buffer_bytes(
    shape: Sequence[int], shards: Sequence[int], dtype: Any, encoded: float = 1.0
) -> int:
    """Estimate what writing a region takes beside its voxels: whole shards, raw and as they are stored.

    Parameters are those of :func:`reading_buffer_bytes`.
    """
    return int((1 + encoded) * _in_flight_bytes(shape, shards, dtype))


def default_shards(shape: Sequence[int], dtype: Any, chunks: Sequence[int]) -> tuple[int, ...]:
    """Choose a shard: whole chunks, whole planes if they fit, at most 64 MiB of raw voxels.

    It grows along X, then Y, then Z, so that a slab of slices is few files; along Z it leaves at
    least 16 layers where chunks allow, so that small stacks can be shared out too. One chunk is the least.

    Parameters
    ----------
    shape, chunks : sequence of int
        Voxels (Z, Y, X).
    dtype : dtype-like
        Type of the voxels.

    Returns
    -------
    tuple of int
        Multiple of `chunks` along each axis.
    """
    counts = [-(-int(extent) // int(chunk)) for extent, chunk in zip(shape, chunks)]
    counts[0] = -(-counts[0] // LAYERS)
    budget = SHARD_BYTES // (math.prod(int(chunk) for chunk in chunks) * np.dtype(dtype).itemsize)
    taken = [1] * len(counts)
    for axis in reversed(range(len(counts))):
        taken[axis] = max(1, min(counts[axis], budget))
        budget //= taken[axis]
    return tuple(n * int(chunk) for n, chunk in zip(taken, chunks))
