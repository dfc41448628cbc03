"""The background's histogram equals that of a plain rendering with a label image and a mask."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from cytomill.kernels.background import background_histogram, candidate_boxes


def plain_boxes(image, th_low, min_size):
    labels, _ = ndimage.label(image > th_low, structure=np.ones((3, 3)))
    sizes = np.bincount(labels.ravel())
    return [
        (rows.start, rows.stop, columns.start, columns.stop)
        for label, (rows, columns) in enumerate(ndimage.find_objects(labels), 1)
        if sizes[label] >= min_size
    ]


def plain_background(image, th_low, th_high, halo_pad, min_size):
    outside = np.ones(image.shape, bool)
    for y0, y1, x0, x1 in plain_boxes(image, th_low, min_size):
        outside[max(y0 - halo_pad, 0) : y1 + halo_pad, max(x0 - halo_pad, 0) : x1 + halo_pad] = False
    return np.bincount(image[outside & (image < th_high)], minlength=256)


def scene(seed, height, width, fill, smooth):
    """Noise between unrelated pixels and blobs, with `fill` of it above 200."""
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.random((height, width)), smooth)
    ranks = field.ravel().argsort().argsort().reshape(field.shape) / field.size
    image = rng.integers(0, 200, field.shape)
    return np.where(ranks > 1 - fill, rng.integers(200, 256, field.shape), image).astype(np.uint8)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    height=st.integers(1, 60),
    width=st.integers(1, 90),
    fill=st.sampled_from([0.0, 0.01, 0.1, 0.4, 0.9]),
    smooth=st.sampled_from([0, 0.7, 2.0]),
    th_low=st.sampled_from([0, 60, 127, 128, 199, 230, 254, 255, 256]),
    th_high=st.sampled_from([0, 100, 215, 255, 256]),
    halo_pad=st.sampled_from([0, 1, 4, 100]),
    min_size=st.sampled_from([0, 1, 3, 20, 10**6]),
)
def test_background_equals_the_plain_rendering(
    seed, height, width, fill, smooth, th_low, th_high, halo_pad, min_size
):
    image = scene(seed, height, width, fill, smooth)
    histogram = np.bincount(image.ravel(), minlength=256)
    boxes = candidate_boxes(image, th_low, min_size)
    assert sorted(map(tuple, boxes.tolist())) == sorted(plain_boxes(image, th_low, min_size))
    result = background_histogram(image, histogram, th_low, th_high, halo_pad, min_size)
    assert result.dtype == np.int64
    assert np.array_equal(result, plain_background(image, th_low, th_high, halo_pad, min_size))


def test_components_that_touch_at_corners_are_one():
    image = np.zeros((8, 8), np.uint8)
    image[[0, 1, 2, 1, 0], [0, 1, 2, 3, 4]] = 255
    assert candidate_boxes(image, 100, 5).tolist() == [[0, 3, 0, 5]]


def test_arms_that_meet_below_are_one():
    image = np.zeros((40, 70), np.uint8)
    image[:, 2:70:4] = 255
    image[39] = 255
    assert candidate_boxes(image, 100, 1).tolist() == [[0, 40, 0, 70]]


def test_many_components_are_found_past_the_first_allocation():
    image = np.zeros((128, 128), np.uint8)
    image[::2, ::2] = 255
    assert len(candidate_boxes(image, 0, 1)) == 64 * 64


def test_views_of_a_stack_that_are_not_aligned_give_the_same():
    stack = scene(3, 33 * 5, 31, 0.1, 1).reshape(5, 33, 31)
    for image in stack:
        histogram = np.bincount(image.ravel(), minlength=256)
        found = background_histogram(image, histogram, 199, 220, 2, 3)
        assert np.array_equal(found, plain_background(image, 199, 220, 2, 3))


def test_boxes_that_cover_the_slice_leave_no_background():
    image = np.full((16, 16), 10, np.uint8)
    image[8, 8] = 255
    histogram = np.bincount(image.ravel(), minlength=256)
    assert not background_histogram(image, histogram, 100, 200, 16, 1).any()


@pytest.mark.parametrize("image", [np.zeros((4, 4), np.uint16), np.zeros((2, 4, 4), np.uint8)])
def test_other_images_are_refused(image):
    with pytest.raises(TypeError, match="2-D uint8"):
        background_histogram(image, np.zeros(256, np.int64), 1, 2, 0, 0)
