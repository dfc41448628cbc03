"""Planes of TIFF files: where they are, and decoding the strips or tiles that a region needs.

tifffile parses the files and decodes single segments; bytes are read here by position, so that threads
may read at once and a file cut short gives an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from cytomill.kernels.blocks import Region, region_shape
from cytomill.storage.errors import VolumeError
from cytomill.storage.files import ByteFile
from cytomill.storage.raw_volume import read_planes
from cytomill.storage.volumes import Volume

_JPEG = {6, 7, 33007, 34892}


@dataclass(frozen=True)
class TiffPlane:
    """One plane (Y, X) of a TIFF file.

    Parameters
    ----------
    path : Path
        The file.
    raw_offset : int or None
        Where the plane starts if it lies uncompressed in one piece.
    offsets, counts : int64 ndarray
        Where the segments of its page are and how long, 0 for segments left out; empty where
        `raw_offset` says it all (pages of one row a strip would take hundreds of bytes a row).
    keyframe : tifffile.TiffPage
        A page of the same layout, which knows how to decode a segment.
    jpeg_tables : bytes or None
        Tables shared by the JPEG segments of the page.
    sample : int
        Index among separate or interleaved samples.
    depth : int
        Index in a page of several planes.
    """

    path: Path
    raw_offset: int | None
    offsets: np.ndarray
    counts: np.ndarray
    keyframe: tifffile.TiffPage
    jpeg_tables: bytes | None = None
    sample: int = 0
    depth: int = 0

    @classmethod
    def of_page(cls, path: Path, page: Any, keyframe: Any, sample: int = 0, depth: int = 0) -> TiffPlane:
        """Build the plane of a page (or frame) that tifffile has parsed."""
        tables = page.jpegtables if keyframe.compression in _JPEG else None
        offsets = np.asarray(page.dataoffsets, np.int64)
        counts = np.asarray(page.databytecounts, np.int64)
        _, layers, rows, columns, interleaved = keyframe.shaped
        raw_offset = None
        if keyframe.is_final and interleaved == 1 and (offsets[:-1] + counts[:-1] == offsets[1:]).all():
            plane_bytes = rows * columns * np.dtype(keyframe.dtype).itemsize
            raw_offset = int(offsets[0]) + (sample * layers + depth) * plane_bytes
            offsets = counts = offsets[:0]
        plane = cls(path, raw_offset, offsets, counts, keyframe, tables, sample, depth)
        if raw_offset is None and not plane._segments == len(offsets) == len(counts):
            raise VolumeError(
                f"{path} is damaged: a page lists {len(offsets)} strips or tiles, not all it needs."
            )
        return plane

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return int(self.keyframe.imagelength), int(self.keyframe.imagewidth)

    @property
    def stored_dtype(self) -> np.dtype:
        """Type as stored."""
        return np.dtype(self.keyframe.dtype).newbyteorder(self.keyframe.parent.byteorder)

    @property
    def end(self) -> int:
        """Bytes that the file must have."""
        if self.raw_offset is not None:
            return self.raw_offset + self.shape[0] * self.shape[1] * self.stored_dtype.itemsize
        return int((self.offsets + self.counts).max())

    @property
    def segment_shape(self) -> tuple[int, int]:
        """Rows and columns of a strip or tile."""
        frame = self.keyframe
        if frame.is_tiled:
            return int(frame.tilelength), int(frame.tilewidth)
        return min(int(frame.rowsperstrip), self.shape[0]), self.shape[1]

    @property
    def _segments(self) -> int:
        """How many strips or tiles the page must have."""
        separate, depth, rows, columns, _ = self.keyframe.shaped
        height, width = self.segment_shape
        deep = int(self.keyframe.tiledepth) if self.keyframe.is_tiled else 1
        if min(deep, height, width) < 1:
            return 0
        return separate * -(-depth // deep) * -(-rows // height) * -(-columns // width)

    def _segment_index(self, row: int, column: int) -> int:
        frame = self.keyframe
        separate, depth, rows, columns, _ = frame.shaped
        height, width = self.segment_shape
        deep = int(frame.tiledepth) if frame.is_tiled else 1
        sample = self.sample if separate > 1 else 0
        layer = sample * -(-depth // deep) + self.depth // deep
        return (layer * -(-rows // height) + row) * -(-columns // width) + column

    def decode_into(
        self, file: ByteFile, target: np.ndarray, rows: Sequence[int], columns: Sequence[int]
    ) -> None:
        """Decode the segments that a region touches, and copy it into `target`."""
        height, width = self.segment_shape
        frame = self.keyframe
        jpeg = {}
        if frame.compression in _JPEG:
            jpeg = {"jpegtables": self.jpeg_tables, "jpegheader": frame.jpegheader}
        for row in range(rows[0] // height, -(-rows[1] // height)):
            for column in range(columns[0] // width, -(-columns[1] // width)):
                top, left = row * height, column * width
                part = target[
                    max(0, top - rows[0]) : top + height - rows[0],
                    max(0, left - columns[0]) : left + width - columns[0],
                ]
                index = self._segment_index(row, column)
                if not self.counts[index]:
                    part[...] = frame.nodata
                    continue
                encoded = file.read(int(self.offsets[index]), int(self.counts[index]))
                try:
                    segment, position, _ = frame.decode(encoded, index, **jpeg)
                    plane = segment[
                        self.depth - position[1], :, :, self.sample if segment.shape[3] > 1 else 0
                    ]
                except MemoryError:
                    raise
                except Exception as error:  # codecs share no base class for what they raise
                    raise VolumeError(
                        f"{self.path} is damaged: the strip or tile at byte {self.offsets[index]} cannot be "
                        f"decoded ({error})."
                    ) from error
                y, x = max(0, rows[0] - top), max(0, columns[0] - left)
                source = plane[y : y + part.shape[0], x : x + part.shape[1]]
                if source.shape != part.shape:
                    raise VolumeError(
                        f"{self.path} is damaged: a strip or tile is shorter than it should be."
                    )
                part[...] = source


class TiffVolume(Volume):
    """Planes of one or many TIFF files, compressed or not.

    Parameters
    ----------
    path : Path
        What the user named.
    planes : sequence of TiffPlane
        In the order of Z, all of one shape and type.
    voxel_size_nm : tuple of float or None
        (Z, Y, X) in nm.
    identity : dict
        What tells a changed file.
    """

    format = "TIFF"

    def __init__(
        self,
        path: Path,
        planes: Sequence[TiffPlane],
        voxel_size_nm: tuple[float, float, float] | None,
        identity: dict[str, Any],
    ) -> None:
        self.path = path
        self._planes = list(planes)
        self._identity = identity
        self.shape = (len(planes), *planes[0].shape)
        self.dtype = planes[0].stored_dtype.newbyteorder("=")
        self.voxel_size_nm = voxel_size_nm
        raw = all(plane.raw_offset is not None for plane in planes)
        self.chunks = (1, *(planes[0].shape if raw else planes[0].segment_shape))
        one_file = len({plane.path for plane in planes}) == 1
        # Many files are opened when they are read: a stack may have more of them than a process may open.
        self._file = ByteFile(planes[0].path) if one_file else None

    def identity(self) -> dict[str, Any]:
        return dict(self._identity)

    def _read(self, region: Region) -> np.ndarray:
        out = np.empty(region_shape(region), self.dtype)
        for target, plane in zip(out, self._planes[region[0][0] : region[0][1]]):
            if self._file is not None:
                self._read_plane(self._file, plane, target, region)
            else:
                with ByteFile(plane.path) as file:
                    self._read_plane(file, plane, target, region)
        return out

    def _read_plane(self, file: ByteFile, plane: TiffPlane, target: np.ndarray, region: Region) -> None:
        if plane.raw_offset is None:
            plane.decode_into(file, target, *region[1:])
            return
        inside = ((0, 1), *region[1:])
        target[...] = read_planes(
            file, np.array([plane.raw_offset]), plane.shape, plane.stored_dtype, inside
        )[0]

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
