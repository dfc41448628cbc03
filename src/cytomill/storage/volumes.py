"""Opening image volumes where they lie: lazy, (Z, Y, X), whatever the format."""

from __future__ import annotations

import glob
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

from cytomill.kernels.blocks import Region
from cytomill.storage.errors import VolumeError
from cytomill.storage.files import ByteFile
from cytomill.storage.regions import complete_region

__all__ = ["Selector", "Volume", "VolumeError", "open_volume", "parse_selector"]


class Volume(ABC):
    """A readable three-dimensional image.

    Attributes
    ----------
    path : Path
        The file or folder.
    format : str
        ``"MRC"``, ``"TIFF"``, ``"NPY"``, ``"NPZ"``, ``"HDF5"`` or ``"OME-Zarr"``.
    shape : tuple of int
        Voxels (Z, Y, X); a single plane has Z = 1.
    dtype : numpy.dtype
        Native-endian type of what :meth:`read` returns.
    voxel_size_nm : tuple of float or None
        Voxel size (Z, Y, X) in nm, None where the file does not state all of it. A single plane
        has no spacing of its own along Z; its size along Y is repeated.
    chunks : tuple of int
        What is read at the least, (Z, Y, X): reading less costs as much.
    region_readable : bool
        False where every read starts at the beginning of a stream (gz, bz2, NPZ).
    """

    path: Path
    format: str
    shape: tuple[int, int, int]
    dtype: np.dtype
    voxel_size_nm: tuple[float, float, float] | None
    chunks: tuple[int, int, int]
    region_readable: bool = True

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What tells a changed file, without reading the voxels: sizes, times, CRC-32C of the metadata."""

    @abstractmethod
    def _read(self, region: Region) -> np.ndarray:
        """Return a fresh C-contiguous native-endian array of the region."""

    def read(self, region: Region | None = None) -> np.ndarray:
        """Read a region into a fresh C-contiguous, native-endian array. Threads may read at once.

        Parameters
        ----------
        region : tuple of (int, int), or None
            Half-open ranges along Z[, Y[, X]]; axes left out are whole.

        Raises
        ------
        ValueError
            If the region is empty or leaves the volume.
        VolumeError
            If the file is damaged or has changed.
        """
        return self._read(complete_region(region, self.shape))

    def reading_bytes(self, shape: Sequence[int]) -> int:
        """Estimate the peak memory of reading a region of this shape, the voxels returned included."""
        return math.prod(shape) * self.dtype.itemsize

    def slabs(self, depth: int) -> Iterator[tuple[int, np.ndarray]]:
        """Yield ``(first z, slab)`` from first to last slice, `depth` slices at a time."""
        for start in range(0, self.shape[0], depth):
            yield start, self.read(((start, min(start + depth, self.shape[0])),))

    @abstractmethod
    def close(self) -> None:
        """Close the files; reading afterwards is an error."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


@dataclass(frozen=True)
class Selector:
    """What follows ``::`` in a volume's path, for example ``::/exported_data,c=1``.

    Parameters
    ----------
    inner : str or None
        Path of an array inside the file or store.
    indices : mapping of str to int
        Index along an axis that is not Z, Y or X (``c``, ``t``, ``s``), or of the ``series`` of a TIFF.
    axes : str or None
        Names of the axes in order, where the file does not say (``axes=zyxc``).
    """

    inner: str | None = None
    indices: Mapping[str, int] = field(default_factory=dict)
    axes: str | None = None


def parse_selector(text: str) -> tuple[str, Selector]:
    """Split ``path::selector`` into the path and the selector.

    Raises
    ------
    VolumeError
        If the selector cannot be understood.
    """
    if "::" not in text or os.path.exists(text):
        return text, Selector()
    path, _, tail = text.partition("::")
    inner, indices, axes = None, {}, None
    for part in filter(None, tail.split(",")):
        key, equals, value = part.partition("=")
        if not equals:
            inner = part
        elif key == "axes" and value.isalpha():
            axes = value.lower()
        elif value.isdecimal():
            indices[key.lower()] = int(value)
        else:
            raise VolumeError(f"Selector {part!r} of {text} is not axis=index, for example c=0.")
    return path, Selector(inner, indices, axes)


_MRC_SUFFIXES = (".mrc", ".mrcs", ".map", ".rec", ".st", ".ali", ".ccp4")
_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def _format_of(path: Path) -> str:
    """Tell the format of a file from its first bytes, or from its name where these say nothing."""
    with ByteFile(path) as file:
        start = file.read(0, min(file.size, 512))
    if start[:4] in _TIFF_MAGIC:
        return "tiff"
    if start[:6] == b"\x93NUMPY":
        return "npy"
    if start[:8] == b"\x89HDF\r\n\x1a\n":
        return "hdf5"
    if start[:2] == b"\x1f\x8b" or start[:3] == b"BZh":
        return "compressed mrc"
    if start[:4] == b"PK\x03\x04":
        return "npz" if path.suffix.lower() == ".npz" else "zarr"
    if path.name.lower().endswith(".companion.ome"):
        return "tiff"
    if start[208:212] == b"MAP " or path.suffix.lower() in _MRC_SUFFIXES:
        return "mrc"
    found = f"a file that starts with {start[:8]!r}" if start else "an empty file"
    raise VolumeError(
        f"{path} is no volume that can be read: expected MRC, TIFF, NPY, NPZ, HDF5 or OME-Zarr, "
        f"found {found}."
    )


def open_volume(path: str | os.PathLike) -> Volume:
    """Open a volume; voxels are read when asked for, and the file is never changed.

    Parameters
    ----------
    path : str or path-like
        MRC (``.mrc``, ``.map``, ``.rec``, ``.st``, also ``.gz`` and ``.bz2``), TIFF (OME, ImageJ, BigTIFF,
        multi-page; a folder or a pattern of files of one page each), NPY, NPZ, HDF5, OME-Zarr 0.4 and
        0.5 (folder or zip). ``::`` starts a selector: ``a.h5::/raw``, ``a.npz::key``,
        ``a.zarr::/images/50-10-10``, ``a.ome.tif::c=0,t=0``, ``a.npy::axes=czyx,c=1``.

    Raises
    ------
    VolumeError
        If the file is missing, truncated, of another kind, or not one volume; one sentence.
    """
    text, selector = parse_selector(os.fspath(path))
    try:
        return _open(text, selector)
    except (VolumeError, MemoryError):
        raise
    except Exception as error:  # on damaged headers the formats' parsers raise whatever comes their way
        reason = " ".join(str(error).split()) or type(error).__name__
        raise VolumeError(f"{text} is damaged, or not what its format asks for ({reason}).") from error


def _open(text: str, selector: Selector) -> Volume:
    # Each format's library is loaded when a file needs it: importing them all takes a second.
    if not os.path.exists(text) and glob.has_magic(text):
        from cytomill.storage.tiff_volume import open_tiff_files

        return open_tiff_files(Path(text), sorted(map(Path, glob.glob(text))), selector)
    if os.path.isdir(text):
        return _open_folder(Path(text), selector)
    file = Path(text)
    kind = _format_of(file)
    if kind in ("mrc", "compressed mrc"):
        from cytomill.storage.mrc_volume import open_compressed_mrc, open_mrc

        return open_mrc(file) if kind == "mrc" else open_compressed_mrc(file)
    if kind == "tiff":
        from cytomill.storage.tiff_volume import open_tiff

        return open_tiff(file, selector)
    if kind in ("npy", "npz"):
        from cytomill.storage.npy_volume import open_npy, open_npz

        return open_npy(file, selector) if kind == "npy" else open_npz(file, selector)
    if kind == "hdf5":
        from cytomill.storage.hdf5_volume import open_hdf5

        return open_hdf5(file, selector)
    from cytomill.storage.zarr_volume import open_zarr

    return open_zarr(file, selector)


def _open_folder(folder: Path, selector: Selector) -> Volume:
    from cytomill.storage.tiff_volume import TIFF_SUFFIXES, open_tiff_files
    from cytomill.storage.zarr_volume import is_zarr, open_zarr

    if is_zarr(folder):
        return open_zarr(folder, selector)
    files = [entry for entry in folder.iterdir() if entry.suffix.lower() in TIFF_SUFFIXES]
    if not files:
        raise VolumeError(f"Folder {folder} is no OME-Zarr store and holds no TIFF files; name a volume.")
    return open_tiff_files(folder, files, selector)
