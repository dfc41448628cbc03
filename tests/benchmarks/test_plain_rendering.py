"""The plain rendering that the benchmark compares with says the same as the package."""

import numpy as np
import plain_nanoparticles as plain
import pytest

from cytomill.kernels.binning import Binning
from cytomill.kernels.labelling import label_volume
from cytomill.nanoparticles.config import NanoparticleSegConfig
from cytomill.nanoparticles.downsample import downsample_posterior
from cytomill.nanoparticles.measurements import measure_unit, merge_measurements, particle_table
from cytomill.nanoparticles.mixture import ReferenceEstimator, sampled_slices
from cytomill.nanoparticles.slabs import slab_backgrounds, slab_histograms, slab_posterior
from cytomill.phantoms.nanoparticles import make_volume

VOXEL_SIZE_NM = (50.0, 10.0, 10.0)


@pytest.fixture(scope="module")
def stack():
    return make_volume((6, 256, 224), seed=4, load=0.01)[0]


@pytest.fixture(scope="module")
def fitted(stack):
    """The package's histograms, thresholds, background histograms, mixture and posterior."""
    config = NanoparticleSegConfig(
        "",
        "50-10-10",
        estimator="reference",
        pi_solver="bounded",
        percent_th_low=98.5,
        percent_th_high=99.3,
    )
    estimator = ReferenceEstimator(config)
    sampled = sampled_slices(len(stack), 1)
    histograms = slab_histograms(stack, Binning())
    thresholds = estimator.thresholds(histograms, sampled)
    backgrounds = slab_backgrounds(stack, 0, Binning(), histograms, thresholds, 20, 20)
    mixture = estimator.fit(histograms, backgrounds, thresholds, sampled)
    tables = estimator.posterior(mixture, histograms).tables
    return histograms, thresholds, backgrounds, mixture, slab_posterior(stack, Binning(), tables)


def test_histograms_and_thresholds_are_equal(stack, fitted):
    histograms, thresholds, *_ = fitted
    assert np.array_equal(plain.histograms(stack), histograms)
    assert plain.thresholds(histograms, 98.5, 99.3) == (thresholds.th_low, thresholds.th_high)


def test_backgrounds_are_equal_and_not_trivial(stack, fitted):
    histograms, thresholds, backgrounds, *_ = fitted
    expected = [plain.background_histogram(i, thresholds.th_low, thresholds.th_high) for i in stack]
    assert np.array_equal(expected, backgrounds)
    assert 0 < backgrounds.sum() < 0.95 * histograms[:, : thresholds.th_high].sum()


def test_mixtures_are_equal(fitted):
    histograms, thresholds, backgrounds, mixture, _ = fitted
    p_np, p_bg, w = plain.fit(histograms.sum(axis=0), backgrounds.sum(axis=0), thresholds.th_low)
    np.testing.assert_allclose(p_np, mixture.p_np, rtol=0, atol=1e-11)
    np.testing.assert_allclose(p_bg, mixture.p_bg, rtol=1e-12)
    assert w == pytest.approx(mixture.w_bg, abs=1e-12)


def test_posteriors_are_equal(stack, fitted):
    *_, mixture, posterior = fitted
    for image, expected in zip(stack, posterior, strict=True):
        found = plain.posterior_slice(image, mixture.p_np, mixture.p_bg)
        assert found.dtype == np.float16 and np.array_equal(found, expected)


def test_downsampled_posteriors_are_equal(fitted):
    posterior = fitted[-1]
    assert np.array_equal(plain.downsampled(posterior), downsample_posterior(posterior, (1, 5, 5)))


@pytest.mark.parametrize(("threshold", "radius"), [(0.5, 1), (0.95, 0)])
def test_labels_and_measurements_are_equal(stack, fitted, threshold, radius):
    posterior = fitted[-1]
    labels = plain.labels(posterior, threshold, radius)
    assert labels.max() > 3 and np.array_equal(labels, label_volume(posterior, threshold, radius))
    region = tuple((0, n) for n in stack.shape)
    sums = merge_measurements(measure_unit(labels, region, posterior, stack))
    table = particle_table(sums, VOXEL_SIZE_NM)
    measured = plain.measurements(labels, posterior, stack, VOXEL_SIZE_NM)
    for name, column in measured.items():
        np.testing.assert_allclose(table[name], column, rtol=1e-9, atol=1e-12, err_msg=name)
