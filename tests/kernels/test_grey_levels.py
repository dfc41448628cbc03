"""Pixels of any number type become 8- or 16-bit grey levels by the rule that is stated."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cytomill.kernels.grey_levels import GreyLevels, finite_range


@pytest.mark.parametrize(("source", "dtype"), [("int16", "uint16"), ("int8", "uint8"), ("uint8", "uint16")])
def test_types_with_no_more_values_lose_none(source, dtype):
    info = np.iinfo(source)
    values = np.arange(info.min, info.max + 1, dtype=source)
    scaled = GreyLevels.of_type(source, dtype).scale(values)
    assert scaled.dtype == dtype
    np.testing.assert_array_equal(scaled.astype(np.int64), values.astype(np.int64) - info.min)


@pytest.mark.parametrize(
    ("source", "dtype"), [("uint16", "uint8"), ("int32", "uint16"), ("float32", "uint8")]
)
def test_types_with_more_values_must_be_looked_at(source, dtype):
    assert GreyLevels.of_type(source, dtype) is None


@settings(max_examples=100, deadline=None)
@given(
    arrays(np.float32, st.integers(1, 50), elements=st.floats(-1e6, 1e6, width=32)),
    st.floats(-1e5, 1e5),
    st.floats(1, 1e5),
    st.sampled_from(["uint8", "uint16"]),
)
def test_scaling_is_the_stated_rule(pixels, low, width, dtype):
    levels = GreyLevels(low, low + width, dtype)
    most = np.iinfo(dtype).max
    exact = np.clip((pixels.astype(np.float64) - low) / width * most, 0, most)
    # Half a level of rounding, and what float32 loses of numbers of this size.
    slack = 0.5 + 4 * np.spacing(np.float32(np.abs(pixels).max() + abs(low))) / width * most + most * 1e-6
    assert np.all(np.abs(levels.scale(pixels).astype(np.float64) - exact) <= slack)


def test_what_is_not_finite_becomes_zero():
    pixels = np.array([np.nan, np.inf, -np.inf, 5.0], np.float32)
    assert GreyLevels(0, 10, "uint8").scale(pixels).tolist() == [0, 0, 0, 128]
    assert finite_range(pixels) == (5.0, 5.0)
    assert finite_range(pixels[:2]) == (np.inf, -np.inf)


def test_wide_integers_keep_their_digits():
    pixels = np.array([2**30, 2**30 + 1, 2**30 + 255], np.int32)
    assert GreyLevels(2**30, 2**30 + 255, "uint8").scale(pixels).tolist() == [0, 1, 255]


@pytest.mark.parametrize(("low", "high"), [(1, 1), (2, 1), (0, np.inf), (np.nan, 1)])
def test_levels_that_do_not_rise_are_refused(low, high):
    with pytest.raises(ValueError, match="from a low to a higher value"):
        GreyLevels(low, high, "uint8")
    with pytest.raises(ValueError, match="uint8 or uint16"):
        GreyLevels(0, 1, "int16")
