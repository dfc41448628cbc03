"""The page of a dataset and its provenance, written the same way for every pipeline."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from cytomill.campaign.pipeline import REPORT, PageFacts
from cytomill.reports.html import own_words
from cytomill.runtime.dataset import OpenDataset
from cytomill.storage.durable import make_directories, write_atomic

#: Beside the page: input, configuration and launches as JSON.
PROVENANCE = "provenance.json"


def common_fields(state: OpenDataset, facts: PageFacts) -> dict[str, Any]:
    """What the report of every pipeline says of a dataset, as its fields."""
    return {
        "set_aside": facts.set_aside,
        "timings": facts.timings,
        "provenance": {
            "input": {"path": state.input, "identity": state.input_identity},
            "config": state.options(*vars(state.config)),
            **facts.provenance,
        },
        "campaign": facts.campaign,
        "campaign_link": facts.campaign_link,
        "refusal": own_words(facts.refusal, state.dataset),
    }


def write_dataset_page(
    state: OpenDataset,
    facts: PageFacts,
    gather: Callable[[bool], Any],
    render: Callable[[Any], str],
) -> tuple[Any, str, str]:
    """Write a dataset's page and provenance; a result that cannot be read costs its part of the page alone.

    Parameters
    ----------
    state : OpenDataset
        With the results that it has.
    facts : PageFacts
        What the campaign knows of it.
    gather : callable
        Makes the report; of False without what lies in tables and volumes.
    render : callable
        Turns the report into HTML.

    Returns
    -------
    report : object
        What `gather` made, with a note on what cannot be read.
    what : str
        How the dataset ended, for the campaign's page.
    incomplete : str
        A sentence where a result could not be read; empty otherwise.
    """
    incomplete = ""
    try:
        report = gather(True)
    except (OSError, ValueError) as error:
        # A damaged volume or table must not cost the other datasets their pages.
        incomplete = f"dataset {state.dataset}: its page is incomplete: {error}"
        report = gather(False)
        report.notes = (incomplete, *report.notes)
    make_directories(state.folder)
    text = json.dumps(report.provenance, indent=1, default=str)
    write_atomic(state.folder / PROVENANCE, text.encode())
    write_atomic(state.folder / REPORT, render(report).encode())
    what = "set aside" if facts.refusal else "incomplete" if incomplete else "finished"
    return report, what, incomplete
