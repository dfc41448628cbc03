"""The end of a run: models, provenance and pages of the datasets, dealt to the ranks; the campaign's page."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from cytomill import __version__
from cytomill.campaign.opening import (
    TELEMETRY,
    OpenCampaign,
    open_datasets,
    restore_results,
    stored_campaign,
)
from cytomill.campaign.pipeline import DATASETS, REPORT, PageFacts
from cytomill.campaign.pipelines import PIPELINES
from cytomill.campaign.results import run_seconds, stage_timings, units_set_aside
from cytomill.reports.campaign import CampaignReport
from cytomill.reports.html import render_campaign
from cytomill.runtime.failures import naming
from cytomill.runtime.ledger import Journal, LedgerState, replay
from cytomill.runtime.ranks import SoloWorld, World
from cytomill.runtime.telemetry import read_events
from cytomill.storage.durable import write_atomic


def finish(
    world: World,
    opened: OpenCampaign,
    set_aside: dict[str, str],
    agree_on_stop: Callable[[], None],
    journal: Journal | None = None,
) -> dict[str, str]:
    """Write what a campaign leaves beside its volumes and tables (collective).

    Parameters
    ----------
    world : World
        Datasets are dealt to its ranks.
    opened : OpenCampaign
        States with their results, on every rank.
    set_aside : dict of str to str
        Datasets set aside, and why.
    agree_on_stop : callable
        Raises on every rank where a stop was asked for; called together before each round of pages.
    journal : Journal, optional
        Of this rank: pages are recorded in it, and those that show their dataset as it is are left alone.

    Returns
    -------
    dict of str to str
        Datasets whose page is incomplete because a result cannot be read, and why; on every rank.
    """
    output: Path = opened.campaign.output
    shared = None
    if world.rank == 0:
        ledger = replay(output)
        known = {} if journal is None else _pages_that_hold(opened, ledger, set_aside)
        shared = (*_shared_facts(output, ledger, opened.campaign.run.attempts), known)
    ledger_facts, timings, seconds, provenance, known = world.bcast(shared)
    pipelines = {dataset.name: PIPELINES[dataset.pipeline] for dataset in opened.campaign.datasets}
    rows: dict[str, Any] = {name: pipelines[name].stored_row(row) for name, row in known.items()}
    names = [name for name in opened.states if name not in rows]
    incomplete: dict[str, str] = {}
    for first in range(0, len(names), world.size):
        agree_on_stop()
        for name in names[first + world.rank : first + world.rank + 1]:
            facts = PageFacts(
                set_aside=[row for row in ledger_facts if row.dataset == name],
                timings=timings.get(name, []),
                provenance=provenance,
                campaign=opened.campaign.name,
                campaign_link=f"../../{REPORT}",
                link=f"{DATASETS}/{name}/{REPORT}",
                refusal=set_aside.get(name, ""),
            )
            with naming(f"rank {world.rank} on {world.host}, dataset {name}, page"):
                rows[name], sentence = pipelines[name].write_page(opened.states[name], facts)
            if sentence:
                incomplete[name] = sentence
            elif journal is not None:
                journal.page(name, __version__, _as_json(rows[name]))
    everyones = world.gather((rows, incomplete))
    if everyones is not None:
        for own_rows, own_incomplete in everyones:
            rows.update(own_rows)
            incomplete.update(own_incomplete)
        failed = {**set_aside, **incomplete}
        sections = _sections(opened, incomplete)
        _write_campaign(
            opened, failed, rows, ledger_facts, timings.get("", []), seconds, provenance, sections
        )
    return world.bcast(incomplete)


def write_reports(folder: Path, world: World | None = None) -> Path:
    """Write the reports of a campaign again from what is on disk; returns the campaign's page (collective).

    Parameters
    ----------
    folder : Path
        Output folder of the campaign.
    world : World, optional
        Datasets are dealt to its ranks; by default this process writes all pages.

    Raises
    ------
    CampaignError
        If `folder` holds no campaign.
    """
    opened = open_datasets(stored_campaign(folder))
    output = opened.campaign.output
    finish(world or SoloWorld(), opened, restore_results(opened, replay(output)), lambda: None)
    return output / REPORT


def _pages_that_hold(
    opened: OpenCampaign, ledger: LedgerState, set_aside: dict[str, str]
) -> dict[str, dict[str, Any]]:
    """Lines of the datasets whose page is there and shows them as they are."""
    found = {}
    for name in opened.states:
        row = ledger.shown(name, __version__)
        page = opened.campaign.output / DATASETS / name / REPORT
        if row is not None and row["reason"] == set_aside.get(name, "") and page.exists():
            found[name] = row
    return found


def _as_json(row: Any) -> dict[str, Any]:
    """A line as JSON holds it: NumPy's numbers as Python's."""
    return json.loads(json.dumps(asdict(row), default=lambda value: value.item()))


def _shared_facts(
    output: Path, ledger: LedgerState, attempts: int
) -> tuple[list, dict, float, dict[str, Any]]:
    events = list(read_events(output / TELEMETRY))
    current = {stage.epoch for stage in ledger.stages.values()}
    timings = stage_timings(event for event in events if event.get("epoch") in (None, *current))
    return units_set_aside(ledger, attempts), timings, run_seconds(events), launches_of(ledger)


def launches_of(ledger: LedgerState) -> dict[str, Any]:
    """Provenance of the last launch, and when and where all of them ran."""
    last = ledger.launches[-1]["provenance"] if ledger.launches else {}
    every = [
        {
            "launch": line["launch"],
            "started": line["provenance"].get("started"),
            "ranks": len(line["provenance"].get("world", {}).get("ranks", [])),
            "host": line["provenance"].get("host"),
        }
        for line in ledger.launches
    ]
    return {**last, "launches": every}


def _sections(opened: OpenCampaign, incomplete: dict[str, str]) -> list:
    """Sections that compare the datasets of a pipeline; datasets with an unreadable result are left out."""
    sections: list = []
    names = {dataset.name: dataset.pipeline for dataset in opened.campaign.datasets}
    for kind, pipeline in PIPELINES.items():
        states = [s for name, s in opened.states.items() if names[name] == kind and name not in incomplete]
        if states:
            sections += pipeline.campaign_sections(states, opened.campaign.output)
    return sections


def _write_campaign(
    opened: OpenCampaign,
    set_aside: dict[str, str],
    rows: dict[str, Any],
    units: list,
    timings: list,
    seconds: float,
    provenance: dict[str, Any],
    sections: list,
) -> None:
    datasets = []
    for d in opened.campaign.datasets:
        reason = set_aside.get(d.name, "")
        datasets.append(rows.get(d.name) or PIPELINES[d.pipeline].row_without_page(d.name, reason))
    ranks = provenance.get("world", {}).get("ranks", [])
    launches = provenance.get("launches", [])
    report = CampaignReport(
        name=opened.campaign.name,
        started=launches[0]["started"] if launches else "",
        finished=datetime.fromtimestamp(time.time()).astimezone().isoformat(timespec="seconds"),
        state="finished with failures" if set_aside else "finished",
        ranks=len(ranks) or 1,
        hosts=sorted({rank["host"] for rank in ranks}),
        provenance=provenance,
        datasets=datasets,
        set_aside=units,
        timings=timings,
        runtime_seconds=seconds,
        launches=len(launches) or 1,
        sections=sections,
    )
    write_atomic(opened.campaign.output / REPORT, render_campaign(report).encode())
