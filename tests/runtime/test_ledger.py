"""Promise 2: the ledger alone says what is finished, and a line that cannot be trusted says nothing."""

import json
import tracemalloc

import numpy as np
import pytest

from cytomill.runtime import arrays
from cytomill.runtime.journals import JOURNALS, LedgerError, drop_damaged_lines, load_arrays, next_launch
from cytomill.runtime.ledger import Journal, replay
from cytomill.runtime.mending import retire_lost_epochs
from cytomill.runtime.stage import Unit
from cytomill.storage.durable import ShardRecord

UNITS = [Unit(0, ((0, 4), (0, 8)), 32.0), Unit(1, ((4, 6), (0, 8)), 16.0)]
SHARDS = [ShardRecord("a/c/0", 12, 34), ShardRecord("a/c/1", None, None)]


def journal(root, number=1, rank=0):
    return Journal(root, f"{number:05d}-x", rank)


def opened(root, number=1, dataset="d", stage="s", fields=None):
    first = journal(root, number)
    return first, first.stage(dataset, stage, fields or {}, UNITS)


def the_stage(root, place=("d", "s")):
    return replay(root).stages[place]


def spoil(path, number, old=None, new=None):
    """Damage a line, by default so that nothing of it can be read."""
    lines = path.read_bytes().splitlines(keepends=True)
    line = lines[number]
    lines[number] = line.replace(old, new) if old else b"\0" * (len(line) - 1) + b"\n"
    assert lines[number] != line
    path.write_bytes(b"".join(lines))


def test_what_is_written_is_replayed(tmp_path):
    first, epoch = opened(tmp_path, fields={"a": [1, 2]})
    first.launch_line(version="1", provenance={})
    first.attempt(epoch, 0)
    first.done(epoch, 0, SHARDS, {"n": np.arange(3, dtype=np.uint16)}, 1.5)
    state = replay(tmp_path)
    stage = state.stages["d", "s"]
    assert (stage.epoch, stage.fields, stage.units) == (epoch, {"a": [1, 2]}, UNITS)
    assert stage.done[0].shards == SHARDS and stage.done[0].seconds == 1.5
    assert stage.pending(3) == [1] and not stage.complete
    np.testing.assert_array_equal(load_arrays(tmp_path, stage.done[0].partials)["n"], [0, 1, 2])
    assert [line["launch"] for line in state.launches] == ["00001-x"] and state.damaged == []
    first.done(epoch, 1, [], {}, 0.0)
    first.reduced(epoch, {"r": np.array(7)}, SHARDS[:1])
    stage = the_stage(tmp_path)
    assert stage.complete and stage.files == SHARDS[:1] and load_arrays(tmp_path, stage.reduced)["r"] == 7


def test_journals_of_one_launch_interleave_freely(tmp_path):
    # Rank 10 sorts before rank 2 as text; both only write of what rank 0 opened.
    first, epoch = opened(tmp_path)
    for rank, unit in ((10, 0), (2, 1)):
        other = journal(tmp_path, rank=rank)
        other.attempt(epoch, unit)
        other.done(epoch, unit, [], {}, 0.0)
    first.reduced(epoch, {}, [])
    assert the_stage(tmp_path).complete


def test_a_later_epoch_makes_the_earlier_ones_lines_void(tmp_path):
    _, old = opened(tmp_path, 1, fields={"a": 1})
    _, new = opened(tmp_path, 2, fields={"a": 2})
    late = journal(tmp_path, 2, rank=1)
    late.done(old, 0, [], {}, 0.0)
    late.done(new, 1, [], {}, 0.0)
    stage = the_stage(tmp_path)
    assert (stage.epoch, stage.fields, sorted(stage.done)) == (new, {"a": 2}, [1])
    assert replay(tmp_path).damaged == []


def test_a_unit_left_open_is_suspect_until_its_own_launch_closes_it(tmp_path):
    first, epoch = opened(tmp_path)
    first.attempt(epoch, 0)
    assert the_stage(tmp_path).suspects() == {0}
    second = journal(tmp_path, 2)
    second.attempt(epoch, 0)
    second.failed(epoch, 0, "bad")
    assert the_stage(tmp_path).suspects() == {0}, "the first launch's attempt is open as before"
    second.done(epoch, 0, [], {}, 0.0)
    assert the_stage(tmp_path).suspects() == set()


def test_failures_add_up_until_they_are_forgiven(tmp_path):
    first, epoch = opened(tmp_path)
    for _ in range(3):
        first.failed(epoch, 0, "bad")
    first.failed(epoch, 1, "unlucky")
    first.refused(epoch, "no")
    stage = the_stage(tmp_path)
    assert stage.set_aside(3) == [0] and stage.refused == "no"
    assert stage.pending(3) == [], "the stage is lost: unit 1 would be tried again in vain"
    assert stage.pending(4) == [0, 1]
    first.forgive(epoch)
    stage = the_stage(tmp_path)
    assert stage.pending(3) == [0, 1] and stage.refused is None


def test_what_is_taken_back_is_pending_again(tmp_path):
    first, epoch = opened(tmp_path)
    for unit in (0, 1):
        first.done(epoch, unit, SHARDS, {}, 0.0)
    first.reduced(epoch, {}, SHARDS)
    second = journal(tmp_path, 2)
    second.void(epoch, 1)
    assert the_stage(tmp_path).pending(3) == [1] and not the_stage(tmp_path).complete
    second.done(epoch, 1, SHARDS, {}, 0.0)
    assert the_stage(tmp_path).complete
    second.unreduce(epoch)
    stage = the_stage(tmp_path)
    assert (stage.reduced, stage.files, sorted(stage.done)) == (None, [], [0, 1])


def test_an_epoch_is_confirmed_or_retired(tmp_path):
    first, epoch = opened(tmp_path)
    assert the_stage(tmp_path).agreed == ("00001-x", 1)
    second = journal(tmp_path, 2)
    assert second.confirm(epoch) == "00002-x.1"
    assert the_stage(tmp_path).agreed == ("00002-x", 1)
    second.retire(epoch)
    assert replay(tmp_path).stages == {}
    _, again = opened(tmp_path, 3)
    assert the_stage(tmp_path).epoch == again


def test_pages_are_old_where_results_came_after_them(tmp_path):
    first, epoch = opened(tmp_path)
    first.done(epoch, 0, [], {}, 0.0)
    assert replay(tmp_path).pages_are_old
    first.reported()
    assert not replay(tmp_path).pages_are_old
    journal(tmp_path, 2).void(epoch, 0)
    assert replay(tmp_path).pages_are_old


def test_a_page_is_old_where_its_datasets_results_came_after_it(tmp_path):
    first, epoch = opened(tmp_path)
    other = first.stage("e", "s", {}, UNITS)
    for name, of in (("d", epoch), ("e", other)):
        first.done(of, 0, [], {}, 0.0)
        first.page(name, "1.0", {"name": name})
    state = replay(tmp_path)
    assert state.shown("d", "1.0") == {"name": "d"} and state.shown("e", "1.0") == {"name": "e"}
    assert state.shown("d", "1.1") is None and state.shown("f", "1.0") is None
    journal(tmp_path, 2).void(epoch, 0)
    state = replay(tmp_path)
    assert state.shown("d", "1.0") is None and state.shown("e", "1.0") == {"name": "e"}


@pytest.mark.parametrize("cut", [1, 10, 40])
def test_a_torn_last_line_is_no_damage(tmp_path, cut):
    first, epoch = opened(tmp_path)
    first.done(epoch, 0, [], {}, 0.0)
    whole = len(first.path.read_bytes())
    first.done(epoch, 1, [], {}, 0.0)
    first.path.write_bytes(first.path.read_bytes()[: whole + cut])
    state = replay(tmp_path)
    assert state.damaged == [] and sorted(state.stages["d", "s"].done) == [0]


def test_a_damaged_line_is_named_wherever_it_is(tmp_path):
    first, epoch = opened(tmp_path)
    first.done(epoch, 0, [], {}, 0.0)
    first.done(epoch, 1, [], {}, 0.0)
    for number in (1, 2):
        spoil(first.path, number)
        state = replay(tmp_path)
        assert f"{first.path}: line {number + 1}" in state.damaged[-1]
    assert state.stages["d", "s"].done == {}


def test_files_that_are_no_journals_are_left_alone(tmp_path):
    opened(tmp_path, 7)
    for name in ("notes.jsonl", "00009-x.jsonl", "copy of 00007-x-r0.jsonl", "00008-x-rank.jsonl"):
        (tmp_path / JOURNALS / name).write_text("not a journal\n")
    assert replay(tmp_path).damaged == []
    assert next_launch(tmp_path, "y") == "00008-y"


def test_an_epoch_without_its_opening_line_is_damage(tmp_path):
    first, epoch = opened(tmp_path)
    other = journal(tmp_path, rank=1)
    other.done(epoch, 0, [], {}, 0.0)
    first.path.unlink()
    state = replay(tmp_path)
    assert state.orphans == [epoch] and epoch in state.damaged[0]
    assert retire_lost_epochs(tmp_path, state, journal(tmp_path, 2)) == []
    assert replay(tmp_path).damaged == []


def mended(root):
    """Mend as `verify` does; which stages are current afterwards."""
    state = replay(root)
    assert state.damaged
    last = journal(root, 9)
    retire_lost_epochs(root, state, last)
    for path in (root / JOURNALS).glob("*.jsonl"):
        drop_damaged_lines(path)
    state = replay(root)
    assert state.damaged == []
    return {place: stage.epoch for place, stage in state.stages.items()}


@pytest.mark.parametrize(
    ("old", "new"), [(b'"k":"stage"', b'"k":"stagg"'), (b'"fields"', b'"fjelds"'), (b"00002-x", b"00082-x")]
)
def test_mending_never_revives_the_epoch_before_a_lost_one(tmp_path, old, new):
    first, _ = opened(tmp_path, 1)
    other = first.stage("e", "s", {}, UNITS)
    second, epoch = opened(tmp_path, 2, fields={"a": 2})
    second.done(epoch, 0, [], {}, 0.0)
    spoil(second.path, 0, old, new)
    assert mended(tmp_path) == {("e", "s"): other}, "the stage that the line names is done again"


def test_a_lost_line_that_names_nothing_takes_back_all_earlier_epochs(tmp_path):
    first, _ = opened(tmp_path, 1)
    first.stage("e", "s", {}, UNITS)
    second, epoch = opened(tmp_path, 2, stage="t")
    second.stage("d", "s", {"a": 2}, UNITS)
    spoil(second.path, 1)
    assert mended(tmp_path) == {("d", "t"): epoch}


@pytest.mark.parametrize("kind", ["attempt", "done", "failed", "reduced", "void", "launch"])
def test_a_lost_line_that_opened_nothing_takes_nothing_back(tmp_path, kind):
    opened(tmp_path, 1)
    _, epoch = opened(tmp_path, 2)
    third = journal(tmp_path, 3)
    values = {"attempt": (epoch, 0), "done": (epoch, 0, [], {}, 0.0), "failed": (epoch, 0, "bad")}
    values |= {"reduced": (epoch, {}, []), "void": (epoch, 0), "launch": ()}
    getattr(third, "launch_line" if kind == "launch" else kind)(*values[kind])
    spoil(third.path, 0, b'"t":', b'"t";' if kind in ("attempt", "done", "failed", "void") else b'"t": ')
    assert mended(tmp_path) == {("d", "s"): epoch}


def test_a_damaged_end_of_line_hides_no_opening_line(tmp_path):
    opened(tmp_path, 1)
    second = journal(tmp_path, 2)
    second.launch_line(version="1")
    second.stage("d", "s", {"a": 2}, UNITS)
    second.reported()
    text = second.path.read_bytes()
    second.path.write_bytes(text.replace(b"\n", b"\x0b", 1))
    assert mended(tmp_path) == {}


def test_partial_results_stay_in_the_journal_and_are_read_again(tmp_path):
    first, epoch = opened(tmp_path)
    partials = {"hist": np.arange(4000, dtype=np.int64)}
    first.done(epoch, 0, [], partials, 0.0)
    first.done(epoch, 1, [], {"few": np.arange(3)}, 0.0)
    first.reduced(epoch, partials, [])
    stage = the_stage(tmp_path)
    assert "inline" not in stage.done[0].partials and "inline" not in stage.reduced
    assert "inline" in stage.done[1].partials
    for stored in (stage.done[0].partials, stage.reduced):
        np.testing.assert_array_equal(load_arrays(tmp_path, stored)["hist"], partials["hist"])
    journal(tmp_path, 2).unreduce(epoch)
    again = the_stage(tmp_path)
    assert again.reduced is None
    np.testing.assert_array_equal(load_arrays(tmp_path, again.done[0].partials)["hist"], partials["hist"])
    spoil(first.path, 1, b"AAAA", b"AABA")
    with pytest.raises(LedgerError, match="verify --mend"):
        load_arrays(tmp_path, stage.done[0].partials)
    first.path.unlink()
    with pytest.raises(LedgerError, match="verify --mend"):
        load_arrays(tmp_path, stage.reduced)


def test_a_replay_holds_a_line_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr("os.fdatasync", lambda descriptor: None)
    first, epoch = opened(tmp_path)
    for _ in range(200):
        first.done(epoch, 0, [], {"hist": np.zeros(7500, np.int64)}, 0.0)
    assert first.path.stat().st_size > 15e6
    tracemalloc.start()
    try:
        replay(tmp_path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2e6


@pytest.mark.parametrize("name", ["allow_pickle", "file", "args", "kwds", "array_0"])
def test_results_may_have_any_name(name, monkeypatch):
    def refuse(*arguments, **keywords):
        raise AssertionError("numpy.savez has arguments of its own")

    monkeypatch.setattr(np, "savez", refuse)
    stored = {name: np.arange(3), "other": np.array(2.5)}
    for data in (arrays.from_npz(arrays.to_npz(stored)), arrays.from_inline(arrays.to_inline(stored))):
        assert sorted(data) == sorted(stored)
        assert all(np.array_equal(data[key], stored[key]) for key in stored)


def test_no_pickle_is_written(tmp_path):
    first, epoch = opened(tmp_path)
    odd = {"odd": np.array([object()])}
    with pytest.raises(TypeError, match="odd"):
        first.reduced(epoch, odd, [])
    with pytest.raises(ValueError, match="allow_pickle"):
        arrays.npz_bytes(odd)
    assert [json.loads(line[:-10])["k"] for line in first.path.read_bytes().splitlines(True)] == ["stage"]
