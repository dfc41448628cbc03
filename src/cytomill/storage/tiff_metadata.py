"""What TIFF files say about themselves: page directories, OME-XML, ImageJ's description.

Sources: TIFF 6.0; OME-TIFF specification, https://ome-model.readthedocs.io/en/stable/ome-tiff/.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from cytomill.storage.errors import VolumeError
from cytomill.storage.files import ByteFile
from cytomill.storage.length_units import nm_per

#: Bytes of a value of each type of tag.
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 13: 4, 16: 8, 17: 8, 18: 8}

#: Description, and where the strips or tiles are: a page cannot be read right without them.
_NEEDED_TAGS = {270, 273, 279, 324, 325}


def walk_directories(file: ByteFile) -> bytes:
    """Follow the chain of page directories; return them all, raw.

    tifffile stops silently where a chain leaves a file that was cut short.
    """
    path = file.path
    file.require(8, "a TIFF header")
    start = file.read(0, 8)
    order = "little" if start[:2] == b"II" else "big"
    big = start[2:4] in (b"+\0", b"\0+")
    count_bytes, entry_bytes, pointer_bytes = (8, 20, 8) if big else (2, 12, 4)
    entry_format = ("<" if order == "little" else ">") + ("HHQQ" if big else "HHII")
    at = int.from_bytes(file.read(8, 8) if big else start[4:8], order)
    raw, seen = [start], set()
    while at:
        if at in seen:
            raise VolumeError(f"{path} has a loop in its page directories: it is damaged.")
        seen.add(at)
        file.require(at + count_bytes, f"page directory {len(seen)}")
        entries = int.from_bytes(file.read(at, count_bytes), order)
        length = entries * entry_bytes
        file.require(at + count_bytes + length + pointer_bytes, f"page directory {len(seen)}")
        directory = file.read(at + count_bytes, length + pointer_bytes)
        for tag, kind, count, value in struct.iter_unpack(entry_format, directory[:length]):
            size = count * _TYPE_BYTES.get(kind, 0)
            if tag in _NEEDED_TAGS and size > pointer_bytes:
                file.require(value + size, f"tag {tag} of page directory {len(seen)}")
        raw.append(directory)
        at = int.from_bytes(directory[length:], order)
    return b"".join(raw)


def _ome_pixels(xml: str) -> list[ElementTree.Element]:
    return [
        pixels
        for image in ElementTree.fromstring(xml)
        if image.tag.endswith("}Image")
        for pixels in image
        if pixels.tag.endswith("}Pixels")
    ]


def _number(value: Any) -> float:
    """Return `value` as a number, 0 if it is none."""
    try:
        return float(value or 0)
    except (TypeError, ValueError):
        return 0.0


def ome_sizes(xml: str, number: int) -> dict[str, float | None]:
    """Read the voxel size of one image of an OME-XML text; micrometers unless it says otherwise."""
    pixels = _ome_pixels(xml)
    if number >= len(pixels):
        return {}
    sizes = {}
    for axis in "xyz":
        value = _number(pixels[number].get(f"PhysicalSize{axis.upper()}"))
        unit = nm_per(pixels[number].get(f"PhysicalSize{axis.upper()}Unit", "µm"))
        sizes[axis] = value * unit if value and unit else None
    return sizes


def described_sizes(page: Any, description: dict[str, Any]) -> dict[str, float | None]:
    """Read voxel sizes as ImageJ states them: resolutions in pixels a unit, spacing in units.

    Resolutions are fractions with a denominator of a million: more than six digits are noise.
    """
    unit = description.get("unit")
    sizes: dict[str, float | None] = {}
    for axis, tag in (("x", "XResolution"), ("y", "YResolution")):
        value = page.tags.get(tag)
        pixels, units = value.value if value is not None and len(value.value) == 2 else (0, 0)
        scale = nm_per(description.get(f"{axis}unit", unit))
        sizes[axis] = float(f"{units / pixels * scale:.6g}") if pixels and units and scale else None
    scale, spacing = nm_per(description.get("zunit", unit)), _number(description.get("spacing"))
    sizes["z"] = abs(spacing) * scale if spacing and scale else None
    return sizes


def _beside(path: Path, name: str) -> Path:
    """A file of this name beside `path`, or beside what it links to."""
    named = path.with_name(name)
    return named if named.is_file() else path.resolve().with_name(name)


def companion_of(path: Path, xml: str) -> Path | None:
    """Return the file that holds the metadata of a set, where a member only points to it."""
    for element in ElementTree.fromstring(xml):
        if element.tag.endswith("}BinaryOnly"):
            name = Path(element.get("MetadataFile", "")).name
            companion = _beside(path, name) if name else None
            if companion is None or not companion.is_file():
                raise VolumeError(f"{path} is part of a set described by {name!r}, which is not beside it.")
            return companion
    return None


def read_companion(companion: Path) -> tuple[Path, str]:
    """Return the first file of the set that a companion describes, and its OME-XML."""
    try:
        xml = companion.read_text(encoding="utf-8")
        names = [
            element.get("FileName", "")
            for element in ElementTree.fromstring(xml).iter()
            if element.tag.endswith("}UUID")
        ]
    except (OSError, ValueError, ElementTree.ParseError) as error:
        raise VolumeError(f"{companion} is no OME metadata ({error}).") from error
    files = [_beside(companion, Path(name).name) for name in names if name]
    if not files:
        raise VolumeError(f"{companion} names no TIFF files.")
    for file in files:
        if not file.is_file():
            raise VolumeError(f"{companion} names {file.name}, which is not beside it.")
    return files[0], xml
