"""Volumes that can be read from the beginning only: compressed MRC, NPZ."""

from __future__ import annotations

import zipfile
import zlib
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from cytomill.kernels.blocks import Region, region_shape
from cytomill.storage.errors import VolumeError
from cytomill.storage.files import ByteFile, crc32c
from cytomill.storage.raw_volume import BLOCK_BYTES, to_native
from cytomill.storage.volumes import Volume

#: What the decompressors raise for a stream that is cut short or damaged.
STREAM_ERRORS = (EOFError, OSError, zlib.error, zipfile.BadZipFile, NotImplementedError)


def read_exactly(stream: BinaryIO, target: np.ndarray, path: Path) -> None:
    """Fill a C-contiguous array from a stream.

    Raises
    ------
    VolumeError
        If the stream ends before, or is damaged.
    """
    left = memoryview(target.reshape(-1).view(np.uint8))
    try:
        while left:
            count = stream.readinto(left[:BLOCK_BYTES])
            if not count:
                raise EOFError(f"{len(left)} bytes are missing at its end")
            left = left[count:]
    except STREAM_ERRORS as error:
        raise VolumeError(f"{path} is truncated or damaged ({error}); copy it again.") from error


class StreamVolume(Volume):
    """A volume in a compressed stream: every read decompresses from the beginning.

    Subclasses say how to open the stream at the first voxel. Memory is bounded by what is asked for.

    Parameters
    ----------
    path : Path
        The file.
    format : str
        Name of the format.
    shape : (int, int, int)
        (Z, Y, X).
    dtype : numpy.dtype
        Type as stored, of either byte order.
    voxel_size_nm : tuple of float or None
        (Z, Y, X) in nm.
    header : bytes
        What the file says about itself.
    order : (int, int, int)
        Which of Z, Y, X (0, 1, 2) each axis as stored is.
    """

    region_readable = False

    def __init__(
        self,
        path: Path,
        format: str,
        shape: tuple[int, int, int],
        dtype: np.dtype,
        voxel_size_nm: tuple[float, float, float] | None,
        header: bytes,
        order: tuple[int, int, int] = (0, 1, 2),
    ) -> None:
        self.path = path
        self.format = format
        self.shape = shape
        self.dtype = dtype.newbyteorder("=")
        self.voxel_size_nm = voxel_size_nm
        self.chunks = shape
        self._stored_dtype = dtype
        self._order = order
        self._header_crc32c = crc32c(header)
        with ByteFile(path) as file:
            self._size, self._mtime_ns = file.size, file.mtime_ns

    @abstractmethod
    def _stream(self) -> AbstractContextManager[BinaryIO]:
        """Open the stream, at the first voxel."""

    def identity(self) -> dict[str, Any]:
        return {"size": self._size, "mtime_ns": self._mtime_ns, "header_crc32c": self._header_crc32c}

    def _planes(self) -> Iterator[np.ndarray]:
        """Yield the planes as stored, in a buffer that is used again."""
        stored = tuple(self.shape[axis] for axis in self._order)
        plane = np.empty(stored[1:], self._stored_dtype)
        with self._stream() as stream:
            for _ in range(stored[0]):
                read_exactly(stream, plane, self.path)
                yield plane
            # The checksum of the stream comes after its last byte, and is looked at only there.
            try:
                while stream.read(BLOCK_BYTES):
                    pass
            except STREAM_ERRORS as error:
                raise VolumeError(f"{self.path} is truncated or damaged ({error}); copy it again.") from error

    def _read(self, region: Region) -> np.ndarray:
        first, rows, columns = (region[axis] for axis in self._order)
        out = np.empty(region_shape(region), self._stored_dtype)
        target = out.transpose(self._order)
        for number, plane in enumerate(self._planes()):
            if number >= first[1]:
                break
            if number >= first[0]:
                target[number - first[0]] = plane[rows[0] : rows[1], columns[0] : columns[1]]
        return to_native(out)

    def slabs(self, depth: int) -> Iterator[tuple[int, np.ndarray]]:
        if self._order[0] != 0:  # Z is not the slowest axis: one pass over the stream a slab
            yield from super().slabs(depth)
            return
        planes = self._planes()
        for start in range(0, self.shape[0], depth):
            slab = np.empty((min(depth, self.shape[0] - start), *self.shape[1:]), self._stored_dtype)
            target = slab.transpose(self._order)
            for number in range(len(slab)):
                target[number] = next(planes)
            if start + depth >= self.shape[0]:
                next(planes, None)
            yield start, to_native(slab)
            # The next one is made only once this one is gone.
            del slab, target

    def close(self) -> None:
        """Nothing is kept open between reads."""
