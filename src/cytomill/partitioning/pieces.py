"""Pieces of a cell's fields between the stage that computes them and the one that paints them.

Cells overlap in the shards of the volumes that are written, so a unit that computed a cell cannot write
there: it leaves pieces, one a layer of shards, and the unit that owns a block of shards paints all cells
that reach into it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import imagecodecs
import numpy as np

from cytomill.kernels.blocks import Region, region_slices
from cytomill.runtime.arrays import from_npz, to_npz
from cytomill.runtime.stage import Arrays
from cytomill.storage.checked import read_checked, write_checked

#: Of zstd: pieces are read once, soon.
COMPRESSION_LEVEL = 1


@dataclass(frozen=True)
class Piece:
    """A box of the volume in which a cell's fields are kept in one file.

    Parameters
    ----------
    path : Path
        The file.
    region : Region
        The box, in the volume.
    """

    path: Path
    region: Region


def layers(start: int, stop: int, depth: int) -> list[tuple[int, int]]:
    """Cut a range where the layers of `depth` of the whole axis are cut."""
    edges = [start, *range((start // depth + 1) * depth, stop, depth), stop]
    return list(zip(edges[:-1], edges[1:]))


def pieces_of(folder: Path, region: Region, depth: int) -> list[Piece]:
    """Pieces of a region, a layer of `depth` slices each."""
    (z0, z1), rows, columns = region
    return [
        Piece(folder / f"{a:06d}-{rows[0]:06d}.piece", ((a, b), rows, columns))
        for a, b in layers(z0, z1, depth)
    ]


def write_piece(path: Path, arrays: Arrays) -> None:
    """Write arrays, compressed and with a checksum; the engine makes the file durable."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_checked(path, imagecodecs.zstd_encode(to_npz(arrays), level=COMPRESSION_LEVEL))


def read_piece(path: Path) -> Arrays:
    """Read what :func:`write_piece` wrote.

    Raises
    ------
    DamagedShard
        The file is missing or damaged.
    """
    return from_npz(imagecodecs.zstd_decode(read_checked(path)))


def write_region(pieces: list[Piece], region: Region, arrays: Arrays) -> list[Path]:
    """Write the arrays of a region as its pieces; returns their files."""
    for piece in pieces:
        local = tuple((a - o, b - o) for (a, b), (o, _) in zip(piece.region, region, strict=True))
        write_piece(
            piece.path,
            {name: np.ascontiguousarray(array[region_slices(local)]) for name, array in arrays.items()},
        )
    return [piece.path for piece in pieces]
