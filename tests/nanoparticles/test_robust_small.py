"""A clear second mode is never passed over in silence, however small the stack or shallow the valley."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from robust_fits import fitted

from cytomill.nanoparticles.model import FLAGGED, NO_PARTICLES, PARTICLES
from cytomill.nanoparticles.robust import separate_mode
from cytomill.nanoparticles.robust_shape import BINS, find_flank, find_rise
from cytomill.phantoms.nanoparticles import make_volume


def judged(counts):
    return separate_mode(counts, find_flank(counts))[0]


# Each of these was once called free of particles, the flank being followed through the valley.
@pytest.mark.parametrize(
    "shape, seed, load",
    [
        ((12, 128, 128), 3, 0.03),
        ((12, 128, 128), 7, 0.01),
        ((8, 128, 128), 3, 0.1),
        ((4, 128, 128), 7, 0.1),
        ((4, 128, 128), 9, 0.06),
    ],
)
def test_small_stacks_with_particles_are_found_and_segmented(shape, seed, load):
    volume, truth = make_volume(shape, seed=seed, load=load)
    hist, mixture, posterior = fitted(volume)
    tables = posterior.tables
    assert mixture.verdict == PARTICLES
    assert mixture.th_low < 180
    hist_particles = np.stack([np.bincount(v[t], minlength=BINS) for v, t in zip(volume, truth)])
    chosen = tables >= np.float16(0.5)
    dice = 2 * (hist_particles * chosen).sum() / ((hist * chosen).sum() + truth.sum())
    assert dice > 0.93


@pytest.mark.parametrize("seed", range(60, 66))
def test_small_stacks_without_particles_get_no_labels(seed):
    _, mixture, posterior = fitted(make_volume((4, 128, 128), seed=seed, load=0.0)[0])
    tables = posterior.tables
    assert mixture.verdict in (NO_PARTICLES, FLAGGED)
    assert not tables.any()


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    total=st.sampled_from([30_000, 100_000, 1_000_000]),
    distance=st.floats(5.5, 11.0),
    width=st.floats(7.0, 20.0),
    share=st.floats(0.03, 0.2),
)
def test_a_planted_mode_is_never_no_particles(seed, total, distance, width, share):
    # Tissue of width 9 at 110, and a broad mode so far away that a valley lies between.
    rng = np.random.default_rng(seed)
    amount = max(int(share * total), 2500)
    tissue, light = rng.normal(110, 9, total - amount), rng.normal(110 + 9 * distance + width, width, amount)
    values = np.clip(np.rint(np.concatenate([tissue, light])), 0, 255).astype(int)
    assert judged(np.bincount(values, minlength=BINS).astype(float)) != NO_PARTICLES


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    total=st.sampled_from([20_000, 200_000, 2_000_000]),
    width=st.floats(3.0, 25.0),
    kind=st.sampled_from(["normal", "laplace", "gamma"]),
)
def test_a_log_concave_background_alone_is_never_particles(seed, total, width, kind):
    rng = np.random.default_rng(seed)
    values = {
        "normal": lambda: rng.normal(110, width, total),
        "laplace": lambda: rng.laplace(90, 0.5 * width, total),
        "gamma": lambda: 60 + rng.gamma(4.0, 0.5 * width, total),
    }[kind]()
    counts = np.bincount(np.clip(np.rint(values), 0, 255).astype(int), minlength=BINS).astype(float)
    assert judged(counts) != PARTICLES


def test_the_foot_lies_before_a_valley_that_no_single_step_shows():
    # A slow turn: each stretch of a few bins looks like the one before it.
    x = np.arange(BINS, dtype=float)
    tissue = 6000 * np.exp(-0.5 * ((x - 110) / 14) ** 2) + 400 * np.exp(-np.abs(x - 110) / 16)
    counts = np.rint(tissue + 60 * np.exp(-0.5 * ((x - 205) / 24) ** 2))
    rise, valley = find_rise(counts[130:255], 0.0)
    flank = find_flank(counts)
    assert rise > 5
    assert flank.recovered and flank.knee <= 130 + valley
    assert separate_mode(counts, flank)[0] == PARTICLES


def test_particles_that_all_saturate_are_flagged():
    x = np.arange(BINS, dtype=float)
    counts = np.rint(20_000 * np.exp(-0.5 * ((x - 150) / 14) ** 2))
    assert judged(counts) == NO_PARTICLES
    counts[-1] += 5000
    verdict, sentence = separate_mode(counts, find_flank(counts))
    assert verdict == FLAGGED and "last bin" in sentence
