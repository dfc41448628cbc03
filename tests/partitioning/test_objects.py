"""Each object has one parent cell and one compartment; random objects have an object-weighted RDF of one."""

import numpy as np
import pytest

from cytomill.kernels.object_tally import sample_points, tally_objects
from cytomill.kernels.tally import tally_cells
from cytomill.partitioning.objects import (
    OBJECTS_METADATA,
    UPTAKE_METADATA,
    centroid_voxels,
    merge_objects,
    object_table,
    uptake_table,
)
from cytomill.partitioning.placement import equivalent_radius_nm, object_rdf, room_shares

N = 8


def ball_cell(shape, centre, r_ne, r_pm, n=N, quantum=0.01, margin=4.0):
    """Fields of a cell of two concentric spheres, in voxels."""
    grid = np.meshgrid(*[np.arange(s) - c for s, c in zip(shape, centre)], indexing="ij", sparse=True)
    r = np.sqrt(sum(axis.astype(float) ** 2 for axis in grid))
    t = (r - r_ne) / (r_pm - r_ne)
    kind = np.select([r < r_ne, r <= r_pm, r <= r_pm + margin], [4, 2, 1], 0).astype(np.uint8)
    cytoplasm = kind == 2
    return {
        "territory": (kind > 0).astype(np.int32),
        "compartment": kind,
        "shell": np.where(cytoplasm, np.minimum(n, np.floor(n * t) + 1), 0).astype(np.uint8),
        "position": np.where(cytoplasm, np.rint(65535 * np.clip(t, 0, 1)), 0).astype(np.uint16),
        "distance_ne": np.rint(np.abs(r - r_ne) / quantum).clip(0, 65534).astype(np.uint16),
        "distance_pm": np.rint(np.abs(r - r_pm) / quantum).clip(0, 65534).astype(np.uint16),
    }


def line_of_two_cells():
    """Two cells along X: nucleus, cytoplasm, margin, outside, margin, cytoplasm."""
    kind = np.array([4, 4, 2, 2, 3, 3, 1, 1, 0, 0, 1, 2, 2, 2], np.uint8)
    cell = np.array([5, 5, 5, 5, 5, 5, 5, 5, 0, 0, 2, 2, 2, 2], np.int32)
    pm = np.array([9, 8, 7, 6, 5, 4, 2, 3, 65535, 65535, 1, 1, 2, 3], np.uint16)
    shell = np.array([0, 0, 1, 1, 2, 2, 0, 0, 0, 0, 0, 2, 2, 1], np.uint8)
    position = np.array([0, 0, 0, 20000, 40000, 65535, 0, 0, 0, 0, 0, 60000, 40000, 20000], np.uint16)
    fields = {"territory": cell, "compartment": kind, "shell": shell, "position": position}
    fields |= {"distance_pm": pm, "distance_ne": np.full(14, 65535, np.uint16)}
    return {name: field.reshape(1, 1, -1) for name, field in fields.items()}


@pytest.mark.parametrize(
    "first, last, cell, compartment",
    [
        (0, 1, 5, "nucleus"),
        (0, 3, 5, "cytoplasm"),  # as many voxels in the nucleus as in the cytoplasm
        (0, 2, 5, "nucleus"),
        (3, 4, 5, "cytoplasm"),
        (5, 6, 5, "cytoplasm"),  # half of it outside
        (5, 7, 5, "adsorbed"),
        (7, 8, 5, "adsorbed"),
        (8, 9, 0, "outside"),
        (9, 11, 2, "adsorbed"),
        (6, 11, 2, "adsorbed"),  # nearest to the membrane of cell 2
        (4, 13, 2, "cytoplasm"),  # 2 voxels in cell 5, 3 in cell 2
        (2, 11, 5, "cytoplasm"),  # 4 voxels in cell 5, 1 in cell 2
    ],
)
def test_parent_and_compartment_go_by_the_majority(first, last, cell, compartment):
    fields = line_of_two_cells()
    labels = np.zeros((1, 1, 14), np.int32)
    labels[0, 0, first : last + 1] = 6
    table = object_table("granules", tally_objects(labels, n_shells=2, **fields), 2, (10, 10, 10), 10.0, 30.0)
    assert table["cell"].tolist() == [cell] and table["compartment"].tolist() == [compartment]
    assert table["voxel_count"].tolist() == [last + 1 - first]
    assert table["centroid_x_nm"].tolist() == [5.0 * (first + last)]


def test_adsorbed_means_within_the_stated_distance():
    labels = np.zeros((1, 1, 14), np.int32)
    labels[0, 0, 7] = 6
    rows = tally_objects(labels, n_shells=2, **line_of_two_cells())
    kinds = [object_table("g", rows, 2, (9, 9, 9), 10.0, reach)["compartment"][0] for reach in (29.9, 30.0)]
    assert kinds == ["outside", "adsorbed"]


def test_an_object_that_touches_a_cell_belongs_to_it_where_no_distance_is_known():
    fields = {name: field for name, field in line_of_two_cells().items() if "distance" not in name}
    labels = np.zeros((1, 1, 14), np.int32)
    labels[0, 0, [8, 9, 11]] = 1
    table = object_table("g", tally_objects(labels, n_shells=2, **fields), 2, (9, 9, 9), 10.0, 30.0)
    assert table["cell"].tolist() == [2] and table["compartment"].tolist() == ["outside"]
    assert table[["distance_pm_nm", "nearest_ne_nm", "nearest_pm_nm"]].isna().all(axis=None)


def test_the_lowest_cell_wins_a_tie():
    fields = line_of_two_cells()
    labels = np.zeros((1, 1, 14), np.int32)
    labels[0, 0, [4, 5, 11, 12]] = 1
    table = object_table("g", tally_objects(labels, n_shells=2, **fields), 2, (9, 9, 9), 10.0, 30.0)
    assert table["cell"].tolist() == [2]


def test_the_table_is_the_same_for_any_blocks_and_measures_at_the_centre():
    shape, centre = (40, 41, 42), (19.3, 20.1, 20.8)
    fields = ball_cell(shape, centre, 6, 17)
    rng = np.random.default_rng(2)
    labels = np.zeros(shape, np.int32)
    for label, corner in enumerate(rng.integers(0, 37, (60, 3)), 1):
        labels[tuple(slice(c, c + 3) for c in corner)] = label
    size, quantum = (20.0, 20.0, 20.0), 0.2
    whole = tally_objects(labels, n_shells=N, **fields)
    points = centroid_voxels(whole)
    sampled = sample_points(points, **fields)
    table = object_table("granules", whole, N, size, quantum, 50.0, sampled)
    assert list(table) == list(OBJECTS_METADATA) == list(table.attrs["columns"])
    rows, pieces = [], []
    for low, high in ((0, 11), (11, 12), (12, 40)):
        cut = {name: field[low:high] for name, field in fields.items()}
        rows.append(tally_objects(labels[low:high], n_shells=N, origin=(low, 0, 0), **cut))
        pieces.append(sample_points(points, **cut, origin=(low, 0, 0)))
    merged = merge_objects(np.concatenate(rows[::-1]))
    assert np.array_equal(merged, whole)
    again = object_table("granules", merged, N, size, quantum, 50.0, np.concatenate(pieces[::-1]))
    assert again.equals(table)
    inside = table[table["compartment"] == "cytoplasm"]
    assert len(inside) > 10
    offset = inside[[f"centroid_{axis}_nm" for axis in "zyx"]].to_numpy() - np.array(centre) * 20
    r = np.sqrt((offset**2).sum(axis=1))
    # The centre is read at the voxel it lies in, half a voxel's diagonal away at most.
    assert np.abs(inside["distance_ne_nm"] - (r - 120)).max() <= 17.5
    assert np.abs(inside["distance_pm_nm"] - (340 - r)).max() <= 17.5
    assert (inside["nearest_pm_nm"] <= inside["distance_pm_nm"]).all()
    assert np.array_equal(inside["shell"], np.minimum(N, np.floor(N * inside["t"] + 1e-4) + 1))


def test_a_ring_about_the_nucleus_has_the_position_of_its_voxels():
    fields = ball_cell((31, 31, 31), (15, 15, 15), 5, 13)
    shells = np.where(np.arange(31)[:, None, None] == 15, fields["shell"], 0)
    ring = (shells == 4).astype(np.int32)
    rows = tally_objects(ring, n_shells=N, **fields)
    sampled = sample_points(centroid_voxels(rows), **fields)
    table = object_table("ring", rows, N, (1, 1, 1), 0.01, 2.0, sampled)
    assert table["compartment"][0] == "cytoplasm" and table["shell"][0] == 4
    assert table["t"][0] == pytest.approx(fields["position"][ring > 0].mean() / 65535)
    assert table["distance_ne_nm"][0] == pytest.approx(fields["distance_ne"][ring > 0].mean() * 0.01)


@pytest.mark.parametrize("radius, known", [(1.5, True), (4.5, False)])
def test_an_object_reaching_beyond_the_margin_has_no_distance_of_its_centre(radius, known):
    # Its centre lies beyond the margin: the voxels within say how near it comes, not where its centre is.
    fields = ball_cell((31, 31, 40), (15, 15, 12), 5, 11, margin=4.0)
    z, y, x = np.ogrid[:31, :31, :40]
    place = 25 if known else 28
    ball = (((z - 15) ** 2 + (y - 15) ** 2 + (x - place) ** 2) <= radius**2).astype(np.int32)
    rows = tally_objects(ball, n_shells=N, **fields)
    sampled = sample_points(centroid_voxels(rows), **fields)
    (row,) = object_table("g", rows, N, (10, 10, 10), 0.1, 40.0, sampled).to_dict("records")
    assert row["compartment"] == "adsorbed"
    assert row["nearest_pm_nm"] == pytest.approx(10, abs=5)
    if known:
        assert row["distance_pm_nm"] == pytest.approx(20, abs=0.1)
    else:
        assert np.isnan(row["distance_pm_nm"]) and np.isnan(row["distance_ne_nm"])


def test_uptake_counts_every_cell_and_compartment():
    fields = line_of_two_cells()
    labels = np.array([1, 1, 2, 0, 0, 3, 0, 4, 0, 5, 0, 0, 0, 0], np.int32).reshape(1, 1, -1)
    rows = tally_objects(labels, n_shells=2, **fields)
    objects = object_table("granules", rows, 2, (10, 10, 10), 10.0, 20.0)
    table = uptake_table(objects, [2, 5])
    assert list(table) == list(UPTAKE_METADATA)
    counts = {
        (row.cell, row.compartment): (row.objects, row.voxels) for row in table.itertuples() if row.objects
    }
    assert counts == {
        (5, "nucleus"): (1, 2),
        (5, "cytoplasm"): (2, 2),
        (5, "outside"): (1, 1),
        (0, "outside"): (1, 1),
    }
    assert len(table) == 12 and table["voxels"].sum() == 6
    assert table["volume_um3"].sum() == pytest.approx(6e-6)
    empty = object_table("granules", rows[:0], 2, (10, 10, 10), 10.0, 20.0)
    assert list(empty) == list(OBJECTS_METADATA) and not len(empty)
    assert uptake_table(empty, [2, 5], ["granules"])["objects"].tolist() == [0] * 12


def test_room_is_shared_by_hand():
    room = np.zeros((2, 128), np.int64)
    room[0, 0], room[0, 1], room[1, 0], room[1, 3] = 10, 20, 30, 40
    shares = room_shares(room, 10.0, np.array([0.0, 5.0, 10.0, 15.0, 35.0, 40.0]))
    fits = np.array([[30, 70], [25, 55], [20, 40], [10, 40], [0, 20]])
    assert np.allclose(shares[:5], fits / fits.sum(axis=1, keepdims=True))
    assert np.isnan(shares[5]).all()
    room[0, 127] = 5
    assert np.allclose(room_shares(room, 10.0, np.array([1e6])), [[1, 0]])


def random_granules(rng, fields, centre, radius, r_ne, r_pm, count):
    """Paint spheres, none in another, with centres uniform where they fit."""
    labels = np.zeros(fields["shell"].shape, np.int32)
    reach = int(np.ceil(radius)) + 1
    offsets = np.arange(-reach, reach + 1)
    painted = 0
    while painted < count:
        direction = rng.normal(size=3)
        low, high = r_ne + radius, r_pm - radius
        r = np.cbrt(rng.uniform(low**3, high**3))
        at = np.array(centre) + r * direction / np.linalg.norm(direction)
        corner = np.rint(at).astype(int)
        box = tuple(slice(c - reach, c + reach + 1) for c in corner)
        squares = [(offsets + c - a) ** 2 for c, a in zip(corner, at)]
        inside = squares[0][:, None, None] + squares[1][:, None] + squares[2] <= radius**2
        if labels[box][inside].any():
            continue
        painted += 1
        labels[box][inside] = painted
    return labels


def test_objects_placed_at_random_where_they_fit_have_an_rdf_of_one():
    shape, centre, r_ne, r_pm, radius = (100, 100, 100), (49.6, 50.2, 49.9), 14, 44, 3.2
    fields = ball_cell(shape, centre, r_ne, r_pm)
    cells, room = tally_cells(n_shells=N, room_width=20, **{k: v for k, v in fields.items()})
    rng = np.random.default_rng(11)
    tables, rows = [], []
    for volume in range(8):
        labels = random_granules(rng, fields, centre, radius, r_ne, r_pm, 250)
        own = tally_objects(labels, n_shells=N, **fields)
        own[:, 0] += 1000 * volume
        rows.append(own)
    rows = np.concatenate(rows)
    # One volume cannot hold them all; the fields are the same in each, and so are the sampled points.
    sampled = sample_points(centroid_voxels(rows), **fields)
    tables = object_table("granules", rows, N, (10, 10, 10), 0.1, 10.0, sampled)
    assert (tables["compartment"] == "cytoplasm").all()
    result = object_rdf(cells, room, rows, tables, N, (10, 10, 10), 0.1 * 20)
    observed, expected = result["objects"][0], result["expected_objects"][0]
    assert observed.sum() == 2000 and np.isclose(expected.sum(), 2000) and result["left_out"][0] == 0
    wide = expected > 20
    assert wide[1:7].all()
    assert (np.abs(observed - expected)[wide] < 4 * np.sqrt(expected[wide])).all()
    assert (result["g_objects_low"][0][wide] < result["g_objects"][0][wide]).all()
    assert ((result["g_objects_low"][0] < 1.02) & (result["g_objects_high"][0] > 0.98))[wide].all()
    # Centres against plain volumes, or voxels, would find the membranes avoided.
    volume = (np.bincount(fields["shell"].ravel(), minlength=N + 1)[1:]).astype(float)
    naive = observed / 2000 / (volume / volume.sum())
    assert naive[0] < 0.5 and naive[7] < 0.5
    voxels = rows[:, 15:].sum(axis=0)
    voxel_weighted = voxels / voxels.sum() / (volume / volume.sum())
    assert voxel_weighted[0] < 0.8 and voxel_weighted[7] < 0.8


def test_an_object_flatter_than_its_sphere_is_expected_where_it_was_found():
    fields = ball_cell((60, 60, 60), (30, 30, 30), 8, 26)
    cells, room = tally_cells(n_shells=N, room_width=20, **fields)
    # A plate along the membrane: the sphere of its volume would not fit where its centre lies.
    plate = ((fields["shell"] == 8) & (np.arange(60)[:, None, None] > 42)).astype(np.int32)
    rows = tally_objects(plate, n_shells=N, **fields)
    table = object_table("plates", rows, N, (10, 10, 10), 0.1, 10.0)
    assert equivalent_radius_nm(table["voxel_count"], (10, 10, 10))[0] > 3 * table["distance_pm_nm"][0]
    result = object_rdf(cells, room, rows, table, N, (10, 10, 10), 2.0)
    assert result["objects"][0].tolist() == [0] * 7 + [1]
    assert result["expected_objects"][0, 7] > 0 and np.isfinite(result["g_objects"][0, 7])
    assert np.isnan(result["g_objects_low"]).all()


def test_intervals_do_not_depend_on_the_order_of_rows_or_on_other_cells():
    fields = line_of_two_cells()
    cells, room = tally_cells(n_shells=2, **fields)
    rng = np.random.default_rng(1)
    rows = np.zeros((40, 17), np.int64)
    rows[:, 0] = np.arange(40) + 1
    rows[:, 1] = np.where(rows[:, 0] % 3, 5, 2)
    rows[:, 15:] = rng.integers(0, 6, (40, 2))
    rows[:, 4] = rows[:, 15:].sum(axis=1)
    rows = rows[rows[:, 4] > 0]
    table = object_table("granules", rows, 2, (10, 10, 10), 10.0, 20.0)
    table["shell"] = rng.integers(1, 3, len(table))

    def run(rows, table, keep=slice(None), seed=3):
        return object_rdf(cells[keep], room[keep], rows, table, 2, (10, 10, 10), 10.0, seed=seed)

    first = run(rows, table)
    assert np.isfinite(first["g_low"]).all() and (first["g_low"] < first["g_high"]).all()
    mixed = rng.permutation(len(rows))
    again = run(rows[mixed], table.iloc[mixed])
    assert all(np.array_equal(first[name], again[name], equal_nan=True) for name in first)
    alone = run(rows, table, slice(1, 2))
    assert all(np.array_equal(first[name][1:], alone[name], equal_nan=True) for name in first)
    assert not np.array_equal(first["g_low"], run(rows, table, seed=4)["g_low"])


def test_intervals_over_objects_hold_the_truth_about_as_often_as_they_say():
    # Granules of 1 … 9 voxels in one of two shells of equal volume; in the long run half in each.
    cells = np.zeros((1, 6 + 4 + 200), np.int64)
    cells[0, 0], cells[0, 3], cells[0, 6:8] = 1, 2000, 1000
    room = np.zeros((1, 1 + 256), np.int64)
    room[0, 0], room[0, [1, 129]] = 1, 1000
    rng = np.random.default_rng(8)
    held = {"g": 0, "g_objects": 0}
    trials = 200
    for trial in range(trials):
        rows = np.zeros((60, 17), np.int64)
        rows[:, 0], rows[:, 1] = np.arange(60) + 1, 1
        rows[:, 4] = rng.integers(1, 10, 60)
        shell = rng.integers(0, 2, 60)
        rows[np.arange(60), 15 + shell] = rows[:, 4]
        rows[:, 13:15] = 65535
        table = object_table("granules", rows, 2, (1, 1, 1), 1.0, 1.0)
        table["shell"] = shell + 1
        result = object_rdf(cells, room, rows, table, 2, (1, 1, 1), 1e6, seed=trial, resamples=400)
        for name in held:
            held[name] += result[f"{name}_low"][0, 0] <= 1 <= result[f"{name}_high"][0, 0]
    # Four standard deviations of a count of 200 at 95 % are 12.
    assert all(trials * 0.95 - 14 <= count <= trials for count in held.values()), held
