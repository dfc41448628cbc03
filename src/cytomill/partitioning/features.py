"""Table of a partition's zones: how large, where, and how much of each organelle."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from cytomill.kernels.moments import block_sums, centroids, merge_sums
from cytomill.partitioning.coordinates import STEP_VOXELS, check_partition
from cytomill.partitioning.rdf import voxel_measure_um


def compute_partition_features(
    partition_mask: np.ndarray,
    organelle_masks: Mapping[str, np.ndarray] | Sequence[np.ndarray] | np.ndarray | None = None,
    voxel_size_nm: Sequence[float] | None = None,
) -> pd.DataFrame:
    """Measure the zones (shells) of a partition, in one pass by slabs.

    Parameters
    ----------
    partition_mask : (Z, Y, X) or (Y, X) ndarray
        Zone ids, 0 is background.
    organelle_masks : mapping of str to ndarray, sequence of ndarray, or ndarray, optional
        Masks or label volumes of the same shape; voxels above 0.5 count.  Without names they are called
        ``organelle`` (one array) or ``organelle_1``, ``organelle_2`` and so on.
    voxel_size_nm : sequence of float, optional
        (Z, Y, X); adds physical columns.

    Returns
    -------
    pandas.DataFrame
        A row a zone, ids ascending: ``zone_id``, ``zone_volume`` (voxels), ``zone_center_z``,
        ``zone_center_y``, ``zone_center_x`` (voxels); with a voxel size ``zone_volume_um3`` (a plane:
        ``zone_area_um2``) and ``zone_center_{z,y,x}_nm``; and for every organelle ``{name}_count`` (its
        voxels in the zone) and ``{name}_density`` (those over the zone's voxels).  Ids between 1 and the
        largest that have no voxel have a row too: volume 0, centre and densities NaN.

    Raises
    ------
    ValueError
        If the partition is none, or a mask has another shape.
    """
    partition = check_partition(partition_mask)
    plane = partition.ndim == 2 or partition.shape[0] == 1
    masks = {name: np.asarray(mask) for name, mask in _named(organelle_masks).items()}
    for name, mask in masks.items():
        if mask.shape != partition.shape:
            raise ValueError(
                f"organelle {name} has shape {mask.shape}, the partition {partition.shape}; both must agree"
            )
    if partition.ndim == 2:
        partition = partition[None]
        masks = {name: mask[None] for name, mask in masks.items()}
    last = int(partition.max(initial=0))
    counts = {name: np.zeros(last + 1, np.int64) for name in masks}
    rows = []
    depth = max(1, STEP_VOXELS // math.prod(partition.shape[1:]))
    for z in range(0, partition.shape[0], depth):
        slab = partition[z : z + depth]
        rows.append(block_sums(slab.astype(np.int32), (z, 0, 0)))
        for name, mask in masks.items():
            counts[name] += np.bincount(slab[mask[z : z + depth] > 0.5], minlength=last + 1)
    sums = merge_sums(np.concatenate(rows))
    voxels = np.zeros(last + 1, np.int64)
    centres = np.full((last + 1, 3), np.nan)
    voxels[sums[:, 0]] = sums[:, 1]
    centres[sums[:, 0]] = centroids(sums)
    return pd.DataFrame(_columns(voxels, centres, counts, voxel_size_nm, plane))


def _named(masks: object) -> Mapping[str, np.ndarray]:
    if masks is None:
        return {}
    if isinstance(masks, Mapping):
        return masks
    if isinstance(masks, np.ndarray):
        return {"organelle": masks}
    return {f"organelle_{i}": mask for i, mask in enumerate(masks, 1)}


def _columns(
    voxels: np.ndarray,
    centres: np.ndarray,
    counts: Mapping[str, np.ndarray],
    voxel_size_nm: Sequence[float] | None,
    plane: bool,
) -> dict[str, np.ndarray]:
    zones = slice(1, None)
    columns: dict[str, np.ndarray] = {"zone_id": np.arange(1, len(voxels)), "zone_volume": voxels[zones]}
    if voxel_size_nm is not None:
        measure, unit = voxel_measure_um(voxel_size_nm, plane)
        columns[f"zone_{measure}"] = voxels[zones] * unit
    for axis, name in enumerate("zyx"):
        columns[f"zone_center_{name}"] = centres[zones, axis]
    if voxel_size_nm is not None:
        for axis, name in enumerate("zyx"):
            columns[f"zone_center_{name}_nm"] = centres[zones, axis] * float(voxel_size_nm[axis])
    for name, found in counts.items():
        columns[f"{name}_count"] = found[zones]
        with np.errstate(divide="ignore", invalid="ignore"):
            columns[f"{name}_density"] = found[zones] / voxels[zones]
    return columns
