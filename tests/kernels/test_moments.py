"""Sums over labels are exact integers, the same under any cutting into blocks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cytomill.kernels.blocks import grid, region_slices, scale
from cytomill.kernels.moments import (
    FLOAT16_SCALE,
    SUM_COLUMNS,
    block_sums,
    centroids,
    covariances,
    merge_sums,
)


def plain_sums(labels, posterior, image, factors):
    """Sum with NumPy, label by label."""
    rows = []
    for label in np.unique(labels[labels > 0]):
        where = np.argwhere(labels == label)
        low, high = where.min(axis=0), where.max(axis=0) + 1
        z, y, x = (where - low).T
        values = np.concatenate(
            [image[region_slices(scale([(c, c + 1) for c in voxel], factors))].ravel() for voxel in where]
        ).astype(int)
        weights = posterior[labels == label]
        if posterior.dtype == np.float16:
            units = (weights.astype(float) * FLOAT16_SCALE).astype(int)
        else:
            units = weights.astype(int)
        rows.append(
            [label, len(where), *low, *high, *low]
            + [z.sum(), y.sum(), x.sum(), (z * z).sum(), (y * y).sum(), (x * x).sum()]
            + [(z * y).sum(), (z * x).sum(), (y * x).sum(), values.size, values.sum(), values.max()]
            + [units.sum(), FLOAT16_SCALE if posterior.dtype == np.float16 else 255]
        )
    return np.array(rows, np.int64).reshape(-1, len(SUM_COLUMNS))


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(*[st.integers(1, 9)] * 3),
    block=st.tuples(*[st.integers(1, 9)] * 3),
    factors=st.sampled_from([(1, 1, 1), (1, 2, 3), (2, 1, 1)]),
    posterior_dtype=st.sampled_from([np.float16, np.uint8]),
    image_dtype=st.sampled_from([np.uint8, np.uint16]),
)
def test_sums_are_exact_whatever_the_blocks(seed, shape, block, factors, posterior_dtype, image_dtype):
    rng = np.random.default_rng(seed)
    labels = (rng.integers(0, 5, shape) * (rng.random(shape) < 0.6)).astype(np.int32) * 7
    image = rng.integers(0, np.iinfo(image_dtype).max + 1, np.multiply(shape, factors), dtype=image_dtype)
    top = 255 if posterior_dtype == np.uint8 else 1
    posterior = (top * rng.random(shape) ** 8).astype(posterior_dtype)
    rows = []
    for region in grid(shape, block):
        own = region_slices(region)
        origin = [start for start, _ in region]
        cut = image[region_slices(scale(region, factors))]
        rows.append(block_sums(labels[own], origin, posterior[own], cut, factors))
    merged = merge_sums(np.concatenate(rows[::-1]))
    assert merged.dtype == np.int64
    assert np.array_equal(merged, plain_sums(labels, posterior, image, factors))


def test_moments_far_from_the_volumes_origin_lose_nothing():
    rng = np.random.default_rng(5)
    labels = (rng.random((6, 7, 8)) < 0.5).astype(np.int32)
    where = np.argwhere(labels)
    far = merge_sums(block_sums(labels, (10**6, 2 * 10**6, 10**6)))
    assert np.allclose(covariances(far)[0], np.cov(where.T, bias=True), rtol=1e-13, atol=1e-15)
    assert np.allclose(centroids(far)[0], where.mean(axis=0) + [10**6, 2 * 10**6, 10**6], rtol=1e-15)


def test_every_float16_in_range_is_summed_exactly():
    values = np.arange(0x3C01, dtype=np.uint16).view(np.float16).reshape(1, 1, -1)
    sums = block_sums(np.ones(values.shape, np.int32), posterior=values)
    expected = sum(int(value * FLOAT16_SCALE) for value in values.ravel().astype(float))
    assert sums[0, SUM_COLUMNS.index("posterior_sum")] == expected


@pytest.mark.parametrize("value", [np.nan, np.inf, 1.001, -0.25])
def test_a_posterior_out_of_range_is_refused_inside_labels_only(value):
    labels = np.array([[[0, 1]]], np.int32)
    with pytest.raises(ValueError, match=r"outside \[0, 1\]"):
        block_sums(labels, posterior=np.array([[[0, value]]], np.float16))
    block_sums(labels, posterior=np.array([[[value, 0.5]]], np.float16))


def test_arrays_that_do_not_fit_the_labels_are_refused():
    labels = np.ones((2, 3, 4), np.int32)
    with pytest.raises(ValueError, match=r"uint8 or uint16 of shape \(2, 6, 8\)"):
        block_sums(labels, image=np.zeros((2, 3, 4), np.uint8), factors=(1, 2, 2))
    with pytest.raises(ValueError, match="float16 or uint8"):
        block_sums(labels, posterior=np.zeros((2, 3, 4), np.float32))


def test_moments_that_would_overflow_are_refused():
    rows = np.zeros((1, len(SUM_COLUMNS)), np.int64)
    rows[0, :2] = 3, 10**13
    rows[0, 5:8] = 30000
    with pytest.raises(ValueError, match="label 3 of 10000000000000 voxels"):
        merge_sums(rows)


def test_no_labels_give_no_rows():
    assert merge_sums(block_sums(np.zeros((2, 2, 2), np.int32))).shape == (0, len(SUM_COLUMNS))
