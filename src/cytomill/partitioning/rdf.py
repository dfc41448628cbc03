"""The radial distribution function (RDF) of an organelle over the shells of the cytoplasm.

``g_i = (o_i / c_i) / (Σ o / Σ c)`` with o_i organelle voxels and c_i cytoplasm voxels of shell i: how much
denser the organelle is in the shell than on average over the cytoplasm.  It is an enrichment over uniform
density; it is *not* the pair correlation function that physics calls g(r), which compares the distances
between the particles themselves.  Voxels are counted all, on the volume; nothing is sampled or smoothed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from cytomill.kernels.cell_codes import MOST_SHELLS
from cytomill.kernels.histogram import histogram_256
from cytomill.kernels.tally import PROFILE_BINS, split_cells, tally_shells
from cytomill.kernels.voxel_size import checked_voxel_size

#: What each column of the table of shells means, for the schema of the file that holds it.
SHELLS_METADATA = {
    "cell": "id of the cell",
    "shell": "1 at the nuclear envelope … n at the plasma membrane",
    "t_low": "radial position of the inner boundary: 0 at the nuclear envelope, 1 at the plasma membrane",
    "t_high": "radial position of the outer boundary",
    "voxel_count": "cytoplasm voxels of the shell",
    "volume_um3": "voxel count times the volume of a voxel, µm³ (area_um2 of a 2-D image: area, µm²)",
    "censored_voxels": "of these, nearer to a face of the volume than to the plasma membrane",
}

#: What each column of the table of RDFs means; see :func:`rdf_table`.
RDF_METADATA = {
    "cell": "id of the cell",
    "organelle": "name of the organelle",
    "shell": "1 at the nuclear envelope … n at the plasma membrane",
    "organelle_voxels": "organelle voxels of the shell",
    "cytoplasm_voxels": "cytoplasm voxels of the shell",
    "g": "density of the organelle's voxels over its mean in the cytoplasm; empty where the shell has no "
    "voxel or the cytoplasm no organelle",
    "g_uncensored": "the same without censored voxels",
    "g_low": "lower end of the 95 % interval of g, objects of the cell resampled; empty with fewer than two",
    "g_high": "upper end of that interval",
    "objects": "objects with their centre in the shell",
    "expected_objects": "mean number of objects in the shell were they placed at random where they fit",
    "g_objects": "objects over expected objects; empty where none are expected",
    "g_objects_low": "lower end of the 95 % interval of g_objects, objects of the cell resampled",
    "g_objects_high": "upper end of that interval",
}

#: What each column of the table of profiles means; see :func:`profile_table`.
PROFILES_METADATA = {
    "cell": "id of the cell",
    "organelle": "name of the organelle",
    "t_low": "radial position, lower end of the bin: 0 at the nuclear envelope, 1 at the plasma membrane",
    "t_high": "radial position, upper end of the bin",
    "organelle_voxels": "organelle voxels of the bin",
    "cytoplasm_voxels": "cytoplasm voxels of the bin",
}


def rdf(organelle_counts: np.ndarray, cytoplasm_counts: np.ndarray) -> np.ndarray:
    """Return the enrichment of an organelle in each shell over uniform density.

    Parameters
    ----------
    organelle_counts : (..., n) ndarray
        Organelle voxels (or objects) of each shell.
    cytoplasm_counts : (..., n) ndarray
        Cytoplasm voxels of each shell.

    Returns
    -------
    (..., n) float64 ndarray
        g; NaN for a shell without voxels, and for all shells where the cytoplasm holds no organelle.

    Notes
    -----
    Weighted by cytoplasm voxels, the mean of g over the shells is 1.  It is an enrichment over uniform
    density, not a pair correlation.
    """
    o = np.asarray(organelle_counts, np.float64)
    c = np.asarray(cytoplasm_counts, np.float64)
    scale = c.sum(axis=-1, keepdims=True) / np.where(
        (total := o.sum(axis=-1, keepdims=True)) > 0, total, np.nan
    )
    return np.divide(o, c, out=np.full(np.broadcast_shapes(o.shape, c.shape), np.nan), where=c > 0) * scale


def radial_rdf(
    organelle: np.ndarray,
    shells: np.ndarray,
    n: int | None = None,
    t: np.ndarray | None = None,
    censored: np.ndarray | None = None,
) -> dict[str, object]:
    """Return the RDF of an organelle, exact on a volume in memory.

    Parameters
    ----------
    organelle : (Z, Y, X) bool or integer ndarray
        A mask or labels; what is not 0 is organelle.
    shells : (Z, Y, X) integer ndarray
        Shell ids 1 … n, 0 outside the cytoplasm.
    n : int, optional
        Number of shells; the largest id if not given.
    t : (Z, Y, X) float32 ndarray, optional
        Radial position, for the profile.
    censored : (Z, Y, X) bool ndarray, optional
        Cytoplasm voxels nearer to a face of the volume than to the plasma membrane.

    Returns
    -------
    dict
        Of (n,) arrays: ``radii`` (the shells' middles, (i − ½)/n), ``rdf``, ``rdf_uncensored``, ``counts``
        (organelle voxels), ``shell_volumes`` (cytoplasm voxels), ``densities`` (their ratio, NaN for an
        empty shell).  Of numbers: ``organelle_volume`` and ``cyto_volume`` (voxels within the cytoplasm),
        ``average_density``, ``outside`` (organelle voxels outside the cytoplasm, not in the RDF),
        ``censored_fraction`` of the cytoplasm.  With `t` also ``profile``, see :func:`profile`.

    Raises
    ------
    ValueError
        For arrays that do not match, or a shell id above `n`.
    """
    ids = np.ascontiguousarray(shells)
    if ids.dtype != np.uint8:
        whole = np.issubdtype(ids.dtype, np.integer)
        if not whole or (ids.size and (ids.min() < 0 or ids.max() > MOST_SHELLS)):
            found = f"{ids.min()} to {ids.max()}" if whole else ids.dtype
            raise ValueError(
                f"shells must be integers between 0 and {MOST_SHELLS}, found {found}: partition the cell "
                "into fewer shells, or round the ids"
            )
        ids = ids.astype(np.uint8)
    cytoplasm = histogram_256(ids)
    present = np.flatnonzero(cytoplasm[1:])
    largest = int(present[-1]) + 1 if present.size else 0
    n = max(1, largest) if n is None else n
    if not largest <= n <= MOST_SHELLS:
        raise ValueError(
            f"the shells go up to {largest}, which {n} shells do not hold (at most {MOST_SHELLS})"
        )
    position = None if t is None else np.asarray(t, np.float32)
    counts, uncensored, along = tally_shells(organelle, ids, censored, position)
    o, c = counts[1 : n + 1], cytoplasm[1 : n + 1]
    hidden = np.zeros(n, np.int64)
    if censored is not None:
        hidden = tally_shells(censored, ids)[0][1 : n + 1]
    volume, total = int(c.sum()), int(o.sum())
    result: dict[str, object] = {
        "radii": (np.arange(n) + 0.5) / n,
        "rdf": rdf(o, c),
        "rdf_uncensored": rdf(uncensored[1 : n + 1], c - hidden),
        "counts": o,
        "shell_volumes": c,
        "densities": np.divide(o, c, out=np.full(n, np.nan), where=c > 0),
        "organelle_volume": total,
        "cyto_volume": volume,
        "average_density": total / volume if volume else float("nan"),
        "outside": int(counts[0]),
        "censored_fraction": int(hidden.sum()) / volume if volume else float("nan"),
    }
    if position is not None:
        result["profile"] = profile(along, tally_shells(ids, ids, t=position)[2])
    return result


def profile(organelle_counts: np.ndarray, cytoplasm_counts: np.ndarray) -> dict[str, np.ndarray]:
    """Return the enrichment along t, bin by bin, without any smoothing.

    Parameters
    ----------
    organelle_counts, cytoplasm_counts : (200,) integer ndarray
        Voxels by radial position, in equal bins over [0, 1].

    Returns
    -------
    dict of str to (200,) ndarray
        ``t_low``, ``t_high``, ``counts``, ``volumes``, and ``g``: as :func:`rdf` with a bin for a shell.
    """
    edges = np.arange(len(cytoplasm_counts) + 1) / len(cytoplasm_counts)
    return {
        "t_low": edges[:-1],
        "t_high": edges[1:],
        "counts": np.asarray(organelle_counts),
        "volumes": np.asarray(cytoplasm_counts),
        "g": rdf(organelle_counts, cytoplasm_counts),
    }


def similarity(first: np.ndarray, second: np.ndarray) -> dict[str, float | int]:
    """Return how alike two RDFs are: Pearson's r over the shells that both define.

    No p-value comes with it: shells of one cell are neighbours, not independent observations, and there
    are few of them.

    Parameters
    ----------
    first, second : (n,) ndarray
        RDFs over the same shells.

    Returns
    -------
    dict
        ``pearson_r``, NaN with fewer than three common shells or where one RDF is constant; ``shells``,
        how many were compared.

    Raises
    ------
    ValueError
        For RDFs over different numbers of shells.
    """
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"two RDFs are compared shell by shell: shapes {a.shape} and {b.shape} differ")
    both = np.isfinite(a) & np.isfinite(b)
    a, b = a[both], b[both]
    r = float("nan")
    if a.size >= 3 and np.ptp(a) > 0 and np.ptp(b) > 0:
        a, b = a - a.mean(), b - b.mean()
        r = float(np.clip((a @ b) / np.sqrt((a @ a) * (b @ b)), -1, 1))
    return {"pearson_r": r, "shells": int(a.size)}


def voxel_measure_um(voxel_size_nm: Sequence[float], two_dimensional: bool = False) -> tuple[str, float]:
    """Return the column and the value of a voxel's size: ``volume_um3``, or ``area_um2`` in two dimensions.

    Raises
    ------
    ValueError
        For a voxel size that is not three positive numbers.
    """
    size = checked_voxel_size(voxel_size_nm)
    # The volume in nm³ first: 50·10·10 is exact where 0.05·0.01·0.01 is not.
    return ("area_um2", size[1] * size[2] / 1e6) if two_dimensional else ("volume_um3", size.prod() / 1e9)


def frame(columns: dict[str, object], metadata: dict[str, str]) -> pd.DataFrame:
    """Make a table that carries what its columns mean in ``attrs["columns"]``."""
    table = pd.DataFrame(columns)
    known = {**metadata, "area_um2": "pixel count times the area of a pixel, µm²"}
    table.attrs["columns"] = {name: known[name] for name in table.columns}
    return table


def shell_table(
    cells: np.ndarray, n_shells: int, voxel_size_nm: Sequence[float], two_dimensional: bool = False
) -> pd.DataFrame:
    """Turn the counts of cells into the table of shells.

    Parameters
    ----------
    cells : (N, C) int64 ndarray
        Merged rows of :func:`cytomill.kernels.tally.tally_cells`.
    n_shells : int
    voxel_size_nm : sequence of float
        (Z, Y, X).
    two_dimensional : bool
        Give ``area_um2`` in place of ``volume_um3``.

    Returns
    -------
    pandas.DataFrame
        A row a cell and shell; columns :data:`SHELLS_METADATA`.
    """
    named = split_cells(cells, n_shells)
    column, unit = voxel_measure_um(voxel_size_nm, two_dimensional)
    shell = np.tile(np.arange(1, n_shells + 1), len(cells))
    count = named["shells"].ravel()
    return frame(
        {
            "cell": np.repeat(named["cell"], n_shells),
            "shell": shell,
            "t_low": (shell - 1) / n_shells,
            "t_high": shell / n_shells,
            "voxel_count": count,
            column: count * unit,
            "censored_voxels": named["censored_shells"].ravel(),
        },
        SHELLS_METADATA,
    )


def match_cells(cells: np.ndarray, organelle: np.ndarray) -> np.ndarray:
    """Return the organelle's rows in the order of the cells; zeros for a cell without a voxel of it."""
    matched = np.zeros_like(cells)
    matched[:, 0] = cells[:, 0]
    if len(organelle):
        place = np.minimum(np.searchsorted(organelle[:, 0], cells[:, 0]), len(organelle) - 1)
        found = organelle[place, 0] == cells[:, 0]
        matched[found] = organelle[place[found]]
    return matched


def rdf_table(
    name: str,
    cells: np.ndarray,
    organelle: np.ndarray,
    n_shells: int,
    objects: dict[str, np.ndarray] | None = None,
) -> pd.DataFrame:
    """Turn counts into the table of one organelle's RDFs.

    Parameters
    ----------
    name : str
        Of the organelle.
    cells, organelle : (N, C), (M, C) int64 ndarray
        Merged rows of :func:`cytomill.kernels.tally.tally_cells` and ``tally_organelle``.
    n_shells : int
    objects : dict of str to (N, n) ndarray, optional
        Of :func:`cytomill.partitioning.placement.object_rdf` for the same cells; without it the columns
        about objects, and all intervals, are empty.

    Returns
    -------
    pandas.DataFrame
        A row a cell and shell; columns :data:`RDF_METADATA`.
    """
    c, o = split_cells(cells, n_shells), split_cells(match_cells(cells, organelle), n_shells)
    columns: dict[str, object] = {
        "cell": np.repeat(c["cell"], n_shells),
        "organelle": np.full(c["shells"].size, name, dtype=object),
        "shell": np.tile(np.arange(1, n_shells + 1), len(cells)),
        "organelle_voxels": o["shells"].ravel(),
        "cytoplasm_voxels": c["shells"].ravel(),
        "g": rdf(o["shells"], c["shells"]).ravel(),
        "g_uncensored": rdf(o["shells"] - o["censored_shells"], c["shells"] - c["censored_shells"]).ravel(),
    }
    for column in (
        "g_low",
        "g_high",
        "objects",
        "expected_objects",
        "g_objects",
        "g_objects_low",
        "g_objects_high",
    ):
        columns[column] = np.full(c["shells"].size, np.nan) if objects is None else objects[column].ravel()
    return frame(columns, RDF_METADATA)


def profile_table(name: str, cells: np.ndarray, organelle: np.ndarray, n_shells: int) -> pd.DataFrame:
    """Turn counts into the table of one organelle's histograms over t.

    Parameters
    ----------
    name, cells, organelle, n_shells
        As for :func:`rdf_table`.

    Returns
    -------
    pandas.DataFrame
        A row a cell and bin, 200 bins; columns :data:`PROFILES_METADATA`.
    """
    c, o = split_cells(cells, n_shells), split_cells(match_cells(cells, organelle), n_shells)
    edges = np.arange(PROFILE_BINS + 1) / PROFILE_BINS
    return frame(
        {
            "cell": np.repeat(c["cell"], PROFILE_BINS),
            "organelle": np.full(c["profile"].size, name, dtype=object),
            "t_low": np.tile(edges[:-1], len(cells)),
            "t_high": np.tile(edges[1:], len(cells)),
            "organelle_voxels": o["profile"].ravel(),
            "cytoplasm_voxels": c["profile"].ravel(),
        },
        PROFILES_METADATA,
    )
