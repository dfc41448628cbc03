"""Promise 6: a stop ends the run together, within a unit's time, with code 75; the next one goes on."""

import signal
import time

import pytest
from launching import wait_for
from promise_campaigns import STAGES, differing, one_dataset, results

#: Seconds that a unit takes in these runs.
UNIT_S = 0.5
#: Seconds for a rank to leave, on a machine that is busy with other things.
LEAVING_S = 5.0


@pytest.fixture(scope="module")
def unharmed(tmp_path_factory):
    campaign = one_dataset(tmp_path_factory.mktemp("unharmed") / "c")
    with pytest.MonkeyPatch.context() as patches:
        assert campaign.alone(patches) == 0
    return results(campaign.output)


def stop_in(campaign, stage: str, ranks: int, number: int, *arguments: str):
    """Run, and send a signal to the launcher once two units of `stage` have begun; adds `stopped_s`."""
    sent = []

    def send(process) -> None:
        wait_for(lambda: len(campaign.calls(stage=stage)) >= 2, 60)
        sent.append(time.time())
        process.send_signal(number)

    done = campaign.mpirun(ranks, *arguments, meanwhile=send)
    done.stopped_s = done.ended_at - sent[0]
    return done


@pytest.mark.parametrize("stage", STAGES)
def test_a_stop_in_any_stage_is_within_a_unit_and_costs_nothing(stage, unharmed, tmp_path, monkeypatch):
    campaign = one_dataset(tmp_path / "c")
    campaign.rules({"what": "process", "when": "before", "stage": stage, "do": "sleep", "seconds": UNIT_S})
    done = stop_in(campaign, stage, 2, signal.SIGUSR1)
    assert done.returncode == 75, done.stderr
    assert "SIGUSR1" in done.stderr
    assert done.stopped_s < UNIT_S + LEAVING_S
    begun, committed = campaign.calls(), campaign.done()
    assert len(begun) == len(committed), "every unit that was begun is finished"
    of_stage = [place for place in committed if place[1] == stage]
    assert 2 <= len(of_stage) < 12
    campaign.rules()
    assert campaign.alone(monkeypatch) == 0
    assert len(campaign.calls()) == len(campaign.done()) == 60
    assert differing(results(campaign.output), unharmed) == []


def test_sigterm_stops_too_where_the_launcher_passes_it_on(tmp_path, monkeypatch):
    campaign = one_dataset(tmp_path / "c", (8, 128, 128))
    slow = {"what": "process", "when": "before", "stage": "background", "do": "sleep", "seconds": UNIT_S}
    campaign.rules(slow)
    done = stop_in(campaign, "background", 2, signal.SIGTERM)
    assert done.returncode == 75, done.stderr
    campaign.rules()
    assert campaign.alone(monkeypatch) == 0


def test_all_ranks_leave_with_one_code_without_a_shared_counter(tmp_path):
    campaign = one_dataset(tmp_path / "c")
    slow = {"what": "process", "when": "before", "stage": "posterior", "do": "sleep", "seconds": UNIT_S}
    campaign.rules(slow)
    done = stop_in(campaign, "posterior", 3, signal.SIGUSR1, "--set", "run.sharing=static")
    assert done.returncode == 75, done.stderr
    assert done.stopped_s < UNIT_S + LEAVING_S
    assert len(campaign.calls(stage="posterior")) < 12


def test_a_stop_does_not_kill_the_child_of_a_suspect_unit(tmp_path, monkeypatch):
    campaign = one_dataset(tmp_path / "c", (8, 128, 128))
    place = {"what": "process", "when": "before", "stage": "background", "unit": 1}
    campaign.rules({**place, "do": "kill", "times": 1})
    assert campaign.mpirun(2).returncode not in (0, 2, 3, 75)
    # While the child starts it has no handler yet; the launcher signals whole process groups.
    campaign.rules()
    open_before = len([line for line in campaign.ledger_lines() if line["k"] == "attempt"])

    def send(process) -> None:
        wait_for(lambda: len(attempts(campaign)) > open_before + 2, 60)
        process.send_signal(signal.SIGUSR1)

    done = campaign.mpirun(2, meanwhile=send)
    assert done.returncode == 75, done.stderr
    assert [line for line in campaign.ledger_lines() if line["k"] == "failed"] == []
    assert campaign.alone(monkeypatch) == 0


def attempts(campaign) -> list[dict]:
    """Attempts in the ledger so far."""
    return [line for line in campaign.ledger_lines() if line["k"] == "attempt"]


def test_a_stop_before_the_first_unit_leaves_nothing_behind(tmp_path, monkeypatch):
    campaign = one_dataset(tmp_path / "c", (8, 128, 128))
    campaign.rules({"what": "prepare", "when": "before", "do": "sleep", "seconds": 0.5})

    def send(process) -> None:
        wait_for(lambda: len(campaign.calls("prepare")) >= 1, 60)
        process.send_signal(signal.SIGUSR1)

    done = campaign.mpirun(2, meanwhile=send)
    assert done.returncode == 75, done.stderr
    assert campaign.calls() == []
    campaign.rules()
    assert campaign.alone(monkeypatch) == 0
