"""The mixture is fitted as defined, and what cannot be fitted is said."""

import numpy as np
import pytest

from cytomill.nanoparticles.config import NanoparticleSegConfig
from cytomill.nanoparticles.mixture import (
    ReferenceEstimator,
    fit_em,
    norm,
    percentile_bin,
    sampled_slices,
)
from cytomill.nanoparticles.model import Thresholds

EPS = 1e-12


def reference(**settings):
    config = NanoparticleSegConfig(root_path="", spacing_dir="", estimator="reference", **settings)
    return ReferenceEstimator(config)


def stack(depth=3, seed=0):
    rng = np.random.default_rng(seed)
    bins = np.arange(256)
    background = np.exp(-((bins - 110) ** 2) / 300.0)
    particles = np.exp(-((bins - 210) ** 2) / 200.0)
    p = 0.995 * background / background.sum() + 0.005 * particles / particles.sum()
    hist = rng.multinomial(50_000, p, size=depth)
    outside = hist.copy()
    outside[:, 170:] = 0
    return hist, outside


def test_norm_floors_and_normalises():
    p = norm(np.eye(256, dtype=np.int64)[3], EPS)
    assert p.dtype == np.float64 and abs(p.sum() - 1) < 1e-14
    assert p.min() > 0.9 * EPS and p.argmax() == 3


def test_norm_of_nothing_is_uniform():
    assert np.array_equal(norm(np.zeros(256, np.int64), EPS), np.full(256, 1 / 256))


def test_percentiles_are_searched_from_the_left():
    p = np.full(256, 1 / 256)
    assert percentile_bin(p, 50) == 127
    assert percentile_bin(p, 0) == 0
    assert percentile_bin(np.full(256, 0.9 / 256), 100) == 256


@pytest.mark.parametrize(("depth", "step", "taken"), [(5, 1, 5), (5, 2, 3), (5, 99, 1), (0, 3, 0)])
def test_sampling_takes_the_first_slice_and_every_nth(depth, step, taken):
    sampled = sampled_slices(depth, step)
    assert sampled.shape == (depth,) and sampled.sum() == taken
    assert not depth or sampled[0]


def test_only_sampled_slices_are_fitted():
    hist, outside = stack(4)
    spoiled, spoiled_outside = hist.copy(), outside.copy()
    spoiled[1::2] = spoiled_outside[1::2] = 7
    sampled = sampled_slices(4, 2)
    thresholds = reference().thresholds(hist, sampled)
    first = reference().fit(hist, outside, thresholds, sampled)
    second = reference().fit(spoiled, spoiled_outside, thresholds, sampled)
    assert first.summary_fit == second.summary_fit
    assert np.array_equal(first.p_np, second.p_np)


def test_a_fit_that_stops_early_says_so():
    hist, outside = stack()
    sampled = sampled_slices(3, 1)
    estimator = reference(max_iter=3)
    mixture = estimator.fit(hist, outside, estimator.thresholds(hist, sampled), sampled)
    assert not mixture.converged and mixture.nit == 2
    assert any("did not converge within 3 iterations" in note for note in mixture.notes)


def test_a_fit_that_converges_has_nothing_to_say():
    hist, outside = stack()
    sampled = sampled_slices(3, 1)
    estimator = reference(nll_tol=1e-6)
    mixture = estimator.fit(hist, outside, estimator.thresholds(hist, sampled), sampled)
    assert mixture.converged and mixture.notes == ()
    assert mixture.usable.all() and not mixture.slice_shift.any()


def test_no_iteration_is_refused():
    p = np.full(256, 1 / 256)
    with pytest.raises(ValueError, match="max_iter must be at least 1"):
        fit_em(p, p, p, 0.5, eps=EPS, nll_tol=1e-10, max_iter=0)


def test_a_collapse_names_the_iteration():
    p = np.eye(256)[100]
    with pytest.raises(RuntimeError, match="EM collapsed at iteration 0: no weight is left"):
        fit_em(p, p, np.eye(256)[200], 1.0, eps=1e-3, nll_tol=1e-10, max_iter=5)


def test_a_stack_without_background_is_refused():
    hist, outside = stack()
    with pytest.raises(ValueError, match="no pixel of the stack is background"):
        reference().fit(hist, outside * 0, Thresholds(0, 0, np.ones(3, bool)), np.ones(3, bool))


@pytest.mark.parametrize("depth", [0, 2])
def test_a_stack_without_pixels_is_refused(depth):
    with pytest.raises(ValueError, match="nothing to fit"):
        reference().thresholds(np.zeros((depth, 256), np.int64), np.ones(depth, bool))


def test_weights_without_prior_are_given_beside_those_with_it():
    hist, outside = stack()
    sampled = sampled_slices(3, 1)
    estimator = reference()
    mixture = estimator.fit(hist, outside, estimator.thresholds(hist, sampled), sampled)
    slices = estimator.posterior(mixture, hist)
    assert (slices.pi_ml >= slices.pi_map).all() and (slices.pi_ml > 0).all()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"eps": 0.0}, "eps must be a positive number"),
        ({"eps": float("nan")}, "eps must be"),
        ({"percent_th_low": 100.5}, "percent_th_low must be between 0 and 100"),
        ({"percent_th_high": -1.0}, "percent_th_high"),
        ({"beta_params": (0.5, 20.0)}, "not convex"),
        ({"beta_params": (1.0,)}, "beta_params must be two numbers"),
        ({"max_iter": 0}, "max_iter must be at least 1, found 0"),
        ({"sampling_step": 0}, "sampling_step"),
        ({"halo_pad": -1}, "halo_pad"),
        ({"nll_tol": -1.0}, "nll_tol"),
        ({"posterior_th": 1.5}, "posterior_th"),
        ({"posterior_th": 0.0}, "posterior_th"),
        ({"connectivity": 4}, "connectivity must be one of 1, 2, 3; found 4"),
        ({"estimator": "best"}, "estimator must be one of robust, reference; found 'best'"),
        ({"pi_solver": "x"}, "pi_solver"),
        ({"posterior_dtype": "float32"}, "posterior_dtype"),
        ({"polarity": "grey"}, "polarity"),
        ({"border": "wrap"}, "border"),
        ({"zarr_chunks": (1, 2)}, "zarr_chunks must be three numbers"),
        ({"downsample": (0, 1, 1)}, "downsample must be three numbers"),
        ({"downsample_sigma": (-1.0, 1.0, 1.0)}, "downsample_sigma"),
        ({"shard_shape": (0, 1, 1)}, "shard_shape"),
        ({"closing_nm": -5.0}, "closing_nm"),
    ],
)
def test_settings_that_make_no_sense_are_refused_in_a_sentence(settings, sentence):
    with pytest.raises(ValueError, match=sentence) as refusal:
        NanoparticleSegConfig(root_path="a", spacing_dir="50-10-10", **settings)
    assert "\n" not in str(refusal.value)


def test_root_path_and_spacing_are_required():
    with pytest.raises(TypeError, match="root_path"):
        NanoparticleSegConfig(spacing_dir="50-10-10")


@pytest.mark.parametrize(("estimator", "threshold"), [("reference", 0.95), ("robust", 0.5)])
def test_the_default_threshold_follows_the_estimator(estimator, threshold):
    config = NanoparticleSegConfig(root_path="a", spacing_dir="1-1-1", estimator=estimator)
    assert config.posterior_th == threshold
