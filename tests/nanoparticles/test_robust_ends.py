"""The ends of the scale (padding, saturated voxels) do not move with a slice's brightness."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from robust_fits import fitted

from cytomill.nanoparticles.model import FLAGGED, PARTICLES
from cytomill.nanoparticles.robust_slices import align
from cytomill.phantoms.nanoparticles import make_volume

DEPTH = 16


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    shift=st.lists(st.floats(-20, 20), min_size=1, max_size=4).filter(any),
)
def test_the_ends_stay_and_nothing_is_lost(seed, shift):
    rows = np.random.default_rng(seed).integers(0, 50, (len(shift), 256))
    rows[:, 1:25] = rows[:, -25:-1] = 0
    moved = align(rows, np.array(shift))
    assert np.array_equal(moved[:, [0, -1]], rows[:, [0, -1]])
    assert moved.sum(1) == pytest.approx(rows.sum(1))
    bins = np.arange(1, 255)
    inner = rows[:, 1:-1]
    away = (moved[:, 1:-1] @ bins - inner @ bins) / inner.sum(1)
    assert away == pytest.approx(-np.array(shift), abs=1e-9)


def test_what_leaves_the_scale_is_kept_in_its_ends():
    rows = np.zeros((2, 256))
    rows[:, [2, 253]] = 10.0
    moved = align(rows, np.array([5.0, -5.0]))
    assert moved[0, [0, 248]].tolist() == [10.0, 10.0]
    assert moved[1, [7, 255]].tolist() == [10.0, 10.0]


def drifting(volume):
    """An 8-bit stack whose brightness drifts by up to 8 bins."""
    drift = 8 * np.sin(np.arange(DEPTH) / DEPTH * 9 + 3)
    return volume + drift[:, None, None]


@pytest.mark.parametrize("share", [0.001, 0.01, 0.05])
def test_saturated_voxels_of_a_drifting_stack_are_no_mode_of_particles(share):
    tissue, _ = make_volume((DEPTH, 256, 256), seed=3, load=0.0)
    chance = np.random.default_rng(3).random(tissue.shape)
    stack = np.clip(np.rint(drifting(tissue)), 1, 254).astype(np.uint8)
    stack[chance < share] = 255
    stack[chance > 1 - share] = 0
    _, mixture, posterior = fitted(stack)
    tables = posterior.tables
    assert np.abs(mixture.slice_shift).max() > 5
    assert mixture.verdict == FLAGGED
    assert not tables.any()


# Slices brighter than the stack saturate before the aligned scale ends: there the counts of all slices
# together fall, and hid the mode of these particles, most of which saturate.
@pytest.mark.parametrize("seed, load", [(2, 0.005), (5, 0.02), (6, 0.02)])
def test_saturated_particles_of_a_drifting_stack_are_found(seed, load):
    volume, truth = make_volume((DEPTH, 256, 256), seed=seed, load=load)
    stack = np.clip(np.rint(drifting(volume) + 70), 0, 255).astype(np.uint8)
    histograms, mixture, posterior = fitted(stack)
    tables = posterior.tables
    particles = np.stack([np.bincount(v[t], minlength=256) for v, t in zip(stack, truth)])
    assert particles[:, -1].sum() > 0.6 * particles.sum()
    assert mixture.verdict == PARTICLES
    chosen = tables >= np.float16(0.5)
    assert 2 * (particles * chosen).sum() > 0.93 * ((histograms * chosen).sum() + particles.sum())
