"""A table replaces every pixel by its entry, bit for bit, on the host and on a device."""

import numpy as np
import pytest
from array_modules import fake_cupy, needs_gpu
from hypothesis import given, settings
from hypothesis.extra.numpy import array_shapes, arrays

from cytomill.kernels.lookup import apply_table

RNG = np.random.default_rng(7)
TABLES = [RNG.random(256).astype(np.float16), RNG.integers(0, 256, 256, np.uint8)]


@pytest.mark.parametrize("table", TABLES, ids=["float16", "uint8"])
@settings(max_examples=30, deadline=None)
@given(image=arrays(np.uint8, array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=15)))
def test_result_equals_numpy_indexing(table, image):
    result = apply_table(image, table)
    assert result.dtype == table.dtype and np.array_equal(result, table[image])


def test_not_a_number_and_infinity_keep_their_bits():
    table = np.arange(256, dtype=np.uint16).view(np.float16) * np.float16(1)
    table[:3] = [np.nan, np.inf, -0.0]
    image = np.arange(256, dtype=np.uint8)
    assert np.array_equal(apply_table(image, table).view(np.uint16), table.view(np.uint16))


def test_out_is_written_and_returned():
    image = RNG.integers(0, 256, (3, 5), np.uint8)
    out = np.zeros((2, 3, 5), np.float16)
    assert apply_table(image, TABLES[0], out[1]) is not None
    assert np.array_equal(out[1], TABLES[0][image]) and not out[0].any()


@pytest.mark.parametrize(
    ("image", "table", "out", "error"),
    [
        (np.zeros(4, np.uint16), TABLES[0], None, TypeError),
        (np.zeros(4, np.uint8), TABLES[0].astype(np.float32), None, TypeError),
        (np.zeros(4, np.uint8), TABLES[0][:255], None, ValueError),
        (np.zeros(4, np.uint8), TABLES[0], np.zeros(5, np.float16), ValueError),
        (np.zeros(4, np.uint8), TABLES[0], np.zeros(4, np.uint8), ValueError),
        (np.zeros(4, np.uint8), TABLES[0], np.zeros(8, np.float16)[::2], ValueError),
    ],
)
def test_what_does_not_fit_is_refused(image, table, out, error):
    with pytest.raises(error):
        apply_table(image, table, out)


@pytest.mark.parametrize("table", TABLES, ids=["float16", "uint8"])
def test_a_device_image_is_looked_up_by_its_own_module(table, monkeypatch):
    cupy = fake_cupy(monkeypatch)
    image = RNG.integers(0, 256, (4, 6), np.uint8)
    result = apply_table(cupy.asarray(image), table)
    assert "take" in cupy.calls
    assert np.array_equal(result.get(), table[image])


@pytest.mark.gpu
@pytest.mark.parametrize("table", TABLES, ids=["float16", "uint8"])
def test_device_values_equal_host_values(table):
    cupy = needs_gpu()
    image = RNG.integers(0, 256, (301, 517), np.uint8)
    assert np.array_equal(apply_table(cupy.asarray(image), table).get(), apply_table(image, table))
