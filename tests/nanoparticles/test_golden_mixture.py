"""The reference estimator reproduces the published reference on the golden stack."""

import numpy as np
import pytest

from cytomill.kernels.background import background_histogram
from cytomill.kernels.histogram import histogram_256
from cytomill.kernels.lookup import apply_table
from cytomill.nanoparticles.config import NanoparticleSegConfig
from cytomill.nanoparticles.downsample import downsample_posterior
from cytomill.nanoparticles.mixture import ReferenceEstimator, fit_em, sampled_slices
from cytomill.nanoparticles.model import Thresholds

MAIN = ("golden", "nanoparticles", "main")


@pytest.fixture(scope="module")
def main(shared_dir):
    return shared_dir.joinpath(*MAIN)


@pytest.fixture(scope="module")
def golden(main):
    return dict(np.load(main / "model.npz"))


@pytest.fixture(scope="module")
def volume(main):
    return np.load(main / "input.npz")["volume"]


def estimator(**settings):
    return ReferenceEstimator(
        NanoparticleSegConfig(root_path="", spacing_dir="", estimator="reference", **settings)
    )


@pytest.fixture(scope="module")
def fitted(golden):
    sampled = sampled_slices(24, 1)
    reference = estimator()
    thresholds = reference.thresholds(golden["hist_slices"], sampled)
    return reference.fit(golden["hist_slices"], golden["hist_bg_slices"], thresholds, sampled)


def test_histograms_of_slices_and_background_are_exact(volume, golden):
    hist = np.stack([histogram_256(image) for image in volume])
    assert np.array_equal(hist, golden["hist_slices"])
    background = [background_histogram(image, h, 154, 205, 20, 20) for image, h in zip(volume, hist)]
    assert np.array_equal(background, golden["hist_bg_slices"])


def test_thresholds_are_exact(golden):
    thresholds = estimator().thresholds(golden["hist_slices"], sampled_slices(24, 1))
    assert isinstance(thresholds, Thresholds)
    assert (thresholds.th_low, thresholds.th_high) == (golden["th_low"], golden["th_high"])
    assert thresholds.usable.all()


def test_the_fit_is_within_tolerance(fitted, golden):
    assert fitted.nit == golden["nit"] == 7219
    assert fitted.converged
    assert abs(fitted.w_bg - golden["w_bg"]) <= 1e-12
    assert abs(fitted.nll - golden["nll"]) <= 1e-12
    assert np.abs(fitted.p_np - golden["p_np"]).max() <= 1e-11
    for name in ("hist_stack", "hist_bg", "p_stack", "p_bg"):
        assert np.array_equal(getattr(fitted, name), golden[name]), name


@pytest.mark.parametrize("iterations", [1, 2, 3, 6, 11, 31, 101, 301, 1001, 3001])
def test_the_fit_follows_the_recorded_trajectory(iterations, golden, main):
    trajectory = np.load(main / "em_trajectory.npz")
    p_np, w_bg, nll, nit, converged = fit_em(
        golden["p_stack"], golden["p_bg"], golden["p_np_init"], float(golden["w_bg_init"]),
        eps=1e-12, nll_tol=1e-10, max_iter=iterations,
    )  # fmt: skip
    assert nit == iterations - 1 and not converged
    assert abs(w_bg - trajectory["w_bg"][nit]) <= 1e-12
    assert abs(nll - trajectory["nll"][nit]) <= 1e-12
    assert np.abs(p_np - trajectory[f"p_np_it{nit}"]).max() <= 1e-11


def test_mixing_weights_by_newton_are_exact_to_twelve_digits(fitted, golden):
    pi = estimator().posterior(fitted, golden["hist_slices"]).pi_map
    assert np.abs(pi - golden["pi_exact"]).max() <= 1e-12
    assert np.abs(pi - golden["pi"]).max() <= 1e-5
    assert np.array_equal(pi == 0, golden["pi_exact"] == 0)


def test_the_posterior_with_the_bounded_solver_is_exact(fitted, golden, volume, main):
    slices = estimator(pi_solver="bounded").posterior(fitted, golden["hist_slices"])
    assert np.abs(slices.pi_map - golden["pi"]).max() <= 1e-12
    posterior = np.stack([apply_table(image, table) for image, table in zip(volume, slices.tables)])
    assert np.array_equal(posterior, np.load(main / "posterior_f2_50-10-10.npz")["posterior"])


def test_the_downsampled_posterior_is_exact(main):
    fine = np.load(main / "posterior_f2_50-10-10.npz")["posterior"]
    coarse = np.load(main / "posterior_f2_50-50-50.npz")["posterior"]
    result = downsample_posterior(fine, (1, 5, 5))
    assert result.dtype == np.float16 and np.array_equal(result, coarse)
