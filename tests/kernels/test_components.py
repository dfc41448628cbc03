"""Components are those of the textbook, numbered by first voxel in C order."""

import numpy as np
import pytest
import scipy.ndimage as ndi
from hypothesis import given, settings
from hypothesis import strategies as st

from cytomill.kernels.components import CONNECTIVITIES, label_block, label_runs
from cytomill.kernels.runs import scan_runs


def by_first_voxel(labels):
    """Renumber labels by their first voxel in C order."""
    ids, first = np.unique(labels, return_index=True)
    keep = ids > 0
    ids, first = ids[keep], first[keep]
    table = np.zeros(labels.max() + 1, np.int64)
    table[ids[np.argsort(first)]] = np.arange(1, ids.size + 1)
    return table[labels]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(1, 9), st.integers(1, 12), st.integers(1, 40)),
    density=st.floats(0, 1),
    connectivity=st.sampled_from(CONNECTIVITIES),
    dtype=st.sampled_from([bool, np.uint8, np.int32]),
)
def test_labels_are_the_textbooks_numbered_by_first_voxel(seed, shape, density, connectivity, dtype):
    rng = np.random.default_rng(seed)
    inside = rng.random(shape) < density
    mask = (inside * rng.integers(1, 200, shape)).astype(dtype)
    expected, count = ndi.label(inside, ndi.generate_binary_structure(3, connectivity))
    expected = by_first_voxel(expected)
    labels, found = label_block(mask, connectivity)
    assert labels.dtype == np.uint32
    assert found == count
    assert np.array_equal(labels, expected)
    runs = label_runs(mask, connectivity)
    assert np.array_equal(runs.voxel_count, np.bincount(expected.ravel(), minlength=count + 1)[1:])
    ids, first = np.unique(expected, return_index=True)
    assert np.array_equal(runs.first_voxel, first[ids > 0])


def test_a_mask_that_begins_off_a_word_is_scanned_alike():
    flat = np.zeros(8 * 64 + 3, np.uint8)
    flat[[3, 70, 71, 200, 514]] = 1
    labels, count = label_block(flat[3:].reshape(8, 8, 8), 1)
    assert count == 4
    assert np.flatnonzero(labels).tolist() == [0, 67, 68, 197, 511]


def test_runs_end_where_the_label_changes():
    row, start, stop, value = scan_runs(np.array([[[0, 5, 5, 7, 0, 7], [7, 0, 0, 0, 0, 0]]], np.int32))
    assert row.tolist() == [0, 0, 0, 1]
    assert start.tolist() == [1, 3, 5, 0]
    assert stop.tolist() == [3, 4, 6, 1]
    assert value.tolist() == [5, 7, 7, 7]


def test_a_connectivity_beyond_three_is_refused():
    with pytest.raises(ValueError, match="connectivity must be 1, 2 or 3"):
        label_block(np.zeros((2, 2, 2), bool), 4)


def test_a_block_too_large_for_int32_is_refused():
    mask = np.broadcast_to(np.zeros(1, bool), (2**11, 2**10, 2**10))
    with pytest.raises(ValueError, match="choose smaller blocks"):
        label_runs(mask, 1)
