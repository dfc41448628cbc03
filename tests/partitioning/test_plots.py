"""Pictures: what is asked for is drawn, axes carry units, nothing is left open."""

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot
from PIL import Image

from cytomill.partitioning import (
    calculate_rdf_from_xvg,
    compute_partition_features,
    plot_partition_features,
    plot_radial_rdf,
    visualize_partitions,
)
from cytomill.partitioning.plots import _composite
from cytomill.partitioning.shell_mesh import shell_mesh

matplotlib.use("Agg")


@pytest.fixture(scope="module")
def partition():
    """Four shells about a nucleus."""
    places = np.indices((24, 30, 36)).reshape(3, -1).T - [11.5, 14.5, 17.5]
    t = (np.linalg.norm(places, axis=1).reshape(24, 30, 36) - 3) / 8
    return np.where((t >= 0) & (t <= 1), np.floor(4 * np.clip(t, 0, 0.999)) + 1, 0).astype(np.uint8)


@pytest.fixture(autouse=True)
def no_figure_is_left_open():
    before = pyplot.get_fignums()
    yield
    assert pyplot.get_fignums() == before
    pyplot.close("all")


def colours_of(path):
    pixels = np.asarray(Image.open(path).convert("RGB"))
    return np.unique(pixels.reshape(-1, 3), axis=0)


def test_a_slice_is_drawn_in_the_colours_of_the_shells(tmp_path, partition):
    path = tmp_path / "new" / "slice.png"
    figure = visualize_partitions([partition == i for i in range(1, 5)], 12, path, cmap="Set3")
    assert Image.open(path).size[0] > 800
    ax, bar = figure.axes
    assert ax.get_xlabel() == "x (voxels)" and ax.get_ylabel() == "y (voxels)" and "z = 12" in ax.get_title()
    assert bar.get_ylabel().startswith("shell")
    drawn = ax.images[0].get_array()
    set3 = matplotlib.colormaps["Set3"](range(4))
    for i in range(1, 5):
        assert np.allclose(drawn[partition[12] == i], set3[i - 1])
    found = {tuple(colour) for colour in colours_of(path)}
    assert {tuple(np.rint(255 * colour[:3]).astype(int)) for colour in set3} <= found


def test_both_names_of_the_list_and_the_ids_draw_the_same(tmp_path, partition):
    masks = [partition == i for i in range(1, 5)]
    files = [tmp_path / f"{i}.png" for i in range(3)]
    visualize_partitions(masks, 10, files[0])
    visualize_partitions(partition_list=masks, slice_idx=10, save_path=files[1])
    visualize_partitions(partition_masks=partition, slice_idx=-14, save_path=str(files[2]))
    images = [np.asarray(Image.open(file)) for file in files]
    assert all(np.array_equal(images[0], image) for image in images[1:])


def test_an_empty_shell_keeps_its_place_in_the_colours(tmp_path, partition):
    masks = [partition == 1, partition == 2, partition == 9]
    figure = visualize_partitions(masks, 12, tmp_path / "a.png")
    assert figure.axes[1].get_yticks().tolist() == [1, 2, 3]


def test_without_a_slice_the_shells_are_drawn_in_three_dimensions(tmp_path, partition):
    figure = visualize_partitions(partition, save_path=tmp_path / "a.png", voxel_size_nm=(500, 250, 250))
    ax = figure.axes[0]
    assert ax.name == "3d" and ax.get_xlabel() == "x (µm)" and ax.get_zlabel() == "z (µm)"
    assert len(colours_of(tmp_path / "a.png")) > 200


def test_the_mesh_shows_every_shell_and_leaves_out_the_octant_towards_the_eye(partition):
    corners, shells, light = shell_mesh(partition, (1.0, 1.0, 1.0), grid=60)
    assert set(shells.tolist()) == {1, 2, 3, 4} and ((light > 0) & (light <= 1)).all()
    centre = corners.mean(axis=1) - [11.5, 14.5, 17.5]
    octant = (centre[:, 0] > 1) & (centre[:, 1] < -1) & (centre[:, 2] > 1)
    assert not octant.any()
    radius = np.linalg.norm(centre, axis=1)
    assert radius.max() < 12 and abs(radius[shells == 4].max() - 11) < 0.6
    # Triangles of a shell lie within it, give or take a cell of the grid.
    expected = np.clip(np.floor((radius - 3) / 2) + 1, 1, 4)
    assert (abs(expected - shells) <= 1).all() and (expected == shells).mean() > 0.8


def test_anisotropic_voxels_stretch_the_mesh(partition):
    corners, _, _ = shell_mesh(partition, (3.0, 1.0, 1.0), grid=60)
    low, high = corners.reshape(-1, 3).min(axis=0), corners.reshape(-1, 3).max(axis=0)
    assert 2.6 < (high - low)[0] / (high - low)[1] < 3.4


def test_planes_are_drawn_as_such(tmp_path, partition):
    figure = visualize_partitions([partition[12] == i for i in range(1, 5)], save_path=tmp_path / "a.png")
    assert figure.axes[0].name == "rectilinear"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({}, "found neither"),
        ({"partition_masks": []}, "one shape"),
        ({"partition_masks": [np.ones((2, 3, 4)), np.ones((2, 3, 5))]}, "one shape"),
        ({"partition_masks": np.zeros((2, 3, 4), np.uint8)}, "no voxel"),
        ({"partition_masks": np.ones((2, 3, 4), np.uint8), "slice_idx": 2}, "no slice 2"),
    ],
)
def test_what_cannot_be_drawn_is_said(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        visualize_partitions(**arguments)


def test_later_masks_win_as_in_a_list(partition):
    overlapping = _composite([partition > 0, partition > 2], None)
    assert np.array_equal(overlapping, np.where(partition > 2, 2, partition > 0))


def test_features_are_drawn_from_the_table_and_from_the_mask(tmp_path, partition):
    organelle = np.random.default_rng(0).random(partition.shape) < 0.2
    table = compute_partition_features(partition, {"mito": organelle, "er": ~organelle}, (300, 100, 100))
    figure = plot_partition_features(table, tmp_path / "a" / "table.png")
    assert [ax.get_ylabel() for ax in figure.axes[:3]] == [
        "volume (µm³)",
        "organelle (voxels)",
        "share of the zone (%)",
    ]
    heights = [bar.get_height() for bar in figure.axes[0].patches]
    assert np.allclose(heights, table["zone_volume_um3"])
    texts = [cell.get_text().get_text() for cell in figure.axes[3].tables[0].get_celld().values()]
    assert f"{table['zone_volume'].sum():,}" in texts and "mito (voxels)" in texts
    plain = plot_partition_features(partition, tmp_path / "mask.png")
    assert [bar.get_height() for bar in plain.axes[0].patches] == table["zone_volume"].tolist()
    assert plain.axes[0].get_ylabel() == "volume (voxels)"
    with pytest.raises(ValueError, match="lacks the column zone_volume"):
        plot_partition_features(table.drop(columns="zone_volume"))
    with pytest.raises(ValueError, match="has no rows"):
        plot_partition_features(np.zeros((2, 3, 4), np.uint8))


def test_the_rdf_is_drawn_with_its_counts_and_gaps(tmp_path, partition):
    coords = {i: np.argwhere(partition == i) for i in (1, 2, 4)}
    result = calculate_rdf_from_xvg(partition >= 2, coords, bins=4)
    figure = plot_radial_rdf(result, tmp_path / "rdf.png")
    ax, counts = figure.axes
    assert "t (0 nuclear envelope, 1 plasma membrane)" in ax.get_xlabel() and "voxels" in counts.get_ylabel()
    points = next(line for line in ax.lines if line.get_marker() == "o")
    assert np.array_equal(points.get_ydata(), result["rdf"], equal_nan=True)
    assert any(text.get_text() == "no voxel" for text in ax.texts)
    with pytest.raises(ValueError, match="no RDF results"):
        plot_radial_rdf(None)


def test_an_rdf_of_nothing_is_drawn_too(tmp_path):
    result = calculate_rdf_from_xvg(np.zeros((1, 1, 3)), {1: np.array([[0, 0, 0]])}, bins=2)
    plot_radial_rdf(result, tmp_path / "rdf.png")
    assert (tmp_path / "rdf.png").stat().st_size > 10000


def test_without_a_path_the_figure_is_shown(monkeypatch, partition):
    shown = []
    monkeypatch.setattr("cytomill.partitioning.plots.get_backend", lambda: "qtagg")
    monkeypatch.setattr(pyplot, "show", lambda: shown.append(pyplot.get_fignums()))
    visualize_partitions(partition, 12)
    assert len(shown) == 1 and shown[0]
    pyplot.close("all")
