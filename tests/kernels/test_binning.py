"""Bins follow the stated rule in integers."""

import math

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
    low, high, lower, upper, constant, step = slice_range(image).tolist()
    assert (low, high) == (image.min(), image.max())
    assert constant == (low == high)
    ordered = np.sort(image, axis=None)
    data = ordered[(ordered > 0) & (ordered < 65535)]
    if image.dtype == np.uint16 and data.size:
        ordered = data
    n = ordered.size
    assert lower == ordered[-(-n // 10_000) - 1]
    assert upper == ordered[-(-n * 9_999 // 10_000) - 1]
    differences = np.diff(ordered[(ordered >= lower) & (ordered <= upper)].astype(int))
    assert step == (math.gcd(*differences.tolist()) if differences.size else 0)


def test_one_hot_pixel_in_ten_thousand_does_not_move_the_upper_level():
    image = np.full((200, 100), 1000, np.uint16)
    image[0, :50] = 900
    image[7, 7] = 60000
    assert slice_range(image).tolist() == [900, 60000, 900, 1000, 0, 100]


def test_padding_and_saturation_stretch_no_range_and_change_no_step():
    image = 20_005 + 16 * np.arange(100, dtype=np.uint16).reshape(10, 10)
    image[:3], image[9] = 0, 65535
    assert slice_range(image).tolist() == [0, 65535, 20_005 + 16 * 30, 20_005 + 16 * 89, 0, 16]


def test_an_empty_slice_has_no_range():
    with pytest.raises(ValueError, match="no pixels"):
        slice_range(np.zeros((0, 4), np.uint16))


def test_the_binning_spans_the_slices_that_are_not_constant():
    ranges = np.array([[0, 0, 0, 0, 1, 0], [90, 5000, 100, 4000, 0, 1], [80, 6000, 120, 4500, 0, 1]])
    # Bins of 18 levels; the range begins in bin 1.
    assert choose_binning(ranges) == Binning(82, 82 + 256 * 18 - 1)
    assert choose_binning(ranges, reverse=True) == Binning(82, 82 + 256 * 18 - 1, True)
    fewer = choose_binning(ranges, usable=np.array([True, True, False]))
    assert fewer == Binning(84, 84 + 256 * 16 - 1)


@pytest.mark.parametrize("step", [1, 16, 23, 64, 257])
@pytest.mark.parametrize("levels", [100, 255, 256, 257, 512, 700, 1023, 4096])
def test_bins_hold_equal_numbers_of_the_steps_that_a_stack_has(levels, step):
    if levels * step > 65000:
        return
    image = (300 + step * np.arange(levels)).astype(np.uint16)[None]
    binning = choose_binning(slice_range(image)[None])
    counts = np.bincount(to_bins(image, binning).ravel(), minlength=256)
    inside = counts[np.flatnonzero(counts)[0] : np.flatnonzero(counts)[-1] + 1][1:-1]
    assert len(set(inside.tolist())) == 1
    assert inside[0] == -(-levels // 256)


def test_the_step_of_a_stack_is_that_of_all_its_slices():
    ranges = np.array([[500, 9000, 500, 9000, 0, 48], [500, 9000, 500, 9000, 0, 64], [7, 7, 7, 7, 1, 0]])
    binning = choose_binning(ranges)
    assert (binning.high - binning.low + 1) == 256 * 48  # the least multiple of 16 that holds the range


@pytest.mark.parametrize("bad", [(0, 60_000), (0, 40), (50_000, 60_000)])
def test_a_slice_of_another_exposure_does_not_stretch_the_range(bad):
    good = [[1000, 5000, 1000, 4000 + z, 0, 1] for z in range(9)]
    spoiled = [*good, [*bad, *bad, 0, 7]]
    without = [*good, [1000, 5000, 1000, 4000, 0, 1]]
    expected = choose_binning(np.array(without))
    found = choose_binning(np.array(spoiled))
    # A low end within three widths of the others still counts.
    assert found.high - found.low <= 2 * (expected.high - expected.low)


def test_particles_in_few_slices_keep_their_range():
    tissue = [[1000, 2000, 1000, 1900, 0, 1]] * 21
    particles = [[1000, 3600, 1000, 3500, 0, 1]] * 3
    assert choose_binning(np.array(tissue + particles)).high >= 3500


def test_slices_of_two_exposures_both_count():
    binning = choose_binning(np.array([[300, 1000, 300, 1000, 0, 1], [50_000, 60_000, 50_000, 60_000, 0, 1]]))
    assert binning.low <= 300 and binning.high >= 60_000


def test_values_below_256_are_their_own_bins():
    ranges = np.array([[3, 255, 5, 200, 0, 1], [0, 0, 0, 0, 1, 0]])
    assert choose_binning(ranges) == Binning()
    values = np.arange(256, dtype=np.uint16)
    assert np.array_equal(to_bins(values, choose_binning(ranges)), values)


def test_a_narrow_range_gets_a_bin_a_value():
    binning = choose_binning(np.array([[1000, 1100, 1000, 1100, 0, 1]]))
    assert np.array_equal(to_bins(np.arange(1000, 1101, dtype=np.uint16), binning), np.arange(1, 102))


def test_what_lies_below_the_range_has_a_bin_of_its_own():
    binning = choose_binning(np.array([[0, 25_000, 20_000, 25_000, 0, 1]]))
    assert to_bins(np.array([0, 19_000, 20_000, 25_000], np.uint16), binning).tolist() == [0, 0, 1, 251]


def test_stacks_of_constant_slices_are_binned_too():
    binning = choose_binning(np.array([[700, 700, 700, 700, 1, 0], [9000, 9000, 9000, 9000, 1, 0]]))
    assert binning.low <= 700 and binning.high >= 9000


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
