"""OME-Zarr 0.4 (Zarr v2) and 0.5 (Zarr v3) volumes, folder or zip, and plain Zarr arrays."""

from __future__ import annotations

import json
import os
import zipfile
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import zarr
from zarr.storage import LocalStore, ZipStore

from cytomill.storage import ngff
from cytomill.storage.array_volume import ArrayVolume
from cytomill.storage.axes import find_spatial_axes, guess_axes
from cytomill.storage.codecs import fast_codecs
from cytomill.storage.errors import VolumeError
from cytomill.storage.files import crc32c
from cytomill.storage.length_units import voxel_size
from cytomill.storage.volumes import Selector, Volume

_METADATA_FILES = ("zarr.json", ".zgroup", ".zarray", ".zattrs")


def is_zarr(folder: Path) -> bool:
    """Whether a folder is a Zarr group or array."""
    return any((folder / name).is_file() for name in _METADATA_FILES[:3])


def _open_node(store: Any, inner: str, source: str) -> zarr.Group | zarr.Array:
    try:
        # The consolidated copy of the metadata may be older than the arrays.
        return zarr.open(store, path=inner, mode="r", use_consolidated=False)
    except TypeError:
        return zarr.open_array(store, path=inner, mode="r")
    except Exception as error:  # zarr raises many kinds for what it cannot parse
        raise VolumeError(f"{source} cannot be opened as Zarr ({' '.join(str(error).split())}).") from error


def _top_of(folder: Path) -> Path:
    """Return the outermost Zarr group that a folder lies in."""
    top = folder
    while is_zarr(top.parent):
        top = top.parent
    return top


def _image_of(store: Any, inner: str) -> tuple[dict[str, Any], str] | None:
    """Return the image that lists an array among its datasets, and the array's path in it."""
    path = PurePosixPath(inner)
    for group_path in path.parents:
        try:
            group = zarr.open_group(store, path=str(group_path).strip("."), mode="r", use_consolidated=False)
        except (FileNotFoundError, KeyError, ValueError):
            continue
        relative = path.relative_to(group_path).as_posix()
        for image in ngff.ome_attributes(group.attrs.asdict()).get("multiscales") or ():
            if any(dataset.get("path") == relative for dataset in image.get("datasets", ())):
                return image, relative
    return None


def _resolve(store: Any, inner: str, source: str) -> tuple[zarr.Array, dict[str, Any], str]:
    """Return the array meant by a path in a store, the image that it belongs to, and its path there."""
    node = _open_node(store, inner, source)
    if isinstance(node, zarr.Array):
        image, path = _image_of(store, inner) or ({}, "")
        return node, image, path
    attributes = node.attrs.asdict()
    images = ngff.ome_attributes(attributes).get("multiscales") or ()
    if images and images[0].get("datasets"):
        path = images[0]["datasets"][0]["path"]
        return _open_node(store, f"{inner}/{path}".strip("/"), source), images[0], path
    if "bioformats2raw.layout" in ngff.ome_attributes(attributes):
        return _resolve(store, f"{inner}/0".strip("/"), source)
    arrays = [name for name, member in node.members(max_depth=4) if isinstance(member, zarr.Array)]
    if len(arrays) == 1:
        return _resolve(store, f"{inner}/{arrays[0]}".strip("/"), source)
    prefix = f"{inner}/" if inner else ""
    listed = ", ".join(prefix + name for name in sorted(arrays)[:8])
    raise VolumeError(
        f"{source} is a group of {len(arrays)} arrays ({listed or 'none'}) and no image; choose one by "
        "adding its path after '::'."
    )


def _names(array: zarr.Array, image: dict[str, Any], selector: Selector, source: str) -> str:
    if selector.axes is not None:
        return selector.axes
    if image:
        return ngff.axis_names(image, array.ndim)
    names = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS")
    if names and all(name in tuple("tczyx") for name in names):
        return "".join(names)
    return guess_axes(source, array.shape, f"{source},axes=czyx,c=0")[0]


def _identity_of_folder(folder: Path, header: bytes) -> dict[str, Any]:
    """Describe an array's folder by the number, sizes and newest time of its files."""
    count = size = newest = 0
    for parent, _, files in os.walk(folder):
        for name in files:
            status = os.stat(os.path.join(parent, name))
            count, size, newest = count + 1, size + status.st_size, max(newest, status.st_mtime_ns)
    return {"size": size, "mtime_ns": newest, "header_crc32c": crc32c(header), "files": count}


def open_zarr(path: Path, selector: Selector) -> Volume:
    """Open an array of a Zarr store: the one named, or the finest level of its image.

    Parameters
    ----------
    path : Path
        Folder of a store, folder inside a store, or zipped store.
    selector : Selector
        Path inside the store, indices along channel and time.

    Raises
    ------
    VolumeError
        If the store cannot be read, or it is not clear which volume is meant.
    """
    source = str(path) + (f"::{selector.inner}" if selector.inner else "")
    inner = (selector.inner or "").strip("/")
    zipped = path.is_file()
    if zipped:
        try:
            store: Any = ZipStore(path, mode="r")
            inner = f"{_root_in_zip(path)}/{inner}".strip("/")
        except (zipfile.BadZipFile, OSError) as error:
            raise VolumeError(f"{path} is no readable zip file, or is truncated ({error}).") from error
    else:
        top = _top_of(path)
        inner = f"{path.relative_to(top).as_posix()}/{inner}".strip("./")
        path, store = top, LocalStore(top, read_only=True)
    try:
        array, image, dataset = _resolve(store, inner, source)
        if array.dtype.kind not in "biufc":
            raise VolumeError(f"{source} holds {array.dtype}, which is no number.")
        names = _names(array, image, selector, source)
        axes = find_spatial_axes(source, names, array.shape, selector.indices)
        sizes = ngff.voxel_size_by_axis(image, dataset) if image else {}
        size = voxel_size(sizes, is_plane=axes.pick(array.shape)[0] == 1)
        header = json.dumps([array.metadata.to_dict(), sizes], default=str, sort_keys=True).encode()
        if zipped:
            status = path.stat()
            identity = {
                "size": status.st_size,
                "mtime_ns": status.st_mtime_ns,
                "header_crc32c": crc32c(header),
            }
            describe = partial(dict, identity)
        else:
            folder = path / array.path
            describe = partial(_identity_of_folder, folder, header)
            if array.metadata.zarr_format == 3 and np.dtype(array.dtype).isnative:
                with fast_codecs():
                    array = zarr.open_array(store, path=array.path, mode="r")
        return ArrayVolume(path, "OME-Zarr", array, axes, array.chunks, size, describe, store.close)
    except BaseException:
        store.close()
        raise


def _root_in_zip(path: Path) -> str:
    """Return the folder of a zip file that holds the store; many zips hold the store's folder itself."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    depths = [PurePosixPath(name) for name in names if PurePosixPath(name).name in _METADATA_FILES]
    top = min(depths, key=lambda name: len(name.parts), default=PurePosixPath("zarr.json"))
    return "" if len(top.parts) == 1 else top.parent.as_posix()
