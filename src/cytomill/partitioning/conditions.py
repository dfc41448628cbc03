"""RDFs of conditions: averaged over cells, with intervals from cells, never from granules.

The cell is what a treatment acts on; thousands of granules of one cell are not thousands of observations of
it.  So cells are resampled, within their replicates (a culture, a day, a mouse): the interval says how far
the average would move with other cells of the same replicates.  It does not hold what differs between
replicates; see them side by side where there are several.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from cytomill.partitioning.bootstrap import (
    LEVEL,
    RESAMPLES,
    generator,
    percentile_interval,
    resampled_totals,
)
from cytomill.partitioning.rdf import similarity

_AVERAGED = ("g", "g_objects")

#: What each column of :func:`rdf_by_condition` means, for the schema of the file that holds it.
CONDITIONS_METADATA = {
    "condition": "name of the condition",
    "organelle": "name of the organelle",
    "shell": "1 at the nuclear envelope … n at the plasma membrane",
    "cells": "cells whose g is defined in the shell",
    "replicates": "replicates that these cells come from",
    "g": "mean over the cells of g, every cell with the same weight",
    "g_low": "lower end of the 95 % interval, cells resampled within replicates; empty with fewer than two",
    "g_high": "upper end of that interval",
    "g_objects": "mean over the cells of g_objects",
    "g_objects_low": "lower end of its 95 % interval, cells resampled within replicates",
    "g_objects_high": "upper end of that interval",
}

#: What each column of :func:`compare_conditions` means.
COMPARISON_METADATA = {
    "organelle": "name of the organelle",
    "shell": "1 at the nuclear envelope … n at the plasma membrane",
    "first": "name of the first condition",
    "second": "name of the second condition",
    "g_first": "mean of g over the cells of the first condition",
    "g_second": "mean of g over the cells of the second condition",
    "difference": "g_first - g_second",
    "difference_low": "lower end of the 95 % interval, cells of both resampled within replicates; empty "
    "where a condition has fewer than two",
    "difference_high": "upper end of that interval",
    "pearson_r": "Pearson's r of the two averaged RDFs over their common shells; the same in every shell",
    "shells_compared": "how many shells that r is over",
}


def strata(replicates: Sequence[object]) -> np.ndarray:
    """Return the stratum that each cell is resampled in.

    A replicate is a stratum.  One cell says nothing about how cells differ, so replicates of a single cell
    make one stratum together; if there is only one such, it joins the first replicate.

    Parameters
    ----------
    replicates : sequence of length N
        Replicate of each cell; None and NaN are one replicate without a name.

    Returns
    -------
    (N,) int64 ndarray
    """
    names = np.array(["" if pd.isna(value) else str(value) for value in replicates], dtype=object)
    _, stratum, sizes = np.unique(names.astype(str), return_inverse=True, return_counts=True)
    single = sizes[stratum] == 1
    if single.sum() == 1 and len(names) > 1:
        stratum[single] = np.flatnonzero(sizes > 1)[0]
    elif single.any():
        stratum[single] = len(sizes)
    return stratum.astype(np.int64)


def _parts(values: np.ndarray) -> np.ndarray:
    """Return, side by side, values without NaN, and 1 where there is one: their sums make a mean."""
    finite = np.isfinite(values)
    return np.hstack([np.where(finite, values, 0.0), finite])


def _mean(totals: np.ndarray) -> np.ndarray:
    total, count = np.split(totals, 2, axis=-1)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def mean_over_cells(values: np.ndarray) -> np.ndarray:
    """Average over cells, every cell with the same weight, those that are NaN left out.

    Parameters
    ----------
    values : (N, n) ndarray
        A row a cell.

    Returns
    -------
    (n,) float64 ndarray
        NaN where no cell has a value.
    """
    return _mean(_parts(values).sum(axis=0))


def _matrix(table: pd.DataFrame, value: str) -> np.ndarray:
    """Return g by cell (rows, sorted) and shell (columns)."""
    wide = table.pivot(index="cell", columns="shell", values=value)
    return wide.to_numpy(np.float64)


def _resampled(
    table: pd.DataFrame, values: np.ndarray, names: Sequence[str], seed: int, resamples: int
) -> np.ndarray | None:
    """Return the averages over resampled cells, (B, n); None with fewer than two cells."""
    replicate = table.drop_duplicates("cell").sort_values("cell")["replicate"]
    if len(replicate) < 2:
        return None
    rng = generator(seed, *names)
    return _mean(resampled_totals(_parts(values), strata(replicate.tolist()), rng, resamples))


def _joined(rdf: pd.DataFrame, cells: pd.DataFrame) -> pd.DataFrame:
    missing = [name for name in ("cell", "condition", "replicate") if name not in cells]
    if missing:
        raise ValueError(f"the table of cells has no column {', '.join(missing)}: conditions need it")
    if cells["cell"].duplicated().any():
        twice = cells["cell"][cells["cell"].duplicated()].iloc[0]
        raise ValueError(f"the table of cells holds the cell {twice!r} twice: ids must tell all cells apart")
    unknown = set(rdf["cell"]) - set(cells["cell"])
    if unknown:
        raise ValueError(
            f"the table of cells lacks {len(unknown)} cells with an RDF, such as {min(unknown)!r}"
        )
    columns = ["cell", "condition", "replicate"]
    bare = rdf.drop(columns=["condition", "replicate"], errors="ignore")
    return bare.merge(cells[columns], on="cell", how="left")


def rdf_by_condition(
    rdf: pd.DataFrame,
    cells: pd.DataFrame,
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> pd.DataFrame:
    """Average RDFs over the cells of each condition.

    Parameters
    ----------
    rdf : pandas.DataFrame
        Rows of :func:`cytomill.partitioning.rdf.rdf_table` of all cells; ``cell`` tells all cells of the
        campaign apart.
    cells : pandas.DataFrame
        ``cell``, ``condition``, ``replicate``, a row a cell.
    seed, resamples, level
        Of the intervals; the random numbers depend on the seed, the condition and the organelle alone.

    Returns
    -------
    pandas.DataFrame
        A row a condition, organelle and shell; columns :data:`CONDITIONS_METADATA`.  ``attrs["notes"]``
        says which conditions have no interval.

    Raises
    ------
    ValueError
        Where the tables do not fit together.
    """
    rows, notes = [], []
    for (condition, organelle), table in _joined(rdf, cells).groupby(["condition", "organelle"], sort=True):
        columns: dict[str, object] = {
            "condition": condition,
            "organelle": organelle,
            "shell": np.sort(table["shell"].unique()),
        }
        defined = table[np.isfinite(table["g"].astype(np.float64))]
        by_shell = defined.groupby("shell")
        for name, key in (("cells", "cell"), ("replicates", "replicate")):
            count = by_shell[key].nunique(dropna=False)
            columns[name] = count.reindex(columns["shell"], fill_value=0).to_numpy(np.int64)
        for value in _AVERAGED:
            values = _matrix(table, value)
            known = np.isfinite(values).sum(axis=0)
            draws = _resampled(table, values, (condition, organelle), seed, resamples)
            low = high = np.full(values.shape[1], np.nan)
            if draws is not None:
                low, high = percentile_interval(draws, level)
            columns[value] = mean_over_cells(values)
            columns[f"{value}_low"] = np.where(known >= 2, low, np.nan)
            columns[f"{value}_high"] = np.where(known >= 2, high, np.nan)
        if columns["cells"].max(initial=0) < 2:
            notes.append(
                f"{organelle} in {condition}: {columns['cells'].max(initial=0)} cell with an RDF, "
                "an interval needs at least two"
            )
        rows.append(pd.DataFrame(columns))
    result = pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=list(CONDITIONS_METADATA))
    result.attrs["columns"] = dict(CONDITIONS_METADATA)
    result.attrs["notes"] = notes
    return result[list(CONDITIONS_METADATA)]


def compare_conditions(
    rdf: pd.DataFrame,
    cells: pd.DataFrame,
    first: str,
    second: str,
    value: str = "g",
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> pd.DataFrame:
    """Compare the averaged RDFs of two conditions.

    Parameters
    ----------
    rdf, cells
        As for :func:`rdf_by_condition`.
    first, second : str
        Two conditions.
    value : {"g", "g_objects"}
        Weighted by voxels or by objects.
    seed, resamples, level
        Of the intervals; the cells of the two conditions are drawn independently.

    Returns
    -------
    pandas.DataFrame
        A row an organelle (of both conditions) and shell; columns :data:`COMPARISON_METADATA`.

    Raises
    ------
    ValueError
        For a condition without cells, or tables that do not fit together.
    """
    joined = _joined(rdf, cells)
    groups = dict(list(joined.groupby(["condition", "organelle"], sort=True)))
    known = sorted({condition for condition, _ in groups})
    for condition in (first, second):
        if condition not in known:
            raise ValueError(f"no cell of the condition {condition!r} has an RDF: there are {known}")
    rows = []
    for organelle in sorted({name for condition, name in groups if condition == first}):
        if (second, organelle) not in groups:
            continue
        means, draws, enough, shells = [], [], [], []
        for condition in (first, second):
            table = groups[condition, organelle]
            values = _matrix(table, value)
            means.append(mean_over_cells(values))
            draws.append(_resampled(table, values, (condition, organelle), seed, resamples))
            enough.append(np.isfinite(values).sum(axis=0) >= 2)
            shells.append(np.sort(table["shell"].unique()))
        if not np.array_equal(*shells):
            raise ValueError(
                f"{organelle} has {len(shells[0])} shells in {first} but {len(shells[1])} in {second}: "
                "compare cells partitioned alike"
            )
        low = high = np.full(len(shells[0]), np.nan)
        if draws[0] is not None and draws[1] is not None:
            low, high = percentile_interval(draws[0] - draws[1], level)
        both = enough[0] & enough[1]
        alike = similarity(*means)
        rows.append(
            pd.DataFrame(
                {
                    "organelle": organelle,
                    "shell": shells[0],
                    "first": first,
                    "second": second,
                    "g_first": means[0],
                    "g_second": means[1],
                    "difference": means[0] - means[1],
                    "difference_low": np.where(both, low, np.nan),
                    "difference_high": np.where(both, high, np.nan),
                    "pearson_r": alike["pearson_r"],
                    "shells_compared": alike["shells"],
                }
            )
        )
    result = pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=list(COMPARISON_METADATA))
    result.attrs["columns"] = dict(COMPARISON_METADATA)
    return result
