"""Converting any readable volume into the store, one layer of shards at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from cytomill.kernels.grey_levels import GreyLevels, finite_range
from cytomill.storage.durable import seal
from cytomill.storage.errors import VolumeError
from cytomill.storage.stores import (
    StoredArray,
    VolumeStore,
    default_shards,
    fit_chunks,
    open_store,
    spacing_name,
)
from cytomill.storage.volumes import Volume, open_volume, parse_selector

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
    dtype: str | None = None,
    grey_levels: tuple[float, float] | None = None,
) -> StoredArray:
    """Copy a volume into a store, in memory for one layer of shards.

    The array's attribute ``processing`` says whether the copy is complete, and how grey levels were scaled.

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
        Called with the slices done and the slices in all, at first when all is checked and none is done.
    dtype : {"uint8", "uint16"}, optional
        Scale the grey levels to this type, see :class:`~cytomill.kernels.grey_levels.GreyLevels`; by default
        pixels stay as they are.
    grey_levels : (float, float), optional
        Values that become 0 and the largest level; by default all values of an integer type that has no more
        of them than `dtype`, else the smallest and the largest finite value, for which the source is read
        once more.

    Returns
    -------
    StoredArray
        The array written, made durable.

    Raises
    ------
    VolumeError
        If the source cannot be read, its voxel size is not known, its grey levels cannot be scaled, or
        another array is in the way; a copy of a source of the same name is replaced.
    """
    with open_volume(source) as volume:
        size = volume.voxel_size_nm if voxel_size_nm is None else tuple(map(float, voxel_size_nm))
        if size is None:
            raise VolumeError(f"{source} does not state its voxel size; give it as Z, Y, X in nm.")
        levels = _levels_of(volume, dtype, grey_levels)
        stored = volume.dtype if levels is None else np.dtype(levels.dtype)
        chunks = fit_chunks(volume.shape, chunks)
        shards = tuple(shards) if shards is not None else default_shards(volume.shape, stored, chunks)
        done = {"step": "convert", "complete": False}
        if levels is not None:
            done |= {"from": volume.dtype.name, "grey_levels": [levels.low, levels.high]}
        name = name or f"images/{spacing_name(size)}"
        store = open_store(store_root)
        _check_free(store, name, source)
        array = store.create(
            name,
            volume.shape,
            stored,
            chunks,
            shards,
            size,
            {"processing": done, "inputs": [{"name": Path(source).name, **volume.identity()}]},
        )
        if progress is not None:
            progress(0, volume.shape[0])
        for start, slab in volume.slabs(array.shards[0]):
            stop = start + len(slab)
            if levels is not None:
                # Slice by slice: floating point of a slab would be several times its size.
                slab = np.stack([levels.scale(image) for image in slab])
            array.write(((start, stop),), slab)
            seal(array.shard_paths(((start, stop),)), array.root)
            if progress is not None:
                progress(stop, volume.shape[0])
    array.update_attributes({"processing": {**done, "complete": True}})
    return array


def _check_free(store: VolumeStore, name: str, source: str | os.PathLike) -> None:
    """Refuse to write over the source itself, or over an array that was made from something else."""
    if not store.exists(name):
        return
    inside = Path(parse_selector(os.fspath(source))[0]).resolve().is_relative_to(store.root.resolve())
    inputs = store.open(name).attributes.get("inputs") or ()
    made_from = [entry.get("name") for entry in inputs]
    if inside or made_from != [Path(source).name]:
        origin = f", made from {', '.join(map(str, made_from))}" if made_from else ""
        raise VolumeError(f"{store.root} holds {name} already{origin}: remove it, or choose another store.")


def _levels_of(
    volume: Volume, dtype: str | None, grey_levels: tuple[float, float] | None
) -> GreyLevels | None:
    """How a volume's grey levels are to be scaled; None for not at all."""
    if dtype is None:
        if grey_levels is not None:
            raise VolumeError("Grey levels are scaled to a number type: say which, uint8 or uint16.")
        return None
    if volume.dtype.kind not in "iuf":
        raise VolumeError(
            f"{volume.path} holds {volume.dtype.name}: only integers and real numbers are grey levels."
        )
    try:
        if grey_levels is not None:
            return GreyLevels(*map(float, grey_levels), dtype)
        levels = GreyLevels.of_type(volume.dtype, dtype)
    except ValueError as error:
        raise VolumeError(f"{volume.path}: {error}.") from error
    if levels is not None:
        return levels
    ranges = [finite_range(image) for _, slab in volume.slabs(1) for image in slab]
    low, high = min(r[0] for r in ranges), max(r[1] for r in ranges)
    if not low < high:
        found = "no finite pixel" if low > high else f"{low:g} in every pixel"
        raise VolumeError(f"{volume.path} has {found}: there are no grey levels to scale.")
    return GreyLevels(low, high, dtype)
