"""XVG files: both layouts and the older files, byte for byte and as streams; the RDF over their points."""

import csv
import gzip
import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cytomill.partitioning import xvg
from cytomill.partitioning.coordinates import (
    PartitionCoordinates,
    count_ids,
    partition_rows,
    sample_coordinates,
)
from cytomill.partitioning.xvg import load_partition_coords_from_xvg, save_partition_coords, write_xvg
from cytomill.partitioning.xvg_rdf import calculate_rdf_from_xvg, save_radial_rdf_results
from cytomill.partitioning.xvg_text import BAD_NUMBER, BAD_WIDTH, format_rows, parse_rows

CASES = ["GIP_30_1535_f6", "TAK_30_2213_f6"]


def golden(shared_dir, case):
    folder = shared_dir / "golden/partitioning"
    arrays_ = np.load(folder / f"{case}_golden.npz")
    shape = tuple(arrays_["shape"])
    organelle = np.unpackbits(arrays_["organelle"])[: np.prod(shape)].reshape(shape).astype(bool)
    facts = json.loads((folder / f"{case}_golden.json").read_text())["new"]
    return arrays_["partition_pure"], organelle, facts


def shells(shape=(6, 9, 11), n=4, seed=3):
    return np.random.default_rng(seed).integers(0, n + 1, shape).astype(np.uint8)


def test_the_reference_layout_is_written_byte_for_byte(shared_dir, tmp_path):
    partition, _, _ = golden(shared_dir, "GIP_30_1535_f6")
    path = save_partition_coords(
        sample_coordinates(partition, 1.0), "GIP_30_1535_f6_new", tmp_path, compat=True
    )
    expected = shared_dir / "golden/partitioning/GIP_30_1535_f6_partition_coords.xvg.gz"
    assert path.name == "GIP_30_1535_f6_new_partition_coords.xvg"
    assert path.read_bytes() == gzip.decompress(expected.read_bytes())


def test_the_reference_file_is_recognised_and_read_in_zyx(shared_dir):
    partition, _, _ = golden(shared_dir, "GIP_30_1535_f6")
    file = shared_dir / "golden/partitioning/GIP_30_1535_f6_partition_coords.xvg.gz"
    coords = load_partition_coords_from_xvg(file)
    assert (coords.layout, coords.dataid) == ("reference", "GIP_30_1535_f6_new")
    assert list(coords) == list(range(1, 9))
    for i, points in coords.items():
        assert np.array_equal(points, np.argwhere(partition == i))


def test_the_documented_layout_goes_round(tmp_path):
    partition = shells()
    coords = sample_coordinates(partition, 1.0)
    path = save_partition_coords(coords, "cell 7", tmp_path / "new" / "folder", (290, 108, 108.5))
    head = path.read_text().splitlines()
    assert head[:3] == [
        "# Partition coordinates for cell 7",
        "# Format: x y z partition_id",
        "# Voxel size (x y z): 108.5 108 290 nm",
    ]
    z, y, x = np.argwhere(partition == 1)[0]
    assert head[3] == f"{x} {y} {z} 1"
    read = load_partition_coords_from_xvg(path)
    assert (read.layout, read.dataid, read.voxel_size_nm) == ("documented", "cell 7", (290.0, 108.0, 108.5))
    assert read.keys() == coords.keys()
    assert all(np.array_equal(read[i], coords[i]) for i in coords)
    assert read.radial_positions == {1: 0.125, 2: 0.375, 3: 0.625, 4: 0.875}


def test_a_missing_id_does_not_renumber_the_others(tmp_path):
    partition = shells()
    partition[partition == 2] = 0
    for compat in (False, True):
        path = save_partition_coords(sample_coordinates(partition, 1.0), "a", tmp_path, compat=compat)
        assert list(load_partition_coords_from_xvg(path)) == [1, 3, 4]


def test_a_list_counts_from_one_as_in_the_reference(tmp_path):
    path = save_partition_coords([np.array([[1, 2]]), np.array([[3, 4.5]])], "plane", tmp_path, compat=True)
    assert path.read_text().splitlines()[-2:] == ["1.000 2.000 0.000 1", "3.000 4.500 0.000 2"]


def test_fractions_are_written_in_full_and_read_back(tmp_path):
    points = np.random.default_rng(0).normal(size=(50, 3)) * 1e-3
    path = save_partition_coords({2: points}, "f", tmp_path)
    assert np.array_equal(load_partition_coords_from_xvg(path)[2], points)


@pytest.mark.parametrize(
    ("name", "layout", "expected"),
    [
        ("ne_index", "older NE edge", {1: 0.0}),
        ("pm_index_head", "older PM edge", {1: 1.0}),
        ("pair_ne-pm_shell0_head", "older NE-PM pairs", {1: 0.0, 2: 1.0}),
        ("slice_shell0", "older shells", {1: 0.0}),
        ("slice_shell4_head", "older shells", {5: 4 / 7}),
    ],
)
def test_the_older_files_are_recognised(shared_dir, caplog, name, layout, expected):
    file = shared_dir / f"golden/partitioning/old_xvg/cut_0min_3_5_SIM_{name}.xvg"
    with caplog.at_level("INFO", logger="cytomill"):
        coords = load_partition_coords_from_xvg(file)
    assert coords.layout == layout and layout in caplog.text
    assert coords.radial_positions == expected
    rows = np.loadtxt(file, ndmin=2)
    if name == "ne_index":
        assert np.allclose(coords.centre, rows[0])
        rows = rows[1:]
    first = next(iter(coords.values()))
    assert np.array_equal(first, rows[:, :3])


def test_older_shells_are_read_together(shared_dir):
    folder = shared_dir / "golden/partitioning/old_xvg"
    coords = load_partition_coords_from_xvg(folder / "*_slice_shell*.xvg")
    assert list(coords) == [1, 5] and coords.radial_positions == {1: 0.0, 5: 4 / 7}


def test_blocks_cut_lines_anywhere(tmp_path, monkeypatch):
    partition = shells()
    path = save_partition_coords(sample_coordinates(partition, 1.0), "a", tmp_path)
    whole = load_partition_coords_from_xvg(path)
    for size in (113, 1000):
        monkeypatch.setattr(xvg, "BLOCK_BYTES", size)
        read = load_partition_coords_from_xvg(path)
        assert read.layout == "documented" and all(np.array_equal(read[i], whole[i]) for i in whole)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("1 2 3 1\n4 5 6\n", r"line 2: 3 columns where 4 are expected"),
        ("1 2 3 1\n4 5 six 1\n", r"line 2: no plain number in '4 5 six 1'"),
        ("1 2 3 1\n4 nan 6 1\n", r"line 2: no plain number"),
        ("# c\n1 2 3 1\n4 1e400 6 1\n", r"line 3: no plain number"),
        ("1 2 3 1.5\n", r"partition id 1.5; ids count from 1"),
        ("1 2 3 0\n", r"partition id 0; ids count from 1"),
        (
            "# Format: x y z partition_id\n1 2 3\n",
            r"3 columns, which the layout found \(documented\) has not",
        ),
    ],
)
def test_a_damaged_file_is_named_with_its_line(tmp_path, text, sentence):
    path = tmp_path / "a_partition_coords.xvg"
    path.write_text(text)
    with pytest.raises(ValueError, match=sentence):
        load_partition_coords_from_xvg(path)


def test_a_missing_or_cut_file_is_said(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_partition_coords_from_xvg(tmp_path / "none.xvg")
    with pytest.raises(FileNotFoundError, match="no file matches"):
        load_partition_coords_from_xvg(tmp_path / "none*.xvg")
    cut = tmp_path / "cut.xvg"
    cut.write_bytes(gzip.compress(b"1 2 3 1\n" * 10000)[:-20])
    with pytest.raises(ValueError, match="damaged"):
        load_partition_coords_from_xvg(cut)


def test_an_empty_file_has_no_partition(tmp_path):
    path = save_partition_coords({}, "nothing", tmp_path)
    assert load_partition_coords_from_xvg(path) == {}


def test_ids_written_with_a_point_are_read(tmp_path):
    path = tmp_path / "a.xvg"
    path.write_text("# Format: x y z partition_id\n1 2 3 1.0\n")
    assert load_partition_coords_from_xvg(path)[1].tolist() == [[3, 2, 1]]


@pytest.mark.parametrize("dataid", ["", "a/b", "a\nb"])
def test_an_identifier_that_is_no_file_name_is_refused(tmp_path, dataid):
    with pytest.raises(ValueError, match="data identifier"):
        save_partition_coords({1: np.zeros((1, 3))}, dataid, tmp_path)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = save_partition_coords({1: np.ones((2, 3), int)}, "a", tmp_path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="not a finite number"):
        save_partition_coords({1: np.full((2, 3), np.nan)}, "a", tmp_path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


@settings(max_examples=40, deadline=None)
@given(
    arrays(
        np.float64,
        st.tuples(st.integers(1, 20), st.just(4)),
        elements=st.floats(allow_nan=False, allow_infinity=False),
    )
)
def test_every_number_is_read_as_python_reads_it(values):
    text = "".join(" ".join(map(repr, row)) + "\n" for row in values.tolist()).encode()
    rows, lines, status = parse_rows(text)
    assert status == 0 and lines == len(values)
    assert rows.tobytes() == (values + 0.0).tobytes() or np.array_equal(rows, values)


@settings(max_examples=40, deadline=None)
@given(
    arrays(np.int64, st.tuples(st.integers(0, 30), st.just(4)), elements=st.integers(-(2**63) + 1, 2**63 - 1))
)
def test_integers_are_written_as_python_writes_them(values):
    expected = "".join(f"{a}.000 {b} {c} {d}\n" for a, b, c, d in values.tolist())
    assert format_rows(values, (b".000 ", b" ", b" ", b"\n")).decode() == expected


def test_decimals_of_up_to_15_digits_are_rounded_correctly():
    rng = np.random.default_rng(1)
    words = [f"{rng.integers(0, 10**5)}.{rng.integers(0, 10**8):08d}".encode() + b" " for _ in range(3000)]
    rows, _, status = parse_rows(b"".join(b"".join(words[i : i + 3]) + b"\n" for i in range(0, 3000, 3)))
    assert status == 0 and rows.ravel().tolist() == [float(word) for word in words]


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (b"1 2\n", BAD_WIDTH),
        (b"1 2 3 4 5 6 7\n", BAD_WIDTH),
        (b"1 - 3\n", BAD_NUMBER),
        (b"1 .. 3\n", BAD_NUMBER),
    ],
)
def test_what_is_no_row_is_said(text, status):
    assert parse_rows(text)[2] == status


def test_the_sample_has_the_share_asked_for_and_is_the_same_again():
    partition = shells((20, 30, 31))
    counts = count_ids(partition)
    sample = sample_coordinates(partition, 0.1, seed=5)
    again = sample_coordinates(partition, 0.1, seed=5)
    other = sample_coordinates(partition, 0.1, seed=6)
    assert list(sample) == [1, 2, 3, 4]
    for i, points in sample.items():
        assert len(points) == int(0.1 * counts[i]) == len(np.unique(points, axis=0))
        assert (partition[tuple(points.T)] == i).all()
        assert np.array_equal(points, again[i])
        assert not np.array_equal(points, other[i])


def test_every_voxel_is_as_likely_as_any_other():
    partition = np.ones((1, 1, 200), np.uint8)
    often = np.zeros(200)
    for seed in range(600):
        often[sample_coordinates(partition, 0.25, seed)[1][:, 2]] += 1
    # 600 draws of probability ¼: mean 150, standard deviation 10.6.
    assert often.sum() == 600 * 50 and abs(often - 150).max() < 5 * 10.6
    assert abs(often[:100].sum() - often[100:].sum()) < 1200


def test_at_least_one_voxel_of_each_shell_is_taken_and_all_at_density_one():
    partition = shells()
    partition[0, 0, 0] = 9
    assert len(sample_coordinates(partition, 0.001)[9]) == 1
    full = sample_coordinates(partition, 1.0)
    assert all(np.array_equal(full[i], np.argwhere(partition == i)) for i in full)


@pytest.mark.parametrize("density", [0, -1, 1.5, float("nan")])
def test_a_density_that_is_no_share_is_refused(density):
    with pytest.raises(ValueError, match="sampling density"):
        sample_coordinates(shells(), density)


@pytest.mark.parametrize(
    ("partition", "sentence"),
    [
        (np.full((2, 2, 2), -1), "between 0 and 65535"),
        (np.full((2, 2, 2), 0.5), "fractions"),
        (np.full((2, 2, 2), np.nan), "between 0"),
        (np.zeros(4), "1 axes"),
        (np.full((2, 2, 2), "a"), "whole numbers"),
    ],
)
def test_what_is_no_partition_is_refused(partition, sentence):
    with pytest.raises(ValueError, match=sentence):
        sample_coordinates(partition, 1.0)


def test_rows_of_slabs_are_those_of_the_volume(tmp_path):
    partition = shells()
    whole = [np.concatenate(part) for part in zip(*partition_rows(partition), strict=True)]
    slabs = [piece for z in (0, 2, 4) for piece in partition_rows(partition[z : z + 2], (z, 0, 0))]
    cut = [np.concatenate(part) for part in zip(*slabs, strict=True)]
    assert np.array_equal(whole[0], cut[0]) and np.array_equal(whole[1], cut[1])
    write_xvg(tmp_path / "a.xvg", partition_rows(partition), "a")
    read = load_partition_coords_from_xvg(tmp_path / "a.xvg")
    assert all(np.array_equal(read[i], np.argwhere(partition == i)) for i in range(1, 5))


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


_STREAM = """
import sys, numpy as np, resource
from cytomill.partitioning.xvg import iterate_points, write_xvg
from cytomill.partitioning.xvg_rdf import calculate_rdf_from_xvg
path, millions = sys.argv[1], int(sys.argv[2])
def pieces():
    points = np.stack(np.unravel_index(np.arange(10**6), (100, 100, 100)), axis=1).astype(np.int32)
    for i in range(millions):
        yield points, 1 + i % 8
assert write_xvg(path, pieces(), "big") == millions * 10**6
found = calculate_rdf_from_xvg(np.ones((100, 100, 100), bool), path)
assert found["shell_volumes"].sum() == millions * 10**6
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_the_number_of_lines(tmp_path):
    peaks = []
    for millions in (3, 10):
        command = [sys.executable, "-c", _STREAM, str(tmp_path / "a.xvg"), str(millions)]
        peaks.append(int(subprocess.run(command, check=True, capture_output=True, text=True).stdout) / 1024)
    assert peaks[1] < peaks[0] + 20, peaks


def test_an_empty_outermost_shell_moves_no_other(tmp_path):
    shells = np.zeros((4, 5, 6), np.uint8)
    shells[1:3, 1:4, 1:5] = 1
    shells[2, 2:4, 2:4] = 3
    organelle = shells == 3
    coords = sample_coordinates(shells, 1.0, shells=4)
    path = save_partition_coords(coords, "cell", tmp_path)
    loaded = load_partition_coords_from_xvg(path)
    assert loaded.shells == 4
    assert loaded.radial_positions == {1: 0.125, 3: 0.625}
    for source in (coords, loaded, path):
        rdf = calculate_rdf_from_xvg(organelle, source, None, bins=4)
        assert rdf["counts"].tolist() == [0, 0, 4, 0]
        assert np.isnan(rdf["rdf"][[1, 3]]).all()
