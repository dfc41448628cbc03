"""Measurements of labelled nanoparticle clusters, from integer sums to physical units.

Every block returns integer sums a label (:mod:`cytomill.kernels.moments`); they add up exactly, so
the table is the same to the last bit whatever the blocks were.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod

import numpy as np
import pandas as pd

from cytomill.kernels.blocks import Region, region_shape
from cytomill.kernels.moments import (
    SUM_COLUMNS,
    block_sums,
    centroids,
    covariances,
    merge_sums,
)

_AXES = ("z", "y", "x")
_CENTRE = "mean voxel coordinate; 0 is the centre of the first voxel"
_BOX = "bounding box, voxels of the label volume"

_POSITION = "mean position, nm; 0 is the centre of the image's first voxel"

#: What each column of the table means, for the schema of the file that holds it.
COLUMN_METADATA = {
    "label": "id in the label volume; a label is a cluster of touching particles, not a single particle",
    **{f"bbox_{axis}0_voxel": f"{_BOX}: first along {axis.upper()}" for axis in _AXES},
    **{f"bbox_{axis}1_voxel": f"{_BOX}: one past the last along {axis.upper()}" for axis in _AXES},
    **{f"centroid_{axis}_voxel": _CENTRE for axis in _AXES},
    **{f"centroid_{axis}_nm": _POSITION for axis in _AXES},
    "volume_um3": "voxel count times the volume of a voxel, µm³",
    "voxel_count": "voxels of the label",
    "equivalent_diameter_um": "diameter of the sphere of the same volume, µm",
    "axis_major_um": "longest full axis of the ellipsoid with the cluster's moments of inertia, µm",
    "axis_middle_um": "middle full axis of that ellipsoid, µm",
    "axis_minor_um": "shortest full axis of that ellipsoid, µm",
    "mean_intensity": "mean of the image over the label's voxels; empty without an image",
    "max_intensity": "largest image value in the label; empty without an image",
    "mean_posterior": "mean posterior over the label's voxels; empty without a posterior",
    "posterior_volume_um3": "sum of the posterior times the volume of a voxel, µm³",
}

#: Rows of a part of the table, also of a row group of its Parquet file.
PART_ROWS = 1 << 16
#: Bytes of a row of sums, and of its place while rows are merged.
ROW_BYTES, ORDER_BYTES = 8 * len(SUM_COLUMNS), 40
#: Bytes of a row of the table, with all that it is made by and written from.
TABLE_ROW_BYTES = 1600


def measure_unit(
    labels: np.ndarray,
    region: Region,
    posterior: np.ndarray | None = None,
    image: np.ndarray | None = None,
    factors: Sequence[int] = (1, 1, 1),
) -> dict[str, np.ndarray]:
    """Sum over the labels of one block.

    Parameters
    ----------
    labels : (Z, Y, X) int32 ndarray
        Final labels of the block.
    region : Region
        The block in the volume of labels.
    posterior : (Z, Y, X) float16 or uint8 ndarray, optional
        What was labelled.
    image : (Z·fz, Y·fy, X·fx) uint8 or uint16 ndarray, optional
        Intensities, see `factors`.
    factors : sequence of int
        Image voxels a label's voxel where the posterior was reduced by block means.

    Returns
    -------
    dict of str to ndarray
        ``particles``: rows of :func:`cytomill.kernels.moments.block_sums`.
    """
    if labels.shape != region_shape(region):
        raise ValueError(f"labels of shape {labels.shape} do not fill the block {region}")
    origin = [start for start, _ in region]
    return {"particles": block_sums(labels, origin, posterior, image, factors)}


def merge_measurements(partials: dict[str, np.ndarray]) -> np.ndarray:
    """Add up the sums of all blocks.

    Parameters
    ----------
    partials : dict of str to ndarray
        Of :func:`measure_unit`, rows of all blocks joined.

    Returns
    -------
    (N, 25) int64 ndarray
        A row a label, see :func:`cytomill.kernels.moments.merge_sums`.
    """
    return merge_sums(partials["particles"])


def merging_bytes(rows: int, labels: int) -> int:
    """Peak bytes of :func:`merge_measurements`, its rows included, then of the tables of its labels."""
    part = TABLE_ROW_BYTES * min(labels, PART_ROWS)
    return (ROW_BYTES + ORDER_BYTES) * rows + ROW_BYTES * labels + part


def ellipsoid_axes_nm(sums: np.ndarray, voxel_size_nm: Sequence[float]) -> np.ndarray:
    """Return the full axes of the ellipsoid with each label's moments of inertia.

    The inertia tensor about the centroid is ``tr(C)·1 - C`` with C the covariance of the matter; they
    share their eigenvectors, and a solid ellipsoid of semi-axis a has the variance a²/5 along it, so
    a full axis is ``2·√(5·λ)`` with λ an eigenvalue of C.  A voxel of side s is itself a solid box of
    variance s²/12, which C includes: a label of one voxel has axes of positive length.

    Parameters
    ----------
    sums : (N, 25) int64 ndarray
        Of :func:`merge_measurements`.
    voxel_size_nm : sequence of float
        (Z, Y, X).

    Returns
    -------
    (N, 3) float64 ndarray
        Major, middle, minor; nm.
    """
    size = np.asarray(voxel_size_nm, np.float64)
    matter = covariances(sums) * np.outer(size, size) + np.diag(size**2 / 12)
    variances = np.linalg.eigvalsh(matter)[:, ::-1]
    return 2 * np.sqrt(5 * np.maximum(variances, 0))


def particle_tables(
    sums: np.ndarray, voxel_size_nm: Sequence[float], origin_nm: Sequence[float] = (0.0, 0.0, 0.0)
) -> Iterator[pd.DataFrame]:
    """Yield what :func:`particle_table` returns in parts of :data:`PART_ROWS` rows, one at least.

    A table and what it is made by take five times the bytes of the sums: a gigabyte for a million clusters.
    """
    for first in range(0, max(len(sums), 1), PART_ROWS):
        yield particle_table(sums[first : first + PART_ROWS], voxel_size_nm, origin_nm)


def particle_table(
    sums: np.ndarray, voxel_size_nm: Sequence[float], origin_nm: Sequence[float] = (0.0, 0.0, 0.0)
) -> pd.DataFrame:
    """Turn sums into the table of clusters.

    Parameters
    ----------
    sums : (N, 25) int64 ndarray
        Of :func:`merge_measurements`.
    voxel_size_nm : sequence of float
        Of the label volume, (Z, Y, X).
    origin_nm : sequence of float
        Centre of the label volume's first voxel, nm from that of the image's (Z, Y, X); not zero
        where labels were made on a reduced posterior.

    Returns
    -------
    pandas.DataFrame
        A row a label, in order of label; columns :data:`COLUMN_METADATA`, which is also in
        ``attrs["columns"]``.

    Raises
    ------
    ValueError
        For a voxel size that is not three positive numbers.
    """
    size = np.asarray(voxel_size_nm, np.float64)
    if size.shape != (3,) or not (np.isfinite(size).all() and (size > 0).all()):
        raise ValueError(f"a voxel size in nm is three positive numbers (Z, Y, X), got {voxel_size_nm}")
    column = dict(zip(SUM_COLUMNS, sums.T, strict=True))
    count = column["voxel_count"]
    # The volume in nm³ first: 50·10·10 is exact where 0.05·0.01·0.01 is not.
    voxel_um3 = prod(size.tolist()) / 1e9
    volume = count * voxel_um3
    centre = centroids(sums)
    axes = ellipsoid_axes_nm(sums, size) / 1000

    def ratio(name: str, divisor: np.ndarray) -> np.ndarray:
        return np.divide(column[name], divisor, out=np.full(len(sums), np.nan), where=divisor > 0)

    has_image = column["intensity_count"] > 0
    posterior_sum = ratio("posterior_sum", column["posterior_scale"])
    table = {"label": column["label"]}
    table |= {f"bbox_{axis}{end}_voxel": column[f"{axis}{end}"] for end in (0, 1) for axis in _AXES}
    table |= {f"centroid_{axis}_voxel": centre[:, index] for index, axis in enumerate(_AXES)}
    table |= {
        f"centroid_{axis}_nm": centre[:, index] * size[index] + origin_nm[index]
        for index, axis in enumerate(_AXES)
    }
    table |= {
        "volume_um3": volume,
        "voxel_count": count,
        "equivalent_diameter_um": np.cbrt(6 * volume / np.pi),
        "axis_major_um": axes[:, 0],
        "axis_middle_um": axes[:, 1],
        "axis_minor_um": axes[:, 2],
        "mean_intensity": ratio("intensity_sum", column["intensity_count"]),
        "max_intensity": np.where(has_image, column["intensity_max"], np.nan),
        "mean_posterior": posterior_sum / count,
        "posterior_volume_um3": posterior_sum * voxel_um3,
    }
    frame = pd.DataFrame(table)
    frame.attrs["columns"] = dict(COLUMN_METADATA)
    return frame
