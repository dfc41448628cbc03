"""Figures show what the arrays say, in both schemes, and leave matplotlib as they found it."""

import base64
import io
import sys

import matplotlib
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cytomill.reports import balance, calibration, figures, slices
from cytomill.reports.canvas import DARK, LIGHT, Picture, new_figure
from cytomill.reports.data import ExampleSlice, StageTiming
from cytomill.reports.truth import Calibration


def content(uri: str) -> bytes:
    return base64.b64decode(uri.split(",", 1)[1])


def pixels(picture: Picture) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content(picture.light))).convert("RGB"))


def test_dark_figure_differs_from_the_light_one_in_colour_only(synthetic):
    picture = figures.histograms(synthetic.dataset(side=32, examples=0))
    light, dark = content(picture.light).decode(), content(picture.dark).decode()
    assert LIGHT["particle"] in light and DARK["particle"] in dark and LIGHT["particle"] not in dark
    assert len(light) == len(dark)
    back = dark
    for role in LIGHT:
        back = back.replace(DARK[role], LIGHT[role])
    assert back == light


def test_roles_have_distinct_colours():
    assert LIGHT.keys() == DARK.keys()
    assert len(set(LIGHT.values())) == len(LIGHT) and len(set(DARK.values())) == len(DARK)
    assert not set(LIGHT.values()) & set(DARK.values())


def test_drawing_leaves_no_global_state(synthetic):
    before = dict(matplotlib.rcParams)
    figures.size_distribution(synthetic.particles(30, 8))
    assert dict(matplotlib.rcParams) == before
    if "matplotlib.pyplot" in sys.modules:
        assert not sys.modules["matplotlib.pyplot"].get_fignums()


def test_figure_does_not_depend_on_the_users_settings(synthetic):
    table = synthetic.particles(30, 8)
    expected = figures.size_distribution(table)
    with matplotlib.rc_context({"font.size": 20, "axes.facecolor": "red", "svg.fonttype": "none"}):
        assert figures.size_distribution(table) == expected


def test_size_distribution_states_count_and_median():
    table = pd.DataFrame({"equivalent_diameter_um": [0.1, 0.2, 0.4, np.nan]})
    assert figures.size_distribution(table).alt == "Size distribution of 3 clusters, median 0.200 µm"


def test_sizes_without_a_voxel_size_are_in_voxels():
    table = pd.DataFrame({"equivalent_diameter_um": [np.nan] * 3, "voxel_count": [10, 10, 10]})
    assert "median 10.0 voxels" in figures.size_distribution(table).alt


def test_nothing_to_draw_is_none(synthetic):
    bare = synthetic.dataset(side=32, examples=0, hist_stack=None, pi_map=None, particles=None)
    assert figures.histograms(bare) is None and figures.posterior_curve(bare) is None
    assert figures.mixing_weight(bare) is None and figures.particles_along_z(bare) is None
    assert figures.size_distribution(pd.DataFrame({"voxel_count": []})) is None
    assert calibration.calibration_curve(Calibration(np.zeros(3), np.zeros(3), np.zeros(3, int))) is None
    assert balance.rank_balance([StageTiming("fit", 1, 1.0)]) is None


def test_calibration_states_the_largest_deviation_of_parts_with_voxels_enough():
    predicted, observed = np.array([0.1, 0.5, 0.7, 0.9]), np.array([0.1, 0.3, 0.0, np.nan])
    curve = Calibration(predicted, observed, np.array([10_000, 1000, 999, 0]))
    assert "0.200" in calibration.calibration_curve(curve).alt
    assert [row[3] for row in curve.rows] == [True, True, False]


def test_calibration_of_too_few_voxels_has_no_largest_deviation():
    curve = Calibration(np.array([0.1, 0.9]), np.array([0.5, 0.5]), np.array([10, 10]))
    assert "largest deviation –" in calibration.calibration_curve(curve).alt


def test_posterior_curve_draws_the_tables_that_were_applied(synthetic):
    report = synthetic.dataset(side=32, examples=0)
    least, most = (
        np.flatnonzero(report.usable)[f(report.pi_map[report.usable])] for f in (np.argmin, np.argmax)
    )
    rows = {name: (z, table) for name, z, table in figures.posterior_rows(report)}
    assert rows["least"][0] == least and rows["most"][0] == most
    for z, table in rows.values():
        assert np.array_equal(table, report.tables[z])
    drawn = figures.posterior_curve(report)
    assert f"{least} (least load)" in drawn.alt
    changed = report.tables.copy()
    changed[most] *= 0.5
    report.tables = changed
    assert figures.posterior_curve(report).light != drawn.light


def test_drift_of_a_dark_stack_is_told_in_its_own_words(synthetic):
    bright, dark = (
        figures.mixing_weight(synthetic.dataset(side=32, examples=0, polarity=p)) for p in ("bright", "dark")
    )
    assert "brighter (+) or darker (−)" in bright.caption and "darker (+) or brighter (−)" in dark.caption


def test_posterior_of_a_single_slice_is_one_line(synthetic):
    rows = figures.posterior_rows(synthetic.dataset(depth=1, side=32, examples=0))
    assert [(name, z) for name, z, _ in rows] == [("median", 0)]


def test_threshold_at_the_end_of_the_scale_is_not_drawn(synthetic):
    both = figures.histograms(synthetic.dataset(side=32, examples=0))
    one = figures.histograms(synthetic.dataset(side=32, examples=0, th_high=256))
    assert "high threshold at 140" in both.alt and "high" not in one.alt and "low threshold at 129" in one.alt
    assert content(both.light).count(LIGHT["threshold"].encode()) > content(one.light).count(
        LIGHT["threshold"].encode()
    )


@pytest.mark.parametrize("ranks", [2, 3, 200])
def test_rank_balance_for_any_number_of_ranks(ranks):
    timing = StageTiming("posterior", 4, 2.0, [1.0] * ranks)
    picture = balance.rank_balance([timing])
    assert "busy 50.0\u202f% overall" in picture.alt
    assert len(picture.light) < 200_000


def test_one_rank_has_nobody_to_be_compared_with():
    assert balance.rank_balance([StageTiming("posterior", 4, 2.0, [1.0])]) is None


@pytest.mark.parametrize("ranks", [1, 2, 5, 7, 200])
def test_rank_axis_has_ticks_at_ranks_that_exist(ranks):
    _, (ax,) = new_figure(3, 2)
    balance.draw_stage(ax, StageTiming("posterior", 4, 2.0, [1.0] * ranks))
    ticks = ax.get_xticks()
    assert len(ticks) and set(ticks) <= set(range(ranks)) and ticks[0] == 0


def test_slice_of_any_size_is_shown_within_bounds():
    for shape in ((1, 1), (7, 300), (720, 720), (721, 500), (5000, 3001)):
        example = ExampleSlice(
            0, np.zeros(shape, np.uint8), np.zeros(shape, np.float16), np.zeros(shape, np.int32)
        )
        panels = slices.slice_panels(example, (50.0, 10.0, 10.0))
        assert len(panels.whole) == 3 and len(panels.detail) in (0, 3)
        for picture in panels.whole + panels.detail:
            strip = 60
            assert picture.width <= slices.DISPLAY_PIXELS >= picture.height - strip
            assert pixels(picture).shape[:2] == (picture.height, picture.width)


def test_labels_are_outlined_where_they_are():
    image = np.full((720, 720), 100, np.uint8)
    image[0, 0] = 255
    labels = np.zeros((720, 720), np.int32)
    labels[100:120, 200:230] = 7
    panel = pixels(slices.slice_panels(ExampleSlice(0, image, None, labels)).whole[-1])
    orange = np.all(panel == (255, 106, 0), axis=-1)
    rows, columns = np.nonzero(orange)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (99, 120, 199, 230)
    assert not orange[102:118, 202:228].any()


def test_touching_labels_have_a_line_between_them():
    labels = np.ones((10, 10), int)
    labels[:, 5:] = 2
    edge = slices.label_edges(labels)
    assert edge[:, 4:6].all() and not edge[:, :4].any() and not edge[:, 6:].any()


def test_single_pixel_particle_survives_reduction():
    labels = np.zeros((2048, 2048), np.int32)
    labels[1001, 503] = 1
    example = ExampleSlice(0, np.zeros((2048, 2048), np.uint8), None, labels)
    panels = slices.slice_panels(example)
    assert np.all(pixels(panels.whole[-1]) == (255, 106, 0), axis=-1).any()
    window = slices.detail_window(example)
    assert window.y <= 1001 < window.y + window.height and window.x <= 503 < window.x + window.width


def test_scale_bar_is_a_round_length_that_fits():
    for width in (3.0, 999.0, 20480.0, 1e7):
        length = slices.scale_bar_nm(width)
        assert 0.1 * width <= length <= 0.25 * width
        assert float(f"{length:.0e}") == pytest.approx(length) and f"{length:e}"[0] in "125"


def test_scale_bar_has_the_length_it_says():
    picture = slices.grey_picture(np.full((600, 600), 0.5), "x", pixel_nm=10.0)
    white = np.all(pixels(picture) == 255, axis=-1)
    longest = max(len(run) for row in white for run in "".join("01"[int(v)] for v in row).split("0"))
    assert longest == round(slices.scale_bar_nm(6000.0) / 10.0) == 100


def test_scale_bar_covers_nothing_of_the_picture():
    plain = slices.grey_picture(np.full((300, 300), 0.5), "x")
    barred = slices.grey_picture(np.full((300, 300), 0.5), "x", pixel_nm=10.0)
    assert barred.height > 300 and np.array_equal(pixels(barred)[:300], pixels(plain))


def test_no_voxel_size_no_scale_bar():
    picture = slices.grey_picture(np.full((600, 600), 0.5), "x")
    assert len(np.unique(pixels(picture))) == 1


@pytest.mark.parametrize(
    "image", [np.full((9, 9), np.nan), np.full((9, 9), 3), np.array([[np.inf, 1], [2, np.nan]])]
)
def test_grey_of_strange_slices_is_finite(image):
    grey = slices.to_grey(image)
    assert np.isfinite(grey).all() and grey.min() >= 0 and grey.max() <= 1


def test_tissue_beside_a_few_bright_particles_is_not_drawn_dark():
    rng = np.random.default_rng(3)
    image = rng.normal(100, 8, (200, 200))
    image[:20, :20] = rng.uniform(180, 250, (20, 20))
    grey = slices.to_grey(image)
    assert np.median(grey) == pytest.approx(0.38, abs=0.01) and grey.min() == 0 and grey.max() == 1
    # Particles keep their own shades, and the order of intensities stays.
    assert len(np.unique(grey[:20, :20].round(3))) > 30
    order = np.argsort(image, axis=None)
    assert np.all(np.diff(grey.ravel()[order]) >= 0)
    # A slice that is mostly empty ground stays dark.
    empty = np.zeros((200, 200))
    empty[:20] = 200
    assert np.median(slices.to_grey(empty)) == 0
