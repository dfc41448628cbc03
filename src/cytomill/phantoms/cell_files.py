"""Cell phantoms written slab by slab as volumes that a campaign can name."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import tifffile

from cytomill.phantoms.partitioning import CYTOPLASM_LABEL, KINDS, CellPhantom
from cytomill.phantoms.tissue import TissuePhantom, TissueTally
from cytomill.storage.durable import make_directories, write_atomic
from cytomill.storage.stores import default_shards, fit_chunks, open_store, spacing_name
from cytomill.storage.tables import write_table

TISSUE = "tissue"
CHUNKS = (8, 256, 256)
#: Bins of the true radial profile; a number of shells that divides it has its true RDF here.
PROFILE_BINS = 200
SHELLS = 8


class RadialTally:
    """Voxels of cytoplasm and of organelle over the true radial position."""

    def __init__(self) -> None:
        self.cytoplasm, self.organelle = (np.zeros(PROFILE_BINS, np.int64) for _ in range(2))

    def add(self, t: np.ndarray, organelle: np.ndarray) -> None:
        """Count a slab: position (NaN outside the cytoplasm) and organelle labels."""
        for position, labels in zip(t, organelle):
            inside = np.isfinite(position)
            # As shells are numbered: a voxel on the PM belongs to the last bin.
            bins = np.minimum(
                (position[inside] * np.float32(PROFILE_BINS)).astype(np.int64), PROFILE_BINS - 1
            )
            self.cytoplasm += np.bincount(bins, minlength=PROFILE_BINS)
            self.organelle += np.bincount(bins[labels[inside] > 0], minlength=PROFILE_BINS)

    def rdf(self, shells: int = SHELLS) -> list[float | None]:
        """Enrichment of each shell over the mean density, None for an empty shell."""
        c, o = (counts.reshape(shells, -1).sum(1) for counts in (self.cytoplasm, self.organelle))
        mean = o.sum() / max(c.sum(), 1)
        return [float(a / b / mean) if b and mean else None for a, b in zip(o, c)]


def write_cell_phantom(
    folder: Path,
    kind: str = "dent",
    voxel_size_nm: Sequence[float] | None = None,
    scale: float = 1.0,
    seed: int = 1,
    volume_format: str = "zarr",
    cells: tuple[int, int, int] = (6, 6, 6),
    step_t: float = 0.5,
    enrichment: float = 3.0,
) -> dict:
    """Write a cell (or a tissue) with organelles and truth.

    A single cell gives ``cell`` (uint8: 1 cytoplasm, 2 nucleus) and ``organelle`` (uint32 labels of
    granules); a tissue gives ``cells``, ``nuclei`` (uint16, cell i with nucleus i) and ``organelle``, and
    the table ``truth`` of its cells.  ``phantom.json`` holds the recipe and the true radial profile and RDF
    of the organelle voxels that were drawn.  Memory: about 16 bytes a voxel of a slab of 8 slices.

    Parameters
    ----------
    folder : Path
        Made where it does not exist.
    kind : {"spheres", "dent", "hela", "tissue"}
    voxel_size_nm : sequence of float, optional
        (Z, Y, X); by default the kind's own.
    scale : float
        Enlarges the cells.
    seed : int
        Of shapes and places.
    volume_format : {"zarr", "tiff"}
        OME-Zarr (``cell.zarr``) or OME-TIFF (``cell.ome.tif``).
    cells : tuple of int
        Of a tissue, along each axis.
    step_t, enrichment : float
        Position at which the density of granules steps and by how much (single cells).

    Returns
    -------
    dict
        What ``phantom.json`` holds.

    Raises
    ------
    ValueError
        If there is no such kind or format, or a size is not positive.
    """
    if volume_format not in ("zarr", "tiff"):
        raise ValueError(f"a phantom is written as zarr or tiff, not {volume_format!r}")
    if kind not in (*KINDS, TISSUE):
        raise ValueError(f"there is no cell phantom {kind!r}: choose one of {', '.join((*KINDS, TISSUE))}")
    folder = Path(folder)
    make_directories(folder)
    if kind == TISSUE:
        size = {} if voxel_size_nm is None else {"voxel_size_nm": voxel_size_nm}
        phantom = TissuePhantom(tuple(cells), scale=scale, seed=seed, **size)
        facts = _write_tissue(folder, phantom, volume_format)
    else:
        phantom = CellPhantom(kind, voxel_size_nm, scale, seed)
        facts = _write_single(folder, phantom, volume_format, step_t, enrichment)
    facts = {
        "kind": kind,
        "shape": list(phantom.shape),
        "voxel_size_nm": list(phantom.voxel_size_nm),
        "scale": scale,
        "seed": seed,
        **facts,
    }
    write_atomic(folder / "phantom.json", (json.dumps(facts, indent=1) + "\n").encode())
    return facts


def _write_single(
    folder: Path, phantom: CellPhantom, volume_format: str, step_t: float, enrichment: float
) -> dict:
    granules = phantom.granules(step_t, enrichment)
    tally = RadialTally()
    voxels = np.zeros(3, np.int64)

    def slabs() -> Iterator[tuple[np.ndarray, ...]]:
        for band in _bands(phantom.shape[0]):
            labels, t = phantom.ray_position((band,))
            organelle = _inside(granules.draw(_whole(band, phantom.shape)), labels == CYTOPLASM_LABEL)
            tally.add(t, organelle)
            voxels[:] += [np.count_nonzero(labels == label) for label in range(3)]
            yield labels, organelle

    names = {"cell": "uint8", "organelle": "uint32"}
    files = _write_volumes(folder, names, phantom.shape, phantom.voxel_size_nm, slabs(), volume_format)
    return {
        "files": files,
        "centre_voxel": phantom.centre.tolist(),
        "cytoplasm_voxels": int(voxels[1]),
        "nucleus_voxels": int(voxels[2]),
        "thinnest_nm": phantom.thinnest_nm,
        "organelle": {
            "granules": len(granules),
            "radius_nm": granules.radius_nm,
            "step_t": step_t,
            "enrichment": enrichment,
        },
        **_radial_truth(tally),
    }


def _write_tissue(folder: Path, phantom: TissuePhantom, volume_format: str) -> dict:
    radial, table = RadialTally(), TissueTally(phantom)

    def slabs() -> Iterator[tuple[np.ndarray, ...]]:
        for band in _bands(phantom.shape[0]):
            cells, nuclei, t = phantom.draw((band,))
            drawn = phantom.granules.draw(_whole(band, phantom.shape))
            organelle = _inside(drawn, (cells > 0) & (nuclei == 0))
            radial.add(t, organelle)
            table.add(band[0], cells, nuclei, organelle)
            yield cells, nuclei, organelle

    names = {"cells": "uint16", "nuclei": "uint16", "organelle": "uint32"}
    files = _write_volumes(folder, names, phantom.shape, phantom.voxel_size_nm, slabs(), volume_format)
    write_table(table.table(), folder / "truth")
    return {"files": files, "cells": phantom.count, **_radial_truth(radial)}


def _inside(drawn: np.ndarray, cytoplasm: np.ndarray) -> np.ndarray:
    # A thin spur of a membrane between the skin's points must not leave organelle outside.
    drawn[~cytoplasm] = 0
    return drawn


def _radial_truth(tally: RadialTally) -> dict:
    return {
        "truth_t": "(r - r_NE) / (r_PM - r_NE) along the ray from the cell's centre",
        f"rdf_{SHELLS}_shells": tally.rdf(),
        "profile_cytoplasm_voxels": tally.cytoplasm.tolist(),
        "profile_organelle_voxels": tally.organelle.tolist(),
    }


def _bands(depth: int) -> Iterator[tuple[int, int]]:
    for start in range(0, depth, CHUNKS[0]):
        yield start, min(start + CHUNKS[0], depth)


def _whole(band: tuple[int, int], shape: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    return (band, *((0, n) for n in shape[1:]))


def _write_volumes(
    folder: Path,
    names: dict[str, str],
    shape: tuple[int, int, int],
    voxel_size_nm: tuple[float, float, float],
    slabs: Iterator[tuple[np.ndarray, ...]],
    volume_format: str,
) -> dict[str, str]:
    """Write volumes side by side from slabs that come once and in order; returns their file names."""
    if volume_format == "tiff":
        return _write_tiffs(folder, names, shape, voxel_size_nm, slabs)
    chunks = fit_chunks(shape, CHUNKS)
    spacing = spacing_name(voxel_size_nm)
    arrays = []
    for name, dtype in names.items():
        # One slab is one layer of shards.
        shards = (chunks[0], *default_shards(shape, dtype, chunks)[1:])
        store = open_store(folder / f"{name}.zarr")
        options = {"is_labels": False, "voxel_size_nm": voxel_size_nm, "overwrite": True}
        arrays.append(store.create(f"images/{spacing}", shape, dtype, chunks, shards, **options))
    start = 0
    for slab in slabs:
        stop = start + len(slab[0])
        for array, part in zip(arrays, slab):
            array.write(((start, stop),), part)
        start = stop
    return {name: f"{name}.zarr" for name in names}


def _write_tiffs(
    folder: Path,
    names: dict[str, str],
    shape: tuple[int, int, int],
    voxel_size_nm: tuple[float, float, float],
    slabs: Iterator[tuple[np.ndarray, ...]],
) -> dict[str, str]:
    files = {name: f"{name}.ome.tif" for name in names}
    sizes = {f"PhysicalSize{axis}": size for axis, size in zip("ZYX", voxel_size_nm)}
    units = {f"PhysicalSize{axis}Unit": "nm" for axis in "ZYX"}
    metadata = {"axes": "ZYX", **sizes, **units}
    maps = [
        tifffile.memmap(folder / files[name], shape=shape, dtype=dtype, bigtiff=True, metadata=metadata)
        for name, dtype in names.items()
    ]
    start = 0
    for slab in slabs:
        stop = start + len(slab[0])
        for volume, part in zip(maps, slab):
            volume[start:stop] = part
        start = stop
    for volume in maps:
        volume.flush()
    return files
