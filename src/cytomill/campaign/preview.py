"""`cytomill run --preview N`: a contact sheet of N slices a dataset over thresholds, before the night."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cytomill.campaign.config import load_campaign
from cytomill.campaign.opening import open_datasets
from cytomill.kernels.binning import Binning, choose_binning
from cytomill.nanoparticles.fitting import analyse_histograms, fit_stack
from cytomill.nanoparticles.padding import padding_of
from cytomill.nanoparticles.posterior import stored_tables
from cytomill.nanoparticles.slabs import slab_backgrounds, slab_histograms, slab_posterior, slab_ranges
from cytomill.nanoparticles.state import DatasetState
from cytomill.reports.preview import PreviewDataset, PreviewReport, PreviewSlice, render_preview
from cytomill.storage.durable import write_atomic

PREVIEW = "preview.html"


def preview(source: Path, overrides: Sequence[str], slices: int) -> Path:
    """Write the contact sheet of a campaign; returns its path.

    The fit is that of the chosen slices alone, so that nothing else is read.

    Parameters
    ----------
    source : Path
        The campaign's TOML file.
    overrides : sequence of str
        As of ``--set``.
    slices : int
        Slices a dataset, spread evenly over the stack.

    Raises
    ------
    ValueError
        If `slices` is less than 1, or the campaign cannot be used.
    """
    if slices < 1:
        raise ValueError(f"--preview {slices}: expected 1 slice or more")
    campaign = load_campaign(source, overrides)
    opened = open_datasets(campaign)
    sheets = []
    for dataset in campaign.datasets:
        if dataset.name in opened.states:
            sheets.append(_sheet(opened.states[dataset.name], slices))
        else:
            sheets.append(PreviewDataset(dataset.name, notes=(opened.set_aside[dataset.name],)))
    campaign.output.mkdir(parents=True, exist_ok=True)
    path = campaign.output / PREVIEW
    write_atomic(path, render_preview(PreviewReport(campaign.name, sheets)).encode())
    return path


def _sheet(state: DatasetState, count: int) -> PreviewDataset:
    config = state.config
    depth = state.shape[0]
    chosen = np.unique(np.linspace(0, depth - 1, min(count, depth) + 2).round()[1:-1].astype(int))
    sheet = PreviewDataset(
        state.dataset, [], state.shape, state.voxel_size_nm, posterior_th=config.posterior_th
    )
    if not state.source.region_readable:
        sheet.notes = (f"{state.input} cannot be read by slice: convert it first (cytomill convert)",)
        return sheet
    stack = np.concatenate([state.source.read(((int(z), int(z) + 1),)) for z in chosen])
    sampled = np.ones(len(stack), bool)
    try:
        levels = choose_binning(slab_ranges(stack)) if stack.dtype != np.uint8 else Binning()
        histograms = slab_histograms(stack, levels)
        padding = padding_of(config, stack, levels, histograms)
        found = analyse_histograms(config, state.estimator, levels, histograms, padding, sampled)
        decided = (found.binning, found.hist_slices, found.thresholds)
        options = (config.halo_pad, config.min_size, found.padding)
        backgrounds = slab_backgrounds(stack, 0, *decided, *options)
        fitted = fit_stack(state.estimator, found, backgrounds, sampled)
    except (RuntimeError, ValueError) as error:
        sheet.notes = (str(error),)
        return sheet
    posterior = slab_posterior(stack, found.binning, stored_tables(fitted.slices.tables, "float16"))
    sheet.slices = [
        PreviewSlice(int(z), image, p.astype(np.float32)) for z, image, p in zip(chosen, stack, posterior)
    ]
    sheet.verdict, sheet.notes = fitted.mixture.verdict, fitted.mixture.notes
    return sheet
