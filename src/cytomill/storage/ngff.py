"""OME-NGFF metadata: building it (0.5) and reading it (0.4 and 0.5).

Source: OME-NGFF specification, https://ngff.openmicroscopy.org/0.5/ and /0.4/.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from cytomill.storage.length_units import nm_per

VERSION = "0.5"

_AXES = [{"name": name, "type": "space", "unit": "nanometer"} for name in "zyx"]


def ome_attributes(attributes: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the OME part of a group's attributes: below ``ome`` in 0.5, at the top before."""
    ome = attributes.get("ome")
    return ome if isinstance(ome, Mapping) else attributes


def multiscale_with(
    ome: Mapping[str, Any], name: str, path: str, voxel_size_nm: Sequence[float]
) -> dict[str, Any]:
    """Return `ome` with one more dataset in its multiscale image, finest first.

    Parameters
    ----------
    ome : mapping
        The group's OME attributes, possibly empty.
    name : str
        Name of the image.
    path : str
        Path of the array below the group.
    voxel_size_nm : sequence of float
        Voxel size (Z, Y, X) in nm.

    Raises
    ------
    ValueError
        If the group holds an image with other axes than Z, Y and X in nanometers.
    """
    images = ome.get("multiscales") or [{"name": name, "axes": _AXES, "datasets": []}]
    image = dict(images[0])
    if image.get("axes") != _AXES or image.get("coordinateTransformations"):
        raise ValueError("it holds an image with other axes than z, y and x in nanometer")
    kept = [dataset for dataset in image["datasets"] if dataset["path"] != path]
    kept.append(_dataset(path, voxel_size_nm, voxel_size_nm))
    image["datasets"] = _placed(kept)
    return {**ome, "version": VERSION, "multiscales": [image, *images[1:]]}


def multiscale_without(ome: Mapping[str, Any], paths: Collection[str]) -> dict[str, Any]:
    """Return `ome` without the datasets of these paths in its multiscale image."""
    images = ome.get("multiscales") or []
    if not images:
        return dict(ome)
    image = dict(images[0])
    image["datasets"] = _placed([dataset for dataset in image["datasets"] if dataset["path"] not in paths])
    kept = [image, *images[1:]] if image["datasets"] else images[1:]
    return {**ome, "multiscales": kept}


def _dataset(path: str, size: Sequence[float], finest: Sequence[float]) -> dict[str, Any]:
    """One dataset; the first voxel of a coarser one covers whole voxels of the finest."""
    steps = [{"type": "scale", "scale": [float(side) for side in size]}]
    offset = [(float(side) - float(least)) / 2 for side, least in zip(size, finest)]
    if any(offset):
        steps.append({"type": "translation", "translation": offset})
    return {"path": path, "coordinateTransformations": steps}


def _placed(datasets: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Datasets finest first, each at its place against the finest."""
    ordered = sorted(datasets, key=lambda dataset: (math.prod(_scale_of(dataset)), dataset["path"]))
    finest = _scale_of(ordered[0]) if ordered else []
    return [_dataset(dataset["path"], _scale_of(dataset), finest) for dataset in ordered]


def labels_with(ome: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Return the OME attributes of a ``labels`` group with one more label image listed."""
    return {**ome, "version": VERSION, "labels": sorted({*ome.get("labels", ()), path})}


def image_label(depth: int) -> dict[str, Any]:
    """Return the ``image-label`` attribute of a group `depth` levels below the image it belongs to."""
    return {"source": {"image": "../" * depth}}


def _scale_of(entry: Mapping[str, Any]) -> list[float]:
    for transformation in entry.get("coordinateTransformations") or ():
        if transformation.get("type") == "scale" and isinstance(transformation.get("scale"), list):
            return [float(factor) for factor in transformation["scale"]]
    return []


def axis_names(image: Mapping[str, Any], ndim: int) -> str:
    """Return the names of an image's axes, one letter each; 0.1 and 0.2 fixed them to TCZYX."""
    axes = image.get("axes")
    if not axes:
        return "tczyx"[-ndim:]
    names = [axis if isinstance(axis, str) else str(axis.get("name", "?")) for axis in axes]
    return "".join(name[:1].lower() for name in names)


def voxel_size_by_axis(image: Mapping[str, Any], path: str) -> dict[str, float]:
    """Return the voxel size in nm of each spatial axis of one dataset, where the metadata state a unit."""
    dataset = next((entry for entry in image.get("datasets", ()) if entry.get("path") == path), {})
    scale = _scale_of(dataset)
    outer = _scale_of(image) or [1.0] * len(scale)
    sizes = {}
    for axis, inner, factor in zip(image.get("axes") or (), scale, outer):
        unit = nm_per(axis.get("unit")) if isinstance(axis, Mapping) else None
        if unit is not None and inner * factor > 0:
            sizes[axis["name"][:1].lower()] = inner * factor * unit
    return sizes
