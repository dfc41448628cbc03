"""The preview sheet of a nanoparticle dataset: fit and posterior of a few slices."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from cytomill.campaign.nanoparticle_results import in_polarity
from cytomill.kernels.binning import Binning, choose_binning
from cytomill.nanoparticles.fitting import analyse_histograms, fit_stack
from cytomill.nanoparticles.padding import padding_of
from cytomill.nanoparticles.posterior import stored_tables
from cytomill.nanoparticles.slabs import slab_backgrounds, slab_histograms, slab_posterior, slab_ranges
from cytomill.nanoparticles.state import DatasetState
from cytomill.reports.preview import PreviewDataset, PreviewSlice


def of_the_stack(notes: Sequence[str], chosen: Sequence[int]) -> tuple[str, ...]:
    """The estimator's sentences with slices by their place in the stack: it saw only the chosen ones."""

    def renumbered(match: re.Match) -> str:
        places = [str(int(chosen[int(place)])) for place in match[2].split(", ")]
        return f"{match[1]}{', '.join(places)}"

    return tuple(re.sub(r"(set aside, .*: )(\d+(?:, \d+)*)(?=$| and )", renumbered, note) for note in notes)


def preview_sheet(state: DatasetState, count: int) -> PreviewDataset:
    """Fit `count` slices, spread evenly over the stack, and show them.

    The fit is that of these slices alone, so that nothing else is read.
    """
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
    sheet.verdict = fitted.mixture.verdict
    sheet.notes = of_the_stack(in_polarity(fitted.mixture.notes, found.binning.reverse), chosen)
    return sheet
