"""Smoothing of masks: whether voxels are set counts, faces eat nothing, slabs change nothing."""

import numpy as np
import pytest
from api_cases import balls, load_case

from cytomill.partitioning import Partitioning, pairs_compat, smoothing
from cytomill.partitioning.smoothing import smooth_mask


def test_smoothing_takes_masks_and_not_values():
    _, pm = balls((30, 32, 34), (2, 10))
    expected = Partitioning.smooth_mask(pm)
    assert expected.dtype == np.uint8 and expected.max() == 1
    for values in (pm.astype(np.uint8) * 255, pm * 2.0, pm.astype(np.int16)):
        assert np.array_equal(smooth_mask(values), expected)
    assert abs(int(expected.sum()) - int(pm.sum())) < 0.02 * pm.sum()


def test_smoothing_gives_the_references_voxels_away_from_the_faces(shared_dir):
    ne, pm, _ = load_case(shared_dir, "GIP_30_1535_f6")
    for mask in (np.pad(ne, 4), np.pad(pm, 4)):
        assert np.array_equal(smooth_mask(mask), pairs_compat.smooth_mask(mask))


def test_smoothing_eats_nothing_at_the_faces():
    assert smooth_mask(np.ones((10, 10, 10), bool)).all()
    assert smooth_mask(np.ones((10, 10), np.uint8) * 255).all()


def test_smoothing_by_slabs_changes_nothing(monkeypatch):
    rng = np.random.default_rng(0)
    mask = rng.random((40, 9, 11)) < 0.5
    expected = smooth_mask(mask, 1.3, 1)
    monkeypatch.setattr(smoothing, "_SLAB_VOXELS", 99)
    assert np.array_equal(smooth_mask(mask, 1.3, 1), expected)


@pytest.mark.parametrize("values", [(-1, 2), (np.nan, 2), (1, -1)])
def test_smoothing_by_less_than_nothing_is_refused(values):
    with pytest.raises(ValueError, match="at least 0"):
        smooth_mask(np.ones((3, 3, 3)), *values)
