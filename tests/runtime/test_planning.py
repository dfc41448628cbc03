"""Promises 3 and 7: what changed is named, what cannot fit is refused, and a refused plan leaves no trace."""

import copy

import pytest
from toy_stages import MB, ROOMY, ToyStage, journal_bytes, launch, shares

from cytomill.runtime.failures import Refused
from cytomill.runtime.journals import next_launch
from cytomill.runtime.ledger import Journal, LedgerState, replay
from cytomill.runtime.memory import PlanDoesNotFit
from cytomill.runtime.planning import Policy, WavePlanner, changed_fields, ranks_for_children

#: Room for one rank with 100 MB of imports and a unit of up to 3 slices.
TIGHT = shares(("small", 1, 103))


def planner(root, policy=None):
    return WavePlanner(root, replay(root), Journal(root, next_launch(root, "plan"), 0), policy or Policy())


def plan(root, *stages, policy=None, shares=ROOMY):
    """One wave planned by a launch of its own."""
    own = planner(root, policy)
    try:
        return own.plan(stages, shares)
    finally:
        own.journal.close()


@pytest.fixture
def half_done(tmp_path):
    """A ledger with one stage finished, and one whose unit 2 has yet to succeed."""
    launch(tmp_path, [ToyStage("done", fields={"a": 1})])
    with pytest.raises(Exception, match="bad unit 2"):
        bad = ToyStage("half", fields={"a": 1}, fail=lambda unit, before: unit == 2)
        launch(tmp_path, [bad], policy=Policy(max_failures=0))
    return tmp_path


REFUSED = {
    "memory": ([ToyStage("new", depth=4)], TIGHT, PlanDoesNotFit),
    "a table that is not aligned": ([ToyStage("new", fields={"misaligned": True})], ROOMY, Refused),
    "fields": ([ToyStage("done", fields={"a": 2})], ROOMY, Refused),
}


@pytest.mark.parametrize("why", REFUSED)
@pytest.mark.parametrize("policy", [Policy(), Policy(retry=True)])
def test_a_refused_plan_leaves_no_trace(why, policy, half_done):
    stages, room, kind = REFUSED[why]
    before = journal_bytes(half_done)
    own = planner(half_done, policy)
    known = copy.deepcopy(own.state)
    first = ToyStage("first", depth=2)
    retried = ToyStage("half", fields={"a": 1})
    with pytest.raises(kind):
        own.plan([first, retried, *stages], room)
    assert journal_bytes(half_done) == before
    assert own.state == known
    (made,) = own.plan([first], ROOMY)
    assert made.pending == [0, 1, 2], "and the same planner may go on"
    own.journal.close()


def test_an_update_that_does_not_fit_keeps_the_old_results(half_done):
    update = Policy(update=True)
    with pytest.raises(PlanDoesNotFit):
        plan(half_done, ToyStage("done", fields={"a": 2}, depth=4), policy=update, shares=TIGHT)
    (kept,) = plan(half_done, ToyStage("done", fields={"a": 1}), shares=TIGHT)
    assert kept.result is not None and kept.pending == []


def test_memory_is_that_of_the_frozen_table(tmp_path):
    with pytest.raises(Exception, match="bad"):
        deep = ToyStage(depth=6, fail=lambda unit, before: True)
        launch(tmp_path, [deep], policy=Policy(max_failures=0))
    # Cut anew it would fit.
    with pytest.raises(PlanDoesNotFit, match="6 MB for a unit"):
        plan(tmp_path, ToyStage(depth=1), shares=TIGHT)
    (made,) = plan(tmp_path, ToyStage(depth=1))
    assert len(made.units) == 1


def test_a_table_is_frozen_at_its_first_launch(tmp_path):
    (made,) = plan(tmp_path, ToyStage(depth=6))
    assert len(made.units) == 1
    (again,) = plan(tmp_path, ToyStage(depth=2))
    assert again.epoch == made.epoch and again.units == made.units
    assert replay(tmp_path).stages["d", "s"].units == made.units


def test_a_finished_stage_is_not_cut_again(tmp_path):
    launch(tmp_path, [ToyStage(depth=2)])
    (made,) = plan(tmp_path, ToyStage(depth=1))
    assert made.result is not None and len(made.units) == 3


def test_changed_fields_are_named(tmp_path):
    old = {"a": 1, "gone": (1, 2), "input": {"size": 3, "mtime": 4}, "digest": "0" * 20}
    new = {"a": 2, "new": None, "input": {"size": 3, "mtime": 5}, "digest": "1" * 20}
    launch(tmp_path, [ToyStage(fields=old)])
    known = replay(tmp_path).stages["d", "s"]
    assert changed_fields(ToyStage(fields=old), known) == []
    assert changed_fields(ToyStage(fields=new), known) == [
        "d, stage s: a 1 -> 2",
        "d, stage s: gone [1, 2] -> None",
        "d, stage s: input mtime 4 -> 5",
        "d, stage s: digest was made again with other values",
    ]
    with pytest.raises(Refused, match=r"d, stage s: a 1 -> 2.*--update"):
        plan(tmp_path, ToyStage(fields=new))
    (made,) = plan(tmp_path, ToyStage(fields=new), policy=Policy(update=True))
    assert made.pending == [0, 1, 2, 3, 4, 5]


def test_an_update_that_was_begun_needs_no_second_consent(tmp_path):
    def wave(name, value):
        return [ToyStage(name=name, fields={"a": value})]

    launch(tmp_path, wave("first", 1), wave("second", 1))
    launch(tmp_path, wave("first", 2), policy=Policy(update=True))
    (made,) = plan(tmp_path, *wave("first", 2))
    assert made.result is not None
    own = planner(tmp_path)
    own.plan(wave("first", 2), ROOMY)
    (second,) = own.plan(wave("second", 2), ROOMY)
    assert len(second.pending) == 6
    own.journal.close()


def test_a_stage_that_still_holds_after_an_update_is_confirmed(tmp_path):
    launch(tmp_path, [ToyStage(name="first", fields={"a": 1})], [ToyStage(name="second")])
    later = ToyStage(name="second")
    launch(tmp_path, [ToyStage(name="first", fields={"a": 2})], [later], policy=Policy(update=True))
    assert later.calls == [] and later.accepted is not None
    # Agreed once more, a change after that is a change again.
    own = planner(tmp_path)
    own.plan([ToyStage(name="first", fields={"a": 2})], ROOMY)
    with pytest.raises(Refused, match="second: b"):
        own.plan([ToyStage(name="second", fields={"b": 1})], ROOMY)
    own.journal.close()


def test_nothing_runs_on_a_damaged_ledger(half_done):
    path = min((half_done / "ledger").glob("*.jsonl"))
    path.write_bytes(path.read_bytes().replace(b'"done"', b'"dome"', 1))
    with pytest.raises(Refused, match=rf"line \d+ .*verify --mend {half_done}"):
        plan(half_done, ToyStage("new"))


def test_the_node_with_the_least_room_is_named(tmp_path):
    room = shares(("big", 2, 1000), ("small", 2, 203), ("mid", 1, 150))
    stage = ToyStage(depth=2)
    with pytest.raises(PlanDoesNotFit, match=r"2 ranks need 0.20 GB on small .*the limit of small"):
        WavePlanner(tmp_path, LedgerState(), Journal(tmp_path, "1", 0), Policy()).plan([stage], room)


def test_suspects_run_beside_as_many_ranks_as_memory_holds():
    # Each rank holds 100 MB, each child 100 MB more and its unit.
    unit = 20 * MB
    assert ranks_for_children(shares(("a", 3, 660)), unit) == [0, 1, 2]
    assert ranks_for_children(shares(("a", 3, 659)), unit) == [0, 1]
    assert ranks_for_children(shares(("a", 3, 420), ("b", 3, 419), ("c", 1, 220)), unit) == [0, 6]
    assert ranks_for_children(shares(("a", 3, 360)), unit) == []


def test_a_plan_says_which_ranks_may_have_children(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        launch(tmp_path, [ToyStage(fail=interrupt)])
    (made,) = plan(tmp_path, ToyStage(), shares=shares(("a", 2, 310)))
    assert made.suspects == [0] and made.children == [0]


def interrupt(unit, before):
    raise KeyboardInterrupt
