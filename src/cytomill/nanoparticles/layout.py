"""Arrays of a dataset's store: how they are opened, cut into slabs, and laid out when written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from cytomill.nanoparticles.config import NanoparticleSegConfig
from cytomill.storage.stores import default_shards, fit_chunks
from cytomill.storage.volumes import Volume, open_volume

#: Bytes read at a time, at the most, unless one chunk along Z holds more.
SLAB_BYTES = 64 << 20


def open_array(root_path: str, name: str) -> Volume:
    """Open an array of a Zarr v3 store for reading.

    Parameters
    ----------
    root_path : str
        Folder of the store.
    name : str
        For example ``images/50-10-10``.

    Returns
    -------
    Volume

    Raises
    ------
    ValueError
        If there is no such store or array, or it cannot be read.
    """
    root = Path(root_path)
    if not root_path or not (root / "zarr.json").is_file():
        raise ValueError(
            f"root_path {root_path!r} is no Zarr v3 store (it has no zarr.json); give the folder that holds "
            "images/{z-y-x}, or convert the volume with `cytomill convert`"
        )
    if not (root / name / "zarr.json").is_file():
        raise ValueError(f"{root} has no array {name}; check the spacing (in nm, for example 50-10-10)")
    return open_volume(f"{root}::/{name}")


def output_layout(
    config: NanoparticleSegConfig, shape: tuple[int, ...], dtype: Any
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Chunks and shards of a volume that is written.

    Parameters
    ----------
    config : NanoparticleSegConfig
        Uses ``zarr_chunks`` and ``shard_shape``, which is rounded down to whole chunks.
    shape : tuple of int
        Voxels (Z, Y, X).
    dtype : dtype-like

    Returns
    -------
    chunks, shards : tuple of int
    """
    chunks = fit_chunks(shape, config.zarr_chunks)
    if config.shard_shape is None:
        return chunks, default_shards(shape, dtype, chunks)
    return chunks, tuple(max(wanted // chunk, 1) * chunk for wanted, chunk in zip(config.shard_shape, chunks))


def slab_depth(volume: Volume) -> int:
    """Slices read at a time: whole chunks along Z, some :data:`SLAB_BYTES`."""
    plane = max(int(np.prod(volume.shape[1:])) * volume.dtype.itemsize, 1)
    chunk = max(volume.chunks[0], 1)
    return max(SLAB_BYTES // (plane * chunk), 1) * chunk
