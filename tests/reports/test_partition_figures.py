"""Figures of a partition show what tables and volumes say, at the right scale, in ordered colours."""

import base64
import io
import warnings

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cytomill.kernels.cell_codes import NUCLEUS_ID
from cytomill.partitioning.conditions import mean_over_cells
from cytomill.reports import condition_figures, nested_shells, partition_figures
from cytomill.reports.canvas import DARK
from cytomill.reports.partition_colours import MEMBRANE_COLOUR, shell_colours
from cytomill.reports.partition_examples import (
    ExampleCell,
    PlaneSlice,
    coarse_steps,
    plane_indices,
)
from cytomill.reports.partition_slices import orthogonal_planes

SIZE = (300.0, 110.0, 110.0)


def picture_pixels(picture, mode="RGB"):
    content = base64.b64decode(picture.light.split(",", 1)[1])
    return np.asarray(Image.open(io.BytesIO(content)).convert(mode))


def near(pixels, colour, tolerance=14):
    return (np.abs(pixels[..., :3].astype(int) - np.asarray(colour)) <= tolerance).all(axis=-1)


@pytest.mark.parametrize("n_shells", [2, 8, 32, 250])
def test_colours_brighten_from_nucleus_to_membrane(n_shells):
    luminance = shell_colours(n_shells) @ (0.2126, 0.7152, 0.0722)
    assert (np.diff(luminance) > -0.6).all() and luminance[-1] > luminance[0] + 100


def test_planes_keep_proportions_of_anisotropic_voxels(synthetic):
    # A sphere in nanometres: as round in x–z as in x–y, though it has far fewer voxels along z.
    codes = synthetic.codes((20, 54, 54), SIZE)
    example = ExampleCell.of(1, codes, SIZE)
    pixels = picture_pixels(orthogonal_planes(example, 8))
    outer = near(pixels, shell_colours(8)[-1])
    rows, columns = np.nonzero(outer)
    main = outer[: pixels.shape[0] // 2, : pixels.shape[1] // 2]
    below = outer[rows[rows > pixels.shape[0] // 2].min() :, : pixels.shape[1] // 2]
    heights = [np.ptp(np.nonzero(part)[0]) for part in (main, below)]
    widths = [np.ptp(np.nonzero(part)[1]) for part in (main, below)]
    assert heights[0] == pytest.approx(widths[0], rel=0.05)
    assert heights[1] == pytest.approx(widths[1] * 20 * 300 / (54 * 110), rel=0.12)


def test_planes_cut_the_nucleus_where_it_is():
    codes = np.zeros((9, 12, 15), np.uint8)
    codes[1:8, 1:11, 1:14] = 3
    codes[2:5, 7:10, 3:6] = NUCLEUS_ID
    assert plane_indices(codes) == (3, 8, 4)
    example = ExampleCell.of(5, codes, SIZE, start=(10, 20, 30))
    assert [plane.index for plane in example.planes] == [13, 28, 34]
    assert all((plane.codes == NUCLEUS_ID).any() for plane in example.planes)
    codes[codes == NUCLEUS_ID] = 1
    assert plane_indices(codes) == (4, 6, 7) or plane_indices(codes) == (4, 5, 7)


def test_organelles_are_outlined_and_image_shines_through():
    codes = np.full((30, 40), 4, np.uint8)
    mask = np.zeros((30, 40), bool)
    mask[10:20, 10:20] = True
    plain = ExampleCell(1, SIZE, [PlaneSlice(0, 0, codes)])
    outlined = ExampleCell(1, SIZE, [PlaneSlice(0, 0, codes, None, {"granules": mask})])
    shown = ExampleCell(1, SIZE, [PlaneSlice(0, 0, codes, np.arange(1200.0).reshape(30, 40))])
    orange = (255, 106, 0)
    assert not near(picture_pixels(orthogonal_planes(plain, 8)), orange).any()
    assert near(picture_pixels(orthogonal_planes(outlined, 8)), orange).sum() > 100
    pixels = picture_pixels(orthogonal_planes(shown, 8)).astype(int).sum(axis=2)
    assert pixels[40:60, 60:-10].mean() + 60 < pixels[-120:-80, 60:-10].mean()


def test_plane_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="image has shape"):
        PlaneSlice(1, 0, np.zeros((4, 5), np.uint8), np.zeros((5, 4)))


@pytest.mark.parametrize(
    ("shape", "size", "steps"),
    [
        ((300, 2000, 2000), (50.0, 10.0, 10.0), (4, 21, 21)),
        ((65, 200, 300), (290.0, 108.0, 108.0), (1, 3, 3)),
        ((20, 20, 20), (1.0, 1.0, 1.0), (1, 1, 1)),
    ],
)
def test_coarse_volume_is_small_and_its_voxels_nearly_cubes(shape, size, steps):
    assert coarse_steps(shape, size) == steps
    assert max(-(-n // s) for n, s in zip(shape, steps)) <= 145


def test_nested_shells_show_every_shell_nucleus_and_membrane(synthetic):
    codes = synthetic.codes((60, 60, 60))
    picture = nested_shells.nested_shells(codes, (100.0, 100.0, 100.0), 8)
    pixels = picture_pixels(picture, "RGBA")
    assert pixels.shape[:2] == (picture.height, picture.width)
    assert pixels[0, 0, 3] == 0 and 0.3 < (pixels[..., 3] > 0).mean() < 0.9
    solid = pixels[pixels[..., 3] > 0][:, :3].astype(float)
    direction = solid / np.maximum(np.linalg.norm(solid, axis=1, keepdims=True), 1e-9)
    for colour in (*shell_colours(8), MEMBRANE_COLOUR):
        hue = np.asarray(colour, float) / np.linalg.norm(colour)
        assert ((direction @ hue) > 0.995).sum() > 200, f"nothing of colour {colour} is seen"


def test_nested_shells_are_the_same_each_time_and_any_axis_may_be_short(synthetic, small_pictures):
    for shape in ((6, 40, 50), (50, 12, 40), (40, 50, 8)):
        codes = synthetic.codes(shape)
        first = nested_shells.nested_shells(codes, SIZE, 8)
        assert first == nested_shells.nested_shells(codes, SIZE, 8)
        assert max(first.width, first.height - 60) <= 160


def test_nested_shells_of_a_cell_without_nucleus_or_with_one_shell(small_pictures):
    codes = np.zeros((20, 20, 20), np.uint8)
    codes[4:16, 4:16, 4:16] = 1
    picture = nested_shells.nested_shells(codes, (100.0, 100.0, 100.0), 1)
    assert (picture_pixels(picture, "RGBA")[..., 3] > 0).mean() > 0.2


def test_continuous_profile_is_relative_to_even_density():
    edges = np.linspace(0, 1, 201)
    table = pd.DataFrame({"t_low": edges[:-1], "t_high": edges[1:], "cytoplasm_voxels": 10})
    table["organelle_voxels"] = np.where(table["t_low"] < 0.5, 3, 1)
    bounds, g = partition_figures.continuous_profile(table)
    assert (bounds[0], bounds[-1], len(g)) == (0, 1, 50)
    np.testing.assert_allclose(g[[0, -1]], [1.5, 0.5])
    table.loc[table["t_low"] > 0.9, ["cytoplasm_voxels", "organelle_voxels"]] = 0
    assert np.isnan(partition_figures.continuous_profile(table)[1][-1])
    assert partition_figures.continuous_profile(table.assign(organelle_voxels=0)) is None


def test_mean_over_cells_leaves_out_cells_without_a_value(synthetic):
    assert mean_over_cells(np.array([[1.0, np.nan], [3.0, np.nan]])).tolist()[0] == 2
    picture = partition_figures.rdf_over_cells(synthetic.partition(examples=[]).rdf, "granules")
    # The last shell has g in cell 2 alone: 0.5 + 1 + 0.06.
    assert picture.alt.endswith("1.56") and "2 cells" in picture.alt
    one = synthetic.partition(cells=1, examples=[]).rdf
    assert partition_figures.rdf_over_cells(one, "granules") is None


def test_censored_curve_is_drawn_only_where_it_differs(synthetic):
    rdf = synthetic.partition(examples=[]).rdf
    pictures = [
        partition_figures.radial_profile(rdf[rdf["cell"] == cell], None, "granules") for cell in (1, 2)
    ]
    assert len(pictures[0].light) < len(pictures[1].light)
    empty = rdf[rdf["cell"] == 1].assign(g=np.nan)
    assert partition_figures.radial_profile(empty, None, "granules") is None
    assert "1.16" in partition_figures.radial_profile(rdf[rdf["cell"] == 1], None, "x").alt


def test_dark_scheme_has_colours_of_its_own(synthetic):
    report = synthetic.partition(examples=[])
    for picture in (
        partition_figures.rdf_over_cells(report.rdf, "granules"),
        partition_figures.object_distances(report.objects, "granules"),
        partition_figures.shell_sizes(report.shells[report.shells["cell"] == 2], 8),
    ):
        dark = base64.b64decode(picture.dark.split(",", 1)[1]).decode()
        assert DARK["ink"] in dark and picture.dark != picture.light


def test_similarity_matrix_survives_missing_values():
    matrix = pd.DataFrame([[1.0, np.nan], [np.nan, 1.0]], index=["a $x_{$", "b"], columns=["a $x_{$", "b"])
    picture = condition_figures.similarity_matrix(matrix, "granules")
    assert "Similarity of 2 RDFs" in picture.alt
    assert condition_figures.similarity_matrix(matrix.iloc[:1, :1], "granules") is None


def test_distances_need_a_table_with_objects(synthetic):
    objects = synthetic.partition(examples=[]).objects
    assert "80 objects" in partition_figures.object_distances(objects, "granules").alt
    assert partition_figures.object_distances(objects, "vesicles") is None
    assert partition_figures.object_distances(None, "granules") is None
    lost = objects.assign(distance_ne_nm=np.nan, distance_pm_nm=np.nan)
    assert partition_figures.object_distances(lost, "granules") is None


def test_many_conditions_with_long_names_leave_room_for_the_curves():
    names = [
        f"{letter} treated for a very long time with a compound of a very long name"
        for letter in "abcdefghijklmno"
    ]
    rows = [
        {"condition": name, "organelle": "granules", "shell": shell, "g": 1.0 + 0.01 * i, "cells": 1}
        for i, name in enumerate(names)
        for shell in range(1, 9)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "15 conditions" in condition_figures.rdf_by_condition(pd.DataFrame(rows), "granules").alt
        matrix = pd.DataFrame(np.eye(15), index=names, columns=names)
        assert "15 RDFs" in condition_figures.similarity_matrix(matrix, "granules").alt
