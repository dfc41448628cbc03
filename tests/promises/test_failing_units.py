"""Promise 2: a unit that fails is tried again, then set aside with the later stages of its dataset.

A unit that kills its process is found without harming the job, and one that was only preempted is
not blamed; trouble of the machine is nobody's fault and ends the job.
"""

import pytest
from promise_campaigns import STAGES, differing, one_dataset, results, several

SHAPE = (8, 128, 128)
LAYOUT = "slices_per_unit = 2\nblock = [2, 64, 128]"


@pytest.fixture
def pair(tmp_path):
    return several(tmp_path / "c", ("alpha", "beta"), SHAPE, run=LAYOUT)


@pytest.fixture(scope="module")
def unharmed(tmp_path_factory):
    """Results of the pair where nothing goes wrong."""
    campaign = several(tmp_path_factory.mktemp("unharmed") / "c", ("alpha", "beta"), SHAPE, run=LAYOUT)
    with pytest.MonkeyPatch.context() as patches:
        assert campaign.alone(patches) == 0
    return results(campaign.output)


@pytest.mark.parametrize("stage", STAGES)
def test_a_unit_that_fails_twice_then_succeeds_is_fine(stage, pair, unharmed, monkeypatch):
    place = {"what": "process", "when": "before", "dataset": "alpha", "stage": stage, "unit": 1}
    pair.rules({**place, "times": 2, "do": "raise"})
    assert pair.alone(monkeypatch) == 0
    assert len(pair.calls(dataset="alpha", stage=stage, unit=1)) == 3
    assert len(pair.calls()) == 2 * 4 * 3 + 2 * 8 * 2 + 2
    assert differing(results(pair.output), unharmed) == []


@pytest.mark.parametrize("stage", ["histograms", "posterior", "masks"])
def test_a_unit_that_always_fails_is_set_aside_with_the_later_stages(
    stage, pair, unharmed, monkeypatch, capfd
):
    pair.rules(
        {"what": "process", "when": "before", "dataset": "alpha", "stage": stage, "unit": 2, "do": "raise"}
    )
    assert pair.alone(monkeypatch) == 3
    said = capfd.readouterr().err
    assert "alpha" in said and stage in said and "set aside" in said
    assert len(pair.calls(dataset="alpha", stage=stage, unit=2)) == 3
    later = STAGES[STAGES.index(stage) + 1 :]
    assert [c for c in pair.calls() if c["dataset"] == "alpha" and c["stage"] in later] == []
    assert pair.calls("reduce", dataset="alpha", stage=stage) == []
    # The other units of the stage are done, and the other dataset is whole.
    units = {u for d, s, u in pair.done() if (d, s) == ("alpha", stage)}
    assert 2 not in units and len(units) == (7 if stage == "masks" else 3)
    wrong = differing(results(pair.output), unharmed)
    assert [name for name in wrong if name.startswith("beta")] == []

    pair.forget()
    assert pair.alone(monkeypatch) == 3, "a set-aside unit is not tried again by itself"
    assert pair.calls() == [] and pair.calls("reduce") == []

    pair.rules()
    assert pair.alone(monkeypatch, "--retry") == 0
    assert len(pair.calls(dataset="alpha", stage=stage)) == 1
    assert pair.calls(dataset="beta") == []
    assert differing(results(pair.output), unharmed) == []


def test_failures_of_two_launches_add_up(pair, monkeypatch):
    place = {"what": "process", "when": "before", "dataset": "alpha", "stage": "posterior", "unit": 0}
    pair.rules({**place, "do": "raise"})
    assert pair.mpirun(0, "--max-failures", "1").returncode == 1
    assert len(pair.calls(dataset="alpha", stage="posterior", unit=0)) == 2
    assert pair.alone(monkeypatch) == 3
    assert len(pair.calls(dataset="alpha", stage="posterior", unit=0)) == 3


def test_a_unit_that_kills_its_process_is_found_and_set_aside(pair, unharmed):
    place = {"dataset": "alpha", "stage": "posterior", "unit": 1}
    pair.rules({"what": "process", "when": "before", **place, "do": "kill"})
    first = pair.mpirun(2)
    assert first.returncode not in (0, 3, 75)
    own = pair.calls(**place)
    assert [call["rank"] >= 0 for call in own] == [True]
    second = pair.mpirun(2)
    assert second.returncode == 3, second.stderr
    assert "alpha" in second.stderr and "posterior" in second.stderr
    own = pair.calls(**place)
    assert [call["rank"] for call in own[1:]] == [-1] * 3, "only ever in a child process again"
    failures = [line for line in pair.ledger_lines() if line["k"] == "failed"]
    assert len(failures) == 3 and all("SIGKILL" in line["error"] for line in failures)
    wrong = differing(results(pair.output), unharmed)
    assert [name for name in wrong if name.startswith("beta")] == []
    done = {unit for d, stage, unit in pair.done() if (d, stage) == ("alpha", "posterior")}
    assert done == {0, 2, 3}


def test_an_innocent_unit_that_was_preempted_three_times_is_not_blamed(tmp_path):
    campaign = one_dataset(tmp_path / "c", SHAPE, run=LAYOUT)
    place = {"what": "process", "when": "before", "stage": "background", "unit": 3}
    # The first launch dies with its launcher; the next ones are in the unit's child, whose rank dies.
    for _ in range(3):
        campaign.rules({**place, "do": "kill launcher", "times": 1})
        assert campaign.mpirun(1).returncode != 0
        assert [line for line in campaign.ledger_lines() if line["k"] == "failed"] == []
    assert [call["rank"] for call in campaign.calls(stage="background", unit=3)] == [0, -1, -1]
    campaign.rules()
    done = campaign.mpirun(1)
    assert done.returncode == 0, done.stderr
    assert [line for line in campaign.ledger_lines() if line["k"] == "failed"] == []


@pytest.mark.parametrize("what", ["process", "child", "ledger"])
def test_a_full_disk_ends_the_job_and_blames_no_unit(what, pair, unharmed, monkeypatch):
    place = {"when": "before", "dataset": "alpha", "stage": "background"}
    if what == "child":
        pair.rules({"what": "process", **place, "unit": 1, "do": "kill"})
        assert pair.mpirun(0).returncode != 0
    kind = {"kind": "done"} if what == "ledger" else {}
    known = "ledger" if what == "ledger" else "process"
    pair.rules({"what": known, **place, **kind, "unit": 1, "do": "disk full"})
    done = pair.mpirun(0)
    assert done.returncode == 1, done.stderr
    assert "No space left" in done.stderr and "Traceback" not in done.stderr
    assert "alpha" in done.stderr and "background" in done.stderr
    assert [line for line in pair.ledger_lines() if line["k"] == "failed"] == []
    pair.rules()
    assert pair.alone(monkeypatch) == 0
    assert differing(results(pair.output), unharmed) == []
