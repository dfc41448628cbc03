"""Particles of one grey level (drawn, denoised, clipped before export) are found, and told in plain words."""

import re

import numpy as np
import pytest
from robust_fits import fitted

from cytomill.nanoparticles.model import PARTICLES
from cytomill.nanoparticles.robust_light import MOST_LIGHT, fit_light, lone_spike
from cytomill.nanoparticles.robust_shape import BINS, find_flank
from cytomill.nanoparticles.robust_slices import judge_slices
from cytomill.nanoparticles.robust_verdict import percent
from cytomill.phantoms.nanoparticles import make_volume

SHAPE = (6, 128, 128)


def drawn(level, drift=0.0, noise=0.0):
    """Tissue about 90 with squares of one grey level drawn over it, and where they are."""
    rng = np.random.default_rng(70)
    stack, truth = rng.normal(90, 15, SHAPE), np.zeros(SHAPE, bool)
    truth[:, 20:30, 40:52] = truth[1:4, 70:90, 70:80] = True
    stack[truth] = level + noise * rng.standard_normal(np.count_nonzero(truth))
    stack += drift * np.sin(np.arange(SHAPE[0]))[:, None, None]
    return np.clip(np.rint(stack), 0, 255).astype(np.uint8), truth


def note_of(mixture, word):
    (found,) = [note for note in mixture.notes if word in note]
    return found


@pytest.mark.parametrize(
    "level, drift, noise", [(180, 0, 0), (220, 0, 0), (220, 0, 3), (254, 0, 0), (254, 0, 3), (220, 8, 0)]
)
def test_particles_of_one_grey_level_are_labelled_voxel_by_voxel(level, drift, noise):
    stack, truth = drawn(level, drift, noise)
    hist, mixture, posterior = fitted(stack)
    assert mixture.verdict == PARTICLES
    for threshold in (0.5, 0.95):
        labels = np.stack([table[image] for table, image in zip(posterior.tables, stack)]) >= threshold
        assert np.count_nonzero(labels ^ truth) <= 0.02 * np.count_nonzero(truth)
    assert posterior.pi_map == pytest.approx(truth.mean(axis=(1, 2)), abs=2e-4)
    note = note_of(mixture, "brighter")
    assert "of nearly the same grey level" in note
    assert int(re.search(r"are (\d+) ±", note)[1]) == pytest.approx(level - 90, abs=2)
    (found,) = re.findall(r"load: (\S+) %", note_of(mixture, "estimated load"))
    assert float(found) == pytest.approx(100 * truth.mean(), rel=0.02)


def test_below_the_half_maximum_nothing_is_particle():
    _, mixture, posterior = fitted(drawn(220)[0])
    half = round((90 + 220) / 2)
    assert (posterior.tables[:, : half - 2] < 0.01).all()
    assert (posterior.tables[:, 219] > 0.5).all()


@pytest.mark.parametrize("load", [0.0005, 0.02, 0.1])
def test_blurred_particles_are_no_spike(load):
    volume, _ = make_volume((8, 256, 256), seed=71, load=load)
    counts = np.bincount(volume.ravel(), minlength=BINS).astype(float)
    flank = find_flank(counts)
    assert lone_spike(counts, flank.tail, flank.knee) is None


@pytest.mark.parametrize("end", [180, 220, 255])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.3])
def test_the_amplitude_stays_within_the_bins(end, share):
    # Everything in the bin where the scale ends would be explained by ever brighter particles.
    bins = np.arange(BINS, dtype=float)
    counts = np.rint(40_000 * np.exp(-0.5 * ((bins - 90) / 15) ** 2))
    counts[150:end] += share * 4000 / (end - 150)
    counts[end] += (1 - share) * 4000
    flank = find_flank(counts)
    light, amount, *_ = fit_light(counts, flank.tail, flank.knee, end - 1 if end < 255 else end)
    assert 0 < light.amplitude <= BINS - 1 and 0 < light.spread <= np.exp(MOST_LIGHT)
    assert 0 < amount < 0.5 * counts.sum()


def test_particles_that_saturate_below_the_last_bin_keep_high_posteriors():
    stack, truth = drawn(220)
    few = truth & (np.random.default_rng(72).random(SHAPE) < 0.2)
    stack[few] = np.random.default_rng(73).integers(150, 220, np.count_nonzero(few))
    _, mixture, posterior = fitted(stack)
    assert mixture.verdict == PARTICLES
    assert (posterior.tables[:, 220] >= np.float16(0.95)).all()


def test_numbers_are_given_in_one_way():
    assert [percent(x) for x in (0.0200213, 0.1, 0.000594, 0.00385, 0.31)] == [
        "2.00 %",
        "10.0 %",
        "0.0594 %",
        "0.385 %",
        "31.0 %",
    ]
    _, mixture, _ = fitted(make_volume((8, 256, 256), seed=74, load=0.02)[0])
    text = " ".join(mixture.notes)
    assert "±" in text and "+-" not in text and "deviance" not in text
    assert re.search(r"estimated load: \d\.\d\d % of the voxels", text)


def test_one_slice_is_not_slices():
    hist = np.ones((4, BINS), np.int64)
    hist[1] = 0
    assert judge_slices(hist)[1] == ("1 slice set aside, without voxels: 1",)
    hist[3] = 0
    assert judge_slices(hist)[1] == ("2 slices set aside, without voxels: 1, 3",)
