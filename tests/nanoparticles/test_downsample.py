"""Downsampling by slabs gives the bits of the whole volume at once."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from cytomill.nanoparticles.downsample import (
    downsample_posterior,
    downsample_slab,
    downsampled_shape,
    downsampled_voxel_size_nm,
    source_slices,
)
from cytomill.nanoparticles.posterior import round_posterior

VOLUME = np.random.default_rng(2).random((23, 31, 27)).astype(np.float16)


@settings(max_examples=40, deadline=None)
@given(
    depth=st.integers(1, 23),
    factors=st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5)),
    sigma_z=st.sampled_from([0.0, 0.5, 1.5, 3.0]),
    cut=st.integers(1, 5),
    dtype=st.sampled_from(["float16", "uint8"]),
)
def test_slabs_give_the_bits_of_the_whole(depth, factors, sigma_z, cut, dtype):
    volume = VOLUME[:depth]
    if dtype == "uint8":
        volume = np.rint(255 * volume.astype(np.float64)).astype(np.uint8)
    if depth < factors[0]:
        with pytest.raises(ValueError, match="no larger than the volume"):
            downsample_posterior(volume, factors)
        return
    sigma = (sigma_z, 1.5, 1.5)
    whole = downsample_posterior(volume, factors, sigma)
    assert whole.dtype == volume.dtype and whole.shape == downsampled_shape(volume.shape, factors)
    for start in range(0, len(whole), cut):
        stop = min(start + cut, len(whole))
        first, last = source_slices(start, stop, depth, factors[0], sigma_z)
        slab = downsample_slab(volume[first:last], first, start, stop, factors, sigma)
        assert np.array_equal(slab, whole[start:stop])


def by_scipy(volume, factors, sigma):
    """The definition written down plainly, whole arrays at a time."""
    p = volume.astype(np.float32)
    if volume.dtype == np.uint8:
        p /= np.float32(255)
    p = np.clip(p, 1e-5, 1 - 1e-5)
    smooth = gaussian_filter(np.log(p / (1 - p)), sigma, mode="reflect", truncate=4.0)
    probability = 1 / (1 + np.exp(-smooth))
    shape = [n // factor for n, factor in zip(volume.shape, factors)]
    kept = probability[tuple(slice(n * factor) for n, factor in zip(shape, factors))]
    blocks = kept.reshape([n for pair in zip(shape, factors) for n in pair])
    return round_posterior(blocks.mean(axis=(1, 3, 5)), volume.dtype.name)


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 23), st.integers(1, 120), st.integers(1, 540)),
    factors=st.tuples(st.integers(1, 4), st.integers(1, 7), st.integers(1, 20)),
    sigma=st.tuples(*[st.sampled_from([0.0, 0.1, 0.5, 1.5, 4.0])] * 3),
    dtype=st.sampled_from(["float16", "uint8"]),
    seed=st.integers(0, 9),
)
def test_the_bits_are_those_of_scipys_gaussian(shape, factors, sigma, dtype, seed):
    factors = [min(factor, n) for factor, n in zip(factors, shape)]
    # As a posterior is: most voxels near 0 or 1.
    volume = round_posterior(np.random.default_rng(seed).beta(0.1, 0.3, shape).astype(np.float32), dtype)
    result = downsample_posterior(volume, factors, sigma)
    expected = by_scipy(volume, factors, sigma)
    assert result.dtype == expected.dtype and np.array_equal(result, expected)


def test_voxels_that_fill_no_block_are_cropped():
    assert downsampled_shape((24, 512, 512), (1, 5, 5)) == (24, 102, 102)


def test_the_voxel_size_grows_with_the_factors():
    assert downsampled_voxel_size_nm((50, 10, 10), (1, 5, 5)) == (50, 50, 50)


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_a_constant_stays_within_the_margin(value):
    result = downsample_posterior(np.full((4, 10, 10), value, np.float16), (2, 5, 5))
    assert np.abs(result.astype(float) - value).max() <= 2e-5


def test_certain_voxels_stay_finite():
    volume = (VOLUME > 0.5).astype(np.float16)
    result = downsample_posterior(volume, (1, 5, 5))
    assert np.isfinite(result).all() and result.min() >= 0 and result.max() <= 1
