"""The contact sheet counts what a threshold keeps."""

import numpy as np
import pytest
from scipy import ndimage

from cytomill.campaign.nanoparticle_preview import of_the_stack
from cytomill.reports.preview import PreviewDataset, PreviewReport, PreviewSlice, kept_regions, render_preview


def test_kept_regions_equal_labelling_then_dropping_the_small_ones():
    rng = np.random.default_rng(5)
    posterior = ndimage.gaussian_filter(rng.random((80, 90)), 1.5)
    posterior = (posterior - posterior.min()) / np.ptp(posterior)
    labels, number = kept_regions(posterior, 0.6, min_pixels=9)
    plain, count = ndimage.label(posterior >= np.float16(0.6), np.ones((3, 3)))
    sizes = np.bincount(plain.ravel())[1:]
    assert 0 < number == np.count_nonzero(sizes >= 9) < count
    assert np.array_equal(np.unique(labels), np.arange(number + 1))
    assert np.bincount(labels.ravel())[1:].tolist() == sizes[sizes >= 9].tolist()


def test_threshold_is_rounded_as_the_posterior_is():
    posterior = np.full((3, 3), 0.95, np.float16)
    assert kept_regions(posterior, 0.95)[1] == 1


def test_nothing_kept():
    assert kept_regions(np.full((4, 4), np.nan), 0.5)[1] == 0
    assert kept_regions(np.eye(4), 0.5, min_pixels=5)[1] == 0


def test_counts_and_volumes_a_threshold():
    posterior = np.zeros((64, 64), np.float32)
    posterior[2:12, 2:12] = 0.75
    posterior[30:40, 30:40] = 0.999
    part = PreviewSlice(3, np.zeros((64, 64), np.uint8), posterior)
    dataset = PreviewDataset("a", [part], (8, 64, 64), (100.0, 100.0, 100.0), posterior_th=0.9)
    html = render_preview(PreviewReport("c", [dataset]))
    assert [f"≥ {t} · {n} region" in html for t, n in (("0.5", 2), ("0.7", 2), ("0.8", 1), ("0.99", 1))] == [
        True
    ] * 4
    assert "<td>0.200</td>" in html and "<td>0.100</td>" in html
    assert "0.9 ★" in html


def test_dataset_that_could_not_be_previewed_says_so(synthetic):
    html = render_preview(synthetic.preview(side=64, slices=1))
    assert "No slice of this dataset could be previewed" in html and "is truncated, copy it again" in html


def test_sheet_without_datasets():
    assert "names no datasets" in render_preview(PreviewReport("c"))


def test_sheet_of_full_slices_stays_small():
    rng = np.random.default_rng(0)
    parts = [PreviewSlice(z, rng.integers(0, 256, (1024, 1024)), rng.random((1024, 1024))) for z in range(2)]
    html = render_preview(PreviewReport("c", [PreviewDataset("a", parts, (8, 1024, 1024))], min_pixels=4))
    assert len(html) < 1_500_000


@pytest.mark.parametrize("shape", [(1, 1), (3, 500), (500, 3)])
def test_slices_of_any_size(shape):
    part = PreviewSlice(0, np.zeros(shape, np.uint8), np.zeros(shape, np.float16))
    html = render_preview(PreviewReport("c", [PreviewDataset("a", [part], (1, *shape), (50.0, 10.0, 10.0))]))
    assert f"1 × {shape[0]} × {shape[1]}" in html and "data:image/png" in html


def test_axis_of_regions_is_whole_and_there_is_none_without_regions():
    image = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)
    posterior = np.zeros((64, 64), np.float32)
    nothing = PreviewDataset("empty", [PreviewSlice(3, image, posterior)], (8, 64, 64), posterior_th=0.9)
    html = render_preview(PreviewReport("c", [nothing]))
    assert "No slice has a region at any of the thresholds" in html and "by posterior threshold" not in html
    assert "regions outlined" not in html and "Image, slice 3" in html
    posterior[2:12, 2:12] = 0.75
    one = PreviewDataset("one", [PreviewSlice(3, image, posterior)], (8, 64, 64), posterior_th=0.9)
    html = render_preview(PreviewReport("c", [one]))
    assert "Regions in 1 slice by posterior threshold, 1 at the most." in html
    assert "≥ 0.7 · 1 region<" in html


@pytest.mark.parametrize(
    "highest, words",
    [(0.9, "where most particles are"), (0.2, "where the posterior is highest"), (0.0, "from the middle")],
)
def test_window_says_why_it_lies_where_it_does(highest, words):
    posterior = np.zeros((400, 400), np.float32)
    posterior[300:310, 300:310] = highest
    seen = np.zeros((400, 400), np.float32)
    seen[:5, :5] = 0.9
    parts = [PreviewSlice(z, seen.astype(np.uint8) + z, p) for z, p in ((0, posterior), (1, seen))]
    parts[0].image[0, 0] = 7
    html = render_preview(PreviewReport("c", [PreviewDataset("a", parts, (8, 400, 400))]))
    assert f"320 × 320 pixels, {words}" in html.split("Slice z = 0", 1)[1].split("Slice z = 1", 1)[0]


def test_notes_of_a_preview_name_slices_of_the_stack():
    notes = ("2 slices set aside, blank or constant (fewer than 8 grey levels): 0, 2", "drifts by 1, 2 bins")
    shown, other = of_the_stack(notes, np.array([4, 9, 14]))
    assert shown.endswith("grey levels): 4, 14") and other == notes[1]
    many = "3 slices set aside, saturated: 0, 1 and 1 more"
    assert of_the_stack((many,), [4, 9, 14]) == ("3 slices set aside, saturated: 4, 9 and 1 more",)
