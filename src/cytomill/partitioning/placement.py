"""The RDF that weighs objects alike, against the same objects placed at random where they fit.

The centre of a granule cannot come nearer to a membrane than the granule's radius.  Counted by their centres
against the volume of the shells, objects placed quite at random would seem to avoid both membranes; so they
are counted against where centres can be.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from cytomill.kernels.object_tally import split_objects
from cytomill.kernels.tally import ROOM_BINS, split_cells, split_room
from cytomill.partitioning.bootstrap import LEVEL, RESAMPLES, generator, percentile_interval, resampled_totals
from cytomill.partitioning.rdf import rdf


def equivalent_radius_nm(
    voxel_count: np.ndarray, voxel_size_nm: Sequence[float], two_dimensional: bool = False
) -> np.ndarray:
    """Return the radius of the sphere of the same volume (of the disc of the same area), nm."""
    size = np.asarray(voxel_size_nm, np.float64)
    if two_dimensional:
        return np.sqrt(np.asarray(voxel_count) * size[1] * size[2] / np.pi)
    return np.cbrt(np.asarray(voxel_count) * size.prod() * 3 / (4 * np.pi))


def room_shares(room: np.ndarray, bin_nm: float, radius_nm: np.ndarray) -> np.ndarray:
    """Return the probability of each shell for the centre of a sphere placed at random where it fits.

    The centre is uniform over the cytoplasm voxels whose distance to the nearest membrane is at least the
    radius.

    Parameters
    ----------
    room : (n, 128) integer ndarray
        Cytoplasm voxels by shell and distance to the nearest membrane.
    bin_nm : float
        Width of a bin of distance; within a bin voxels count in proportion.
    radius_nm : (N,) ndarray

    Returns
    -------
    (N, n) float64 ndarray
        Rows of sum 1; NaN for a sphere that fits nowhere.
    """
    place = np.clip(np.asarray(radius_nm, np.float64) / bin_nm, 0, None)
    # The last bin is open: how far its voxels lie is not known, and all of them count.
    index = np.minimum(place.astype(np.int64), ROOM_BINS - 1)
    share = np.where(index == ROOM_BINS - 1, 1.0, 1 - (place - index))
    beyond = np.concatenate([np.cumsum(room[:, ::-1], axis=1)[:, ::-1], np.zeros((len(room), 1))], axis=1)
    fits = (beyond[:, index + 1] + share * room[:, index]).T
    total = fits.sum(axis=1, keepdims=True)
    return np.divide(fits, total, out=np.full(fits.shape, np.nan), where=total > 0)


def _ratio(observed: np.ndarray, expected: np.ndarray) -> np.ndarray:
    return np.divide(observed, expected, out=np.full(observed.shape, np.nan), where=expected > 0)


def object_rdf(
    cells: np.ndarray,
    room: np.ndarray,
    rows: np.ndarray,
    objects: pd.DataFrame,
    n_shells: int,
    voxel_size_nm: Sequence[float],
    room_bin_nm: float,
    two_dimensional: bool = False,
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> dict[str, np.ndarray]:
    """Return the object-weighted RDF of each cell, and the intervals of both weightings.

    Every object of the cytoplasm counts once, in the shell of its centre, against the number expected if
    the same objects, as spheres of their own volume, were placed at random where they fit: centres cannot
    reach a membrane, so that the shells next to one expect fewer.  An object whose centre lies nearer to a
    membrane than the radius of that sphere is flatter than it; it is placed as a sphere that just fits where
    it was found.  One that fits nowhere even so is left out of both numbers.

    Intervals: the objects of a cell are resampled with replacement, each with its voxels and its place.

    Parameters
    ----------
    cells : (N, C) int64 ndarray
        Merged rows of :func:`cytomill.kernels.tally.tally_cells`.
    room : (N, 1 + 128n) int64 ndarray
        Merged rows of room of the same cells.
    rows : (M, 15 + n) int64 ndarray
        Of :func:`merge_objects`.
    objects : pandas.DataFrame
        Of :func:`object_table` for the same rows.
    n_shells : int
    voxel_size_nm : sequence of float
    room_bin_nm : float
        Width of a bin of room, nm (``room_width`` quanta).
    two_dimensional : bool
        Objects are discs.
    seed, resamples, level
        Of the intervals; the random numbers depend on the seed, the organelle and the cell alone.

    Returns
    -------
    dict of str to (N, n) ndarray
        ``objects``, ``expected_objects``, ``g_objects`` (NaN where none are expected), ``g_objects_low``,
        ``g_objects_high``, ``g_low``, ``g_high``; intervals NaN with fewer than two objects.  ``left_out``,
        (N,): objects that fit nowhere.
    """
    shape = (len(cells), n_shells)
    result = {"objects": np.zeros(shape, np.int64), "expected_objects": np.zeros(shape)}
    result |= {
        name: np.full(shape, np.nan)
        for name in ("g_objects", "g_objects_low", "g_objects_high", "g_low", "g_high")
    }
    result["left_out"] = np.zeros(len(cells), np.int64)
    room_cells, rooms = split_room(room, n_shells)
    if not np.array_equal(room_cells, cells[:, 0]):
        raise ValueError("the rows of room are not of the same cells as the counts: merge both by cell")
    named = split_objects(rows)
    order = np.lexsort((named["label"], named["cell"]))
    row_cells = named["cell"][order]
    cytoplasm = objects[objects["compartment"] == "cytoplasm"].sort_values(["cell", "label"])
    object_cells = cytoplasm["cell"].to_numpy()
    clearance = np.fmin(cytoplasm["distance_ne_nm"].to_numpy(), cytoplasm["distance_pm_nm"].to_numpy())
    radius = np.fmin(
        equivalent_radius_nm(cytoplasm["voxel_count"].to_numpy(), voxel_size_nm, two_dimensional), clearance
    )
    shell = cytoplasm["shell"].to_numpy() - 1
    organelle = objects["organelle"].iloc[0] if len(objects) else ""
    volumes = split_cells(cells, n_shells)["shells"]

    for i, cell in enumerate(cells[:, 0]):
        own = order[np.searchsorted(row_cells, cell) : np.searchsorted(row_cells, cell, side="right")]
        voxels = named["shells"][own].astype(np.float64)
        voxels = voxels[voxels.any(axis=1)]
        if len(voxels) >= 2:
            rng = generator(seed, organelle, int(cell), "voxels")
            totals = resampled_totals(voxels, np.zeros(len(voxels), np.int8), rng, resamples)
            result["g_low"][i], result["g_high"][i] = percentile_interval(rdf(totals, volumes[i]), level)
        mine = slice(np.searchsorted(object_cells, cell), np.searchsorted(object_cells, cell, side="right"))
        expected = room_shares(rooms[i], room_bin_nm, radius[mine])
        fits = np.isfinite(expected[:, 0])
        expected = expected[fits]
        observed = np.eye(n_shells)[shell[mine][fits]]
        result["left_out"][i] = np.count_nonzero(~fits)
        result["objects"][i] = observed.sum(axis=0)
        result["expected_objects"][i] = expected.sum(axis=0)
        result["g_objects"][i] = _ratio(observed.sum(axis=0), expected.sum(axis=0))
        if len(expected) >= 2:
            rng = generator(seed, organelle, int(cell), "objects")
            both = np.hstack([observed, expected])
            totals = resampled_totals(both, np.zeros(len(both), np.int8), rng, resamples)
            ratios = _ratio(totals[:, :n_shells], totals[:, n_shells:])
            result["g_objects_low"][i], result["g_objects_high"][i] = percentile_interval(ratios, level)
    return result
