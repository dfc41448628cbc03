"""Volumes whose voxels lie uncompressed in one file: MRC, NPY and contiguous TIFF."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cytomill.kernels.blocks import Region, region_shape
from cytomill.storage.files import ByteFile, crc32c
from cytomill.storage.volumes import Volume

#: Rows are read in blocks of this size when only part of each is wanted.
BLOCK_BYTES = 4 * 2**20


def to_native(array: np.ndarray) -> np.ndarray:
    """Return `array` in native byte order, swapping in place if need be."""
    if array.dtype.isnative:
        return array
    return array.byteswap(inplace=True).view(array.dtype.newbyteorder("="))


def read_planes(
    file: ByteFile, offsets: np.ndarray, plane_shape: Sequence[int], dtype: np.dtype, region: Region
) -> np.ndarray:
    """Read a region of planes of raw voxels.

    Parameters
    ----------
    file : ByteFile
        The file.
    offsets : (Z,) int ndarray
        Where each plane starts, bytes.
    plane_shape : (int, int)
        Rows and columns of a plane, C order.
    dtype : numpy.dtype
        Type as stored, of either byte order.
    region : Region
        Ranges of planes, rows and columns.

    Returns
    -------
    ndarray
        C-contiguous, native-endian.
    """
    (z0, z1), (y0, y1), (x0, x1) = region
    out = np.empty(region_shape(region), dtype)
    row_bytes = plane_shape[1] * dtype.itemsize
    if x1 - x0 == plane_shape[1]:
        for plane, offset in zip(out, offsets[z0:z1]):
            file.read_into(int(offset) + y0 * row_bytes, plane)
        return to_native(out)
    rows_a_block = max(1, BLOCK_BYTES // row_bytes)
    block = np.empty((min(rows_a_block, y1 - y0), plane_shape[1]), dtype)
    for plane, offset in zip(out, offsets[z0:z1]):
        for first in range(y0, y1, rows_a_block):
            rows = block[: min(rows_a_block, y1 - first)]
            file.read_into(int(offset) + first * row_bytes, rows)
            plane[first - y0 : first - y0 + len(rows)] = rows[:, x0:x1]
    return to_native(out)


class RawVolume(Volume):
    """Planes of raw voxels in one file.

    Parameters
    ----------
    file : ByteFile
        The open file, whose size has been checked; closed with the volume.
    format : str
        Name of the format.
    offsets : (N,) int ndarray
        Where each plane starts, bytes.
    plane_shape : (int, int)
        Rows and columns of a plane as stored.
    dtype : numpy.dtype
        Type as stored, of either byte order.
    voxel_size_nm : tuple of float or None
        (Z, Y, X) in nm.
    header : bytes
        What the file says about itself; its CRC is part of the identity.
    order : (int, int, int)
        Which of Z, Y, X (0, 1, 2) each axis as stored is: (2, 1, 0) in Fortran order.
    """

    def __init__(
        self,
        file: ByteFile,
        format: str,
        offsets: np.ndarray,
        plane_shape: Sequence[int],
        dtype: np.dtype,
        voxel_size_nm: tuple[float, float, float] | None,
        header: bytes,
        order: tuple[int, int, int] = (0, 1, 2),
    ) -> None:
        stored = (len(offsets), *plane_shape)
        self._file = file
        self._offsets = offsets
        self._plane_shape = tuple(plane_shape)
        self._stored_dtype = dtype
        self._order = order
        self._positions = tuple(order.index(axis) for axis in range(3))
        self._header_crc32c = crc32c(header)
        self.path = Path(file.path)
        self.format = format
        self.shape = tuple(int(stored[position]) for position in self._positions)
        self.dtype = dtype.newbyteorder("=")
        self.voxel_size_nm = voxel_size_nm
        least = (1, *plane_shape)
        self.chunks = tuple(int(least[position]) for position in self._positions)

    def identity(self) -> dict[str, Any]:
        return {
            "size": self._file.size,
            "mtime_ns": self._file.mtime_ns,
            "header_crc32c": self._header_crc32c,
        }

    def _read(self, region: Region) -> np.ndarray:
        stored_region = tuple(region[axis] for axis in self._order)
        stored = read_planes(self._file, self._offsets, self._plane_shape, self._stored_dtype, stored_region)
        return np.ascontiguousarray(stored.transpose(self._positions))

    def reading_bytes(self, shape: Sequence[int]) -> int:
        # Axes that are stored in another order are put right by a copy.
        return super().reading_bytes(shape) * (1 if self._order == (0, 1, 2) else 2)

    def close(self) -> None:
        self._file.close()
