"""TIFF volumes: OME, ImageJ, BigTIFF, multi-page, sets of files, stacks of single pages."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from cytomill.storage.axes import find_spatial_axes
from cytomill.storage.errors import VolumeError
from cytomill.storage.files import ByteFile, crc32c
from cytomill.storage.length_units import voxel_size
from cytomill.storage.raw_volume import RawVolume
from cytomill.storage.tiff_metadata import (
    companion_of,
    described_sizes,
    ome_sizes,
    read_companion,
    walk_directories,
)
from cytomill.storage.tiff_pages import TiffPlane, TiffVolume
from cytomill.storage.volumes import Selector, Volume

TIFF_SUFFIXES = (".tif", ".tiff", ".btf", ".tf8")


@dataclass
class _Parsed:
    """A volume found in a TIFF file."""

    planes: list[TiffPlane]
    sizes_nm: dict[str, float | None]
    raw_series: tuple[np.ndarray, tuple[int, int], np.dtype] | None = None


def _choose_series(path: Path, tif: tifffile.TiffFile, selector: Selector) -> tuple[int, Any]:
    series = tif.series
    number = selector.indices.get("series", 0)
    if len(series) > 1 and "series" not in selector.indices:
        shapes = ", ".join(f"{entry.axes} {entry.shape}" for entry in series[:6])
        raise VolumeError(f"{path} holds {len(series)} images ({shapes}); choose one by adding '::series=0'.")
    if number >= len(series):
        raise VolumeError(f"{path} holds {len(series)} images; there is no series={number}.")
    return number, series[number]


def _check_promised(path: Path, tif: tifffile.TiffFile, series: Any) -> None:
    """Refuse a file that holds fewer pages than its own description promises."""
    if tif.is_imagej and not tif.is_ome:
        promised = int((tif.imagej_metadata or {}).get("images", 1))
        planes = math.prod(n for name, n in zip(series.axes, series.shape) if name not in "YXS")
        if promised > planes:
            raise VolumeError(
                f"{path} says that it holds {promised} images but has {planes}: it is truncated."
            )
    kind = "ome" if tif.is_ome else "shaped" if tif.is_shaped else series.kind
    if series.kind != kind:
        raise VolumeError(
            f"{path} does not hold the pages that its {kind} metadata describe; write it again."
        )


def _axis_names(names: str, shape: Sequence[int]) -> str:
    """Return lower-case axis names, pages of no stated meaning taken as Z."""
    lower = names.lower()
    if "z" not in lower:
        for position, name in enumerate(lower):
            if name in "iqr" and shape[position] > 1:
                return lower[:position] + "z" + lower[position + 1 :]
    return lower


def _parse(path: Path, tif: tifffile.TiffFile, xml: str | None, selector: Selector) -> _Parsed:
    """Find the planes of one volume in an open TIFF file."""
    number, series = _choose_series(path, tif, selector)
    _check_promised(path, tif, series)
    shape = series.get_shape(squeeze=False)
    names = selector.axes or _axis_names(series.get_axes(squeeze=False), shape)
    indices = {key: value for key, value in selector.indices.items() if key != "series"}
    axes = find_spatial_axes(str(path), names, shape, indices)
    first = series.keyframe
    if tif.is_ome and xml:
        sizes = ome_sizes(xml, number)
    elif tif.is_imagej:
        sizes = described_sizes(first, tif.imagej_metadata or {})
    else:
        sizes = described_sizes(first, (tif.shaped_metadata or ({},))[0]) if tif.is_shaped else {}

    z_position = axes.positions[0]
    entries = []
    for z in range(axes.pick(shape)[0]):
        entry = dict(axes.indices)
        if z_position is not None:
            entry[z_position] = z
        entries.append(entry)

    rows = names.index("y")
    if series.dataoffset is not None and len(series.pages) == 1 and names[rows:] in ("yx", "yxs"):
        # ImageJ may write one page directory and then all planes of a stack, one after the other.
        if names.endswith("yx") or shape[-1] == 1:
            dtype = np.dtype(series.dtype).newbyteorder(tif.byteorder)
            plane = (int(shape[rows]), int(shape[rows + 1]))
            flat = np.array([_flat_index(entry, shape[:rows]) for entry in entries], np.int64)
            offsets = series.dataoffset + flat * plane[0] * plane[1] * dtype.itemsize
            return _Parsed([], sizes, (offsets, plane, dtype))
    return _Parsed(_page_planes(path, tif, series, names, shape, entries), sizes)


def _flat_index(entry: dict[int, int], lead: Sequence[int]) -> int:
    """Return the position in C order of an entry among the axes of extents `lead`."""
    return int(np.ravel_multi_index([entry[i] for i in range(len(lead))], lead)) if lead else 0


def _page_planes(
    path: Path,
    tif: tifffile.TiffFile,
    series: Any,
    names: str,
    shape: Sequence[int],
    entries: list[dict[int, int]],
) -> list[TiffPlane]:
    """Return the plane of each entry (an index along every axis but Y and X)."""
    pages = list(series.pages)
    lead = max(
        (n for n in range(names.index("y") + 1) if math.prod(shape[:n]) == len(pages)),
        default=None,
    )
    inner = {name: position for position, name in enumerate(names) if position >= (lead or 0)}
    if lead is None or any(name not in "szyx" and shape[position] > 1 for name, position in inner.items()):
        raise VolumeError(
            f"{path} has {len(pages)} pages, which its axes {names.upper()} of {tuple(shape)} do not fit."
        )
    planes = []
    for entry in entries:
        index = _flat_index(entry, shape[:lead])
        page = pages[index]
        if page is None or not len(page.dataoffsets):
            raise VolumeError(
                f"{path} lacks page {index + 1} of {len(pages)}: a file of the set is missing or cut short."
            )
        # tifffile follows links: other files of a set lie beside the link's target.
        holder = page.parent.filehandle.path
        file = path if holder == tif.filehandle.path else Path(holder)
        sample = entry[inner["s"]] if "s" in inner else 0
        depth = entry[inner["z"]] if "z" in inner else 0
        planes.append(TiffPlane.of_page(file, page, page.keyframe, sample, depth))
    return planes


def _open_with_tifffile(path: Path, xml: str | None = None, **flags: bool) -> tifffile.TiffFile:
    try:
        return tifffile.TiffFile(path, omexml=xml, **flags)
    except (tifffile.TiffFileError, OSError) as error:
        raise VolumeError(f"{path} is no readable TIFF file ({error}).") from error


def _identity_of_files(files: Sequence[Path]) -> dict[str, Any]:
    """Describe a set of files by their names, sizes and times."""
    entries = []
    for file in files:
        status = file.stat()
        entries.append([file.name, status.st_size, status.st_mtime_ns])
    return {
        "size": sum(size for _, size, _ in entries),
        "mtime_ns": max(time for _, _, time in entries),
        "header_crc32c": crc32c(json.dumps(entries).encode()),
        "files": len(entries),
    }


def _check_sizes(planes: Sequence[TiffPlane]) -> None:
    needed: dict[Path, int] = {}
    for plane in planes:
        needed[plane.path] = max(needed.get(plane.path, 0), plane.end)
    for path, size in needed.items():
        with ByteFile(path) as file:
            file.require(size, "its image data")


def _check_alike(planes: Sequence[TiffPlane]) -> None:
    first = planes[0]
    for plane in planes:
        if (plane.shape, plane.keyframe.dtype) != (first.shape, first.keyframe.dtype):
            raise VolumeError(
                f"{plane.path} holds {plane.shape} {plane.keyframe.dtype}, but {first.path.name} "
                f"{first.shape} {first.keyframe.dtype}: the planes of a stack must be alike."
            )
    if first.keyframe.dtype is None or np.dtype(first.keyframe.dtype).kind not in "biufc":
        raise VolumeError(f"{first.path} holds samples of a type that cannot be read.")


def open_tiff(path: Path, selector: Selector) -> Volume:
    """Open a TIFF file, or the set of files that it or a companion belongs to.

    Raises
    ------
    VolumeError
        If the file is damaged or truncated, a file of the set is missing, or it is not one volume.
    """
    named, xml = path, None
    if path.name.lower().endswith(".companion.ome"):
        path, xml = read_companion(path)
    with ByteFile(path) as file:
        header = walk_directories(file)
    with _open_with_tifffile(path, xml) as tif:
        if xml is None and tif.is_ome:
            xml = tif.ome_metadata
            companion = companion_of(path, xml)
            if companion is not None:
                return open_tiff(companion, selector)
        parsed = _parse(path, tif, xml, selector)
        if parsed.raw_series is not None:
            offsets, plane, dtype = parsed.raw_series
            file = ByteFile(path)
            try:
                file.require(int(offsets.max()) + plane[0] * plane[1] * dtype.itemsize, "its image data")
            except VolumeError:
                file.close()
                raise
            size = voxel_size(parsed.sizes_nm, is_plane=len(offsets) == 1)
            return RawVolume(file, "TIFF", offsets, plane, dtype, size, header)
        _check_alike(parsed.planes)
        files = sorted({plane.path for plane in parsed.planes})
        _check_sizes(parsed.planes)
        identity = _identity_of_files(files)
        if len(files) == 1:
            identity = {**identity, "header_crc32c": crc32c(header)}
        size = voxel_size(parsed.sizes_nm, is_plane=len(parsed.planes) == 1)
        return TiffVolume(named, parsed.planes, size, identity)


def natural_key(path: Path) -> list[tuple[int, int, str]]:
    """Sort key that puts ``slice_2`` before ``slice_10``."""
    parts = re.split(r"(\d+)", path.name)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part.lower()) for part in parts if part]


def open_tiff_files(path: Path, files: Sequence[Path], selector: Selector) -> Volume:
    """Open files of one page each as a stack, in natural order of their names.

    Parameters
    ----------
    path : Path
        What the user named: a folder or a pattern.
    files : sequence of Path
        The files, in any order.
    selector : Selector
        Taken for every file.

    Raises
    ------
    VolumeError
        If there are no files, one holds several planes, or they are not alike.
    """
    files = sorted(files, key=natural_key)
    if not files:
        raise VolumeError(f"No file matches {path}.")
    folder = files[0].parent
    companions = sorted(folder.glob("*.companion.ome"))
    if len(companions) == 1 and path == folder:
        return open_tiff(companions[0], selector)
    if len(files) == 1:
        return open_tiff(files[0], selector)
    if path == folder:
        # Members of an OME set say which channel and time they are; their names need not.
        first = open_tiff(files[0], selector)
        if first.identity().get("files", 1) > 1:
            return first
        first.close()
    planes: list[TiffPlane] = []
    sizes: dict[str, float | None] = {}
    keyframes: dict[tuple[int, str], tifffile.TiffPage] = {}
    for file in files:
        with ByteFile(file) as raw:
            walk_directories(raw)
        with _open_with_tifffile(file, is_ome=False) as tif:
            found = tif.pages
            if len(found) != 1:
                raise VolumeError(
                    f"{file} holds {len(found)} pages; the files of a stack must hold one each."
                )
            page = found[0]
            if page.samplesperpixel != 1 and "s" not in selector.indices:
                raise VolumeError(
                    f"{file} has {page.samplesperpixel} samples a pixel; choose one by adding '::s=0'."
                )
            if not planes and tif.is_imagej:
                sizes = described_sizes(page, tif.imagej_metadata or {})
            # One keyframe for all pages of a layout: each would keep its file's metadata in memory.
            keyframe = keyframes.setdefault((page.hash, tif.byteorder), page)
            planes.append(TiffPlane.of_page(file, page, keyframe, selector.indices.get("s", 0)))
    _check_alike(planes)
    _check_sizes(planes)
    return TiffVolume(path, planes, voxel_size(sizes, is_plane=False), _identity_of_files(files))
