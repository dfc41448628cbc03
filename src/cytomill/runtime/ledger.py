"""The ledger: what is finished, and nothing else says so.

One new journal a (launch, rank), never appended to by a later launch: a line is JSON, a space and
the CRC32C of the JSON. The order at a unit's end is data, fsync, directories, then one line, so a
line that is there and whole proves its shards. Records of a stage carry its *epoch*, which the stage's
frozen unit table opens: lines of an older configuration simply belong to an epoch no longer current.

Keys of a line: ``k`` kind, ``t`` time (s), ``e`` epoch, ``u`` unit, ``s`` its shards and ``f`` files of a
reduction, each as (path, size, CRC32C), ``p`` partial results and ``r`` the reduction's (inline, or the path
aside with size and CRC32C), ``d`` seconds, ``c`` the moment of a confirmation, ``v`` version; others in full.
The kind comes first, then the time, the epoch and the unit: :mod:`cytomill.runtime.mending` reads them in
lines of which only a part is left.

Kinds of lines: ``launch``, ``stage`` (fields and unit table, opens an epoch), ``attempt``, ``done``,
``failed``, ``reduced``, ``refused``, ``void`` (a unit whose shards were damaged), ``unreduce`` (a
reduction whose result or files were damaged), ``forgive`` (a unit set aside gets new attempts),
``page`` (a dataset's page shows what the launch left; with its line on the campaign's page), ``reported``
(all pages do), ``confirm`` (an epoch still holds after an earlier stage was redone), ``retire`` (a stage
is no longer part of its dataset's pipeline), ``released`` (the shards of an epoch are needed no more, and
may be gone from now on).
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import google_crc32c

from cytomill.runtime.arrays import (
    INLINE_LIMIT_BYTES,
    refuse_objects,
    to_inline,
    to_npz,
    total_bytes,
)
from cytomill.runtime.journals import (
    JOURNALS,
    epoch_key,
    journal_files,
    journal_name,
    kept_of,
    make_line,
    placed_lines,
)
from cytomill.runtime.stage import Arrays, Unit
from cytomill.storage.durable import ShardRecord, fsync_directory, make_directories, write_atomic

ASIDE = "aside"

#: Kinds of lines after which the pages no longer show the results.
_CHANGES = {"done", "failed", "reduced", "refused", "void", "unreduce"}


@dataclass
class UnitDone:
    """A committed unit: its shards, whether these were released, and where its partial results are."""

    shards: list[ShardRecord]
    partials: Any
    launch: str
    rank: int
    seconds: float
    released: bool = False


@dataclass
class StageState:
    """Everything that the journals say of the current epoch of one stage of one dataset.

    In a run that goes on, units of that run are in `done` without their partial results, which travelled by
    MPI, and `reduced`, `files` and `refused` are those of earlier launches.
    """

    dataset: str
    stage: str
    epoch: str
    fields: dict[str, Any]
    units: list[Unit]
    done: dict[int, UnitDone] = field(default_factory=dict)
    failures: dict[int, list[str]] = field(default_factory=dict)
    open: dict[int, set[tuple[str, int]]] = field(default_factory=dict)
    reduced: Any = None
    files: list[ShardRecord] = field(default_factory=list)
    refused: str | None = None
    confirmed: str = ""
    retired: bool = False
    released_by: str = ""

    def pending(self, attempts: int) -> list[int]:
        """Units neither done nor set aside; where one is set aside, only those that never failed.

        The stage cannot be reduced then, so that trying any other again would be in vain.
        """
        most = 1 if self.set_aside(attempts) else attempts
        return [u.index for u in self.units if u.index not in self.done and self.failed(u.index) < most]

    def suspects(self) -> set[int]:
        """Units left open by a launch that was killed while they ran."""
        return {unit for unit, left_by in self.open.items() if left_by and unit not in self.done}

    def set_aside(self, attempts: int) -> list[int]:
        """Units that failed `attempts` times."""
        return [u.index for u in self.units if u.index not in self.done and self.failed(u.index) >= attempts]

    def failed(self, unit: int) -> int:
        """How often the unit failed."""
        return len(self.failures.get(unit, ()))

    @property
    def agreed(self) -> tuple[str, int]:
        """When the user last agreed that this epoch holds, as a sort key of epochs."""
        return max(epoch_key(self.epoch), epoch_key(self.confirmed))

    @property
    def complete(self) -> bool:
        """Whether every unit is done and the reduction too."""
        return self.reduced is not None and len(self.done) == len(self.units)

    def release(self, launch: str) -> None:
        """Forget the shards of all units that were done up to a launch: nobody vouches for them any more."""
        self.released_by = launch
        for done in self.done.values():
            if done.shards and done.launch <= launch:
                done.shards, done.released = [], True


@dataclass
class LedgerState:
    """The journals of all launches, replayed.

    Attributes
    ----------
    stages : dict of (str, str) to StageState
        The current epoch of each (dataset, stage).
    launches : list of dict
        The launches' own lines.
    damaged : list of str
        A sentence about each damaged line, and about each epoch whose opening line is lost.
    orphans : list of str
        These epochs.
    changed : dict of str to str
        The last launch that changed results of a dataset.
    pages : dict of str to (str, str, dict)
        The last launch that wrote a dataset's page, the program's version, and the dataset's line.
    reported_by : str
        The last launch that wrote the campaign's page, after all others.
    """

    stages: dict[tuple[str, str], StageState] = field(default_factory=dict)
    launches: list[dict[str, Any]] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)
    changed: dict[str, str] = field(default_factory=dict)
    pages: dict[str, tuple[str, str, dict[str, Any]]] = field(default_factory=dict)
    reported_by: str = ""

    @property
    def pages_are_old(self) -> bool:
        """Whether a launch changed results and was ended before it wrote the pages."""
        return max(self.changed.values(), default="") > self.reported_by

    def shown(self, dataset: str, version: str) -> dict[str, Any] | None:
        """A dataset's line where its page, by this version, shows its results; None where it is old."""
        launch, by, row = self.pages.get(dataset, ("", "", {}))
        return row if by == version and launch >= self.changed.get(dataset, "") else None


class Journal:
    """The writing end: one rank's journal of one launch.

    Parameters
    ----------
    root : Path
        Campaign folder; shard paths in the ledger are relative to it.
    launch : str
        Name of the launch, sorting after all earlier ones.
    rank : int
        MPI rank.
    """

    def __init__(self, root: Path, launch: str, rank: int) -> None:
        self.root = root
        self.launch = launch
        self.rank = rank
        self._folder = root / JOURNALS
        self._aside_count = 0
        self._sequence = 0
        self._file: int | None = None

    @property
    def path(self) -> Path:
        """The journal's file; created by its first line."""
        return self._folder / journal_name(self.launch, self.rank)

    def _append(self, kind: str, **values: Any) -> None:
        if self._file is None:
            make_directories(self._folder)
            self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
            fsync_directory(self._folder)
        line = make_line({"k": kind, "t": round(time.time(), 3), **values})
        written = os.write(self._file, line)
        if written != len(line):
            # The kernel takes what fits, and says nothing of the rest before the next call.
            fit = f"No space left: {written} of {len(line)} bytes of a line fit"
            raise OSError(errno.ENOSPC, fit, str(self.path))
        os.fdatasync(self._file)

    def launch_line(self, **values: Any) -> None:
        """Record the launch itself (rank 0)."""
        self._append("launch", launch=self.launch, **values)

    def stage(self, dataset: str, stage: str, fields: dict[str, Any], units: Sequence[Unit]) -> str:
        """Freeze a stage's unit table and open a new epoch; returns the epoch."""
        self._sequence += 1
        epoch = f"{self.launch}.{self._sequence}"
        table = [[[list(axis) for axis in u.region], u.cost] for u in units]
        self._append("stage", e=epoch, dataset=dataset, stage=stage, fields=fields, units=table)
        return epoch

    def attempt(self, epoch: str, unit: int) -> None:
        """Record, before it runs, that a unit is about to."""
        self._append("attempt", e=epoch, u=unit)

    def done(
        self, epoch: str, unit: int, shards: Sequence[ShardRecord], partials: Arrays, seconds: float
    ) -> None:
        """Commit a unit whose shards are durable."""
        self._append(
            "done",
            e=epoch,
            u=unit,
            s=[[r.path, r.size, r.crc32c] for r in shards],
            p=self._store(partials),
            d=round(seconds, 6),
        )

    def failed(self, epoch: str, unit: int, error: str, trace: str = "") -> None:
        """Record a failed attempt."""
        self._append("failed", e=epoch, u=unit, error=error, trace=trace)

    def reduced(self, epoch: str, result: Arrays, files: Sequence[ShardRecord]) -> None:
        """Commit a stage's reduction and the files that it wrote."""
        self._append("reduced", e=epoch, r=self._store(result), f=[[r.path, r.size, r.crc32c] for r in files])

    def refused(self, epoch: str, sentence: str) -> None:
        """Record that the stage refused its dataset."""
        self._append("refused", e=epoch, error=sentence)

    def void(self, epoch: str, unit: int) -> None:
        """Take back a commit whose shards are damaged."""
        self._append("void", e=epoch, u=unit)

    def unreduce(self, epoch: str) -> None:
        """Take back a reduction whose result or files are damaged."""
        self._append("unreduce", e=epoch)

    def confirm(self, epoch: str) -> str:
        """Record that an epoch still holds after an earlier stage of its dataset was done again."""
        self._sequence += 1
        moment = f"{self.launch}.{self._sequence}"
        self._append("confirm", e=epoch, c=moment)
        return moment

    def released(self, epoch: str) -> None:
        """Record, before they are removed, that nobody needs the shards of an epoch any more."""
        self._append("released", e=epoch)

    def retire(self, epoch: str) -> None:
        """Record that a stage is no longer part of its dataset's pipeline."""
        self._append("retire", e=epoch)

    def forgive(self, epoch: str) -> None:
        """Forget the failures of an epoch, so that its units set aside are tried again."""
        self._append("forgive", e=epoch)

    def page(self, dataset: str, version: str, row: dict[str, Any]) -> None:
        """Record that a dataset's page shows everything in the ledger."""
        self._append("page", dataset=dataset, v=version, row=row)

    def reported(self) -> None:
        """Record that the pages show everything in the ledger (rank 0, once every rank has written)."""
        self._append("reported")

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _store(self, arrays: Arrays) -> Any:
        refuse_objects(arrays)
        if total_bytes(arrays) <= INLINE_LIMIT_BYTES:
            return {"inline": to_inline(arrays)}
        self._aside_count += 1
        name = f"{JOURNALS}/{ASIDE}/{self.launch}-r{self.rank}-{self._aside_count}.npz"
        data = to_npz(arrays)
        path = self.root / name
        if not path.parent.is_dir():
            path.parent.mkdir(parents=True, exist_ok=True)
            fsync_directory(path.parent.parent)
        write_atomic(path, data)
        return {"aside": name, "size": len(data), "crc": google_crc32c.value(data)}


def replay(root: Path) -> LedgerState:
    """Read every journal of a campaign, a line at a time.

    Journals of one launch interleave freely: only rank 0 opens epochs, and its journal is read first.
    Lines of an epoch that another has followed say nothing any more.
    """
    state = LedgerState()
    current: dict[str, StageState] = {}
    opened: set[str] = set()
    orphans: set[str] = set()
    for file in journal_files(root):
        name = f"{JOURNALS}/{file.path.name}"
        for offset, size, line in placed_lines(file.path, state.damaged):
            kind, epoch = line["k"], line.get("e")
            if kind == "launch":
                state.launches.append(line)
            elif kind == "page":
                state.pages[line["dataset"]] = (file.launch, line["v"], line["row"])
            elif kind == "reported":
                state.reported_by = file.launch
            if kind == "stage":
                stage = _opened(line)
                before = state.stages.get((stage.dataset, stage.stage))
                if before is not None:
                    del current[before.epoch]
                current[epoch] = state.stages[stage.dataset, stage.stage] = stage
                opened.add(epoch)
            elif epoch in current:
                if kind in _CHANGES:
                    state.changed[current[epoch].dataset] = file.launch
                _apply(current[epoch], line, file.launch, file.rank, (name, offset, size))
            elif epoch is not None and epoch not in opened:
                # A retired epoch without its opening line is one that was mended.
                (orphans.discard if kind == "retire" else orphans.add)(epoch)
    state.stages = {key: stage for key, stage in state.stages.items() if not stage.retired}
    for stage in state.stages.values():
        # Only now: rank 0's journal of a launch, which says so, is read before what others did in it.
        stage.release(stage.released_by)
    state.orphans = sorted(orphans, key=epoch_key)
    state.damaged += [f"{root / JOURNALS}: the line that opened epoch {e} is lost" for e in state.orphans]
    return state


def _opened(line: dict[str, Any]) -> StageState:
    units = [
        Unit(i, tuple((int(a), int(b)) for a, b in region), cost)
        for i, (region, cost) in enumerate(line["units"])
    ]
    return StageState(line["dataset"], line["stage"], line["e"], line["fields"], units)


def _apply(
    stage: StageState, line: dict[str, Any], launch: str, rank: int, place: tuple[str, int, int]
) -> None:
    kind, unit = line["k"], line.get("u")
    if kind == "attempt":
        stage.open.setdefault(unit, set()).add((launch, rank))
    elif kind == "done":
        shards = [ShardRecord(*record) for record in line["s"]]
        stage.done[unit] = UnitDone(shards, kept_of(line, "p", place), launch, rank, line.get("d", 0.0))
        stage.open.pop(unit, None)
    elif kind == "failed":
        stage.failures.setdefault(unit, []).append(line["error"])
        stage.open.get(unit, set()).discard((launch, rank))
    elif kind == "void":
        stage.done.pop(unit, None)
    elif kind == "unreduce":
        stage.reduced, stage.files = None, []
    elif kind == "reduced":
        stage.reduced = kept_of(line, "r", place)
        stage.files = [ShardRecord(*record) for record in line["f"]]
    elif kind == "refused":
        stage.refused = line["error"]
    elif kind == "retire":
        stage.retired = True
    elif kind == "released":
        stage.released_by = launch
    elif kind == "confirm":
        stage.confirmed = line["c"]
    elif kind == "forgive":
        stage.failures.clear()
        stage.refused = None
