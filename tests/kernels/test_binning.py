"""Bins follow the stated rule in integers."""

import numpy as np
import pytest
from array_modules import fake_cupy, needs_gpu
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from cytomill.kernels.binning import Binning, choose_binning, slice_range, to_bins


def rule(values, binning):
    """The rule in Python's integers."""
    bins = []
    for v in values.ravel().tolist():
        b = min(max((v - binning.low) * 256 // (binning.high - binning.low + 1), 0), 255)
        bins.append(255 - b if binning.reverse else b)
    return np.array(bins, np.uint8).reshape(values.shape)


@settings(max_examples=60, deadline=None)
@given(
    arrays(np.uint16, array_shapes(max_dims=2, max_side=12)),
    st.tuples(st.integers(0, 65535), st.integers(0, 65800)).filter(lambda levels: levels[0] < levels[1]),
    st.booleans(),
)
def test_bins_follow_the_rule(image, levels, reverse):
    binning = Binning(*levels, reverse)
    bins = to_bins(image, binning)
    assert bins.dtype == np.uint8 and np.array_equal(bins, rule(image, binning))


def test_other_byte_orders_are_binned_alike():
    image = np.array([[0, 300, 65535]], np.uint16)
    binning = Binning(100, 1000)
    assert np.array_equal(to_bins(image.astype(">u2"), binning), to_bins(image, binning))


def test_8_bit_pixels_are_their_own_bins_without_a_copy():
    image = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert to_bins(image, Binning()) is image


def test_reversed_bins_are_255_minus_the_bin():
    image = np.arange(256, dtype=np.uint8)
    assert np.array_equal(to_bins(image, Binning(reverse=True)), 255 - image)


@pytest.mark.parametrize("levels", [(5, 5), (9, 3), (-1, 4)])
def test_levels_that_make_no_range_are_refused(levels):
    with pytest.raises(ValueError, match="low < high"):
        Binning(*levels)


@pytest.mark.parametrize("dtype", [bool, np.int16, np.float32])
def test_other_types_are_refused(dtype):
    with pytest.raises(TypeError, match="uint8 or uint16"):
        to_bins(np.zeros((2, 2), dtype), Binning())
    with pytest.raises(TypeError, match="uint8 or uint16"):
        slice_range(np.zeros((2, 2), dtype))


@settings(max_examples=60, deadline=None)
@given(arrays(st.sampled_from([np.uint8, np.uint16]), array_shapes(min_dims=2, max_dims=2, max_side=20)))
def test_levels_of_a_slice_are_order_statistics(image):
    low, high, lower, upper, constant = slice_range(image).tolist()
    ordered = np.sort(image, axis=None)
    n = image.size
    assert (low, high) == (ordered[0], ordered[-1])
    assert lower == ordered[-(-n // 10_000) - 1]
    assert upper == ordered[-(-n * 9_999 // 10_000) - 1]
    assert constant == (low == high)


def test_one_hot_pixel_in_ten_thousand_does_not_move_the_upper_level():
    image = np.full((200, 100), 1000, np.uint16)
    image[0, :50] = 900
    image[7, 7] = 65535
    assert slice_range(image).tolist() == [900, 65535, 900, 1000, 0]


def test_an_empty_slice_has_no_range():
    with pytest.raises(ValueError, match="no pixels"):
        slice_range(np.zeros((0, 4), np.uint16))


def test_the_binning_spans_the_slices_that_are_not_constant():
    ranges = np.array([[0, 0, 0, 0, 1], [90, 5000, 100, 4000, 0], [80, 6000, 120, 4500, 0]])
    assert choose_binning(ranges) == Binning(100, 4500)
    assert choose_binning(ranges, reverse=True) == Binning(100, 4500, True)
    assert choose_binning(ranges, usable=np.array([True, True, False])) == Binning(100, 4000)


def test_values_below_256_are_their_own_bins():
    ranges = np.array([[3, 255, 5, 200, 0], [0, 0, 0, 0, 1]])
    assert choose_binning(ranges) == Binning()
    values = np.arange(256, dtype=np.uint16)
    assert np.array_equal(to_bins(values, choose_binning(ranges)), values)


def test_a_narrow_range_gets_a_bin_a_value():
    binning = choose_binning(np.array([[1000, 1100, 1000, 1100, 0]]))
    assert np.array_equal(to_bins(np.arange(1000, 1101, dtype=np.uint16), binning), np.arange(101))


def test_stacks_of_constant_slices_are_binned_too():
    binning = choose_binning(np.array([[700, 700, 700, 700, 1], [9000, 9000, 9000, 9000, 1]]))
    assert (binning.low, binning.high) == (700, 9000)


def test_a_device_image_is_binned_by_its_own_module(monkeypatch):
    cupy = fake_cupy(monkeypatch)
    image = np.arange(0, 60000, 1000, dtype=np.uint16).reshape(6, 10)
    binning = Binning(500, 50000, True)
    assert np.array_equal(to_bins(cupy.asarray(image), binning).get(), to_bins(image, binning))
    assert "take" in cupy.calls


@pytest.mark.gpu
def test_device_bins_equal_host_bins():
    cupy = needs_gpu()
    image = np.random.default_rng(0).integers(0, 65536, (301, 517), np.uint16)
    binning = Binning(500, 50000, True)
    assert np.array_equal(to_bins(cupy.asarray(image), binning).get(), to_bins(image, binning))
