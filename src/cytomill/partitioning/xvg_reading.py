"""XVG files of partition coordinates, read as streams: any of the layouts that exist.

Two layouts of ``{dataid}_partition_coords.xvg`` exist: the documented one (columns x y z id) and that of
the published reference (columns z y x id under an XVG header); :mod:`cytomill.partitioning.xvg_writing`
writes both.  An older pipeline wrote files without a header: one a shell surface (z y x), edges (z y x) and
NE-PM pairs (two points a line).
"""

from __future__ import annotations

import gzip
import logging
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from cytomill.partitioning.coordinates import PartitionCoordinates
from cytomill.partitioning.xvg_text import BAD_WIDTH, PARSED, parse_rows

log = logging.getLogger(__name__)

#: Bytes read at a time.
BLOCK_BYTES = 4 * 2**20

DOCUMENTED, REFERENCE = "documented", "reference"
SHELLS, NE_EDGE, PM_EDGE, PAIRS = "older shells", "older NE edge", "older PM edge", "older NE-PM pairs"
#: Surfaces that the older pipeline cut a pair into, at t = k/7.
OLDER_INTERVALS = 7


@dataclass
class Header:
    """What the head of a file, or its name, says; the voxel size is (Z, Y, X), the shells their number."""

    layout: str
    dataid: str = ""
    voxel_size_nm: tuple[float, float, float] | None = None
    shells: int | None = None


def _opened(path: Path) -> IO[bytes]:
    file = open(path, "rb")
    if file.read(2) == b"\x1f\x8b":
        file.close()
        return gzip.open(path, "rb")
    file.seek(0)
    return file


def _read_header(path: Path, start: bytes) -> Header:
    lines = [line.decode("utf-8", "replace") for line in start.splitlines()[:64] if line[:1] in (b"#", b"@")]
    text = "\n".join(lines)
    told = re.search(r"^# Contains 3D coordinates \(z, y, x\)", text, re.M)
    if told or any(line.startswith("@") for line in lines):
        found = re.search(r"data ID (.*)$", text, re.M)
        return Header(REFERENCE, found[1].strip() if found else "")
    if lines:
        dataid = re.search(r"^# Partition coordinates for (.*)$", text, re.M)
        size = re.search(r"^# Voxel size \(x y z\): (\S+) (\S+) (\S+) nm", text, re.M)
        shells = re.search(r"^# Shells: (\d+)$", text, re.M)
        return Header(
            DOCUMENTED,
            dataid[1].strip() if dataid else "",
            tuple(float(length) for length in reversed(size.groups())) if size else None,
            int(shells[1]) if shells else None,
        )
    first = start.split(b"\n", 1)[0].split()
    name = path.name
    if len(first) == 6 or "_pair_" in name:
        return Header(PAIRS)
    if len(first) == 3:
        return Header(NE_EDGE if "ne_index" in name else PM_EDGE if "pm_index" in name else SHELLS)
    return Header(DOCUMENTED)


def read_blocks(path: str | os.PathLike) -> Iterator[tuple[Header, np.ndarray]]:
    """Yield the head and the rows of a file, a few megabytes at a time.

    Parameters
    ----------
    path : path-like
        Any of the layouts, also compressed by gzip.

    Yields
    ------
    Header
        The same for all blocks.
    (N, 3), (N, 4) or (N, 6) float64 ndarray
        Columns as they stand in the file.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If a line is no row of numbers; the sentence names it.
    """
    path = Path(path)
    header: Header | None = None
    lines, width, rest = 0, 0, b""
    with _opened(path) as file:
        while True:
            try:
                block = file.read(BLOCK_BYTES)
            except (OSError, EOFError) as error:
                raise ValueError(f"{path} is damaged ({error}): copy it again") from error
            text = rest + block if block else rest + b"\n" if rest else b""
            cut = text.rfind(b"\n") + 1
            text, rest = text[:cut], text[cut:]
            if header is None and (text or not block):
                header = _read_header(path, text)
            if text:
                rows, passed, status = parse_rows(text, width)
                lines += passed
                if status != PARSED:
                    line = text.splitlines()[passed - 1][:80].decode("utf-8", "replace")
                    reason = (
                        f"{len(line.split())} columns where {width or rows.shape[1] or '3 to 6'} are expected"
                        if status == BAD_WIDTH
                        else "no plain number"
                    )
                    raise ValueError(f"{path}, line {lines}: {reason} in {line!r}; is the file cut short?")
                width = width or rows.shape[1]
                if len(rows):
                    yield header, rows
            if not block:
                if header is not None and not width:
                    yield header, np.empty((0, 4))
                return


def _points(path: Path, header: Header, rows: np.ndarray, shell: int) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates (Z, Y, X) and ids of the rows of one block."""
    if header.layout == PAIRS:
        points = rows.reshape(-1, 2, 3).swapaxes(0, 1).reshape(-1, 3) if rows.shape[1] == 6 else None
        ids = np.repeat([1, 2], len(rows))
    elif header.layout in (SHELLS, NE_EDGE, PM_EDGE):
        points, ids = (rows, np.full(len(rows), shell)) if rows.shape[1] == 3 else (None, None)
    else:
        points = ids = None
        if rows.shape[1] == 4:
            points = rows[:, :3] if header.layout == REFERENCE else rows[:, 2::-1]
            ids = rows[:, 3].astype(np.int64)
            if not np.array_equal(ids, rows[:, 3]) or (ids < 1).any():
                wrong = rows[(ids != rows[:, 3]) | (ids < 1), 3][0]
                raise ValueError(f"{path} has the partition id {wrong:g}; ids count from 1")
    if points is None:
        raise ValueError(
            f"{path} has {rows.shape[1]} columns, which the layout found ({header.layout}) has not"
        )
    return points, ids


def iterate_points(path: str | os.PathLike) -> Iterator[tuple[Header, np.ndarray, np.ndarray]]:
    """Yield the head, coordinates (N, 3) float64 (Z, Y, X) and ids (N,) int64 of a file, block by block.

    The ids of older shell files are their number plus 1; of an edge 1; of pairs 1 (NE) and 2 (PM).  The
    first row of an older NE edge is the centre.  Raises as :func:`read_blocks`.
    """
    path = Path(path)
    numbered = re.search(r"_shell(\d+)", path.name)
    for header, rows in read_blocks(path):
        shell = int(numbered[1]) + 1 if numbered and header.layout == SHELLS else 1
        yield header, *_points(path, header, rows, shell)


def load_partition_coords_from_xvg(xvg_file: str | os.PathLike) -> PartitionCoordinates:
    """Read partition coordinates; which layout was found is logged and kept.

    Parameters
    ----------
    xvg_file : path-like
        A file of either layout, also compressed by gzip; or one of the older pipeline, of which several
        shells are read together by a pattern (``run/*_slice_shell*.xvg``).

    Returns
    -------
    PartitionCoordinates
        A dict id → (N, 3) array (Z, Y, X): int32 where all coordinates are whole, else float64; with
        ``layout``, ``dataid``, ``voxel_size_nm`` and, by id, ``radial_positions``.  Memory: 12 bytes a
        point, and one shell's again.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If a line is no row of numbers, or an id no positive whole number.
    """
    path = Path(xvg_file)
    files = [path]
    if not path.exists() and any(character in path.name for character in "*?["):
        files = sorted(path.parent.glob(path.name))
    if not files:
        raise FileNotFoundError(f"no file matches {path}")
    pieces: dict[int, list[np.ndarray]] = {}
    header, centre = Header(DOCUMENTED), None
    for number, file in enumerate(files):
        for found, points, ids in iterate_points(file):
            if number and found.layout != header.layout:
                raise ValueError(f"{file} is of the layout {found.layout}, the files before: {header.layout}")
            header = found
            if header.layout == NE_EDGE and centre is None and len(points):
                centre, points, ids = points[0], points[1:], ids[1:]
            _collect(pieces, points, ids)
    coords = _joined(pieces)
    positions = None
    if header.layout == SHELLS:
        last = max(OLDER_INTERVALS, max(coords, default=1) - 1)
        positions = {i: (i - 1) / last for i in coords}
    elif header.layout in (NE_EDGE, PM_EDGE, PAIRS):
        positions = {i: float(i == 2 or header.layout == PM_EDGE) for i in coords}
    log.info("%s: %s layout, %d points", path, header.layout, sum(map(len, coords.values())))
    return PartitionCoordinates(
        coords,
        header.layout,
        dataid=header.dataid,
        voxel_size_nm=header.voxel_size_nm,
        shells=header.shells,
        centre=centre,
        positions=positions,
    )


def _collect(pieces: dict[int, list[np.ndarray]], points: np.ndarray, ids: np.ndarray) -> None:
    """Sort the points of a block by id into the pieces, as small as they get."""
    with np.errstate(invalid="ignore"):
        whole = points.astype(np.int32)
    if np.array_equal(whole, points):
        points = whole
    if len(ids) and (ids == ids[0]).all():
        pieces.setdefault(int(ids[0]), []).append(np.ascontiguousarray(points))
        return
    order = np.argsort(ids, kind="stable")
    points, ids = points[order], ids[order]
    begins = np.flatnonzero(np.diff(ids, prepend=math.nan))
    for i, part in zip(ids[begins], np.split(points, begins[1:]), strict=False):
        # A copy: a view would keep the whole block alive.
        pieces.setdefault(int(i), []).append(part.copy())


def _joined(pieces: dict[int, list[np.ndarray]]) -> dict[int, np.ndarray]:
    """One array an id, ids ascending; pieces are let go as they are joined."""
    fractions = any(part.dtype.kind == "f" for parts in pieces.values() for part in parts)
    dtype = np.float64 if fractions else np.int32
    return {i: np.concatenate(pieces.pop(i), dtype=dtype) for i in sorted(pieces)}
