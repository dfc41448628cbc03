"""Counts per cell, shell and object are exact integers, the same under any cutting into blocks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cytomill.kernels.blocks import grid, region_slices
from cytomill.kernels.keyed_rows import merge_rows
from cytomill.kernels.object_tally import (
    OBJECT_MINIMA,
    sample_points,
    split_objects,
    tally_objects,
)
from cytomill.kernels.tally import (
    split_cells,
    split_room,
    tally_cells,
    tally_organelle,
    tally_shells,
)

N = 5


def random_fields(seed, shape, n=N):
    """Make fields in which every voxel is drawn by itself."""
    rng = np.random.default_rng(seed)
    compartment = rng.integers(0, 5, shape, dtype=np.uint8)
    territory = np.where(compartment > 0, rng.choice([3, 7, 2**30], shape), 0).astype(np.int32)
    cytoplasm = (compartment == 2) | (compartment == 3)
    return {
        "territory": territory,
        "compartment": compartment,
        "shell": np.where(cytoplasm, rng.integers(1, n + 1, shape), 0).astype(np.uint8),
        "position": rng.integers(0, 65536, shape, dtype=np.uint16),
        "distance_ne": rng.integers(0, 65536, shape, dtype=np.uint16),
        "distance_pm": rng.integers(0, 65536, shape, dtype=np.uint16),
    }


def cut(fields, region):
    return {name: field[region_slices(region)] for name, field in fields.items()}


def without_distances(fields):
    return {name: field for name, field in fields.items() if not name.startswith("distance")}


def plain_cell(fields, cell, where):
    """Count with NumPy, for one cell, the voxels of a mask."""
    own = where & (fields["territory"] == cell) & ((fields["compartment"] > 0) | (cell == 0))
    kind = fields["compartment"][own]
    row = [cell, *(np.count_nonzero(kind == k) for k in range(5))]
    for compartment in (2, 3):
        chosen = own & (fields["compartment"] == compartment)
        row += np.bincount(fields["shell"][chosen], minlength=N + 1)[1:].tolist()
    chosen = own & ((fields["compartment"] == 2) | (fields["compartment"] == 3))
    bins = np.minimum(199, fields["position"][chosen].astype(int) * 200 // 65535)
    return row + np.bincount(bins, minlength=200).tolist()


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(*[st.integers(1, 9)] * 3),
    block=st.tuples(*[st.integers(1, 9)] * 3),
    width=st.sampled_from([1, 300, 70000]),
)
def test_any_blocks_give_the_same_rows_as_counting_the_whole(seed, shape, block, width):
    fields = random_fields(seed, shape)
    rng = np.random.default_rng(seed)
    labels = (rng.integers(0, 40, shape) * (rng.random(shape) < 0.5)).astype(np.int64) * 10**12
    parts = {"cells": [], "room": [], "organelle": [], "objects": []}
    for region in grid(shape, block):
        own = cut(fields, region)
        cells, room = tally_cells(n_shells=N, room_width=width, **own)
        parts["cells"].append(cells)
        parts["room"].append(room)
        inner = labels[region_slices(region)]
        parts["organelle"].append(tally_organelle(inner, n_shells=N, **without_distances(own)))
        origin = [start for start, _ in region]
        parts["objects"].append(tally_objects(inner, n_shells=N, origin=origin, **own))
    merged = {
        name: merge_rows(
            np.concatenate(rows[::-1]),
            keys=2 if name == "objects" else 1,
            minima=OBJECT_MINIMA if name == "objects" else (),
        )
        for name, rows in parts.items()
    }
    everywhere = np.ones(shape, bool)
    ids = np.unique(fields["territory"][fields["compartment"] > 0])
    assert merged["cells"].tolist() == [plain_cell(fields, cell, everywhere) for cell in ids]
    here = labels > 0
    ids = np.unique(fields["territory"][here])
    assert merged["organelle"].tolist() == [plain_cell(fields, cell, here) for cell in ids]
    assert np.array_equal(merged["objects"], plain_objects(labels, fields))
    cells, room = split_room(merged["room"], N)
    for cell, own in zip(cells, room):
        chosen = (fields["territory"] == cell) & np.isin(fields["compartment"], (2, 3))
        nearest = np.minimum(fields["distance_ne"], fields["distance_pm"])[chosen]
        expected = np.zeros((N, 128), int)
        np.add.at(expected, (fields["shell"][chosen] - 1, np.minimum(127, nearest.astype(int) // width)), 1)
        assert np.array_equal(own, expected)


def plain_objects(labels, fields):
    rows = []
    for label in np.unique(labels[labels > 0]):
        for cell in np.unique(fields["territory"][labels == label]):
            own = (labels == label) & (fields["territory"] == cell)
            kind = fields["compartment"][own]
            cytoplasm = own & np.isin(fields["compartment"], (2, 3))
            row = [label, cell, *(np.count_nonzero(kind == k) for k in range(5))]
            row += np.argwhere(own).sum(axis=0).tolist()
            row.append(int(fields["position"][cytoplasm].sum(dtype=int)))
            ne, pm = fields["distance_ne"][own].astype(int), fields["distance_pm"][own].astype(int)
            row += [ne.sum(), pm.sum(), ne.min(), pm.min()] if cell else [0, 0, 65535, 65535]
            rows.append(row + np.bincount(fields["shell"][cytoplasm], minlength=N + 1)[1:].tolist())
    return np.array(rows, np.int64).reshape(-1, 15 + N)


def test_a_thousand_objects_are_told_apart_in_one_pass():
    labels = np.arange(1, 20 * 21 * 22 + 1, dtype=np.int32).reshape(20, 21, 22)
    fields = random_fields(3, labels.shape)
    rows = tally_objects(labels[:, :, ::-1], n_shells=N, **fields)
    assert np.array_equal(rows[:, 0], np.arange(1, labels.size + 1))
    assert (rows[:, 2:7].sum(axis=1) == 1).all()


def test_rows_that_outgrow_their_room_within_a_run_are_neither_lost_nor_doubled():
    fields = random_fields(5, (6, 7, 90))
    rng = np.random.default_rng(5)
    inside = fields["compartment"] > 0
    fields["territory"] = np.where(inside, rng.integers(1, 80, inside.shape), 0).astype(np.int32)
    # Every row of voxels is one run, through some sixty cells.
    labels = np.broadcast_to(rng.integers(1, 5, (6, 7, 1)), inside.shape)
    rows = tally_organelle(labels, n_shells=N, **without_distances(fields))
    ids, counts = np.unique(fields["territory"], return_counts=True)
    assert np.array_equal(rows[:, 0], ids) and np.array_equal(rows[:, 1:6].sum(axis=1), counts)
    assert np.array_equal(tally_objects(labels, n_shells=N, **fields), plain_objects(labels, fields))


def test_columns_have_their_names():
    shape = (1, 1, 6)
    fields = {
        "territory": np.array([[[0, 4, 4, 4, 4, 4]]], np.int32),
        "compartment": np.array([[[0, 1, 2, 3, 3, 4]]], np.uint8),
        "shell": np.array([[[0, 0, 2, 2, 1, 0]]], np.uint8),
        "position": np.array([[[0, 0, 65535, 40000, 0, 0]]], np.uint16),
        "distance_ne": np.array([[[65535, 90, 50, 30, 10, 5]]], np.uint16),
        "distance_pm": np.array([[[65535, 8, 9, 30, 60, 80]]], np.uint16),
    }
    cells, room = tally_cells(n_shells=2, room_width=10, **fields)
    named = split_cells(cells, 2)
    single = {name: int(values[0]) for name, values in named.items() if values.ndim == 1}
    assert single == {"cell": 4, "outside": 0, "margin": 1, "cytoplasm": 3, "censored": 2, "nucleus": 1}
    assert named["shells"].tolist() == [[1, 2]] and named["censored_shells"].tolist() == [[1, 1]]
    assert np.flatnonzero(named["profile"][0]).tolist() == [0, 122, 199]
    assert np.argwhere(split_room(room, 2)[1][0]).tolist() == [[0, 1], [1, 0], [1, 3]]
    rows = tally_objects(np.full(shape, 9), n_shells=2, origin=(5, 6, 7), **fields)
    inside = {name: values[1].tolist() for name, values in split_objects(rows).items()}
    assert inside["cell"] == 4 and inside["cytoplasm"] == 3 and inside["shells"] == [1, 2]
    assert (inside["nearest_ne"], inside["nearest_pm"]) == (5, 8)
    assert (inside["sum_z"], inside["sum_y"], inside["sum_x"]) == (25, 30, 5 * 7 + 15)
    sampled = sample_points([[5, 6, 9], [4, 6, 7], [5, 6, 12]], **fields, origin=(5, 6, 7))
    assert sampled.tolist() == [[0, 4, 2, 2, 65535, 50, 9], [2, 4, 4, 0, 0, 5, 80]]


def test_shells_are_counted_with_and_without_censored_voxels():
    rng = np.random.default_rng(0)
    shells = rng.integers(0, 4, (5, 6, 7)).astype(np.uint8)
    organelle, censored = rng.random((2, 5, 6, 7)) < 0.4
    t = np.where(shells > 0, rng.random(shells.shape), np.nan).astype(np.float32)
    counts, uncensored, profile = tally_shells(organelle, shells, censored, t)
    assert np.array_equal(counts, np.bincount(shells[organelle], minlength=256))
    assert np.array_equal(uncensored, np.bincount(shells[organelle & ~censored], minlength=256))
    inside = t[organelle & (shells > 0)]
    assert np.array_equal(profile, np.histogram(inside, 200, (0, 1))[0])


@pytest.mark.parametrize(
    "name, value, sentence",
    [
        ("shell", 0, "no shell in 1 … 5"),
        ("shell", 6, "no shell in 1 … 5"),
        ("compartment", 255, "compartment 255"),
        ("territory", 0, "id of their cell"),
    ],
)
def test_a_voxel_that_cannot_be_counted_is_named(name, value, sentence):
    fields = random_fields(1, (3, 4, 5))
    fields["compartment"][1, 2, 3] = 2
    fields["territory"][1, 2, 3] = 7
    fields["shell"][1, 2, 3] = 1
    fields[name][1, 2, 3] = value
    labels = np.ones((3, 4, 5), np.int32)
    for tally in (
        lambda: tally_objects(labels, n_shells=N, **fields),
        lambda: tally_organelle(labels, n_shells=N, **without_distances(fields)),
        lambda: (
            tally_cells(n_shells=N, **fields)
            if name != "territory"
            else tally_organelle(labels, n_shells=N, **without_distances(fields))
        ),
    ):
        with pytest.raises(ValueError, match=sentence) as error:
            tally()
        assert "(1, 2, 3)" in str(error.value)


def test_arrays_that_do_not_fit_are_refused():
    fields = random_fields(1, (3, 4, 5))
    with pytest.raises(ValueError, match="cut both alike"):
        tally_organelle(np.ones((3, 4, 4), bool), n_shells=N, **without_distances(fields))
    with pytest.raises(ValueError, match="mask or labels"):
        tally_organelle(np.ones((3, 4, 5)), n_shells=N, **without_distances(fields))
    with pytest.raises(ValueError, match="must be 1 to 250"):
        tally_cells(n_shells=251, **fields)
    with pytest.raises(ValueError, match="both or neither"):
        tally_cells(n_shells=N, **{name: f for name, f in fields.items() if name != "distance_pm"})
    with pytest.raises(ValueError, match="must be uint16"):
        tally_cells(n_shells=N, **fields | {"position": fields["position"].astype(np.float32)})
