"""What a lost line of a journal may have said, and what has to be taken back because nobody knows.

A lost ``stage`` line had opened an epoch: without it the epoch before passes for the present one, though
its shards were written over. So a stage that a lost line may have opened is done again. All other lines
are harmless: what they recorded is done again by itself, or found by comparing every shard with the ledger.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from cytomill.runtime.journals import damaged_lines, epoch_key, journal_files
from cytomill.runtime.ledger import Journal, LedgerState

#: Kinds of lines whose loss costs work only.
_HARMLESS = {
    *("launch", "attempt", "done", "failed", "reduced", "refused"),
    *("void", "unreduce", "forgive", "page", "reported", "confirm", "released"),
}
_BEGINNING = re.compile(rb'(?=\{"k":")')
_KIND = re.compile(rb'\{"k":"([a-z]+)","t":')
#: Only lines about a unit have this.
_UNIT = re.compile(rb'"e":"[^"\\]+","u":\d')
_EPOCH = re.compile(rb'"e":"([^"\\]+)"')
_STAGE = re.compile(rb'"dataset":("(?:[^"\\]|\\.)*"),"stage":("(?:[^"\\]|\\.)*")')

Place = tuple[str, str]


@dataclass
class _Loss:
    """What lost lines of one launch may have opened or retired."""

    places: set[Place]
    unknown: bool = False


def _may_matter(line: bytes) -> list[bytes]:
    """Parts of a damaged line that may have opened or retired an epoch."""
    # A damaged end of line joins two lines to one.
    parts = [part for part in _BEGINNING.split(line) if part.strip()]
    kinds = {part: _KIND.match(part) for part in parts if not _UNIT.search(part)}
    return [part for part, kind in kinds.items() if not kind or kind[1].decode() not in _HARMLESS]


def _place(part: bytes, state: LedgerState) -> Place | None:
    """The (dataset, stage) that a lost line was about; None where that cannot be read."""
    found = _STAGE.search(part)
    if found:
        try:
            place = (json.loads(found[1]), json.loads(found[2]))
        except ValueError:
            return None
        return place if place in state.stages else None
    epoch = _EPOCH.search(part)
    owners = [place for place, stage in state.stages.items() if epoch and stage.epoch == epoch[1].decode()]
    return owners[0] if owners else None


def _losses(root: Path, state: LedgerState) -> dict[str, _Loss]:
    losses: dict[str, _Loss] = defaultdict(lambda: _Loss(set()))
    for file in journal_files(root):
        # Only rank 0 opens and retires epochs.
        parts = [part for line in damaged_lines(file.path) for part in _may_matter(line)]
        for part in parts if file.rank == 0 else ():
            place = _place(part, state)
            if place is None:
                losses[file.launch].unknown = True
            else:
                losses[file.launch].places.add(place)
    orphans: dict[str, int] = defaultdict(int)
    for epoch in state.orphans:
        orphans[epoch_key(epoch)[0]] += 1
    for launch, count in orphans.items():
        losses[launch].unknown |= count > len(losses[launch].places)
    return losses


def retire_lost_epochs(root: Path, state: LedgerState, journal: Journal) -> list[Place]:
    """Have the stages done again that lost lines of the journals may have opened.

    Where a line cannot be read well enough to tell its stage, these are all stages whose epoch is of an
    earlier launch. Epochs that have lines but none that opened them are retired too.

    Parameters
    ----------
    root : Path
        Campaign folder, locked.
    state : LedgerState
        The replayed ledger.
    journal : Journal
        A new journal.

    Returns
    -------
    list of (str, str)
        Dataset and stage of the epochs retired.
    """
    retired = set()
    for launch, loss in _losses(root, state).items():
        for place, stage in state.stages.items():
            older = epoch_key(stage.epoch)[0] < launch
            if place in loss.places or (loss.unknown and older):
                retired.add(place)
    for place in sorted(retired):
        journal.retire(state.stages[place].epoch)
    for epoch in state.orphans:
        journal.retire(epoch)
    return sorted(retired)
