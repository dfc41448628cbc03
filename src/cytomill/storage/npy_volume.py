"""NumPy volumes: NPY by region, NPZ as a stream. Object arrays (pickle) are refused."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.lib import format as npy_format

from cytomill.storage.axes import SpatialAxes, find_spatial_axes, guess_axes
from cytomill.storage.errors import VolumeError
from cytomill.storage.files import ByteFile
from cytomill.storage.raw_volume import RawVolume
from cytomill.storage.stream_volume import STREAM_ERRORS, StreamVolume
from cytomill.storage.volumes import Selector, Volume

#: Longer headers than this are not plain arrays.
HEADER_BYTES = 64 * 1024


def _parse_header(source: str, start: bytes) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """Return shape, Fortran order, dtype and the voxels' offset, from the first bytes of an NPY file."""
    stream = io.BytesIO(start)
    try:
        version = npy_format.read_magic(stream)
        if version == (1, 0):
            shape, fortran, dtype = npy_format.read_array_header_1_0(stream)
        elif version == (2, 0):
            shape, fortran, dtype = npy_format.read_array_header_2_0(stream)
        else:
            shape, fortran, dtype = _read_header_3(stream, version)
    except ValueError as error:
        raise VolumeError(f"{source} has no valid NPY header ({error}).") from error
    if dtype.kind not in "biufc":
        raise VolumeError(f"{source} holds {dtype}, which is no number: save a plain array of numbers.")
    return shape, fortran, dtype, stream.tell()


def _read_header_3(stream: BinaryIO, version: tuple[int, int]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Read the header of version 3.0, which is that of 2.0 in UTF-8 instead of Latin-1."""
    if version != (3, 0):
        raise ValueError(f"version {version} is not known")
    length = int.from_bytes(stream.read(4), "little")
    text = stream.read(length).decode("utf-8").encode("latin-1", "backslashreplace")
    return npy_format.read_array_header_2_0(io.BytesIO(len(text).to_bytes(4, "little") + text))


def _spatial(source: str, shape: tuple[int, ...], selector: Selector) -> SpatialAxes:
    names = selector.axes
    if names is None:
        names, _ = guess_axes(source, shape, f"{source}::axes=czyx,c=0")
    return find_spatial_axes(source, names, shape, selector.indices)


def open_npy(path: Path, selector: Selector) -> Volume:
    """Open an NPY file (versions 1, 2 and 3, C or Fortran order).

    Raises
    ------
    VolumeError
        If the file is damaged or truncated, holds objects, or is not one volume.
    """
    file = ByteFile(path)
    try:
        start = file.read(0, min(file.size, HEADER_BYTES))
        shape, fortran, dtype, data_offset = _parse_header(str(path), start)
        file.require(data_offset + math.prod(shape) * dtype.itemsize, f"an array of {shape} {dtype}")
        axes = _spatial(str(path), shape, selector)
        offsets, plane, order = _planes(str(path), shape, fortran, dtype, axes)
        return RawVolume(file, "NPY", data_offset + offsets, plane, dtype, None, start[:data_offset], order)
    except BaseException:
        file.close()
        raise


def _planes(
    source: str, shape: tuple[int, ...], fortran: bool, dtype: np.dtype, axes: SpatialAxes
) -> tuple[np.ndarray, tuple[int, int], tuple[int, int, int]]:
    """Return where the planes of a volume start in an array, their shape, and the order of their axes."""
    strides = np.cumprod([dtype.itemsize, *(shape if fortran else shape[::-1])])[:-1]
    strides = [int(stride) for stride in (strides if fortran else strides[::-1])]
    base = sum(index * strides[position] for position, index in axes.indices.items())
    extents = axes.pick(shape)
    steps = [0 if position is None else strides[position] for position in axes.positions]
    # A plane is spanned by the two axes that lie closest together; Z of one plane may be anywhere.
    steps[0] = steps[0] or math.prod(shape) * dtype.itemsize
    order = tuple(sorted(range(3), key=lambda axis: (steps[axis], -axis), reverse=True))
    rows, columns = order[1], order[2]
    if steps[columns] != dtype.itemsize or steps[rows] != dtype.itemsize * extents[columns]:
        raise VolumeError(
            f"{source} keeps its planes interleaved along another axis; save the array with axes "
            "(C, Z, Y, X)."
        )
    offsets = base + np.arange(extents[order[0]], dtype=np.int64) * steps[order[0]]
    return offsets, (extents[rows], extents[columns]), order


class NpzVolume(StreamVolume):
    """One array of an NPZ archive."""

    def __init__(self, path: Path, member: str, selector: Selector) -> None:
        source = f"{path}::{member.removesuffix('.npy')}"
        try:
            with zipfile.ZipFile(path) as archive, archive.open(member) as stream:
                start = stream.read(HEADER_BYTES)
                size = archive.getinfo(member).file_size
        except STREAM_ERRORS as error:
            raise VolumeError(f"{path} is truncated or damaged ({error}); copy it again.") from error
        shape, fortran, dtype, self._data_offset = _parse_header(source, start)
        needed = self._data_offset + math.prod(shape) * dtype.itemsize
        if size < needed:
            raise VolumeError(f"{source} holds {size} bytes but an array of {shape} {dtype} needs {needed}.")
        axes = _spatial(source, shape, selector)
        if any(shape[position] > 1 for position in axes.indices):
            raise VolumeError(
                f"{source} has an array of {shape}; of an NPZ file one volume an array can be read."
            )
        _, _, order = _planes(source, shape, fortran, dtype, axes)
        super().__init__(path, "NPZ", axes.pick(shape), dtype, None, start[: self._data_offset], order)
        self._member = member

    @contextmanager
    def _stream(self) -> Iterator[BinaryIO]:
        try:
            archive = zipfile.ZipFile(self.path)
        except STREAM_ERRORS as error:
            raise VolumeError(f"{self.path} is truncated or damaged ({error}); copy it again.") from error
        with archive, archive.open(self._member) as stream:
            stream.read(self._data_offset)
            yield stream


def open_npz(path: Path, selector: Selector) -> Volume:
    """Open one array of an NPZ file: ``file.npz::key``, or the only one.

    Raises
    ------
    VolumeError
        If the archive is damaged or truncated, or it is not clear which array is meant.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = [name for name in archive.namelist() if name.endswith(".npy")]
    except STREAM_ERRORS as error:
        raise VolumeError(f"{path} is truncated or damaged ({error}); copy it again.") from error
    keys = [name.removesuffix(".npy") for name in members]
    key = selector.inner.strip("/") if selector.inner else None
    if key is None and len(keys) == 1:
        key = keys[0]
    if key not in keys:
        raise VolumeError(
            f"{path} holds the arrays {', '.join(keys) or '(none)'}; choose one by adding '::' and its name."
        )
    return NpzVolume(path, f"{key}.npy", selector)
