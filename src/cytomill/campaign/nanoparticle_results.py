"""What a nanoparticle dataset's results are, gathered for its page: plain data from its state and volumes."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from cytomill.kernels.blocks import grid, scale
from cytomill.nanoparticles.label_stages import PARTICLES, TABLES
from cytomill.nanoparticles.state import MASKS, POSTERIOR, DatasetState
from cytomill.reports.data import DatasetReport, ExampleSlice, SetAside, StageTiming
from cytomill.reports.truth import Calibration, TruthTally
from cytomill.storage.errors import VolumeError
from cytomill.storage.tables import read_table
from cytomill.storage.volumes import open_volume

#: Slices shown on a dataset's page.
EXAMPLES = 3
#: Rows and columns of an example at the most: a page is for looking, napari is for the rest.
EXAMPLE_PIXELS = 2048
#: Beside a phantom: how it was made, and where its truth lies.
PHANTOM = "phantom.json"


def choose_examples(pi_map: np.ndarray, usable: np.ndarray, count: int = EXAMPLES) -> list[int]:
    """Slices worth showing: most particles, the median, and few; in stack order."""
    candidates = np.flatnonzero(usable)
    if candidates.size == 0:
        candidates = np.arange(len(pi_map))
    order = candidates[np.argsort(pi_map[candidates], kind="stable")[::-1]]
    ranks = np.linspace(0, 0.8 * (len(order) - 1), min(count, len(order))).round().astype(int)
    return sorted({int(order[rank]) for rank in ranks})


def nanoparticle_report(
    state: DatasetState,
    set_aside: Sequence[SetAside],
    timings: Sequence[StageTiming],
    with_volumes: bool = True,
    **more: Any,
) -> DatasetReport:
    """The report of one dataset, as far as it came.

    Parameters
    ----------
    state : DatasetState
        With the results that it has.
    set_aside, timings : sequence
        Its own rows.
    with_volumes : bool
        Read tables and volumes too; without them the page holds the fit and the run.
    **more
        Further fields of the report.
    """
    values: dict[str, Any] = {
        "name": state.dataset,
        "pipeline": "nanoparticles",
        "verdict": "not finished",
        "voxel_size_nm": state.voxel_size_nm,
        "shape": state.shape,
        "dtype": state.source.dtype.name,
        "posterior_th": state.config.posterior_th,
        "downsample": tuple(state.config.downsample),
        "set_aside": list(set_aside),
        "timings": list(timings),
    }
    if "mixture" in state.results:
        mixture, posterior = state.mixture, state.posterior
        found = in_polarity(mixture.notes, state.binning.reverse)
        values |= {
            "verdict": mixture.verdict,
            "notes": tuple(dict.fromkeys((*state.notes, *state.thresholds.notes, *found))),
            "polarity": "dark" if state.binning.reverse else "bright",
            "grey_levels": (state.binning.low, state.binning.high),
            "summary": mixture.summary_fit,
            "pi_map": posterior.pi_map,
            "pi_ml": posterior.pi_ml,
            "tables": probabilities(posterior.tables),
            "load": posterior_load(
                state.results["histograms"]["hist_slices"], posterior.tables, mixture.usable.astype(bool)
            ),
        }
        for name in (
            "hist_stack",
            "hist_bg",
            "p_bg",
            "p_np",
            "w_bg",
            "th_low",
            "th_high",
            "usable",
            "slice_shift",
        ):
            values[name] = getattr(mixture, name)
    if "masks" in state.results and with_volumes:
        stem = state.folder / TABLES / PARTICLES
        values["particles"] = read_table(stem)
        values["particles_path"] = f"{TABLES}/{PARTICLES}.csv"
        values["examples"] = [example(state, z) for z in choose_examples(posterior.pi_map, mixture.usable)]
        values |= known_truth(state, values["notes"])
    return DatasetReport(**values | more)


def in_polarity(notes: Sequence[str], dark: bool) -> tuple[str, ...]:
    """The estimator's sentences in the input's words: it sees dark particles reversed, as bright ones."""
    return tuple(re.sub(r"\bbright(er)?\b", r"dark\1", note) if dark else note for note in notes)


def probabilities(posterior: np.ndarray) -> np.ndarray:
    """A posterior as it is stored (float16, or uint8 for ``round(255 p)``) as float32, 0 to 1."""
    return posterior.astype(np.float32) / (255 if posterior.dtype == np.uint8 else 1)


def posterior_load(hist_slices: np.ndarray, tables: np.ndarray, usable: np.ndarray) -> float | None:
    """Mean posterior over all voxels of the slices that took part, exact for the tables as stored.

    Parameters
    ----------
    hist_slices : (Z, 256) integer ndarray
        Histograms, bins as of the tables.
    tables : (Z, 256) float16 or uint8 ndarray
        Posterior of every bin.
    usable : (Z,) bool ndarray
        Slices that took part.

    Returns
    -------
    float or None
        0 to 1; None where no slice took part.
    """
    voxels = int(hist_slices[usable].sum())
    if not voxels:
        return None
    return float((hist_slices[usable] * probabilities(tables[usable]).astype(np.float64)).sum() / voxels)


def known_truth(state: DatasetState, notes: tuple[str, ...]) -> dict[str, Any]:
    """The calibration of a phantom as fields of its report; nothing for any other input.

    A truth that cannot be read costs the comparison, not the report: a note says so.
    """
    path = state.source.path.parent / PHANTOM
    if state.source.format != "OME-Zarr" or not path.is_file():
        return {}
    try:
        return {"calibration": calibrate(state, str(json.loads(path.read_bytes())["truth"]))}
    except (OSError, ValueError, KeyError, TypeError) as error:
        return {"notes": (*notes, f"not compared with the truth that {path} names: {error}")}


def calibrate(state: DatasetState, truth_name: str) -> Calibration:
    """Compare the posterior volume with a phantom's truth, a few slices in memory at a time.

    Parameters
    ----------
    state : DatasetState
        With its posterior written.
    truth_name : str
        Array of the input's store; not 0 where a voxel is particle.

    Raises
    ------
    VolumeError
        If the truth is missing or damaged, or has another shape.
    """
    posterior = state.volume(POSTERIOR)
    usable = state.mixture.usable.astype(bool)
    tally = TruthTally(posterior.dtype)
    with open_volume(f"{state.source.path}::/{truth_name}") as truth:
        if truth.shape != state.shape:
            raise VolumeError(f"{truth_name} has {truth.shape} voxels, the stack {state.shape}")
        for region in grid(state.shape, (posterior.chunks[0], *posterior.shards[1:])):
            rows = usable[slice(*region[0])]
            if rows.any():
                tally.add(posterior.read(region)[rows], truth.read(region)[rows])
    return tally.calibration(state.config.posterior_th)


def example(state: DatasetState, z: int) -> ExampleSlice:
    """Image, posterior and labels of a slice; labels at a coarser spacing are repeated."""
    _, height, width = state.shape
    rows, columns = _centre(height), _centre(width)
    region = ((z, z + 1), rows, columns)
    posterior = state.volume(POSTERIOR).read(region)[0]
    masks = state.store.open(f"{MASKS}/{state.label_spacing}")
    factors = state.config.downsample
    coarse = tuple(
        (a // f, max(min(-(-b // f), n), a // f + 1)) for (a, b), f, n in zip(region, factors, masks.shape)
    )
    coarse = tuple((min(a, n - 1), min(b, n)) for (a, b), n in zip(coarse, masks.shape))
    labels = masks.read(coarse)[0]
    if state.downsamples:
        covered = scale(coarse, factors)
        fine = np.repeat(np.repeat(labels, factors[1], 0), factors[2], 1)
        labels = np.zeros(posterior.shape, labels.dtype)
        fine = fine[rows[0] - covered[1][0] :, columns[0] - covered[2][0] :][
            : labels.shape[0], : labels.shape[1]
        ]
        labels[: fine.shape[0], : fine.shape[1]] = fine
    return ExampleSlice(z, state.image.read(region)[0], probabilities(posterior), labels)


def _centre(length: int) -> tuple[int, int]:
    start = max(0, (length - EXAMPLE_PIXELS) // 2)
    return start, min(length, start + EXAMPLE_PIXELS)
