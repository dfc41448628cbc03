"""Posterior tables are computed in float64 and rounded once."""

import numpy as np
import pytest

from cytomill.nanoparticles.posterior import posterior_tables, stored_tables

RNG = np.random.default_rng(5)
P_NP, P_BG = (p / p.sum() for p in RNG.random((2, 256)))
PI = np.array([0.0, 1e-6, 0.3, 1.0])
EXACT = PI[:, None] * P_NP / (PI[:, None] * P_NP + (1 - PI[:, None]) * P_BG + 1e-12)


def test_float16_tables_are_the_float64_values_rounded():
    tables = posterior_tables(PI, P_NP, P_BG, 1e-12)
    assert tables.dtype == np.float16
    assert np.array_equal(tables, EXACT.astype(np.float16))
    assert not tables[0].any()


def test_uint8_tables_are_rounded_from_float64_not_from_float16():
    tables = posterior_tables(PI, P_NP, P_BG, 1e-12, dtype="uint8")
    assert np.array_equal(tables, np.rint(255 * EXACT))
    assert tables.dtype == np.uint8 and tables.max() == 255


def test_a_distribution_a_slice_is_taken():
    p_np = np.stack([np.roll(P_NP, k) for k in range(4)])
    tables = posterior_tables(PI, p_np, P_BG, 1e-12)
    for z in range(4):
        assert np.array_equal(tables[z], posterior_tables(PI[z : z + 1], p_np[z], P_BG, 1e-12)[0])


def test_tables_are_stored_as_they_are_or_rounded_on():
    tables = posterior_tables(PI, P_NP, P_BG, 1e-12)
    assert stored_tables(tables, "float16") is tables
    rounded = stored_tables(tables, "uint8")
    exact = posterior_tables(PI, P_NP, P_BG, 1e-12, dtype="uint8")
    assert rounded.dtype == np.uint8
    assert np.abs(rounded.astype(int) - exact).max() <= 1
    assert np.array_equal(stored_tables(exact, "float16"), (exact / 255).astype(np.float16))


def test_other_types_are_refused():
    with pytest.raises(ValueError, match="float16 or uint8"):
        posterior_tables(PI, P_NP, P_BG, 1e-12, dtype="float32")
