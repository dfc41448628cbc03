"""Tiles are smoothed with SciPy's bits; block means are NumPy's."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from cytomill.kernels.smoothing import half_gaussian, logistic_block_means, reflected, smooth_tile

RNG = np.random.default_rng(8)
CODES = RNG.integers(0, 256, (9, 20, 30)).astype(np.uint8)
TABLE = RNG.normal(0, 4, 256).astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 20), st.integers(1, 30)),
    sigma=st.tuples(*[st.sampled_from([0.0, 0.1, 0.5, 1.0, 1.5, 4.0])] * 3),
    cut=st.tuples(st.integers(1, 9), st.integers(1, 20), st.integers(1, 30)),
    truncate=st.sampled_from([3.0, 4.0]),
)
def test_a_tile_has_the_bits_of_scipys_filter(shape, sigma, cut, truncate):
    codes = CODES[: shape[0], : shape[1], : shape[2]].copy()
    whole = gaussian_filter(TABLE[codes], sigma, mode="reflect", truncate=truncate)
    corner = [n - min(n, size) for n, size in zip(shape, cut)]
    weights = [half_gaussian(value, truncate) for value in sigma]
    indices = [reflected(n, w.size - 1) for n, w in zip(shape, weights)]
    tile = np.empty([n - first for n, first in zip(shape, corner)], np.float32)
    smooth_tile(codes, TABLE, *weights, *indices, tuple(corner), tile)
    assert np.array_equal(tile, whole[tuple(slice(first, None) for first in corner)])


@settings(max_examples=60, deadline=None)
@given(
    # NumPy adds a block that is as wide as the volume in one go: two of them at the least.
    blocks=st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(2, 4)),
    factors=st.tuples(st.integers(1, 4), st.integers(1, 9), st.integers(1, 40)),
)
def test_block_means_have_the_bits_of_numpys(blocks, factors):
    split = [n for pair in zip(blocks, factors) for n in pair]
    shape = [n * factor for n, factor in zip(blocks, factors)]
    powers = np.exp(RNG.normal(0, 3, shape)).astype(np.float32)
    means = np.empty(blocks, np.float32)
    logistic_block_means(powers, factors, means)
    assert np.array_equal(means, np.divide(1, powers + 1).reshape(split).mean(axis=(1, 3, 5)))
