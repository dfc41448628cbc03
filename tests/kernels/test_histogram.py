"""Histograms count every pixel once, whatever the shape, the alignment or the device."""

import numpy as np
import pytest
from array_modules import fake_cupy, needs_gpu
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from cytomill.kernels.binning import Binning, to_bins
from cytomill.kernels.histogram import histogram_256
from cytomill.kernels.lookup import apply_table


@settings(max_examples=60, deadline=None)
@given(arrays(np.uint8, array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=23)))
def test_counts_equal_bincount(image):
    counts = histogram_256(image)
    assert counts.dtype == np.int64
    assert np.array_equal(counts, np.bincount(image.ravel(), minlength=256))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 9), st.integers(0, 40))
def test_counts_do_not_depend_on_alignment(offset, length):
    pixels = np.random.default_rng(offset).integers(0, 256, 64, np.uint8)
    part = pixels[offset : offset + length]
    assert np.array_equal(histogram_256(part), np.bincount(part, minlength=256))


def test_strided_views_are_counted():
    image = np.arange(240, dtype=np.uint8).reshape(12, 20)[::2, ::3]
    assert np.array_equal(histogram_256(image), np.bincount(image.ravel(), minlength=256))


@pytest.mark.parametrize("dtype", [bool, np.uint16, np.int8, np.float32])
def test_other_types_are_refused(dtype):
    with pytest.raises(TypeError, match="uint8"):
        histogram_256(np.zeros((2, 2), dtype))


def test_a_device_array_is_counted_by_its_own_module(monkeypatch):
    cupy = fake_cupy(monkeypatch)
    image = np.random.default_rng(0).integers(0, 256, (7, 9), np.uint8)
    counts = histogram_256(cupy.asarray(image))
    assert cupy.calls == ["asarray", "bincount"]
    assert counts.dtype == np.int64
    assert np.array_equal(counts.get(), histogram_256(image))


def test_host_arrays_stay_on_the_host_where_cupy_is_installed(monkeypatch):
    cupy = fake_cupy(monkeypatch)
    image = np.random.default_rng(0).integers(0, 256, (7, 9), np.uint8)
    binned = to_bins(image, Binning(reverse=True))
    counts = histogram_256(binned)
    looked_up = apply_table(binned, np.arange(256, dtype=np.uint8))
    assert cupy.calls == []
    assert all(type(array) is np.ndarray for array in (binned, counts, looked_up))


@pytest.mark.gpu
def test_device_counts_equal_host_counts():
    cupy = needs_gpu()
    image = np.random.default_rng(1).integers(0, 256, (301, 517), np.uint8)
    assert np.array_equal(histogram_256(cupy.asarray(image)).get(), histogram_256(image))
