"""MRC volumes (MRC2014, CCP4 maps, IMOD stacks), plain and compressed.

Source: Cheng et al. 2015, "MRC2014", J. Struct. Biol. 192, 146-150,
https://doi.org/10.1016/j.jsb.2015.04.002. Signedness of 8-bit files: "MRC/REC Image File Format" in the
IMOD documentation, https://bio3d.colorado.edu/imod/doc/mrc_format.txt.
"""

from __future__ import annotations

import bz2
import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from mrcfile.dtypes import HEADER_DTYPE
from mrcfile.utils import dtype_from_mode, spacegroup_is_volume_stack

from cytomill.storage.errors import VolumeError
from cytomill.storage.files import ByteFile
from cytomill.storage.length_units import voxel_size
from cytomill.storage.raw_volume import RawVolume
from cytomill.storage.stream_volume import StreamVolume, read_exactly
from cytomill.storage.volumes import Volume

NM_PER_ANGSTROM = 0.1

_IMOD_STAMP = 1146047817
_IMOD_STAMP_OFFSET = 152
_SIGNED_BYTES_FLAG = 1


@dataclass(frozen=True)
class _Layout:
    """Where the voxels of an MRC file are, and what they are."""

    shape: tuple[int, int, int]
    order: tuple[int, int, int]
    dtype: np.dtype
    data_offset: int
    voxel_size_nm: tuple[float, float, float] | None

    @property
    def plane_bytes(self) -> int:
        rows, columns = (self.shape[axis] for axis in self.order[1:])
        return rows * columns * self.dtype.itemsize

    @property
    def planes(self) -> int:
        return self.shape[self.order[0]]


def _plausible(header: np.ndarray) -> bool:
    extents = [int(header[name]) for name in ("nx", "ny", "nz")]
    return 0 <= int(header["mode"]) <= 127 and all(0 < extent < 2**24 for extent in extents)


def _parse_header(path: Path, raw: bytes) -> _Layout:
    """Read the fixed header of 1024 bytes.

    The byte order is the one in which mode and extents make sense: machine stamps are often wrong.
    """
    for byte_order in "<>":
        header = np.frombuffer(raw, HEADER_DTYPE.newbyteorder(byte_order))[0]
        if _plausible(header):
            break
    else:
        raise VolumeError(f"{path} is named as MRC, but its first 1024 bytes are no MRC header.")
    mode = int(header["mode"])
    try:
        dtype = dtype_from_mode(mode).newbyteorder(byte_order)
    except ValueError as error:
        raise VolumeError(
            f"{path} is MRC of mode {mode}; modes 0, 1, 2, 4, 6 and 12 can be read: convert it."
        ) from error
    if mode == 0 and not _bytes_are_signed(raw, byte_order, header):
        dtype = np.dtype(np.uint8)
    volumes = int(header["nz"]) // max(1, int(header["mz"]))
    if spacegroup_is_volume_stack(int(header["ispg"])) and volumes > 1:
        raise VolumeError(f"{path} is a stack of {volumes} MRC volumes; give one volume a file.")
    extended = int(header["nsymbt"])
    if extended < 0:
        raise VolumeError(
            f"{path} says that its extended header has {extended} bytes; the header is damaged."
        )

    # Columns, rows and sections are usually X, Y, Z; maps of crystals are often turned.
    turned = tuple(int(header[name]) for name in ("maps", "mapr", "mapc"))
    if sorted(turned) != [1, 2, 3]:
        turned = (3, 2, 1)
    order = tuple(3 - axis for axis in turned)
    stored = tuple(int(header[name]) for name in ("nz", "ny", "nx"))
    shape = tuple(stored[order.index(axis)] for axis in range(3))
    sizes = {}
    for axis in "xyz":
        intervals, cell = int(header[f"m{axis}"]), float(header["cella"][axis])
        # The cell is float32: more digits than that are noise.
        sizes[axis] = float(f"{cell / intervals * NM_PER_ANGSTROM:.6g}") if intervals > 0 else None
    return _Layout(shape, order, dtype, 1024 + extended, voxel_size(sizes, is_plane=shape[0] == 1))


def _bytes_are_signed(raw: bytes, byte_order: str, header: np.ndarray) -> bool:
    """Whether mode 0 is int8 (as MRC2014 has it) rather than uint8 (as IMOD and old files may have it)."""
    stamp, flags = np.frombuffer(raw, f"{byte_order}i4", 2, _IMOD_STAMP_OFFSET)
    if stamp == _IMOD_STAMP:
        return bool(flags & _SIGNED_BYTES_FLAG)
    return not (float(header["dmin"]) >= 0 and 127 < float(header["dmax"]) <= 255)


def open_mrc(path: Path) -> Volume:
    """Open an uncompressed MRC file; raises :class:`VolumeError` if it is damaged or truncated."""
    file = ByteFile(path)
    try:
        file.require(1024, "an MRC header")
        raw = file.read(0, 1024)
        layout = _parse_header(path, raw)
        size = layout.data_offset + layout.planes * layout.plane_bytes
        file.require(size, f"an MRC volume of {layout.shape} {layout.dtype.newbyteorder('=')}")
        raw += file.read(1024, layout.data_offset - 1024)
        offsets = layout.data_offset + np.arange(layout.planes, dtype=np.int64) * layout.plane_bytes
        plane = tuple(layout.shape[axis] for axis in layout.order[1:])
        return RawVolume(file, "MRC", offsets, plane, layout.dtype, layout.voxel_size_nm, raw, layout.order)
    except BaseException:
        file.close()
        raise


class CompressedMrcVolume(StreamVolume):
    """An MRC volume in a gzip or bzip2 stream."""

    def __init__(self, path: Path) -> None:
        raw = np.empty(1024, np.uint8)
        with _decompress(path) as stream:
            read_exactly(stream, raw, path)
        layout = _parse_header(path, raw.tobytes())
        super().__init__(
            path, "MRC", layout.shape, layout.dtype, layout.voxel_size_nm, raw.tobytes(), layout.order
        )
        self._data_offset = layout.data_offset

    @contextmanager
    def _stream(self) -> Iterator[BinaryIO]:
        with _decompress(self.path) as stream:
            read_exactly(stream, np.empty(self._data_offset, np.uint8), self.path)
            yield stream


def _decompress(path: Path) -> BinaryIO:
    with ByteFile(path) as file:
        is_gzip = file.read(0, 2) == b"\x1f\x8b"
    return gzip.open(path) if is_gzip else bz2.open(path)


def open_compressed_mrc(path: Path) -> Volume:
    """Open an MRC file compressed by gzip or bzip2; raises :class:`VolumeError` if it is no such file."""
    return CompressedMrcVolume(path)
