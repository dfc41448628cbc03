"""HDF5 volumes: ``file.h5::/path``, with ilastik's axis tags and ``element_size_um``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from cytomill.storage.array_volume import ArrayVolume
from cytomill.storage.axes import find_spatial_axes, guess_axes
from cytomill.storage.errors import VolumeError
from cytomill.storage.files import crc32c
from cytomill.storage.length_units import voxel_size
from cytomill.storage.volumes import Selector, Volume

NM_PER_UM = 1000.0


def _image_datasets(file: h5py.File) -> list[str]:
    """Return the paths of the numeric datasets of two and more axes."""
    found = []

    def visit(name: str, node: Any) -> None:
        if isinstance(node, h5py.Dataset) and node.ndim >= 2 and node.dtype.kind in "biufc":
            found.append(f"/{name}")

    file.visititems(visit)
    return found


def _choose(path: Path, file: h5py.File, inner: str | None) -> h5py.Dataset:
    candidates = _image_datasets(file)
    listed = ", ".join(candidates[:8]) + (", ..." if len(candidates) > 8 else "")
    if inner is None:
        volumes = [name for name in candidates if file[name].ndim <= 3]
        choices = candidates if len(candidates) == 1 else volumes
        if not candidates:
            raise VolumeError(f"{path} holds no image: no dataset of numbers with two or more axes.")
        if len(choices) != 1:
            raise VolumeError(
                f"{path} holds {len(candidates)} datasets that could be meant ({listed}); "
                f"choose one by adding its path, as in {path.name}::{(choices or candidates)[0]}."
            )
        return file[choices[0]]
    node = file.get(inner)
    if not isinstance(node, h5py.Dataset):
        raise VolumeError(f"{path} has no dataset {inner}; it holds {listed or 'no images'}.")
    if node.dtype.kind not in "biufc":
        raise VolumeError(f"{path}::{inner} holds {node.dtype}, which is no number.")
    return node


def _check_sources(path: Path, dataset: h5py.Dataset) -> None:
    """Refuse a virtual dataset with a part missing, which would read as the fill value."""
    if dataset.is_virtual:
        for source in dataset.virtual_sources():
            part = path.parent / source.file_name
            linked = path.resolve().parent / source.file_name
            if source.file_name != "." and not part.exists() and not linked.exists():
                raise VolumeError(f"{path}::{dataset.name} is made of several files, and {part} is missing.")


def _names(source: str, dataset: h5py.Dataset, selector: Selector) -> str:
    if selector.axes is not None:
        return selector.axes
    tags = dataset.attrs.get("axistags")
    if tags is not None:
        try:
            return "".join(axis["key"][:1].lower() for axis in json.loads(tags)["axes"])
        except (ValueError, KeyError, TypeError) as error:
            raise VolumeError(f"{source} has axistags that cannot be read ({error}).") from error
    return guess_axes(source, dataset.shape, f"{source},axes=zyxc,c=0")[0]


def _element_size_nm(dataset: h5py.Dataset) -> dict[str, float]:
    sizes = np.ravel(dataset.attrs.get("element_size_um", ()))
    if sizes.size != 3 or sizes.dtype.kind not in "iuf":
        return {}
    return {axis: float(size) * NM_PER_UM for axis, size in zip("zyx", sizes)}


def open_hdf5(path: Path, selector: Selector) -> Volume:
    """Open a dataset of an HDF5 file: the one named, or the only one that can be meant.

    Raises
    ------
    VolumeError
        If the file is damaged or truncated, or it is not clear which volume is meant.
    """
    try:
        # Inputs are never changed, and shared file systems often cannot lock.
        file = h5py.File(path, "r", locking=False)
    except OSError as error:
        raise VolumeError(f"{path} is no readable HDF5 file, or is truncated ({error}).") from error
    try:
        dataset = _choose(path, file, selector.inner)
        _check_sources(path, dataset)
        source = f"{path}::{dataset.name}"
        names = _names(source, dataset, selector)
        axes = find_spatial_axes(source, names, dataset.shape, selector.indices)
        described = [dataset.name, dataset.shape, str(dataset.dtype), names, _element_size_nm(dataset)]
        status = path.stat()
        identity = {
            "size": status.st_size,
            "mtime_ns": status.st_mtime_ns,
            "header_crc32c": crc32c(json.dumps(described).encode()),
        }
        chunks = dataset.chunks or tuple(
            1 if position == axes.positions[0] else extent for position, extent in enumerate(dataset.shape)
        )
        size = voxel_size(_element_size_nm(dataset), is_plane=axes.pick(dataset.shape)[0] == 1)
        return ArrayVolume(path, "HDF5", dataset, axes, chunks, size, lambda: dict(identity), file.close)
    except BaseException:
        file.close()
        raise
