"""Objects in cells: where each one lies, and how many a cell took up.

Objects are the labels of an organelle (granules, mitochondria, clusters of nanoparticles).  Their rows of
integers (:func:`cytomill.kernels.object_tally.tally_objects`) add up exactly over blocks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from cytomill.kernels.cell_codes import CENSORED, CYTOPLASM, POSITION_ONE, SATURATED
from cytomill.kernels.keyed_rows import merge_rows
from cytomill.kernels.object_tally import OBJECT_MINIMA, split_objects
from cytomill.partitioning.rdf import frame, voxel_measure_um

COMPARTMENTS = ("outside", "adsorbed", "cytoplasm", "nucleus")

#: What each column of the table of objects means, for the schema of the file that holds it.
OBJECTS_METADATA = {
    "organelle": "name of the organelle",
    "label": "id of the object in the organelle's label volume",
    "cell": "parent cell: the one that holds most of its voxels, ties the lowest id; of an object outside, "
    "the one with the nearest plasma membrane; 0 where no cell is near",
    "compartment": "outside, adsorbed (outside, a voxel within the stated distance of the plasma membrane), "
    "cytoplasm or nucleus, where most of its voxels lie",
    "shell": "shell of its centre, 0 outside the cytoplasm",
    "t": "radial position of its centre, 0 at the nuclear envelope, 1 at the plasma membrane; the mean over "
    "its cytoplasm voxels where the centre lies outside the cytoplasm; empty for other compartments",
    **{
        f"centroid_{axis}_nm": "mean position, nm; 0 is the centre of the volume's first voxel"
        for axis in "zyx"
    },
    "voxel_count": "voxels of the object",
    "volume_um3": "voxel count times the volume of a voxel, µm³",
    "distance_ne_nm": "distance of its centre from the nuclear envelope, nm; empty where unknown",
    "distance_pm_nm": "distance of its centre from the plasma membrane, nm; empty where unknown",
    "nearest_ne_nm": "least distance of one of its voxels from the nuclear envelope, nm; empty where unknown",
    "nearest_pm_nm": "least distance of one of its voxels from the plasma membrane, nm; empty where unknown",
    "censored": "most of its cytoplasm voxels lie nearer to a face of the volume than to the plasma membrane",
}

#: What each column of the table of uptake means.
UPTAKE_METADATA = {
    "cell": "id of the cell; 0: near no cell",
    "organelle": "name of the organelle",
    "compartment": "outside, adsorbed to the plasma membrane, cytoplasm or nucleus",
    "objects": "objects of that cell and compartment",
    "voxels": "their voxels",
    "volume_um3": "their volume, µm³",
}


def merge_objects(rows: np.ndarray) -> np.ndarray:
    """Add up the rows of :func:`cytomill.kernels.object_tally.tally_objects` of all blocks."""
    return merge_rows(rows, keys=2, minima=OBJECT_MINIMA)


def _by_object(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where each object's rows begin, and the object (0 …) of each row."""
    first = np.r_[True, np.diff(rows[:, 0]) != 0][: len(rows)]
    return np.flatnonzero(first), np.cumsum(first) - 1


def _per_object(values: np.ndarray, begins: np.ndarray) -> np.ndarray:
    # numpy refuses to add up no rows at all.
    return np.add.reduceat(values, begins) if len(begins) else values


def centroid_voxels(rows: np.ndarray) -> np.ndarray:
    """Return the voxel that each object's centroid lies in.

    Parameters
    ----------
    rows : (M, 15 + n) int64 ndarray
        Of :func:`merge_objects`.

    Returns
    -------
    (N, 3) int64 ndarray
        (Z, Y, X) in the volume, objects in order of label; halves are rounded up.
    """
    begins, _ = _by_object(rows)
    count = _per_object(rows[:, 2:7].sum(axis=1), begins)[:, None]
    return (2 * _per_object(rows[:, 7:10], begins) + count) // (2 * count)


def _parents(rows: np.ndarray, named: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return, an object, the row of its parent cell and whether most of its voxels lie within cells."""
    begins, owner = _by_object(rows)
    inside = named["cytoplasm"] + named["nucleus"]
    outer = named["outside"] + named["margin"]
    within = np.add.reduceat(inside, begins) >= np.add.reduceat(outer, begins)
    # Within cells the one with most voxels, outside the one with the nearest membrane; a row of no cell
    # comes last, and equals go to the lowest id, by which the rows of an object are sorted.
    wins = np.where(within[owner], -inside, named["nearest_pm"])
    order = np.lexsort((named["cell"], -named["margin"], wins, named["cell"] == 0, owner))
    return order[begins], within


def _nm(quanta: np.ndarray, quantum_nm: float) -> np.ndarray:
    """Turn distances in quanta into nm; NaN where they are saturated."""
    return np.where(quanta >= SATURATED, np.nan, quanta * quantum_nm)


def object_table(
    name: str,
    rows: np.ndarray,
    n_shells: int,
    voxel_size_nm: Sequence[float],
    quantum_nm: float,
    adsorbed_nm: float,
    points: np.ndarray | None = None,
    origin_nm: Sequence[float] = (0.0, 0.0, 0.0),
    two_dimensional: bool = False,
) -> pd.DataFrame:
    """Turn counts into the table of one organelle's objects.

    An object lies within cells if at least half of its voxels do, and then in the nucleus if more of those
    in its parent cell are nucleus than cytoplasm.  Outside it is adsorbed if one of its voxels lies within
    `adsorbed_nm` of the plasma membrane.

    Parameters
    ----------
    name : str
        Of the organelle.
    rows : (M, 15 + n) int64 ndarray
        Of :func:`merge_objects`.
    n_shells : int
    voxel_size_nm : sequence of float
        (Z, Y, X).
    quantum_nm : float
        Unit of the distances.
    adsorbed_nm : float
    points : (P, 7) int64 ndarray, optional
        :func:`cytomill.kernels.object_tally.sample_points` at :func:`centroid_voxels`, of all blocks in any
        order.  Where it is not given, and for an object whose centroid lies in another compartment than the
        object (a ring, a bent mitochondrion), the mean over the object's voxels stands for the centre; its
        distances are NaN if not all of its voxels lie in that cell and its margin.
    origin_nm : sequence of float
        Centre of the volume's first voxel.
    two_dimensional : bool
        Give ``area_um2`` in place of ``volume_um3``.

    Returns
    -------
    pandas.DataFrame
        A row an object, in order of label; columns :data:`OBJECTS_METADATA`.
    """
    column, unit = voxel_measure_um(voxel_size_nm, two_dimensional)
    named = split_objects(rows)
    begins, _ = _by_object(rows)
    parent, within = _parents(rows, named) if len(rows) else (begins, np.zeros(0, bool))
    own = {key: values[parent] for key, values in named.items()}
    count = _per_object(rows[:, 2:7].sum(axis=1), begins)
    coordinates = _per_object(rows[:, 7:10], begins)
    centre = coordinates / count[:, None] * np.asarray(voxel_size_nm, np.float64) + np.asarray(origin_nm)

    nearest_pm = _nm(own["nearest_pm"], quantum_nm)
    in_nucleus = within & (own["nucleus"] > own["cytoplasm"])
    in_cytoplasm = within & ~in_nucleus
    kind = np.select([in_nucleus, in_cytoplasm, nearest_pm <= adsorbed_nm], [3, 2, 1], 0)

    # Means over the object's voxels, replaced by what its centre's voxel says where that is of its kind.
    own_voxels = np.maximum(1, own["margin"] + own["cytoplasm"] + own["nucleus"])
    # Of an object that reaches beyond the margin, or into another cell, a part alone knows its distances.
    partly = own_voxels < count
    t = own["sum_position"] / (POSITION_ONE * np.maximum(1, own["cytoplasm"]))
    shell = np.minimum(
        n_shells, n_shells * own["sum_position"] // (POSITION_ONE * np.maximum(1, own["cytoplasm"])) + 1
    )
    distance = {}
    for side in ("ne", "pm"):
        mean = own[f"sum_distance_{side}"] / own_voxels * quantum_nm
        distance[side] = np.where(partly | (own[f"nearest_{side}"] >= SATURATED), np.nan, mean)
    if points is not None and len(points):
        at, objects = points, points[:, 0]
        sampled_cytoplasm = (at[:, 2] == CYTOPLASM) | (at[:, 2] == CENSORED)
        alike = (at[:, 1] == own["cell"][objects]) & (at[:, 1] > 0)
        alike &= ~in_cytoplasm[objects] | sampled_cytoplasm
        at, objects = at[alike], objects[alike]
        inner = in_cytoplasm[objects]
        t[objects[inner]] = at[inner, 4] / POSITION_ONE
        shell[objects[inner]] = at[inner, 3]
        distance["ne"][objects] = _nm(at[:, 5], quantum_nm)
        distance["pm"][objects] = _nm(at[:, 6], quantum_nm)

    return frame(
        {
            "organelle": np.full(len(begins), name, dtype=object),
            "label": rows[begins, 0],
            "cell": own["cell"],
            "compartment": np.array(COMPARTMENTS, dtype=object)[kind],
            "shell": np.where(in_cytoplasm, shell, 0),
            "t": np.where(in_cytoplasm, t, np.nan),
            **{f"centroid_{axis}_nm": centre[:, i] for i, axis in enumerate("zyx")},
            "voxel_count": count,
            column: count * unit,
            "distance_ne_nm": distance["ne"],
            "distance_pm_nm": distance["pm"],
            "nearest_ne_nm": _nm(own["nearest_ne"], quantum_nm),
            "nearest_pm_nm": nearest_pm,
            "censored": 2 * own["censored"] > own["cytoplasm"],
        },
        OBJECTS_METADATA,
    )


def uptake_table(
    objects: pd.DataFrame, cells: Sequence[int], organelles: Sequence[str] | None = None
) -> pd.DataFrame:
    """Count the objects of each cell by compartment.

    Parameters
    ----------
    objects : pandas.DataFrame
        Of :func:`object_table`; of one organelle or several.
    cells : sequence of int
        All cells, so that one without objects has its zeros.
    organelles : sequence of str, optional
        All organelles, likewise; those of `objects` if not given.

    Returns
    -------
    pandas.DataFrame
        A row a cell (0 last: objects near no cell), organelle and compartment; columns
        :data:`UPTAKE_METADATA`.
    """
    size = "area_um2" if "area_um2" in objects else "volume_um3"
    keys = ["cell", "organelle", "compartment"]
    every = pd.MultiIndex.from_product(
        [[*cells, 0], organelles or sorted(objects["organelle"].unique()), COMPARTMENTS], names=keys
    )
    grouped = objects.groupby(keys).agg(
        objects=("label", "size"), voxels=("voxel_count", "sum"), size=(size, "sum")
    )
    counted = grouped.reindex(every, fill_value=0).reset_index()
    return frame(
        {
            **{key: counted[key].to_numpy() for key in keys},
            "objects": counted["objects"].to_numpy(np.int64),
            "voxels": counted["voxels"].to_numpy(np.int64),
            size: counted["size"].to_numpy(np.float64),
        },
        UPTAKE_METADATA,
    )
