"""The RDF over the points of an XVG file: exact for all voxels, that of the reference on request."""

import csv
import json

import numpy as np
import pytest
from xvg_cases import golden, shells

from cytomill.partitioning.coordinates import PartitionCoordinates, sample_coordinates
from cytomill.partitioning.xvg_rdf import calculate_rdf_from_xvg, save_radial_rdf_results
from cytomill.partitioning.xvg_reading import load_partition_coords_from_xvg
from cytomill.partitioning.xvg_writing import save_partition_coords

CASES = ["GIP_30_1535_f6", "TAK_30_2213_f6"]


@pytest.mark.parametrize("case", CASES)
def test_compat_gives_the_reference_rdf(shared_dir, tmp_path, case):
    partition, organelle, facts = golden(shared_dir, case)
    path = save_partition_coords(sample_coordinates(partition, 1.0), case, tmp_path, compat=True)
    found = calculate_rdf_from_xvg(organelle, load_partition_coords_from_xvg(path), bins=8, compat=True)
    for key, expected in facts["rdf"].items():
        assert np.array_equal(found[key], expected), key


@pytest.mark.parametrize("case", CASES)
def test_the_round_trip_gives_the_exact_rdf_of_the_volume(shared_dir, tmp_path, case):
    partition, organelle, _ = golden(shared_dir, case)
    organelle = organelle | (partition == 0)
    path = save_partition_coords(sample_coordinates(partition, 1.0), case, tmp_path)
    o = np.array([(organelle & (partition == i)).sum() for i in range(1, 9)])
    c = np.array([(partition == i).sum() for i in range(1, 9)])
    for coords in (path, load_partition_coords_from_xvg(path)):
        found = calculate_rdf_from_xvg(organelle, coords, radial_positions=None, bins=8)
        assert np.array_equal(found["counts"], o) and np.array_equal(found["shell_volumes"], c)
        assert np.allclose(found["rdf"], (o / c) / (o.sum() / c.sum()), rtol=1e-12)
        assert found["dataset"] == case and found["assignment_efficiency"] == o.sum() / organelle.sum()


def test_organelle_outside_the_cytoplasm_is_not_counted():
    partition = np.zeros((1, 1, 40), np.uint8)
    partition[0, 0, 10:18] = np.arange(8) // 2 + 1
    inside = np.zeros(partition.shape, bool)
    inside[0, 0, [10, 17]] = True
    outside = inside | (np.arange(40) == 20)
    coords = sample_coordinates(partition, 1.0)
    a, b = (calculate_rdf_from_xvg(mask, coords, bins=4) for mask in (inside, outside))
    assert np.array_equal(a["rdf"], b["rdf"]) and b["organelle_volume"] == 3
    assert b["assignment_efficiency"] == 2 / 3
    assert calculate_rdf_from_xvg(outside, coords, bins=4, compat=True)["counts"].sum() == 3


def test_an_empty_shell_is_nan_and_never_zero():
    coords = {1: np.array([[0, 0, 0]]), 3: np.array([[0, 0, 1]]), 4: np.array([[0, 0, 2]])}
    organelle = np.array([[[1, 0, 1]]], np.uint8)
    found = calculate_rdf_from_xvg(organelle, coords, bins=4)
    assert np.isnan(found["rdf"][1]) and np.isnan(found["densities"][1])
    assert found["rdf"][[0, 2, 3]].tolist() == [1.5, 0, 1.5]
    assert np.isnan(calculate_rdf_from_xvg(organelle, coords, bins=8)["rdf"]).sum() == 5


def test_without_organelle_in_the_cytoplasm_nothing_is_enriched():
    coords = {1: np.array([[0, 0, 0]]), 2: np.array([[0, 0, 1]])}
    found = calculate_rdf_from_xvg(np.array([[[0, 0, 1]]]), coords, bins=2)
    assert np.isnan(found["rdf"]).all() and found["counts"].tolist() == [0, 0]
    assert calculate_rdf_from_xvg(np.zeros((1, 1, 3)), coords, bins=2, compat=True) is None


def test_positions_may_be_given_by_id_and_by_voxel():
    partition = shells()
    organelle = np.random.default_rng(8).random(partition.shape) < 0.3
    coords = sample_coordinates(partition, 1.0)
    expected = calculate_rdf_from_xvg(organelle, coords, None, 4)
    by_id = {i: (i - 0.5) / 4 for i in coords}
    by_voxel = {tuple(point): by_id[i] for i, points in coords.items() for point in points.tolist()}
    for positions in (by_id, by_voxel):
        found = calculate_rdf_from_xvg(organelle, dict(coords), positions, 4)
        assert np.array_equal(found["rdf"], expected["rdf"])
    eight = calculate_rdf_from_xvg(organelle, coords, {i: (i - 0.5) / 8 for i in coords}, 8)
    assert np.isnan(eight["rdf"][4:]).all() and np.array_equal(eight["counts"][:4], expected["counts"])


@pytest.mark.parametrize("n", range(1, 21))
def test_bins_fall_where_exact_fractions_say(n):
    coords = {i: np.array([[0, 0, i]]) for i in range(1, n + 1)}
    for bins in (1, 3, 8, 10):
        found = calculate_rdf_from_xvg(np.ones((1, 1, 30), bool), coords, bins=bins)
        expected = np.bincount([(2 * i - 1) * bins // (2 * n) for i in range(1, n + 1)], minlength=bins)
        assert np.array_equal(found["counts"], expected)


def test_a_point_outside_the_mask_is_refused():
    with pytest.raises(ValueError, match="outside the organelle mask"):
        calculate_rdf_from_xvg(np.ones((2, 2, 2)), {1: np.array([[0, 0, 5]])})
    with pytest.raises(ValueError, match="found none"):
        calculate_rdf_from_xvg(np.ones((2, 2, 2)), {})
    with pytest.raises(ValueError, match="at least one bin"):
        calculate_rdf_from_xvg(np.ones((2, 2, 2)), {}, bins=0)


def test_results_are_saved_as_csv_and_json_without_pickle(tmp_path):
    coords = {1: np.array([[0, 0, 0]]), 3: np.array([[0, 0, 1]])}
    found = calculate_rdf_from_xvg(np.ones((1, 1, 3)), PartitionCoordinates(coords, dataid="x"), bins=3)
    written = save_radial_rdf_results(found, tmp_path / "a" / "b", "x")
    assert [path.name for path in written] == ["x_rdf.csv", "x_rdf.json"]
    with open(written[0], newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["radii", "rdf", "counts", "densities", "shell_volumes"]
    assert [row["rdf"] for row in rows] == ["1.0", "", "1.0"]
    content = json.loads(written[1].read_text())
    assert content["rdf"] == [1.0, None, 1.0] and content["data_id"] == "x" and content["counts"] == [1, 0, 1]
    with pytest.raises(ValueError, match="no RDF results"):
        save_radial_rdf_results(None, tmp_path, "x")
