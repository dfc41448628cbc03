"""The nanoparticle phantom: reproducible, streamable, with the load asked for."""

import numpy as np
import pytest

from cytomill.phantoms.nanoparticles import NanoparticlePhantom, make_slices, make_volume

SHAPE = (6, 160, 192)


def test_a_slice_is_the_same_whatever_was_drawn_before_it():
    whole, truth = make_volume(SHAPE, seed=5, load=0.03, drift=6.0)
    alone = NanoparticlePhantom(SHAPE, seed=5, load=0.03, drift=6.0)
    for z in (4, 0, 3):
        image, mask = alone.slice(z)
        assert np.array_equal(image, whole[z])
        assert np.array_equal(mask, truth[z])
    assert [z for z, _, _ in make_slices(SHAPE, seed=5)] == list(range(SHAPE[0]))


def test_another_seed_is_another_stack():
    assert not np.array_equal(make_volume(SHAPE, seed=1)[0], make_volume(SHAPE, seed=2)[0])


@pytest.mark.parametrize("load", [0.005, 0.02, 0.045, 0.1])
def test_the_load_asked_for_is_reached(load):
    reached = np.mean([make_volume((12, 256, 256), seed=seed, load=load)[1].mean() for seed in (31, 32, 33)])
    assert reached == pytest.approx(load, rel=0.15)


def test_particles_are_brighter_than_tissue_or_darker_when_asked():
    bright, truth = make_volume(SHAPE, seed=7, load=0.05)
    dark, same_truth = make_volume(SHAPE, seed=7, load=0.05, polarity="dark")
    assert np.array_equal(truth, same_truth)
    assert bright[truth].mean() > bright[~truth].mean() + 50
    assert dark[truth].mean() < dark[~truth].mean() - 50


def test_blank_slices_are_zero_and_slices_without_particles_hold_tissue():
    volume, truth = make_volume(SHAPE, seed=7, load=0.05, blank_slices=(2,), without_particles=(4,))
    assert not volume[2].any() and not truth[2].any()
    assert volume[4].std() > 5 and not truth[4].any()
    assert truth[0].any()


def test_uint16_keeps_the_contrast():
    shallow, truth = make_volume(SHAPE, seed=7, load=0.02)
    deep, same_truth = make_volume(SHAPE, seed=7, load=0.02, dtype="uint16")
    assert deep.dtype == np.uint16 and np.array_equal(truth, same_truth)
    inside = (shallow > 0) & (shallow < 255)
    assert np.abs((deep[inside] - 700.0) / 23.0 - shallow[inside]).max() < 0.6


def test_drift_moves_slices_by_at_most_the_amplitude():
    phantom = NanoparticlePhantom((40, 8, 8), seed=3, drift=10.0)
    offsets = np.array([phantom.slice_offset(z) for z in range(40)])
    assert np.abs(offsets).max() <= 10.0
    assert np.ptp(offsets) > 8.0


def test_without_load_there_is_no_particle():
    assert not make_volume(SHAPE, seed=7, load=0.0)[1].any()


@pytest.mark.parametrize(
    "options, word",
    [({"load": 0.5}, "load"), ({"dtype": "float32"}, "float32"), ({"polarity": "grey"}, "polarity")],
)
def test_what_cannot_be_drawn_is_refused_in_a_sentence(options, word):
    with pytest.raises(ValueError, match=word):
        NanoparticlePhantom(SHAPE, **options)
