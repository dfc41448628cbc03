"""The end of a run: models, provenance and pages of the datasets, dealt to the ranks; the campaign's page."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from cytomill.campaign.opening import (
    TELEMETRY,
    OpenCampaign,
    open_datasets,
    restore_results,
    stored_campaign,
)
from cytomill.campaign.pipelines import DATASETS
from cytomill.campaign.results import (
    nanoparticle_report,
    report_path,
    run_seconds,
    stage_timings,
    units_set_aside,
)
from cytomill.nanoparticles.model_files import FittedModel, save_model
from cytomill.nanoparticles.state import DatasetState
from cytomill.reports.campaign import CampaignReport, DatasetRow
from cytomill.reports.data import DatasetReport
from cytomill.reports.html import render_campaign, render_dataset
from cytomill.runtime.ledger import LedgerState, replay
from cytomill.runtime.ranks import SoloWorld, World
from cytomill.runtime.telemetry import read_events
from cytomill.storage.durable import make_directories, write_atomic

REPORT = "report.html"
PROVENANCE = "provenance.json"
MODEL = "model"


def finish(
    world: World, opened: OpenCampaign, set_aside: dict[str, str], agree_on_stop: Callable[[], None]
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

    Returns
    -------
    dict of str to str
        Datasets whose page is incomplete because a result cannot be read, and why; on every rank.
    """
    output: Path = opened.campaign.output
    shared = _shared_facts(output, opened.campaign.run.attempts) if world.rank == 0 else None
    ledger_facts, timings, seconds, provenance = world.bcast(shared)
    names = list(opened.states)
    rows: dict[str, DatasetRow] = {}
    incomplete: dict[str, str] = {}
    for first in range(0, len(names), world.size):
        agree_on_stop()
        for name in names[first + world.rank : first + world.rank + 1]:
            state: DatasetState = opened.states[name]
            facts: dict[str, Any] = {
                "set_aside": [row for row in ledger_facts if row.dataset == name],
                "timings": timings.get(name, []),
                "provenance": dataset_provenance(state, provenance),
                "campaign": opened.campaign.name,
                "campaign_link": f"../../{REPORT}",
            }
            try:
                report = nanoparticle_report(state, **facts)
            except (OSError, ValueError) as error:
                # A damaged volume or table must not cost the other datasets their pages.
                incomplete[name] = f"dataset {name}: its page is incomplete: {error}"
                report = nanoparticle_report(state, with_volumes=False, **facts)
                report.notes = (incomplete[name], *report.notes)
            if name in set_aside:
                report.notes = (f"Set aside: {set_aside[name]}", *report.notes)
            _write_dataset(state, report)
            what = "set aside" if name in set_aside else "incomplete" if name in incomplete else "finished"
            rows[name] = DatasetRow.of(report, f"{DATASETS}/{name}/{REPORT}", what)
    everyones = world.gather((rows, incomplete))
    if everyones is not None:
        for own_rows, own_incomplete in everyones:
            rows.update(own_rows)
            incomplete.update(own_incomplete)
        failed = {**set_aside, **incomplete}
        _write_campaign(opened, failed, rows, ledger_facts, timings.get("", []), seconds, provenance)
    return world.bcast(incomplete)


def write_reports(folder: Path) -> Path:
    """Write the reports of a campaign again from what is on disk; returns the campaign's page.

    Raises
    ------
    CampaignError
        If `folder` holds no campaign.
    """
    opened = open_datasets(stored_campaign(folder))
    output = opened.campaign.output
    finish(SoloWorld(), opened, restore_results(opened, replay(output)), lambda: None)
    return output / REPORT


def _shared_facts(output: Path, attempts: int) -> tuple[list, dict, float, dict[str, Any]]:
    ledger = replay(output)
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


def dataset_provenance(state: DatasetState, provenance: dict[str, Any]) -> dict[str, Any]:
    """Provenance of one dataset: the run's, its input's identity, its configuration."""
    return {
        "input": {"path": state.input, "identity": state.input_identity},
        "config": state.options(*vars(state.config)),
        **provenance,
    }


def _write_dataset(state: DatasetState, report: DatasetReport) -> None:
    make_directories(state.folder)
    text = json.dumps(report.provenance, indent=1, default=str)
    write_atomic(state.folder / PROVENANCE, text.encode())
    if "mixture" in state.results:
        model = FittedModel(state.mixture, state.binning, state.source.dtype.name)
        save_model(state.folder / MODEL, model, state.config)
    write_atomic(report_path(state.folder), render_dataset(report).encode())


def _write_campaign(
    opened: OpenCampaign,
    set_aside: dict[str, str],
    rows: dict[str, DatasetRow],
    units: list,
    timings: list,
    seconds: float,
    provenance: dict[str, Any],
) -> None:
    datasets = [
        rows.get(d.name)
        or DatasetRow(d.name, d.pipeline, verdict=set_aside.get(d.name, ""), state="set aside")
        for d in opened.campaign.datasets
    ]
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
    )
    write_atomic(opened.campaign.output / REPORT, render_campaign(report).encode())
