"""Padding of registered stacks is no data; dark and saturated specimen at the border is data."""

import numpy as np
import pytest

from cytomill.kernels.binning import Binning, choose_binning
from cytomill.nanoparticles.config import NanoparticleSegConfig
from cytomill.nanoparticles.estimators import make_estimator
from cytomill.nanoparticles.fitting import analyse_histograms, fit_stack
from cytomill.nanoparticles.padding import describe_padding, padding_counts, slab_padding
from cytomill.nanoparticles.slabs import slab_backgrounds, slab_histograms, slab_posterior, slab_ranges
from cytomill.phantoms.nanoparticles import make_volume


def segment(stack):
    """Polarity, particles found, and the padding of a stack, with the robust estimator."""
    config = NanoparticleSegConfig(root_path="", spacing_dir="50-10-10")
    estimator, sampled = make_estimator(config), np.ones(len(stack), bool)
    levels = Binning() if stack.dtype == np.uint8 else choose_binning(slab_ranges(stack))
    counts = slab_histograms(stack, levels)
    padding = slab_padding(stack, levels, counts)
    found = analyse_histograms(config, estimator, levels, counts, padding, sampled)
    args = found.binning, found.hist_slices, found.thresholds, 20, 20, found.padding
    fitted = fit_stack(estimator, found, slab_backgrounds(stack, 0, *args), sampled)
    posterior = slab_posterior(stack, found.binning, fitted.slices.tables)
    return "dark" if found.binning.reverse else "bright", posterior >= 0.5, padding, fitted.mixture.notes


def dice(found, truth):
    return 2 * (found & truth).sum() / (found.sum() + truth.sum())


@pytest.fixture(scope="module")
def stack():
    return make_volume((8, 256, 256), seed=100, load=0.02)


@pytest.fixture(scope="module")
def unpadded(stack):
    return dice(segment(stack[0])[1], stack[1])


def margins(shape, width):
    """Where the slices were shifted out of, each by its own offset, up and left."""
    rng = np.random.default_rng(0)
    out = np.zeros(shape, bool)
    for z in range(shape[0]):
        down, right = rng.integers(1, width, 2)
        out[z, :down], out[z, :, -right:] = True, True
    return out


@pytest.mark.parametrize("width", [2, 30])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("fill", ["black", "white"])
@pytest.mark.parametrize("polarity", ["bright", "dark"])
def test_padding_changes_neither_polarity_nor_particles(polarity, fill, dtype, width, stack, unpadded):
    volume, truth = stack
    volume = volume if polarity == "bright" else 255 - volume
    white = 255
    if dtype == np.uint16:
        # A narrow range far from zero, as cameras with an offset give it.
        volume, white = volume.astype(np.uint16) * 16 + 20_000, 65535
    lost = margins(volume.shape, width)
    found, labelled, padding, notes = segment(np.where(lost, white * (fill == "white"), volume).astype(dtype))
    assert found == polarity
    assert labelled[lost].mean() == 0
    assert dice(labelled, truth & ~lost) > unpadded - 0.015
    assert abs(padding.sum() / lost.sum() - 1) < 0.02
    assert sum(note.startswith("padding: ") for note in notes) == 1


def test_padding_of_turned_slices_is_counted_exactly(stack):
    y, x = np.mgrid[:256, :256] - 128
    angle = np.deg2rad(4)
    along, across = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    lost = np.maximum(abs(along), abs(across)) > 126
    volume = np.where(lost, 0, np.maximum(stack[0], 1)).astype(np.uint8)
    counts = slab_histograms(volume, Binning())
    padding = slab_padding(volume, Binning(), counts)
    assert np.array_equal(padding, np.tile([lost.sum(), 0], (8, 1)))
    assert np.array_equal(padding_counts(counts, padding)[:, 0], counts[:, 0])


def test_a_stack_without_padding_has_none(stack):
    for volume in (stack[0], 255 - stack[0]):
        counts = slab_histograms(volume, Binning())
        assert not slab_padding(volume, Binning(), counts).any()
    assert describe_padding(counts, np.zeros((8, 2), np.int64)) == ()


@pytest.mark.parametrize("level", [0, 255])
def test_dark_and_saturated_specimen_at_the_border_is_no_padding(level):
    rng = np.random.default_rng(3)
    volume = np.clip(rng.normal(120, 20, (3, 200, 200)), 1, 254).astype(np.uint8)
    y, x = np.mgrid[:200, :200]
    for cy, cx in ((0, 60), (90, 0), (120, 199), (100, 100), (50, 120), (150, 60)):
        volume[:, (y - cy) ** 2 + (x - cx) ** 2 < 25**2] = level
    assert not slab_padding(volume, Binning(), slab_histograms(volume, Binning())).any()


def test_saturated_particles_outweigh_a_thin_white_margin():
    rng = np.random.default_rng(3)
    volume = np.clip(rng.normal(120, 20, (2, 200, 200)), 1, 254).astype(np.uint8)
    volume[rng.random(volume.shape) < 0.03] = 255
    volume[:, :2] = 255
    assert not slab_padding(volume, Binning(), slab_histograms(volume, Binning())).any()


def test_one_padded_slice_among_many_is_found(stack):
    volume = stack[0].copy()
    volume[5, :10] = 255
    padding = slab_padding(volume, Binning(), slab_histograms(volume, Binning()))
    assert np.flatnonzero(padding.any(axis=1)).tolist() == [5] and padding[5, 1] >= 10 * 256


def test_blank_slices_are_left_to_the_estimator(stack):
    volume = stack[0].copy()
    volume[2], volume[4, 20:] = 0, 0
    padding = slab_padding(volume, Binning(), slab_histograms(volume, Binning()))
    assert not padding.any()
    _, labelled, _, notes = segment(volume)
    assert not labelled[[2, 4]].any() and any("set aside" in note for note in notes)


@pytest.mark.parametrize("shape", [(2, 1, 1), (2, 1, 300), (2, 300, 1), (2, 15, 300)])
def test_slices_too_small_for_a_frame_have_no_padding(shape):
    volume = np.random.default_rng(0).integers(0, 3, shape).astype(np.uint8)
    assert not slab_padding(volume, Binning(), slab_histograms(volume, Binning())).any()


def test_the_boxes_of_the_background_do_not_grow_around_padding(stack):
    volume = stack[0].copy()
    volume[:, :30] = 255
    counts = slab_histograms(volume, Binning())
    padding = slab_padding(volume, Binning(), counts)
    thresholds = make_estimator(NanoparticleSegConfig("", "50-10-10")).thresholds(
        counts - padding_counts(counts, padding), np.ones(8, bool)
    )
    options = (0, Binning(), counts, thresholds, 20, 20)
    with_margin = slab_backgrounds(volume, *options, padding)
    assert not with_margin[:, 255].any()
    cropped = stack[0][:, 30:]
    alone = slab_backgrounds(
        cropped, 0, Binning(), slab_histograms(cropped, Binning()), thresholds, 20, 20
    )
    tissue = slice(1, thresholds.th_low)
    # Boxes at the margin reach into it, never further.
    assert np.array_equal(with_margin[:, tissue], alone[:, tissue])
