"""Converting any readable volume into the store, one layer of shards at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from cytomill.storage.durable import seal
from cytomill.storage.errors import VolumeError
from cytomill.storage.stores import (
    StoredArray,
    default_shards,
    fit_chunks,
    open_store,
    spacing_name,
)
from cytomill.storage.volumes import open_volume

DEFAULT_CHUNKS = (1, 1024, 1024)


def sequential_slabs(path: str | os.PathLike, depth: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the slabs of a volume from its first to its last slice.

    For what cannot be read by region (gz, bz2, NPZ) this is the way to read it: one pass, memory for
    one slab. An NPZ array in Fortran order takes one pass a slab.

    Parameters
    ----------
    path : path-like
        As for :func:`~cytomill.storage.volumes.open_volume`.
    depth : int
        Slices a slab; the last may have fewer.

    Yields
    ------
    start : int
        Index of the slab's first slice.
    slab : (depth, Y, X) ndarray
        A fresh array.
    """
    if depth < 1:
        raise ValueError(f"A slab of {depth} slices makes no sense.")
    with open_volume(path) as volume:
        yield from volume.slabs(depth)


def convert(
    source: str | os.PathLike,
    store_root: str | os.PathLike,
    name: str | None = None,
    voxel_size_nm: Sequence[float] | None = None,
    chunks: Sequence[int] = DEFAULT_CHUNKS,
    shards: Sequence[int] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> StoredArray:
    """Copy a volume into a store, in memory for one layer of shards.

    The array's attribute ``processing`` says whether the copy is complete.

    Parameters
    ----------
    source : path-like
        As for :func:`~cytomill.storage.volumes.open_volume`.
    store_root : path-like
        Folder of the OME-Zarr store; created if need be.
    name : str, optional
        Name of the array; by default ``images/{z-y-x}``.
    voxel_size_nm : sequence of float, optional
        (Z, Y, X) in nm; by default what the source says.
    chunks, shards : sequence of int
        Voxels (Z, Y, X); chunks are cut to the volume's shape.
    progress : callable, optional
        Called with the slices done and the slices in all.

    Returns
    -------
    StoredArray
        The array written, made durable.

    Raises
    ------
    VolumeError
        If the source cannot be read, its voxel size is not known, or another array is in the way.
    """
    with open_volume(source) as volume:
        size = volume.voxel_size_nm if voxel_size_nm is None else tuple(map(float, voxel_size_nm))
        if size is None:
            raise VolumeError(f"{source} does not state its voxel size; give it as Z, Y, X in nm.")
        chunks = fit_chunks(volume.shape, chunks)
        shards = tuple(shards) if shards is not None else default_shards(volume.shape, volume.dtype, chunks)
        done = {"step": "convert", "complete": False}
        array = open_store(store_root).create(
            name or f"images/{spacing_name(size)}",
            volume.shape,
            volume.dtype,
            chunks,
            shards,
            size,
            {"processing": done, "inputs": [{"name": Path(source).name, **volume.identity()}]},
        )
        for start, slab in volume.slabs(array.shards[0]):
            stop = start + len(slab)
            array.write(((start, stop),), slab)
            seal(array.shard_paths(((start, stop),)), array.root)
            if progress is not None:
                progress(stop, volume.shape[0])
    array.update_attributes({"processing": {**done, "complete": True}})
    return array
