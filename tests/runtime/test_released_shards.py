"""Shards that the ledger has released: what was done until then, whichever rank did it, and nothing later."""

import numpy as np

from cytomill.runtime.ledger import Journal, replay
from cytomill.runtime.stage import Unit
from cytomill.storage.durable import ShardRecord

UNITS = [Unit(0, ((0, 2),), 2.0), Unit(1, ((2, 4),), 2.0)]
SHARDS = [ShardRecord("a/b", 3, 7)]
PARTIALS = {"n": np.arange(2)}


def done(root, launch: str, units: dict[int, int], lines) -> None:
    """A launch in which ranks finish units (rank by unit), then rank 0 writes lines."""
    ranks = [Journal(root, launch, rank) for rank in (0, 1)]
    for unit, rank in units.items():
        ranks[rank].done(EPOCH, unit, SHARDS, PARTIALS, 1.0)
    lines(ranks[0])
    for journal in ranks:
        journal.close()


EPOCH = "00001-a.1"


def state_of(root):
    return replay(root).stages["alpha", "first"]


def test_what_is_released_is_what_was_done_by_then(tmp_path):
    opening = Journal(tmp_path, "00001-a", 0)
    assert opening.stage("alpha", "first", {}, UNITS) == EPOCH
    opening.close()
    # Rank 1's journal of a launch is read after rank 0's, which has the line.
    done(tmp_path, "00002-b", {0: 0, 1: 1}, lambda j: (j.reduced(EPOCH, PARTIALS, []), j.released(EPOCH)))
    stage = state_of(tmp_path)
    assert stage.complete
    assert [(unit.shards, unit.released) for unit in stage.done.values()] == [([], True)] * 2

    done(tmp_path, "00003-c", {}, lambda j: (j.void(EPOCH, 0), j.void(EPOCH, 1)))
    done(tmp_path, "00004-d", {1: 1}, lambda j: None)
    stage = state_of(tmp_path)
    assert not stage.complete and list(stage.done) == [1]
    assert (stage.done[1].shards, stage.done[1].released) == (SHARDS, False)

    done(tmp_path, "00005-e", {0: 1}, lambda j: j.released(EPOCH))
    assert all(unit.released and not unit.shards for unit in state_of(tmp_path).done.values())
