"""`cytomill run --preview N`: a contact sheet of N slices a dataset over thresholds, before the night."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cytomill.campaign.config import load_campaign
from cytomill.campaign.opening import open_datasets
from cytomill.campaign.pipelines import PIPELINES
from cytomill.reports.html import own_words
from cytomill.reports.preview import PreviewDataset, PreviewReport, render_preview
from cytomill.storage.durable import write_atomic

PREVIEW = "preview.html"


def preview(source: Path, overrides: Sequence[str], slices: int) -> tuple[Path, dict[str, str]]:
    """Write the contact sheet of a campaign.

    The fit is that of the chosen slices alone, so that nothing else is read.

    Parameters
    ----------
    source : Path
        The campaign's TOML file.
    overrides : sequence of str
        As of ``--set``.
    slices : int
        Slices a dataset, spread evenly over the stack.

    Returns
    -------
    path : Path
        The sheet.
    missing : dict of str to str
        Datasets of which it should show slices and shows none, and why.

    Raises
    ------
    ValueError
        If `slices` is less than 1, or the campaign cannot be used.
    """
    if slices < 1:
        raise ValueError(f"--preview {slices}: expected 1 slice or more")
    campaign = load_campaign(source, overrides)
    opened = open_datasets(campaign)
    sheets, missing = [], {}
    for dataset in campaign.datasets:
        if dataset.name in opened.states:
            sheet = PIPELINES[dataset.pipeline].preview(opened.states[dataset.name], slices)
        else:
            sheet = PreviewDataset(
                dataset.name, notes=(own_words(opened.set_aside[dataset.name], dataset.name),)
            )
        sheets.append(sheet)
        if not sheet.slices and PIPELINES[dataset.pipeline].previews:
            missing[dataset.name] = " ".join(sheet.notes)
    campaign.output.mkdir(parents=True, exist_ok=True)
    path = campaign.output / PREVIEW
    write_atomic(path, render_preview(PreviewReport(campaign.name, sheets)).encode())
    return path, missing
