"""RDF of an organelle over listed partition points: the round trip through an XVG file."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cytomill.partitioning.coordinates import PartitionCoordinates
from cytomill.partitioning.rdf import rdf
from cytomill.partitioning.xvg_reading import (
    DOCUMENTED,
    REFERENCE,
    iterate_points,
    load_partition_coords_from_xvg,
)
from cytomill.partitioning.xvg_writing import check_dataid
from cytomill.storage.durable import write_atomic

#: From this distance on, the published reference drops an organelle voxel, in voxels.
COMPAT_REACH_VOXELS = 10.0
#: Points looked up at a time.
POINTS = 2**20

_CSV_COLUMNS = ("radii", "rdf", "counts", "densities", "shell_volumes")


def calculate_rdf_from_xvg(
    organelle_mask: np.ndarray,
    partition_coords: Mapping[int, np.ndarray] | str | os.PathLike,
    radial_positions: Mapping[Any, float] | None = None,
    bins: int = 8,
    *,
    compat: bool = False,
) -> dict[str, Any] | None:
    """Radial distribution g_i = (o_i / c_i) / (Σo / Σc) of organelle voxels over the listed points.

    Every listed point is looked up in the mask, so that a file of all voxels (sampling density 1) gives
    the exact values of the volume, and a sample an unbiased estimate of each shell's density; nothing is
    assigned from a distance.  g is an enrichment over uniform density in the listed cytoplasm, not a pair
    correlation.

    Parameters
    ----------
    organelle_mask : (Z, Y, X) or (Y, X) ndarray
        Values above 0.5 are organelle: bool, 0/1, 0/255 and labels alike; NaN is background.
    partition_coords : mapping of int to (N, 3) ndarray, or path-like
        Points (Z, Y, X) by partition id; or an XVG file, which is read as a stream, whatever its length.
    radial_positions : mapping, optional
        Position (0 at the NE, 1 at the PM) by partition id, or by voxel (z, y, x), which then are the
        points; None: those of the loader, (id - ½)/n.
    bins : int
        Equal bins of the radial position.
    compat : bool
        As the published reference: each organelle voxel takes the position of the nearest point within
        10 voxels, wherever it lies; a bin without cytoplasm is 0; None where there is no organelle.

    Returns
    -------
    dict
        ``radii`` (bin centres), ``rdf``, ``counts`` (organelle voxels), ``densities`` (o_i / c_i) and
        ``shell_volumes`` (listed voxels), each (bins,); ``organelle_layer_counts`` and
        ``cyto_layer_counts`` (the same counts), ``dataset``, ``organelle_volume`` (organelle voxels of
        the mask), ``cyto_volume``, ``average_density`` (Σo / Σc) and ``assignment_efficiency`` (share of
        the organelle voxels at listed points: the rest lies outside the cytoplasm, or was not sampled).
        A bin without cytoplasm is NaN; so is everything where no organelle voxel lies at a point.

    Raises
    ------
    ValueError
        If a point lies outside the mask, there is no point, or `bins` is below 1.
    """
    if bins < 1:
        raise ValueError(f"an RDF needs at least one bin; found bins = {bins}")
    mask = np.asarray(organelle_mask)
    mask = mask if mask.dtype == bool else mask > 0.5
    if mask.ndim == 2:
        mask = mask[None]
    total = int(np.count_nonzero(mask))
    if compat:
        return _compat_rdf(mask, total, partition_coords, radial_positions, bins) if total else None
    dataset = getattr(partition_coords, "dataid", "")
    if radial_positions is not None and _by_voxel(radial_positions):
        points, positions = _voxel_positions(radial_positions)
        bin_of = _bins_of(positions, bins)
        found = _hits(mask, points)
        counts = np.bincount(bin_of[found], minlength=bins)
        volumes = np.bincount(bin_of, minlength=bins)
    else:
        organelle, listed, dataset, shells = _count_points(mask, partition_coords, dataset)
        ids = np.flatnonzero(listed)
        if not ids.size:
            raise ValueError("an RDF needs partition points; found none")
        bin_of = _bins_of_ids(ids, partition_coords, radial_positions, bins, shells)
        counts = np.bincount(bin_of, organelle[ids], bins).astype(np.int64)
        volumes = np.bincount(bin_of, listed[ids], bins).astype(np.int64)
    return _results(dataset, counts, volumes, total, rdf(counts, volumes))


def _results(
    dataset: str, counts: np.ndarray, volumes: np.ndarray, total: int, enrichment: np.ndarray
) -> dict[str, Any]:
    bins, listed = len(counts), int(volumes.sum())
    with np.errstate(divide="ignore", invalid="ignore"):
        densities = counts / volumes
    return {
        "dataset": dataset,
        "radii": (np.arange(bins) + 0.5) / bins,
        "rdf": enrichment,
        "counts": counts,
        "densities": densities,
        "shell_volumes": volumes,
        "organelle_volume": total,
        "cyto_volume": listed,
        "average_density": float(counts.sum() / listed) if listed else math.nan,
        "organelle_layer_counts": counts,
        "cyto_layer_counts": volumes,
        "assignment_efficiency": float(counts.sum() / total) if total else math.nan,
    }


def _by_voxel(radial_positions: Mapping[Any, float]) -> bool:
    return isinstance(next(iter(radial_positions), None), tuple)


def _voxel_positions(radial_positions: Mapping[Any, float]) -> tuple[np.ndarray, np.ndarray]:
    points = np.array(list(radial_positions), np.int64).reshape(len(radial_positions), -1)
    return points, np.fromiter(radial_positions.values(), np.float64, len(radial_positions))


def _bins_of(positions: np.ndarray, bins: int) -> np.ndarray:
    if not ((positions >= 0) & (positions <= 1)).all():
        raise ValueError("radial positions lie between 0 (NE) and 1 (PM); found one that does not")
    return np.minimum((positions * bins).astype(np.int64), bins - 1)


def _bins_of_ids(
    ids: np.ndarray, coords: Any, radial_positions: Mapping[int, float] | None, bins: int, shells: int
) -> np.ndarray:
    if radial_positions is None and isinstance(coords, PartitionCoordinates):
        radial_positions = coords.stated_positions
    if radial_positions is None:
        # In integers: (id - ½)/n · bins may lie on a bin's edge.
        return ((2 * ids - 1) * bins) // (2 * max(shells, int(ids[-1])))
    missing = [int(i) for i in ids if i not in radial_positions]
    if missing:
        raise ValueError(f"partition {missing[0]} has points but no radial position")
    return _bins_of(np.array([radial_positions[int(i)] for i in ids], np.float64), bins)


def _hits(mask: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Whether each point, at its nearest voxel, is organelle."""
    if points.shape[1] == 2:
        points = np.insert(points, 0, 0, axis=1)
    voxels = points if points.dtype.kind in "iu" else np.rint(points).astype(np.int64)
    inside = ((voxels >= 0) & (voxels < mask.shape)).all(axis=1)
    if not inside.all():
        raise ValueError(
            f"the point {points[~inside][0].tolist()} (z, y, x) lies outside the organelle mask of shape "
            f"{mask.shape}: both must be on the same grid"
        )
    return mask[voxels[:, 0], voxels[:, 1], voxels[:, 2]]


def _pieces(coords: Any) -> Iterator[tuple[str, int, np.ndarray, np.ndarray]]:
    """Dataset, number of shells (0 where not said), points and ids, piece by piece."""
    if not isinstance(coords, Mapping):
        for header, points, ids in iterate_points(coords):
            if header.layout not in (DOCUMENTED, REFERENCE):
                raise ValueError(f"{coords} is a file of {header.layout}: load it first, for its positions")
            yield header.dataid, header.shells or 0, points, ids
        return
    for i, points in coords.items():
        points = np.asarray(points)
        for first in range(0, len(points), POINTS):
            part = points[first : first + POINTS]
            shells = getattr(coords, "shells", None) or 0
            yield getattr(coords, "dataid", ""), shells, part, np.full(len(part), i, np.int64)


def _count_points(mask: np.ndarray, coords: Any, dataset: str) -> tuple[np.ndarray, np.ndarray, str, int]:
    """Organelle and listed points of each id, the dataset's name, and the number of shells (0: not said)."""
    shells = 0
    organelle, listed = np.zeros(1, np.int64), np.zeros(1, np.int64)
    for name, count, points, ids in _pieces(coords):
        dataset, shells = name, count
        if not len(points):
            continue
        size = max(len(listed), int(ids.max()) + 1)
        organelle = np.pad(organelle, (0, size - len(organelle)))
        listed = np.pad(listed, (0, size - len(listed)))
        listed += np.bincount(ids, minlength=size)
        organelle += np.bincount(ids[_hits(mask, points)], minlength=size)
    return organelle, listed, dataset, shells


def _compat_rdf(
    mask: np.ndarray, total: int, coords: Any, radial_positions: Mapping[Any, float] | None, bins: int
) -> dict[str, Any] | None:
    """The published reference's RDF, for files of all its layouts."""
    from scipy.spatial import cKDTree

    if radial_positions is not None and _by_voxel(radial_positions):
        points, positions = _voxel_positions(radial_positions)
    else:
        if not isinstance(coords, Mapping):
            coords = load_partition_coords_from_xvg(coords)
        by_id = radial_positions or {i: (i - 0.5) / max(coords) for i in coords}
        filled = [i for i in sorted(coords) if len(coords[i])]
        if not filled:
            return None
        points = np.concatenate([coords[i] for i in filled]).astype(np.int64)
        positions = np.repeat([by_id[i] for i in filled], [len(coords[i]) for i in filled])
    if not len(points):
        return None
    distance, nearest = cKDTree(points).query(np.argwhere(mask))
    taken = positions[nearest[distance <= COMPAT_REACH_VOXELS]]
    counts, _ = np.histogram(taken, bins, (0, 1))
    volumes, _ = np.histogram(positions, bins, (0, 1))
    results = _results("sxt_analysis", counts, volumes, total, np.zeros(bins))
    occupied = volumes > 0
    if results["average_density"]:
        results["rdf"][occupied] = counts[occupied] / volumes[occupied] / results["average_density"]
    return results


def _plain(value: Any) -> Any:
    """JSON without NaN, which the format does not know: null."""
    if isinstance(value, Mapping):
        return {str(name): _plain(entry) for name, entry in value.items()}
    if isinstance(value, np.ndarray | list | tuple):
        return [_plain(entry) for entry in np.asarray(value).tolist()]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def save_radial_rdf_results(
    rdf_results: Mapping[str, Any] | None, output_dir: str | os.PathLike, data_id: str
) -> tuple[Path, Path]:
    """Write ``{data_id}_rdf.csv`` (a row a bin) and ``{data_id}_rdf.json`` (everything).

    Parameters
    ----------
    rdf_results : mapping
        Of :func:`calculate_rdf_from_xvg`.
    output_dir : path-like
        Made, with its parents, where it does not exist.
    data_id : str
        Identifier of the dataset.

    Returns
    -------
    tuple of Path
        The CSV (an undefined value is an empty field) and the JSON file (it is null).

    Raises
    ------
    ValueError
        If there are no results, or `data_id` is no file name.
    """
    if rdf_results is None:
        raise ValueError("there are no RDF results to save: the mask had no organelle voxel")
    check_dataid(data_id)
    folder = Path(output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    plain = _plain(rdf_results)
    columns = [name for name in _CSV_COLUMNS if name in plain]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*(plain[name] for name in columns), strict=True))
    table, full = folder / f"{data_id}_rdf.csv", folder / f"{data_id}_rdf.json"
    write_atomic(table, text.getvalue().encode())
    write_atomic(full, (json.dumps({"data_id": data_id, **plain}, indent=1, allow_nan=False) + "\n").encode())
    return table, full
