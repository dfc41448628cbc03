"""Volumes in an OME-Zarr 0.5 store: Zarr v3 arrays, sharded, every chunk and index with a checksum.

Layout of a store::

    zarr.json                          the image: datasets images/50-10-10, ...
    images/50-10-10                    array, in the multiscale group images
    labels/zarr.json                   lists the label images (nps/masks)
    labels/nps/posterior/50-10-10      array, in the multiscale group labels/nps/posterior
    labels/nps/masks/50-10-10          array, in a multiscale group with image-label
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import zarr
from zarr.codecs import ZstdCodec
from zarr.core.buffer import default_buffer_prototype

from cytomill.kernels.blocks import Region, region_slices
from cytomill.storage import ngff
from cytomill.storage.codecs import fast_codecs
from cytomill.storage.durable import make_directories, write_atomic
from cytomill.storage.errors import DamagedShard, LayoutDiffers, VolumeError
from cytomill.storage.regions import cell_region, complete_region, grid_cells
from cytomill.storage.stores import (
    StoredArray,
    VolumeStore,
    default_shards,
    parse_spacing,
)

_COMPONENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")

#: Level 1: posterior volumes are mostly zeros, and higher levels cost more time than they save bytes.
_COMPRESSION = ZstdCodec(level=1, checksum=True)


def _read_node(folder: Path) -> dict[str, Any] | None:
    """Return the metadata of a Zarr v3 node, or None if there is none."""
    path = folder / "zarr.json"
    try:
        node = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        if (folder / ".zgroup").exists() or (folder / ".zarray").exists():
            raise VolumeError(
                f"{folder} is Zarr v2, which is read but not written; name another store for the results."
            ) from None
        return None
    except ValueError as error:
        raise VolumeError(f"{path} is not valid Zarr metadata ({error}); restore it.") from error
    return node


def _write_node(folder: Path, node: Mapping[str, Any]) -> None:
    write_atomic(folder / "zarr.json", json.dumps(node, indent=2, allow_nan=False).encode())


def _array_node(
    shape: tuple[int, ...], dtype: Any, chunks: tuple[int, ...], shards: tuple[int, ...]
) -> dict[str, Any]:
    """Return the metadata of a new array, as zarr itself would write them."""
    array = zarr.create_array(
        zarr.storage.MemoryStore(),
        shape=shape,
        dtype=dtype,
        chunks=chunks,
        shards=shards,
        compressors=_COMPRESSION,
        fill_value=0,
        dimension_names=("z", "y", "x"),
    )
    encoded = array.metadata.to_buffer_dict(default_buffer_prototype())["zarr.json"].to_bytes()
    return json.loads(encoded)


class OmeZarrArray(StoredArray):
    """One sharded Zarr v3 array; see :class:`~cytomill.storage.stores.StoredArray`."""

    def __init__(self, root: Path, name: str) -> None:
        self.root = root
        self.name = name
        self._folder = root / name
        self._node = _read_node(self._folder)
        if self._node is None or self._node.get("node_type") != "array":
            raise VolumeError(f"Store {root} has no array {name}.")
        with fast_codecs():
            self._array = zarr.open_array(self._folder, mode="r+", zarr_format=3)
        self.shape = tuple(self._array.shape)
        self.dtype = np.dtype(self._array.dtype).newbyteorder("=")
        self.chunks = tuple(self._array.chunks)
        self.shards = tuple(self._array.shards or self._array.chunks)
        self.voxel_size_nm = self._voxel_size_nm()

    def _voxel_size_nm(self) -> tuple[float, float, float] | None:
        spacing = self.attributes.get("spacing")
        if isinstance(spacing, list) and len(spacing) == 3:
            return tuple(float(size) for size in spacing)
        group = _read_node(self._folder.parent) or {}
        for image in ngff.ome_attributes(group.get("attributes", {})).get("multiscales", ()):
            sizes = ngff.voxel_size_by_axis(image, self._folder.name)
            if {"z", "y", "x"} <= sizes.keys():
                return sizes["z"], sizes["y"], sizes["x"]
        try:
            return parse_spacing(self._folder.name)  # arrays of other programs may say it by name alone
        except VolumeError:
            return None

    @property
    def attributes(self) -> dict[str, Any]:
        return dict(self._node.get("attributes", {}))

    def update_attributes(self, attributes: Mapping[str, Any]) -> None:
        merged = {**self.attributes, **attributes}
        if merged != self.attributes:
            self._node = {**self._node, "attributes": merged}
            _write_node(self._folder, self._node)

    def _shard_path(self, index: Sequence[int]) -> Path:
        return self._folder / self._array.metadata.encode_chunk_key(tuple(index))

    def shard_paths(self, region: Region | None = None) -> list[Path]:
        return [
            self._shard_path(index) for index in grid_cells(complete_region(region, self.shape), self.shards)
        ]

    def _write(self, region: Region, data: np.ndarray) -> None:
        # A shard of fill values only is not written at all, so an older file would live on; and the
        # codec pipeline would try to merge a shard cut by the array's edge with what is there.
        for path in self.shard_paths(region):
            path.unlink(missing_ok=True)
        self._array[region_slices(region)] = data

    def _read(self, region: Region) -> np.ndarray:
        try:
            return self._decode(region)
        except MemoryError:
            raise
        except Exception as error:  # the pipelines share no base class for what they raise
            self._blame(region)
            raise VolumeError(f"Region {region} of {self._folder} cannot be read ({error}).") from error

    def _decode(self, region: Region) -> np.ndarray:
        return np.ascontiguousarray(self._array[region_slices(region)])

    def _blame(self, region: Region) -> None:
        """Raise for the first shard of `region` that cannot be read on its own."""
        for index in grid_cells(region, self.shards):
            cell = cell_region(index, self.shards, self.shape)
            part = tuple((max(a, c), min(b, d)) for (a, b), (c, d) in zip(region, cell))
            try:
                self._decode(part)
            except MemoryError:
                raise
            except Exception as error:  # as in _read
                reason = " ".join(str(error).split()) or type(error).__name__
                raise DamagedShard(self._shard_path(index), reason) from error


class OmeZarrStore(VolumeStore):
    """A Zarr v3 hierarchy with OME-NGFF 0.5 metadata; see :class:`~cytomill.storage.stores.VolumeStore`."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root).absolute()

    def exists(self, name: str) -> bool:
        node = _read_node(self.root / self._checked(name))
        return node is not None and node.get("node_type") == "array"

    def open(self, name: str) -> OmeZarrArray:
        return OmeZarrArray(self.root, self._checked(name))

    def create(
        self,
        name: str,
        shape: Sequence[int],
        dtype: Any,
        chunks: Sequence[int],
        shards: Sequence[int] | None = None,
        voxel_size_nm: Sequence[float] | None = None,
        attributes: Mapping[str, Any] | None = None,
        overwrite: bool = False,
        is_labels: bool | None = None,
    ) -> OmeZarrArray:
        folder = self.root / self._checked(name)
        shape = tuple(int(extent) for extent in shape)
        chunks = tuple(int(extent) for extent in chunks)
        shards = tuple(int(n) for n in shards) if shards is not None else default_shards(shape, dtype, chunks)
        self._check_layout(name, shape, chunks, shards)
        spacing = parse_spacing(folder.name) if voxel_size_nm is None else tuple(map(float, voxel_size_nm))
        if len(spacing) != 3 or not all(np.isfinite(spacing)) or min(spacing) <= 0:
            raise VolumeError(f"Voxel size {spacing} nm of {name} is not three positive numbers (Z, Y, X).")
        own = {"spacing": list(spacing), **(attributes or {})}
        node = _array_node(shape, np.dtype(dtype).newbyteorder("="), chunks, shards)
        if is_labels is None:
            kind = np.dtype(dtype)
            is_labels = name.startswith("labels/") and kind.kind in "iu" and kind.itemsize > 1

        for group in reversed(PurePosixPath(name).parents):
            self._ensure_group(self.root / group)
        self._place_array(folder, {**node, "attributes": own}, overwrite)
        self._list_array(PurePosixPath(name), spacing, is_labels)
        return OmeZarrArray(self.root, name)

    def _checked(self, name: str) -> str:
        parts = name.split("/")
        if len(parts) < 2 or not all(_COMPONENT.fullmatch(part) for part in parts):
            raise VolumeError(f"{name!r} does not name an array of a store; names look like images/50-10-10.")
        return name

    @staticmethod
    def _check_layout(
        name: str, shape: tuple[int, ...], chunks: tuple[int, ...], shards: tuple[int, ...]
    ) -> None:
        if not len(shape) == len(chunks) == len(shards) == 3 or min(shape + chunks + shards) < 1:
            raise VolumeError(
                f"Shape {shape}, chunks {chunks} and shards {shards} of {name} must be three positive "
                "numbers each (Z, Y, X)."
            )
        if any(shard % chunk for shard, chunk in zip(shards, chunks)):
            raise VolumeError(f"Shards {shards} of {name} are not multiples of its chunks {chunks}.")

    def keep_only(self, group: str, names: Collection[str]) -> None:
        folder = self.root / group
        if _read_node(folder) is None:
            return
        gone = {f.name for f in folder.iterdir() if f.is_dir() and f.name not in names}
        if not gone:
            return
        self._update_ome(PurePosixPath(group), lambda ome: ngff.multiscale_without(ome, gone))
        from_root = {f"{group}/{name}" for name in gone}
        self._update_ome(PurePosixPath("."), lambda ome: ngff.multiscale_without(ome, from_root))
        for name in sorted(gone):
            shutil.rmtree(folder / name)

    def _ensure_group(self, folder: Path) -> None:
        node = _read_node(folder)
        if node is None:
            make_directories(folder)
            _write_node(folder, {"zarr_format": 3, "node_type": "group", "attributes": {}})
        elif node.get("node_type") != "group":
            raise VolumeError(f"{folder} is an array; a group was expected there.")
        elif node.pop("consolidated_metadata", None) is not None:
            # A consolidated copy hides every array that is added later.
            _write_node(folder, node)

    def _place_array(self, folder: Path, node: dict[str, Any], overwrite: bool) -> None:
        present = _read_node(folder)
        if present is not None and present.get("node_type") != "array":
            raise VolumeError(f"{folder} is a group; an array was to be written there.")
        if present is not None and not overwrite:
            layout = {key: value for key, value in present.items() if key != "attributes"}
            wanted = {key: value for key, value in node.items() if key != "attributes"}
            size = present.get("attributes", {}).get("spacing")
            if layout != wanted or size != node["attributes"]["spacing"]:
                changed = sorted(key for key in wanted if layout.get(key) != wanted[key]) or ["spacing"]
                raise LayoutDiffers(
                    f"Array {folder} is there with another layout ({', '.join(changed)} differ); "
                    "remove it, or choose another store."
                )
            if present != node:
                _write_node(folder, node)
            return
        if folder.exists():
            shutil.rmtree(folder)
        make_directories(folder)
        _write_node(folder, node)

    def _list_array(self, name: PurePosixPath, spacing: Sequence[float], is_labels: bool) -> None:
        """Enter an array into the metadata of the groups above it, so that viewers find it."""
        group = name.parent
        self._update_ome(group, lambda ome: ngff.multiscale_with(ome, group.as_posix(), name.name, spacing))
        has_images = _read_node(self.root / "images") is not None
        if group == PurePosixPath("images") or not (has_images or is_labels):
            # The root is the image too, which is how a reader finds the labels that belong to it; a store
            # whose image lies elsewhere shows what was computed from it.
            self._update_ome(
                PurePosixPath("."),
                lambda ome: ngff.multiscale_with(ome, self.root.name, name.as_posix(), spacing),
            )
        if is_labels and group.parts[0] == "labels" and len(group.parts) > 1:
            depth = len(group.parts)
            self._update_ome(group, lambda ome: {**ome, "image-label": ngff.image_label(depth)})
            listed = group.relative_to("labels").as_posix()
            self._update_ome(PurePosixPath("labels"), lambda ome: ngff.labels_with(ome, listed))

    def _update_ome(self, group: PurePosixPath, change: Any) -> None:
        folder = self.root / group
        node = _read_node(folder)
        before = node.get("attributes", {})
        try:
            after = {**before, "ome": change(before.get("ome", {}))}
        except ValueError as error:
            raise VolumeError(f"Group {folder} cannot list a new array: {error}.") from error
        if after != before:
            _write_node(folder, {**node, "attributes": after})
