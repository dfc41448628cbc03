"""XVG files: both layouts and the older files, byte for byte and as streams."""

import gzip
import subprocess
import sys

import numpy as np
import pytest
from xvg_cases import golden, shells

from cytomill.partitioning import xvg_reading
from cytomill.partitioning.coordinates import partition_rows, sample_coordinates
from cytomill.partitioning.xvg_rdf import calculate_rdf_from_xvg
from cytomill.partitioning.xvg_reading import load_partition_coords_from_xvg
from cytomill.partitioning.xvg_writing import save_partition_coords, write_xvg


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
        monkeypatch.setattr(xvg_reading, "BLOCK_BYTES", size)
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


def test_rows_of_slabs_are_those_of_the_volume(tmp_path):
    partition = shells()
    whole = [np.concatenate(part) for part in zip(*partition_rows(partition), strict=True)]
    slabs = [piece for z in (0, 2, 4) for piece in partition_rows(partition[z : z + 2], (z, 0, 0))]
    cut = [np.concatenate(part) for part in zip(*slabs, strict=True)]
    assert np.array_equal(whole[0], cut[0]) and np.array_equal(whole[1], cut[1])
    write_xvg(tmp_path / "a.xvg", partition_rows(partition), "a")
    read = load_partition_coords_from_xvg(tmp_path / "a.xvg")
    assert all(np.array_equal(read[i], np.argwhere(partition == i)) for i in range(1, 5))


_STREAM = """
import sys, numpy as np, resource
from cytomill.partitioning.xvg_rdf import calculate_rdf_from_xvg
from cytomill.partitioning.xvg_reading import iterate_points
from cytomill.partitioning.xvg_writing import write_xvg
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
