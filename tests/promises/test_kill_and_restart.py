"""Promise 3: after any kill at most the units in flight run again, and the result is the same."""

import random
from collections import Counter

import pytest
from promise_campaigns import STAGES, differing, results, several

KILLS = 20
RANKS = 2
SEED = 20
#: A rank lives on for some milliseconds after another was killed, and must not finish the stage in them.
SLOWLY = {"what": "process", "when": "before", "do": "sleep", "seconds": 0.05}


def moments(seed: int) -> list[dict]:
    """Where each launch is killed: every kind of moment in every stage, in a random order.

    A moment is before or after a unit is computed, before or after its line is in the ledger, in a
    reduction, in a preparation; `first` counts the moments of this kind that a launch sees.
    """
    draw = random.Random(seed)
    kinds = [
        {"what": "process", "when": "before"},
        {"what": "process", "when": "after"},
        {"what": "ledger", "kind": "attempt", "when": "after"},
        {"what": "ledger", "kind": "done", "when": "before"},
        {"what": "ledger", "kind": "done", "when": "after"},
    ]
    found = [{"what": "reduce", "when": "after", "stage": "histograms", "first": 0}]
    found += [{"what": "prepare", "when": "after", "stage": "posterior", "first": 0}]
    found += [{"what": "reduce", "when": "before", "stage": "components", "first": 0}]
    while len(found) < KILLS:
        stage = STAGES[len(found) % len(STAGES)]
        found.append({**draw.choice(kinds), "stage": stage, "first": draw.randrange(3)})
    # In the order of the pipeline, or a late kill would leave nothing for the early ones.
    order = {"prepare": 0, "process": 1, "ledger": 1, "reduce": 2}
    found.sort(key=lambda moment: (STAGES.index(moment["stage"]), order[moment["what"]]))
    return [{**m, "times": 1, "do": draw.choice(["kill", "kill", "kill launcher"])} for m in found]


@pytest.mark.slow
def test_twenty_kills_across_all_stages_cost_only_the_units_in_flight(tmp_path, monkeypatch):
    names, shape = ("alpha", "beta"), (24, 128, 128)
    unharmed = several(tmp_path / "unharmed", names, shape)
    assert unharmed.alone(monkeypatch) == 0
    expected = results(unharmed.output)
    campaign = several(tmp_path / "c", names, shape)

    killed = Counter()
    launches = 0
    for moment in moments(SEED):
        campaign.rules(moment, SLOWLY)
        before = Counter((c["dataset"], c["stage"], c["unit"]) for c in campaign.calls())
        done = campaign.mpirun(RANKS)
        launches += 1
        after = Counter((c["dataset"], c["stage"], c["unit"]) for c in campaign.calls())
        met = [event for event in campaign.calls("rule") if event["do"] != SLOWLY["do"]]
        if len(met) > sum(killed.values()):
            killed[met[-1]["at"]["stage"]] += 1
            assert done.returncode not in (0, 2, 3, 75), done.stderr
        else:
            assert done.returncode == 0, done.stderr
        assert max((after - before).values(), default=1) == 1, "a unit ran twice in one launch"
    campaign.rules()
    done = campaign.mpirun(RANKS)
    assert done.returncode == 0, done.stderr
    assert sum(killed.values()) >= KILLS - 2 and set(killed) == set(STAGES), killed
    assert differing(results(campaign.output), expected) == []

    committed = campaign.done()
    assert [place for place, times in committed.items() if len(times) > 1] == []
    for call in campaign.calls():
        place = (call["dataset"], call["stage"], call["unit"])
        assert call["t"] <= committed[place][0] + 0.002, f"{place} ran after its commit"
    again = len(campaign.calls()) - len(committed)
    assert again <= sum(killed.values()) * RANKS, again
    assert [line for line in campaign.ledger_lines() if line["k"] == "failed"] == []

    campaign.forget()
    assert campaign.alone(monkeypatch) == 0
    assert [c for what in ("process", "prepare", "reduce") for c in campaign.calls(what)] == []


def test_a_kill_costs_the_units_in_flight_only(tmp_path, monkeypatch):
    campaign = several(tmp_path / "c", ("alpha",), (24, 128, 128))
    campaign.rules({"what": "process", "when": "after", "stage": "components", "first": 5, "do": "kill"})
    assert campaign.mpirun(RANKS).returncode not in (0, 2, 3, 75)
    campaign.rules()
    assert campaign.alone(monkeypatch) == 0
    times = Counter((c["stage"], c["unit"]) for c in campaign.calls())
    again = [place for place, count in times.items() if count > 1]
    assert 1 <= len(again) <= RANKS and {stage for stage, _ in again} == {"components"}
