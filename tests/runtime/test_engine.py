"""Promises 2, 3 and 5 for any stages: nothing is redone, failures are counted, what fails is named."""

import json
import sys

import numpy as np
import pytest
from launching import mpirun
from toy_stages import MB, ToyStage, journal_bytes, launch, shares

from cytomill.runtime import engine as engine_module
from cytomill.runtime.arrays import concatenate
from cytomill.runtime.failures import JobFailed, Refused
from cytomill.runtime.ledger import replay
from cytomill.runtime.memory import MemoryLimit, predicted_peak_bytes
from cytomill.runtime.planning import Policy
from cytomill.runtime.sharing import spread
from cytomill.runtime.telemetry import read_events


def always(*units):
    return lambda unit, before: unit in units


def lines(root, kind):
    texts = [line.rpartition(b" ")[0] for data in journal_bytes(root).values() for line in data.splitlines()]
    return [line for line in map(json.loads, texts) if line["k"] == kind]


@pytest.mark.parametrize("depth", [1, 2, 5, 6])
def test_the_reduction_sees_granules_in_order(tmp_path, depth):
    stage = ToyStage(depth=depth)
    assert launch(tmp_path, [stage]).worked
    np.testing.assert_array_equal(stage.accepted["squares"], np.arange(6) ** 2)


def test_a_finished_launch_run_again_calls_nothing(tmp_path):
    launch(tmp_path, [ToyStage("a"), ToyStage("b")])
    again = ToyStage("a"), ToyStage("b")
    assert not launch(tmp_path, again).worked
    for stage in again:
        assert (stage.calls, stage.prepared, stage.reductions) == ([], 0, 0)
        assert stage.accepted["squares"].tolist() == [0, 1, 4, 9, 16, 25]


def test_a_launch_that_was_cut_off_goes_on_where_it_was(tmp_path):
    with pytest.raises(JobFailed, match="bad unit 3"):
        launch(tmp_path, [ToyStage(fail=always(3))], policy=Policy(max_failures=0))
    stage = ToyStage()
    launch(tmp_path, [stage])
    assert stage.calls == [3, 4, 5]
    assert stage.accepted["squares"].tolist() == [0, 1, 4, 9, 16, 25]


def test_a_unit_that_fails_twice_is_tried_a_third_time(tmp_path):
    stage = ToyStage(fail=lambda unit, before: unit == 1 and before < 2)
    assert launch(tmp_path, [stage]).set_aside == {}
    assert stage.calls.count(1) == 3 and len(stage.calls) == 8


def test_a_stage_with_a_unit_set_aside_is_not_tried_again(tmp_path):
    # Unit 0 fails in two launches before: its last failure here comes in the first round.
    for _ in range(2):
        with pytest.raises(JobFailed):
            launch(tmp_path, [ToyStage(fail=always(0))], policy=Policy(max_failures=0))
    lost, good = ToyStage(fail=always(0, 1, 2, 3)), ToyStage("good")
    run = launch(tmp_path, [lost, good])
    assert sorted(lost.calls) == [0, 1, 2, 3, 4, 5], "each once, as no result can come of the stage"
    assert lost.reductions == 0 and good.accepted is not None
    assert list(run.set_aside) == ["d"] and "bad unit 0" in run.set_aside["d"]

    later = ToyStage()
    assert list(launch(tmp_path, [later]).set_aside) == ["d"] and later.calls == []
    launch(tmp_path, [later], policy=Policy(retry=True))
    assert sorted(later.calls) == [0, 1, 2, 3] and later.accepted is not None


def test_without_a_limit_the_others_finish_whatever_fails(tmp_path):
    bad, good = ToyStage("bad", slices=120, fail=lambda unit, before: True), ToyStage("good")
    run = launch(tmp_path, [bad, good])
    assert len(bad.calls) == 360 and list(run.set_aside) == ["bad"] and good.accepted is not None


@pytest.mark.parametrize("most", [0, 1, 4])
def test_the_job_ends_with_one_failure_more_than_it_bears(tmp_path, most):
    stage = ToyStage(fail=lambda unit, before: True)
    with pytest.raises(JobFailed, match=rf"rank 0, dataset d, stage s, unit {most} .*max_failures = {most}"):
        launch(tmp_path, [stage], policy=Policy(max_failures=most))
    assert len(stage.calls) == most + 1


def test_failures_of_all_ranks_together_name_the_last(tmp_path):
    stage = ToyStage()
    launch(tmp_path, [stage])
    own = engine_module.Engine.__new__(engine_module.Engine)
    own.state, own.policy, own._failures = replay(tmp_path), Policy(max_failures=2), 0
    with pytest.raises(JobFailed) as ended:
        own._what_again([stage], [[(0, 1, "one")], [], [(0, 2, "two"), (0, 5, "three")]])
    assert "3 attempts failed, max_failures = 2" in str(ended.value)
    assert "rank 2, dataset d, stage s, unit 5: three" in str(ended.value)


def test_a_dataset_that_is_refused_before_its_units_is_set_aside(tmp_path):
    stage = ToyStage(refuse="dataset d: it cannot be")
    run = launch(tmp_path, [stage])
    assert run.set_aside == {"d": "dataset d: it cannot be"} and stage.calls == []
    assert [line["error"] for line in lines(tmp_path, "refused")] == ["dataset d: it cannot be"]
    again, good = ToyStage(), ToyStage("good")
    assert launch(tmp_path, [again, good]).set_aside == run.set_aside
    assert again.prepared == 0 and good.accepted is not None
    assert launch(tmp_path, [again], policy=Policy(retry=True)).set_aside == {}


def test_the_others_go_on_without_a_dataset_that_is_refused(tmp_path):
    refused, good = ToyStage(refuse="dataset d: no"), ToyStage("good")
    assert list(launch(tmp_path, [refused, good]).set_aside) == ["d"]
    assert refused.calls == [] and good.accepted is not None


def test_a_fault_outside_of_units_ends_the_job_and_says_where(tmp_path):
    stage = ToyStage()
    stage.reduce = lambda partials: 1 / 0
    with pytest.raises(JobFailed, match=r"rank 0, dataset d, stage s, reduce: ZeroDivisionError"):
        launch(tmp_path, [stage])
    assert lines(tmp_path, "reduced") == []


def test_a_plan_that_does_not_fit_is_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(Refused, match="1 rank needs"):
        launch(tmp_path, [ToyStage()], policy=Policy(memory=MemoryLimit(10**6, "a test")))
    assert journal_bytes(tmp_path) == {}


def test_a_reduction_that_does_not_fit_is_refused_before_its_units(tmp_path):
    stage = ToyStage()
    stage.reduce_bytes = lambda: 10**13
    with pytest.raises(Refused, match="rank 0 needs 10000.00 GB to put the results of all units together"):
        launch(tmp_path, [stage])
    assert not stage.calls and journal_bytes(tmp_path) == {}


def test_what_a_reduction_took_is_told_beside_its_prediction(tmp_path):
    stage = ToyStage()
    stage.reduce_bytes = lambda: 7 * MB
    launch(tmp_path, [stage])
    events = {event["kind"]: event for event in read_events(tmp_path / "telemetry")}
    assert events["reduce"]["stage"] == "s" and events["reduce"]["peak_bytes"] > 0
    assert events["reduce"]["predicted_bytes"] == predicted_peak_bytes(7 * MB)


def test_partial_results_are_joined_without_keeping_the_parts():
    parts = [{"a": np.array([1, 2]), "b": np.ones((1, 3))}, {"a": np.array([3]), "b": np.zeros((2, 3))}]
    joined = concatenate(parts)
    assert joined["a"].tolist() == [1, 2, 3] and joined["b"].shape == (3, 3)
    assert parts == [{}, {}]


def interrupt_at(unit):
    def fail(index, before):
        if index == unit:
            raise KeyboardInterrupt
        return False

    return fail


@pytest.fixture
def left_open(tmp_path):
    """A ledger of a launch that was killed while unit 2 ran."""
    with pytest.raises(KeyboardInterrupt):
        launch(tmp_path, [ToyStage(fail=interrupt_at(2))])
    return tmp_path


CHILD = """
import sys
from pathlib import Path
sys.path[:0] = {path!r}
from toy_stages import ToyStage
from cytomill.runtime.suspects import run_as_child
stage = ToyStage()
run_as_child(stage, stage.units()[int(sys.argv[1])], Path({root!r}), Path(sys.argv[3]))
"""


def test_a_suspect_runs_last_and_in_a_process_of_its_own(left_open):
    stage, asked = ToyStage(), []

    def command(dataset, name, unit):
        asked.append((dataset, name, unit, sorted(stage.calls)))
        return [sys.executable, "-c", CHILD.format(path=sys.path, root=str(left_open)), str(unit)]

    launch(left_open, [stage], child=command)
    assert asked == [("d", "s", 2, [3, 4, 5])]
    assert stage.accepted["squares"].tolist() == [0, 1, 4, 9, 16, 25]
    (done,) = [line for line in lines(left_open, "done") if line["u"] == 2]
    assert done["d"] < 0.1, "its own seconds, not those of a start of Python"


def test_where_memory_holds_no_child_a_suspect_runs_in_the_rank_and_that_is_said(
    left_open, monkeypatch, caplog
):
    tight = shares(("node", 1, 101))
    monkeypatch.setattr(engine_module, "own_share", lambda *arguments: tight[0])
    stage = ToyStage()
    launch(left_open, [stage])
    assert stage.calls == [3, 4, 5, 2]
    assert "memory holds no process beside a rank" in caplog.text and "ends the job" in caplog.text


def test_a_stop_that_kills_a_child_leaves_its_attempt_open(left_open, monkeypatch):
    from cytomill.runtime import signals
    from cytomill.runtime.failures import Stopped

    def command(dataset, name, unit):
        signals.request_stop("a test")
        return [sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]

    monkeypatch.setattr(signals, "_reason", "")
    with pytest.raises(Stopped):
        launch(left_open, [ToyStage()], child=command)
    assert lines(left_open, "failed") == []
    assert replay(left_open).stages["d", "s"].suspects() == {2}


@pytest.mark.parametrize("workers", [[0], [2], [0, 2], [1, 2]])
@pytest.mark.parametrize("n", [1, 4, 9])
def test_a_queue_for_some_ranks_keeps_its_order_and_skips_the_others(workers, n):
    order = spread(list("abcdefghi"[:n]), workers, 3)
    assert [entry for entry in order if entry] == list("abcdefghi"[:n])
    assert all(entry is None for position, entry in enumerate(order) if position % 3 not in workers)


@pytest.mark.parametrize("mode", ["counter", "static"])
@pytest.mark.parametrize("workers", [[0], [1, 2]])
def test_only_the_ranks_with_room_take_suspects(mode, workers):
    done = mpirun(
        3,
        f"""
        from cytomill.runtime.ranks import connect, install_abort_hook
        from cytomill.runtime.sharing import make_sharing, spread
        world = connect()
        install_abort_hook(world)
        sharing = make_sharing(world, {mode!r})
        order = spread(list(range(7)), {workers}, world.size)
        sharing.open(len(order))
        mine = []
        while world.rank in {workers}:
            position = sharing.take()
            if position is None:
                break
            sharing.prefetch()
            if order[position] is not None:
                mine.append(order[position])
        sharing.close()
        everyone = world.gather(mine)
        if world.rank == 0:
            print(sorted(sum(everyone, [])), [r for r, taken in enumerate(everyone) if taken])
        sharing.shutdown()
        world.finish()
        """,
    )
    assert done.returncode == 0, done.stderr
    taken, by = done.stdout.strip().split("] ")
    assert taken + "]" == str(list(range(7))) and set(json.loads(by)) <= set(workers)
