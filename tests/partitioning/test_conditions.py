"""Between conditions the cell is the observation: cells are resampled within replicates, never granules."""

import numpy as np
import pandas as pd
import pytest

from cytomill.partitioning import bootstrap
from cytomill.partitioning.bootstrap import generator, percentile_interval, resampled_totals
from cytomill.partitioning.conditions import (
    COMPARISON_METADATA,
    CONDITIONS_METADATA,
    compare_conditions,
    mean_over_cells,
    rdf_by_condition,
    strata,
)
from cytomill.partitioning.rdf import similarity


def tables(values, conditions, replicates, organelle="granules"):
    """Tables of RDFs and cells from g by cell and shell."""
    values = np.asarray(values, float)
    count, n = values.shape
    names = [f"cell {i}" for i in range(count)]
    rdf = pd.DataFrame(
        {
            "cell": np.repeat(names, n),
            "organelle": organelle,
            "shell": np.tile(np.arange(1, n + 1), count),
            "g": values.ravel(),
            "g_objects": 2 * values.ravel(),
        }
    )
    return rdf, pd.DataFrame({"cell": names, "condition": conditions, "replicate": replicates})


def test_every_cell_has_the_same_weight():
    rdf, cells = tables([[1, 2], [3, np.nan], [5, 6]], ["a", "a", "b"], [1, 2, 1])
    table = rdf_by_condition(rdf, cells)
    assert list(table) == list(CONDITIONS_METADATA) == list(table.attrs["columns"])
    assert table["g"].tolist() == [2, 2, 5, 6] and table["g_objects"].tolist() == [4, 4, 10, 12]
    assert table["cells"].tolist() == [2, 1, 1, 1] and table["replicates"].tolist() == [2, 1, 1, 1]


def test_an_interval_needs_two_cells_and_the_table_says_so():
    rdf, cells = tables([[1, 2], [3, np.nan], [4, np.nan], [5, 6]], list("aaab"), [1] * 4)
    table = rdf_by_condition(rdf, cells)
    assert np.isfinite(table["g_low"]).tolist() == [True, False, False, False]
    assert len(table.attrs["notes"]) == 1 and "granules in b: 1 cell" in table.attrs["notes"][0]


def test_rows_in_any_order_and_other_conditions_change_nothing():
    rng = np.random.default_rng(0)
    rdf, cells = tables(rng.random((12, 4)), list("aaaaabbbbbbb"), list("111112222333"))
    table = rdf_by_condition(rdf, cells, seed=5)
    mixed = rdf_by_condition(rdf.sample(frac=1, random_state=1), cells.sample(frac=1, random_state=2), seed=5)
    assert table.equals(mixed)
    only = cells[cells["condition"] == "b"]
    alone = rdf_by_condition(rdf[rdf["cell"].isin(only["cell"])], only, seed=5)
    assert table[table["condition"] == "b"].reset_index(drop=True).equals(alone)
    assert not table.equals(rdf_by_condition(rdf, cells, seed=6))


def test_cells_are_drawn_within_their_replicate():
    stratum = strata(["a", "b", "a", "b", "b"])
    weights = resampled_totals(np.eye(5), stratum, generator(0), 900)
    assert np.allclose(weights[:, [0, 2]].sum(axis=1), 2) and np.allclose(
        weights[:, [1, 3, 4]].sum(axis=1), 3
    )
    # One of a pair with the weight 2; two of three, the same twice in a third of the cases, with 3/2 each.
    assert set(weights[:, 0]) == {0, 2} and set(weights[:, 1]) == {0, 1.5, 3}
    assert abs(np.mean(weights[:, 0] > 0) - 1 / 2) < 0.07
    assert abs(np.mean(weights[:, 1] == 3) - 1 / 9) < 0.05
    # A difference between replicates, without one within, leaves no spread.
    rdf, cells = tables([[1.0], [1.0], [9.0], [9.0]], ["x"] * 4, ["a", "a", "b", "b"])
    table = rdf_by_condition(rdf, cells)
    assert (table["g_low"][0], table["g"][0], table["g_high"][0]) == (5, 5, 5)


def test_few_cells_a_replicate_do_not_make_the_spread_too_small():
    values = np.array([0.0, 2, 5, 6, 10])
    replicate = np.array([0, 0, 1, 1, 1])
    totals = resampled_totals(values[:, None], replicate, generator(1), 4000)
    unbiased = sum(np.var(values[replicate == r], ddof=1) * (replicate == r).sum() for r in (0, 1)) / 25
    assert np.var(totals / 5) == pytest.approx(unbiased, rel=0.06)


def test_batches_that_bound_the_memory_change_nothing(monkeypatch):
    values, stratum = np.random.default_rng(0).random((50, 3)), np.repeat([0, 1], 25)
    whole = resampled_totals(values, stratum, generator(0), 40)
    monkeypatch.setattr(bootstrap, "_DRAWS_AT_ONCE", 60)
    assert np.array_equal(resampled_totals(values, stratum, generator(0), 40), whole)


def test_replicates_of_one_cell_are_one_stratum():
    assert len(set(strata(["a", "b", "c"]))) == 1
    assert strata(["a", "a", "b", "c"]).tolist() == [0, 0, 3, 3]
    assert strata(["b", "a", "a"]).tolist() == [0, 0, 0]
    assert len(set(strata([None, float("nan"), None]))) == 1
    assert len(strata(["a"])) == 1
    rdf, cells = tables([[1.0], [2.0], [9.0]], ["x"] * 3, ["a", "b", "c"])
    assert rdf_by_condition(rdf, cells)["g_low"][0] < 4


def test_the_interval_of_a_mean_holds_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(3)
    held, trials = 0, 120
    for trial in range(trials):
        rdf, cells = tables(rng.normal(1, 0.3, (24, 1)), ["x"] * 24, list("aaaaaaaabbbbbbbbcccccccc"))
        row = rdf_by_condition(rdf, cells, seed=trial, resamples=300).iloc[0]
        held += row["g_low"] <= 1 <= row["g_high"]
    # Percentiles of few cells are a little narrow; three standard deviations of a count at 95 % are 7.
    assert 0.95 * trials - 9 <= held < trials


def test_two_conditions_differ_by_what_was_put_in():
    rng = np.random.default_rng(7)
    step = np.array([0.0, 0.0, 0.0, 1.0])
    base = 1 + 0.1 * rng.normal(size=(20, 4)) + np.arange(4)
    values = base + np.repeat([[1], [0]], 10, axis=0) * step
    rdf, cells = tables(values, ["drug"] * 10 + ["control"] * 10, list("aaaaabbbbb") * 2)
    table = compare_conditions(rdf, cells, "drug", "control")
    assert list(table) == list(COMPARISON_METADATA)
    assert np.allclose(table["difference"], values[:10].mean(axis=0) - values[10:].mean(axis=0))
    assert (table["difference_low"] <= table["difference"]).all()
    assert (table["difference_high"] >= table["difference"]).all()
    assert table["difference_low"][3] > 0.7 and table["difference_high"][3] < 1.3
    assert (table["difference_low"][:3] < 0.1).all() and (table["difference_high"][:3] > -0.1).all()
    alike = similarity(values[:10].mean(axis=0), values[10:].mean(axis=0))
    assert np.allclose(table["pearson_r"], alike["pearson_r"]) and (table["shells_compared"] == 4).all()


def test_few_cells_have_a_difference_but_no_interval():
    rdf, cells = tables([[1.0, 2], [3, 4], [5, 6]], ["a", "a", "b"], [1, 1, 1])
    table = compare_conditions(rdf, cells, "a", "b", "g_objects")
    assert table["difference"].tolist() == [-6, -6] and table["difference_low"].isna().all()
    with pytest.raises(ValueError, match="'c' has an RDF: there are \\['a', 'b'\\]"):
        compare_conditions(rdf, cells, "a", "c")


def test_tables_that_do_not_fit_are_refused():
    rdf, cells = tables([[1.0, 2], [3, 4]], ["a", "a"], [1, 1])
    with pytest.raises(ValueError, match="no column replicate"):
        rdf_by_condition(rdf, cells.drop(columns="replicate"))
    with pytest.raises(ValueError, match="lacks 1 cells"):
        rdf_by_condition(rdf, cells[:1])
    with pytest.raises(ValueError, match="twice"):
        rdf_by_condition(rdf, pd.concat([cells, cells[:1]]))
    empty = rdf_by_condition(rdf[:0], cells)
    assert list(empty) == list(CONDITIONS_METADATA) and not len(empty)


def test_means_leave_out_cells_without_a_value():
    values = np.array([[1.0, np.nan], [3.0, np.nan], [np.nan, 5.0]])
    assert np.array_equal(mean_over_cells(values), [2, 5])
    assert np.array_equal(mean_over_cells(values[:2]), [2, np.nan], equal_nan=True)


def test_quantiles_of_finite_values_only():
    values = np.random.default_rng(0).random((101, 3))
    values[:30, 1] = np.nan
    values[:60, 2] = np.nan
    low, high = percentile_interval(values, 0.9)
    assert np.isclose(low[0], np.quantile(values[:, 0], 0.05)) and np.isclose(
        high[1], np.quantile(values[30:, 1], 0.95)
    )
    assert np.isnan(low[2]) and np.isnan(high[2])
