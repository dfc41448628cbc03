"""`cytomill verify`: everything that the ledger says is finished, compared with what lies on disk.

With ``mend``, what is damaged is taken back in the ledger, unit by unit, so that the next run makes
just these units again; the stages after them stay valid, because their inputs get the same values.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cytomill.campaign.config import Campaign, CampaignError
from cytomill.campaign.launches import new_launch_id
from cytomill.campaign.opening import RESOLVED, open_datasets, stored_campaign
from cytomill.kernels.checksum import crc32c_of
from cytomill.reports.quantities import bytes_text, seconds_text
from cytomill.runtime.journals import (
    JOURNALS,
    LedgerError,
    drop_damaged_lines,
    journal_files,
    placed_lines,
)
from cytomill.runtime.ledger import Journal, LedgerState, StageState, load_arrays, next_launch, replay
from cytomill.runtime.lock import CampaignLock
from cytomill.runtime.mending import retire_lost_epochs
from cytomill.runtime.planning import as_json
from cytomill.storage.durable import ShardRecord, check
from cytomill.storage.volumes import Volume

#: Result of a stage that holds the CRC-32C of each of the input's slices.
SLICE_CHECKSUMS = "crc32c"

#: Slices named in a sentence; a stack that was replaced differs in all.
_NAMED = 5

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Problem:
    """One thing that is not as the ledger says.

    Parameters
    ----------
    sentence : str
        What is wrong, naming file, dataset, stage and unit where there are such.
    dataset, stage : str
        Where; empty where it concerns the campaign.
    units : tuple of int
        Units that have to be computed again.
    reduction : bool
        Whether the stage's reduction has to be done again.
    path : str
        The damaged file where mending replaces it.
    mendable : bool
        Whether the next run can make it again.
    """

    sentence: str
    dataset: str = ""
    stage: str = ""
    units: tuple[int, ...] = ()
    reduction: bool = False
    path: str = ""
    mendable: bool = True

    def __str__(self) -> str:
        return self.sentence


@dataclass
class VerifyReport:
    """What was checked and what was found.

    Parameters
    ----------
    folder : Path
        The campaign's output folder.
    problems : list of Problem
        In the order of the datasets' stages.
    shards, results, files : int
        Shards, stored results and files of reductions that were compared.
    bytes : int
        Size of all of them.
    slices : int
        Slices of the inputs that were read and compared.
    seconds : float
        Time that it took.
    mended : bool
        Whether the ledger was changed so that the next run makes the damaged parts again.
    notes : list of str
        Further sentences.
    """

    folder: Path
    problems: list[Problem] = field(default_factory=list)
    shards: int = 0
    results: int = 0
    files: int = 0
    bytes: int = 0
    slices: int = 0
    seconds: float = 0.0
    mended: bool = False
    notes: list[str] = field(default_factory=list)

    @property
    def units(self) -> list[tuple[str, str, int]]:
        """(dataset, stage, unit) of every unit that has to be computed again."""
        return sorted({(p.dataset, p.stage, unit) for p in self.problems for unit in p.units})

    @property
    def reductions(self) -> list[tuple[str, str]]:
        """(dataset, stage) of every reduction that has to be done again, those after a unit included."""
        return sorted({(p.dataset, p.stage) for p in self.problems if p.reduction or p.units})

    @property
    def summary(self) -> str:
        """What was checked and found, in a line or two."""
        checked = (
            f"checked {_count(self.shards, 'shard')}, {_count(self.results, 'result')} and "
            f"{_count(self.files, 'file')} ({bytes_text(self.bytes)}) in {seconds_text(self.seconds)}"
        )
        if self.slices:
            checked += f", and {self.slices} slices of the inputs"
        lines = [*self.notes, f"{checked}: {self._found()}"]
        if any(not problem.mendable for problem in self.problems):
            lines.append("what concerns an input cannot be mended here: restore it, or run with --update")
        return "\n".join(lines)

    def _found(self) -> str:
        if not self.problems:
            return "no damage"
        found = _count(len(self.problems), "problem")
        if not any(problem.mendable for problem in self.problems):
            return found
        again = f"{_count(len(self.units), 'unit')} and {_count(len(self.reductions), 'reduction')}"
        if self.mended:
            return f"{found}; the next run makes {again} again"
        return f"{found}; 'cytomill verify --mend' has the next run make {again} again"

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "folder": str(self.folder),
            "problems": [vars(problem) | {"units": list(problem.units)} for problem in self.problems],
            **{name: getattr(self, name) for name in ("shards", "results", "files", "bytes", "slices")},
            "seconds": self.seconds,
            "mended": self.mended,
            "notes": list(self.notes),
        }


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def verify(
    folder: Path, mend: bool = False, progress: Progress | None = None, inputs: bool = False
) -> VerifyReport:
    """Compare a campaign's files with its ledger.

    Parameters
    ----------
    folder : Path
        The campaign's output folder.
    mend : bool
        Take back in the ledger what is damaged, so that the next run makes it again.
    progress : callable, optional
        ``(bytes checked, bytes in all)`` after every file.
    inputs : bool
        Also read every input and compare each slice with its checksum; otherwise the inputs' headers,
        sizes and times are compared.

    Raises
    ------
    CampaignError
        If the folder holds no campaign.
    CampaignLocked
        With `mend`, if the campaign is running.
    """
    folder = Path(folder)
    if not (folder / RESOLVED).exists() and not (folder / JOURNALS).is_dir():
        stored_campaign(folder)  # raises the sentence that says so
    if not mend:
        return _checked(folder, progress, inputs)
    with _locked(folder) as (launch, note):
        report = _checked(folder, progress, inputs)
        report.notes += [note] if note else []
        _mend(folder, launch, report)
    return report


@contextmanager
def _locked(folder: Path) -> Iterator[tuple[str, str | None]]:
    lock = CampaignLock(folder, next_launch(folder, new_launch_id()))
    taken_over = lock.acquire()
    try:
        # Only now: the launch that held the lock until this moment may have counted further.
        yield next_launch(folder, new_launch_id()), taken_over
    finally:
        lock.release()


def _checked(folder: Path, progress: Progress | None, inputs: bool) -> VerifyReport:
    began = time.monotonic()
    report = VerifyReport(folder)
    try:
        campaign = stored_campaign(folder)
    except (CampaignError, ValueError) as error:
        campaign = None
        path = folder / RESOLVED
        sentence = f"{path}: the stored campaign cannot be read: {error}"
        report.problems.append(Problem(sentence, path=str(path)))
    state = replay(folder)
    report.problems += _check_journals(folder, state)
    total = sum(record.size or 0 for stage in state.stages.values() for record in _records(stage))

    def tick() -> None:
        if progress is not None:
            progress(report.bytes, total)

    for stage in state.stages.values():
        report.problems += _check_stage(folder, stage, report, tick)
    if campaign is not None:
        report.problems += _check_inputs(campaign, state, report, inputs)
    report.seconds = time.monotonic() - began
    return report


def _records(stage: StageState) -> list[ShardRecord]:
    return [record for done in stage.done.values() for record in done.shards] + stage.files


def _check_journals(folder: Path, state: LedgerState) -> Iterator[Problem]:
    """Problems of the ledger itself; whatever opens no journal's file is about epochs without an opening."""
    of_lines: list[str] = []
    for file in journal_files(folder):
        before = len(of_lines)
        deque(placed_lines(file.path, of_lines), maxlen=0)
        yield from (Problem(sentence, path=str(file.path)) for sentence in of_lines[before:])
    yield from (Problem(sentence) for sentence in state.damaged if sentence not in of_lines)


def _check_stage(
    folder: Path, stage: StageState, report: VerifyReport, tick: Callable[[], Any]
) -> Iterator[Problem]:
    """Problems of one stage's current epoch."""
    where = f"dataset {stage.dataset}, stage {stage.stage}"
    metadata: set[Path] = set()
    for unit, done in sorted(stage.done.items()):
        of_unit = f"{where}, unit {unit} {stage.units[unit].region}"
        for record in done.shards:
            metadata |= _metadata_of(folder, record)
            report.shards += 1
            report.bytes += record.size or 0
            trouble = check(record, folder, deep=True)
            if trouble:
                yield Problem(f"{of_unit}: {trouble}", stage.dataset, stage.stage, (unit,))
            tick()
        report.results += 1
        try:
            load_arrays(folder, done.partials)
        except LedgerError as error:
            yield Problem(f"{of_unit}: {_without_advice(error)}", stage.dataset, stage.stage, (unit,))
    for path in sorted(metadata):
        trouble = _metadata_trouble(path)
        if trouble:
            units = tuple(sorted(stage.done))
            yield Problem(f"{where}: {trouble}", stage.dataset, stage.stage, units, path=str(path))
    if stage.reduced is None:
        return
    report.results += 1
    try:
        load_arrays(folder, stage.reduced)
    except LedgerError as error:
        sentence = f"{where}, result: {_without_advice(error)}"
        yield Problem(sentence, stage.dataset, stage.stage, reduction=True)
    for record in stage.files:
        report.files += 1
        report.bytes += record.size or 0
        trouble = check(record, folder, deep=True)
        if trouble:
            sentence = f"{where}: {trouble.replace('Shard', 'File', 1)}"
            yield Problem(sentence, stage.dataset, stage.stage, reduction=True)
        tick()


def _without_advice(error: LedgerError) -> str:
    return str(error).partition("; run ")[0] + "."


def _metadata_of(folder: Path, record: ShardRecord) -> set[Path]:
    """Metadata file of the Zarr array that a shard belongs to (its key begins with ``c/``)."""
    array, found, _ = record.path.rpartition("/c/")
    return {folder / array / "zarr.json"} if found else set()


def _metadata_trouble(path: Path) -> str:
    """What is wrong with an array's metadata; without them its shards cannot be decoded."""
    try:
        node = json.loads(path.read_bytes())
    except OSError as error:
        return f"the array's metadata {path} cannot be read ({error.strerror})."
    except ValueError as error:
        return f"the array's metadata {path} are damaged ({error})."
    if not isinstance(node, dict) or node.get("node_type") != "array" or "codecs" not in node:
        return f"{path} does not describe an array."
    return ""


def _check_inputs(
    campaign: Campaign, state: LedgerState, report: VerifyReport, read: bool
) -> Iterator[Problem]:
    """Problems of the inputs: their headers, sizes and times, and their slices where `read`."""
    opened = open_datasets(campaign)
    for dataset in campaign.datasets:
        stages = [stage for (name, _), stage in state.stages.items() if name == dataset.name]
        recorded = next((stage.fields["input"] for stage in stages if "input" in stage.fields), None)
        if recorded is None:
            continue
        if dataset.name in opened.set_aside:
            yield Problem(opened.set_aside[dataset.name], dataset.name, mendable=False)
            continue
        source: Volume = opened.states[dataset.name].source
        found = as_json(source.identity())
        differing = [key for key in {**recorded, **found} if recorded.get(key) != found.get(key)]
        if differing:
            changes = ", ".join(f"{key} {recorded.get(key)!r} -> {found.get(key)!r}" for key in differing)
            yield Problem(
                f"dataset {dataset.name}: the input {dataset.input} is not as it was read: {changes}.",
                dataset.name,
                mendable=False,
            )
        if read:
            yield from _check_slices(dataset.name, source, stages, report)


def _check_slices(
    dataset: str, source: Volume, stages: Sequence[StageState], report: VerifyReport
) -> Iterator[Problem]:
    for stage in stages:
        try:
            result = load_arrays(report.folder, stage.reduced) if stage.reduced is not None else {}
        except LedgerError:  # a problem of its own already
            continue
        if SLICE_CHECKSUMS not in result:
            continue
        expected = result[SLICE_CHECKSUMS].tolist()
        differing = []
        try:
            for first, slab in source.slabs(source.chunks[0]):
                for z, image in enumerate(slab, first):
                    report.slices += 1
                    if z >= len(expected) or crc32c_of(image) != expected[z]:
                        differing.append(z)
        except (ValueError, OSError) as error:
            yield Problem(f"dataset {dataset}: {error}", dataset, mendable=False)
        if differing:
            named = ", ".join(map(str, differing[:_NAMED])) + (", ..." if len(differing) > _NAMED else "")
            yield Problem(
                f"dataset {dataset}: {len(differing)} of {len(expected)} slices of the input {source.path} "
                f"do not match the checksums with which they were read (slices {named}).",
                dataset,
                mendable=False,
            )
        return


def _mend(folder: Path, launch: str, report: VerifyReport) -> None:
    """Write what the next run needs to make the damaged parts again; the campaign is locked."""
    mendable = [problem for problem in report.problems if problem.mendable]
    if not mendable:
        return
    state = replay(folder)
    journal = Journal(folder, launch, 0)
    try:
        for dataset, stage in retire_lost_epochs(folder, state, journal):
            report.notes.append(f"dataset {dataset}, stage {stage}: done again (its opening line is lost)")
        for dataset, stage, unit in report.units:
            journal.void(state.stages[dataset, stage].epoch, unit)
        for dataset, stage in sorted({(p.dataset, p.stage) for p in mendable if p.reduction}):
            journal.unreduce(state.stages[dataset, stage].epoch)
    finally:
        journal.close()
    # After the ledger has taken back what hung on them: a kill in between costs nothing.
    for path in sorted({Path(problem.path) for problem in mendable if problem.path}):
        if path.suffix == ".jsonl":
            drop_damaged_lines(path)
        elif path.exists():
            path.replace(path.with_name(f"{path.name}.damaged"))
    report.mended = True
