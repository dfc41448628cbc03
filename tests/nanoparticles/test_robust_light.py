"""Shapes behind the robust estimator: a few dark voxels far from the tissue change nothing."""

import numpy as np
import pytest

from cytomill.nanoparticles.robust_light import blurred_light, particle_share
from cytomill.nanoparticles.robust_shape import BINS, fill_comb

MODE = 110


def tissue_with(outlier):
    """Tissue about `MODE`, and an outlying share of 1e-7 far below it where a bin is given."""
    tissue = np.exp(-0.5 * ((np.arange(BINS) - MODE) / 6.0) ** 2)
    tissue[tissue < 1e-9] = 0.0
    if outlier is not None:
        tissue[outlier] = 1e-7
    return tissue / tissue.sum()


def test_the_share_of_particles_has_no_floor_from_dark_outliers():
    clean, spoiled = (
        particle_share(blurred_light(tissue_with(outlier), 90.0, 15.0, 0.9), MODE) for outlier in (None, 1)
    )
    assert not spoiled[: MODE + 1].any()
    assert (np.diff(spoiled) >= 0).all()
    assert spoiled[MODE + 1] < 0.01
    assert spoiled == pytest.approx(clean, abs=1e-3)


def test_counts_outside_a_comb_stay_where_they_are():
    counts = np.zeros(BINS)
    counts[100:180:2] = 1000.0
    counts[[20, 240]] = 1.0
    filled = fill_comb(counts)
    assert filled.sum() == pytest.approx(counts.sum())
    assert np.array_equal(filled[:99], counts[:99])
    assert np.array_equal(filled[180:], counts[180:])
    assert filled[101:178] == pytest.approx(500.0, rel=0.01)
