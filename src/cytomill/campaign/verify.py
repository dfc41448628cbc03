"""`cytomill verify`: everything that the ledger says is finished, compared with what lies on disk.

With ``mend``, what is damaged is taken back in the ledger, unit by unit, so that the next run makes
just these units again, and what they read where it was removed once the dataset was complete; the stages
after them stay valid, because their inputs get the same values.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cytomill.campaign.config import Campaign, CampaignError
from cytomill.campaign.launches import new_launch_id
from cytomill.campaign.opening import RESOLVED, open_datasets, stored_campaign
from cytomill.campaign.pipelines import PIPELINES
from cytomill.campaign.verify_report import Problem, VerifyReport
from cytomill.kernels.checksum import crc32c_of
from cytomill.runtime.journals import (
    JOURNALS,
    LedgerError,
    drop_damaged_lines,
    journal_files,
    load_arrays,
    next_launch,
    placed_lines,
)
from cytomill.runtime.ledger import Journal, LedgerState, StageState, replay
from cytomill.runtime.lock import CampaignLock
from cytomill.runtime.mending import retire_lost_epochs
from cytomill.runtime.planning import as_json
from cytomill.storage.durable import ShardRecord, check
from cytomill.storage.volumes import Volume

#: Field of a stage that identifies an input, and result that holds the CRC-32C of each of its slices; a
#: pipeline with several inputs adds a name of its own to both.
INPUT, SLICE_CHECKSUMS = "input", "crc32c"

#: Slices named in a sentence; a stack that was replaced differs in all.
_NAMED = 5

Progress = Callable[[int, int], None]


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
    name = new_launch_id()
    lock = CampaignLock(folder, next_launch(folder, name))
    try:
        taken_over = lock.acquire(lambda: next_launch(folder, name))
    except OSError as error:
        raise CampaignError(f"{folder} cannot be written ({error.strerror}), which --mend has to") from error
    try:
        yield lock.launch, taken_over
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
        if not any("input" in stage.fields for stage in stages):
            continue
        if dataset.name in opened.set_aside:
            yield Problem(opened.set_aside[dataset.name], dataset.name, mendable=False)
            continue
        inputs = PIPELINES[dataset.pipeline].inputs(opened.states[dataset.name])
        for suffix, source in inputs.items():
            recorded = next((s.fields[INPUT + suffix] for s in stages if INPUT + suffix in s.fields), None)
            if recorded is None:
                continue
            yield from _check_identity(dataset.name, source, recorded)
            if read:
                yield from _check_slices(dataset.name, source, SLICE_CHECKSUMS + suffix, stages, report)


def _check_identity(dataset: str, source: Volume, recorded: Mapping[str, Any]) -> Iterator[Problem]:
    found = as_json(source.identity())
    differing = [key for key in {**recorded, **found} if recorded.get(key) != found.get(key)]
    if differing:
        changes = ", ".join(f"{key} {recorded.get(key)!r} -> {found.get(key)!r}" for key in differing)
        yield Problem(
            f"dataset {dataset}: the input {source.path} is not as it was read: {changes}.",
            dataset,
            mendable=False,
        )


def _check_slices(
    dataset: str, source: Volume, checksums: str, stages: Sequence[StageState], report: VerifyReport
) -> Iterator[Problem]:
    for stage in stages:
        try:
            result = load_arrays(report.folder, stage.reduced) if stage.reduced is not None else {}
        except LedgerError:  # a problem of its own already
            continue
        if checksums not in result:
            continue
        expected = result[checksums].tolist()
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
