"""The status of a campaign is what its ledger says, while it runs, after a kill and at the end."""

import io
import json
import os

import numpy as np
import pytest
from small_campaigns import run_waves, small_campaign, write_campaign

from cytomill.campaign.config import CampaignError
from cytomill.campaign.finish import write_reports
from cytomill.campaign.opening import RESOLVED
from cytomill.campaign.status import read_status, render_status
from cytomill.nanoparticles.intensity_stages import BackgroundStage
from cytomill.nanoparticles.posterior_stages import PosteriorStage
from cytomill.reports.terminal import print_renderable
from cytomill.runtime.lock import CampaignLock

STAGES = ["histograms", "background", "mixture", "posterior", "components", "masks"]


class Killed(BaseException):
    """Ends a run where it stands, as a kill does: nothing is caught, nothing tidied."""


def states(status, dataset="alpha"):
    return {row.stage: row.state for row in status.stages if row.dataset == dataset}


def printed(status) -> str:
    stream = io.StringIO()
    print_renderable(render_status(status), stream)
    return stream.getvalue()


def killed_in_posterior(folder, monkeypatch, unit=2):
    campaign = small_campaign(folder, ("alpha", "beta"))
    process = PosteriorStage.process

    def die(self, work):
        if work.index == unit and self.dataset == "alpha":
            raise Killed
        return process(self, work)

    monkeypatch.setattr(PosteriorStage, "process", die)
    with pytest.raises(Killed):
        run_waves(campaign)
    monkeypatch.undo()
    return campaign


def test_a_finished_campaign_is_done(tmp_path):
    campaign = small_campaign(tmp_path)
    run_waves(campaign, until="components")
    waiting = read_status(campaign.output)
    assert states(waiting) == dict.fromkeys(STAGES[:4], "done") | dict.fromkeys(STAGES[4:], "waiting")
    assert waiting.state == "stopped"
    run_waves(campaign)
    status = read_status(campaign.output)
    assert states(status) == dict.fromkeys(STAGES, "done")
    assert (status.state, status.owner, len(status.launches)) == ("stopped", "", 2)
    assert [row.units for row in status.stages] == [4, 4, 0, 4, 12, 12]
    assert all(row.done == row.units for row in status.stages)
    said = " ".join(printed(status).split())
    assert "report.html is not written yet" in said and f"'cytomill report {campaign.output}'" in said
    page = write_reports(campaign.output)
    status = read_status(campaign.output)
    assert (status.state, status.notes) == ("done", [])
    assert "campaign: done; 2 launches so far" in printed(status)
    os.utime(page, (0, 0))
    status = read_status(campaign.output)
    assert status.state == "stopped" and "is older than the results" in status.notes[0]


def test_while_it_runs_the_units_in_flight_are_counted(tmp_path, monkeypatch):
    campaign = small_campaign(tmp_path)
    seen = []
    process = PosteriorStage.process

    def look(self, unit):
        output = process(self, unit)
        seen.append(read_status(campaign.output))
        return output

    monkeypatch.setattr(PosteriorStage, "process", look)
    lock = CampaignLock(campaign.output, "00001-this")
    lock.acquire()
    try:
        run_waves(campaign, until="components")
    finally:
        lock.release()
    rows = [next(row for row in status.stages if row.stage == "posterior") for status in seen]
    assert [(row.done, row.in_flight, row.state) for row in rows] == [(n, 1, "running") for n in range(4)]
    assert seen[2].state == "running" and "launch 00001-this" in seen[2].owner
    assert "running by host" in printed(seen[2])


def test_rate_and_time_left_come_from_the_present_launch(tmp_path, monkeypatch):
    campaign = killed_in_posterior(tmp_path, monkeypatch, unit=3)
    stream = next((campaign.output / "telemetry").glob("events-*.jsonl"))
    lock = CampaignLock(campaign.output, "00001-this")
    lock.acquire()
    try:
        row = next(row for row in read_status(campaign.output).stages if row.stage == "posterior")
        assert row.state == "running" and row.bytes_per_second > 0
        events = [json.loads(line) for line in stream.read_text().splitlines()]
        own = [e for e in events if e.get("stage") == "posterior" and e.get("dataset") == "alpha"]
        took = max(e["t"] for e in own if e["kind"] == "unit") - own[0]["t"]
        left = row.units - row.done
        assert row.seconds_left == pytest.approx(took * left / row.done)
    finally:
        lock.release()


def test_after_a_kill_the_stage_is_stopped_and_the_dead_owner_named(tmp_path, monkeypatch):
    campaign = killed_in_posterior(tmp_path, monkeypatch)
    lock = CampaignLock(campaign.output, "00001-dead")
    lock.acquire()
    text = lock.path.read_text()
    lock.release()
    lock.path.write_text(text.replace('"started": "', '"started": "9'))
    status = read_status(campaign.output)
    assert states(status) == dict.fromkeys(STAGES[:3], "done") | {
        "posterior": "stopped",
        "components": "waiting",
        "masks": "waiting",
    }
    assert status.state == "stopped" and sum(row.in_flight for row in status.stages) == 0
    assert "its last run died (host" in printed(status)


def test_units_set_aside_are_told_with_their_errors(tmp_path, monkeypatch):
    campaign = small_campaign(tmp_path, ("alpha", "beta"))
    process = BackgroundStage.process

    def fail(self, unit):
        if self.dataset == "beta" and unit.index == 1:
            raise ValueError("the slice is [bold]odd[/bold]")
        return process(self, unit)

    monkeypatch.setattr(BackgroundStage, "process", fail)
    run_waves(campaign)
    status = read_status(campaign.output)
    assert status.state == "set aside" and states(status) == dict.fromkeys(STAGES, "done")
    assert states(status, "beta") == {"histograms": "done"} | dict.fromkeys(STAGES[1:], "set aside")
    row = next(row for row in status.stages if row.dataset == "beta" and row.stage == "background")
    assert (row.done, row.set_aside) == (3, 1)
    assert "unit 1 ((2, 4),): the slice is [bold]odd[/bold]" in row.errors[0]
    assert "the slice is [bold]odd[/bold]" in printed(status)


def test_an_input_that_cannot_be_used_is_told(tmp_path):
    np.save(tmp_path / "volume.npy", np.zeros((4, 32, 32), np.float32))
    campaign = write_campaign(tmp_path, [tmp_path / "volume.npy"])
    run_waves(campaign)
    status = read_status(campaign.output)
    assert status.state == "set aside" and "float32" in status.stages[0].errors[0]
    assert printed(status).count("float32") == 1


def test_a_status_is_json(tmp_path, monkeypatch):
    status = read_status(killed_in_posterior(tmp_path, monkeypatch).output)
    found = json.loads(json.dumps(status.as_dict(), allow_nan=False))
    assert found["name"] == "campaign" and found["stages"][3]["done"] > 0


def test_a_folder_without_a_campaign_gets_a_sentence(tmp_path):
    with pytest.raises(CampaignError, match="holds no campaign"):
        read_status(tmp_path)
    (tmp_path / RESOLVED).write_text("{")
    with pytest.raises(CampaignError, match="damaged"):
        read_status(tmp_path)
