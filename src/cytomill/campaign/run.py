"""`cytomill run`: a campaign over the ranks, from its file to its reports.

Every rank runs :func:`run`; all of them return the same exit code.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from cytomill import __version__
from cytomill.campaign.config import Campaign, CampaignError, from_resolved, load_campaign, resolved
from cytomill.campaign.launches import new_launch_id
from cytomill.campaign.opening import (
    TELEMETRY,
    OpenCampaign,
    changed_inputs,
    changed_since,
    input_identities,
    keep_timed_names,
    open_datasets,
    write_resolved,
)
from cytomill.campaign.pipeline import REPORT, Place
from cytomill.campaign.pipelines import PIPELINES
from cytomill.campaign.plan import estimate
from cytomill.campaign.provenance import collect
from cytomill.reports.quantities import number_of
from cytomill.runtime.devices import Binding, bind
from cytomill.runtime.engine import Engine
from cytomill.runtime.failures import ExitCode, Refused, Stopped
from cytomill.runtime.journals import next_launch
from cytomill.runtime.launcher import check_world, launched_first
from cytomill.runtime.ledger import Journal, LedgerState, replay
from cytomill.runtime.lock import CampaignLock, CampaignLocked
from cytomill.runtime.lock_owner import process_identity
from cytomill.runtime.memory import MemoryLimit, PlanDoesNotFit, check_fits, measure_baseline
from cytomill.runtime.messages import say
from cytomill.runtime.needs import StageNeeds, demand_of
from cytomill.runtime.numba_cache import warm
from cytomill.runtime.planning import Policy, changes_sentence, damage_sentence
from cytomill.runtime.ranks import World, connect, install_abort_hook
from cytomill.runtime.signals import stop_reason
from cytomill.runtime.telemetry import Telemetry
from cytomill.storage.durable import make_directories

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunOptions:
    """What the command line adds to a campaign file.

    Parameters
    ----------
    overrides : sequence of str
        ``section.key=value``, as of ``--set``.
    update : bool
        Redo what depends on a changed configuration or input.
    retry : bool
        Try units and datasets set aside again.
    """

    overrides: Sequence[str] = ()
    update: bool = False
    retry: bool = False


def run(source: Path, options: RunOptions) -> int:
    """Run a campaign on all ranks; returns the exit code, the same on every rank.

    Parameters
    ----------
    source : Path
        The campaign's TOML file.
    options : RunOptions
        Command line.
    """
    world = connect()
    install_abort_hook(world)
    try:
        check_world(world.size, world.library)
    except RuntimeError as mismatch:
        if launched_first():
            say(str(mismatch))
        return int(ExitCode.REFUSED)
    logging.basicConfig(format="cytomill: %(message)s", level=logging.WARNING, stream=sys.stderr)
    lock: CampaignLock | None = None
    code, message = ExitCode.FINISHED, ""
    try:
        campaign, launch, lock = _begin(world, source, options)
        code = _run_locked(world, campaign, launch, lock, options)
    except Refused as refusal:
        code, message = ExitCode.REFUSED, f"refused: {refusal}"
    except CampaignLocked as locked:
        code, message = ExitCode.LOCKED, str(locked)
    except Stopped:
        code = ExitCode.STOPPED
        message = f"stopped ({stop_reason() or 'asked by another rank'}); run again to go on"
    if world.rank == 0 and message:
        say(message)
    if lock is not None:
        lock.release()
    code = world.bcast(code)
    world.finish()
    return int(code)


def _begin(world: World, source: Path, options: RunOptions) -> tuple[Campaign, str, CampaignLock | None]:
    """Read the campaign and take its lock on rank 0; tell every rank (collective)."""
    answer: tuple[type[Exception] | None, str, Any] = (None, "", None)
    lock = None
    if world.rank == 0:
        try:
            campaign = load_campaign(source, options.overrides)
            for warning in campaign.warnings:
                say(warning)
            _make_output(campaign.output)
            number = partial(next_launch, campaign.output, new_launch_id())
            lock = CampaignLock(campaign.output, number())
            taken_over = _acquire(lock, campaign.output, number)
            if taken_over:
                say(taken_over)
            answer = (None, lock.launch, resolved(keep_timed_names(campaign)))
        except CampaignLocked as locked:
            lock = None
            answer = (CampaignLocked, str(locked), None)
        except (CampaignError, OSError) as error:
            answer = (Refused, str(error), None)
    problem, text, stored = world.bcast(answer)
    if problem is not None:
        if lock is not None:
            lock.release()
        raise problem(text)
    return from_resolved(stored), text, lock


def _make_output(output: Path) -> None:
    try:
        make_directories(output)
    except OSError as error:
        raise _unusable(output, "made", error) from error


def _acquire(lock: CampaignLock, output: Path, number: Callable[[], str]) -> str | None:
    try:
        return lock.acquire(number)
    except OSError as error:
        raise _unusable(output, "written", error) from error


def _unusable(output: Path, what: str, error: OSError) -> CampaignError:
    return CampaignError(
        f"the output folder {output} cannot be {what} ({error.strerror}); choose another with "
        "--set campaign.output=FOLDER"
    )


def _run_locked(
    world: World, campaign: Campaign, launch: str, lock: CampaignLock | None, options: RunOptions
) -> ExitCode:
    from cytomill.campaign.finish import finish

    began = time.time()
    output = campaign.output
    binding = bind(world, campaign.run.device)
    trouble = warm(world, partial(compile_kernels, campaign))
    if trouble and world.local_rank == 0:
        say(trouble)
    telemetry = Telemetry(output / TELEMETRY, launch, world.rank)
    telemetry.event(
        "rank", host=world.host, device=binding.label, pid=os.getpid(), local_rank=world.local_rank
    )
    journal = Journal(output, launch, world.rank)
    state = _replay(world, output)
    _announce(world, campaign, launch, began, binding, journal, lock)
    opened = _open_together(world, campaign, Place(binding.device, world.size))
    measure_baseline()  # only now: opening a format loads its library
    _settle_changes(world, opened, state, journal, options)
    policy = _policy(world, campaign, options)
    _check_memory(world, opened, state, policy)
    engine = Engine(
        world,
        output,
        state,
        journal,
        telemetry,
        policy,
        campaign.run.sharing,
        lambda dataset, stage, unit: _child_command(output, dataset, stage, unit),
    )
    engine.set_aside.update(opened.set_aside)
    inputs = input_identities(opened) if world.rank == 0 else {}
    try:
        for wave in opened.waves():
            engine.run_wave(wave)
        engine.agree_on_stop()
        if engine.worked:  # on all ranks or on none
            changed = world.bcast(changed_inputs(opened, inputs) if world.rank == 0 else None)
            engine.set_aside = {**changed, **engine.set_aside}
        old = state is not None and (state.pages_are_old or not (output / REPORT).exists())
        if world.bcast(engine.worked or old):
            telemetry.flush()
            world.barrier()
            incomplete = finish(world, opened, engine.set_aside, engine.agree_on_stop, journal)
            engine.set_aside = {**incomplete, **engine.set_aside}
            if world.rank == 0:
                journal.reported()
        elif world.rank == 0:
            say("nothing to do: what can be done is done already")
    except (Stopped, Refused):
        # Raised on every rank together, so that the counter can be released together.
        engine.close()
        raise
    finally:
        telemetry.close()
        journal.close()
    engine.close()
    if world.rank == 0:
        _conclude(opened, engine.set_aside, began)
    return ExitCode.SET_ASIDE if engine.set_aside else ExitCode.FINISHED


def _replay(world: World, output: Path) -> LedgerState | None:
    if world.rank != 0:
        return None
    state = replay(output)
    for sentence in state.damaged:
        say(sentence)
    others = sorted({launch["version"] for launch in state.launches} - {__version__})
    if others:
        say(
            f"these results were begun by cytomill {', '.join(others)}, this is {__version__}: what is done "
            "stays; for results of one version choose another output folder (--set campaign.output=FOLDER)"
        )
    return state


def _announce(
    world: World,
    campaign: Campaign,
    launch: str,
    began: float,
    binding: Binding,
    journal: Journal,
    lock: CampaignLock | None,
) -> None:
    """Gather where the ranks are; rank 0 says and records it (collective)."""
    me = {"rank": world.rank, "host": world.host, "device": binding.label, "pid": os.getpid()}
    everyones = world.gather((me, binding.notes, process_identity()))
    if everyones is None or lock is None:
        return
    lock.record_ranks([identity for _, _, identity in everyones])
    ranks = [entry for entry, _, _ in everyones]
    provenance = collect({"launch": launch, "ranks": ranks}, began)
    journal.launch_line(version=__version__, provenance=provenance, run=asdict(campaign.run))
    hosts = sorted({rank["host"] for rank in ranks})
    say(
        f"{__version__}, campaign {campaign.name}: {number_of(len(campaign.datasets), 'dataset')} on "
        f"{number_of(world.size, 'rank')} ({', '.join(hosts)}), results in {campaign.output}"
    )
    for note in sorted({note for _, notes, _ in everyones for note in notes}):
        say(note)


def _open_together(world: World, campaign: Campaign, place: Place) -> OpenCampaign:
    """Open on rank 0 first: what it sets aside, nobody opens (collective)."""
    opened = open_datasets(campaign, place) if world.rank == 0 else None
    set_aside = world.bcast(opened.set_aside if opened else None)
    if opened is None:
        names = [d.name for d in campaign.datasets if d.name not in set_aside]
        opened = open_datasets(campaign, place, names)
        if opened.set_aside:
            raise OSError(f"rank {world.rank} on {world.host}: {'; '.join(opened.set_aside.values())}")
        opened.set_aside = dict(set_aside)
    else:
        for sentence in set_aside.values():
            say(f"set aside: {sentence}")
        for state in opened.states.values():
            for note in state.notes:
                say(note)
    return opened


def _settle_changes(
    world: World,
    opened: OpenCampaign,
    ledger: LedgerState | None,
    journal: Journal,
    options: RunOptions,
) -> None:
    """Refuse a damaged ledger and changed fields, or write the campaign down (collective)."""
    damage = world.bcast("" if ledger is None else damage_sentence(opened.campaign.output, ledger))
    if damage:
        raise Refused(damage)
    changes: list[str] = []
    if ledger is not None:
        changes = changed_since(opened, ledger)
        if options.update or not changes:
            write_resolved(opened.campaign)
            for (dataset, stage), known in ledger.stages.items():
                if dataset in opened.stages and stage not in [s.name for s in opened.stages[dataset]]:
                    journal.retire(known.epoch)
    changes = world.bcast(changes)
    if changes and not options.update:
        raise Refused(changes_sentence(changes))


def _check_memory(world: World, opened: OpenCampaign, ledger: LedgerState | None, policy: Policy) -> None:
    """Refuse, before the first unit, a campaign one of whose stages to come cannot fit (collective)."""
    refusal = ""
    if ledger is not None:
        to_come: list[StageNeeds] = []
        for dataset in opened.campaign.datasets:
            if dataset.name in opened.states:
                # A look of its own at the header: planning pretends results that are not there yet.
                stages = estimate(opened.campaign, dataset, world.size, dict(opened.states))
                to_come += [s for s in stages if (dataset.name, s.stage) not in ledger.stages]
        try:
            check_fits(demand_of(to_come, world.size), world.local_size, policy.memory)
        except PlanDoesNotFit as problem:
            refusal = str(problem)
    refusal = world.bcast(refusal)
    if refusal:
        raise Refused(refusal)


def _policy(world: World, campaign: Campaign, options: RunOptions) -> Policy:
    settings = campaign.run
    memory = None
    if settings.memory_per_rank_gb:
        limit = int(settings.memory_per_rank_gb * 1e9) * world.local_size
        memory = MemoryLimit(limit, "memory_per_rank_gb for these ranks")
    most = settings.max_failures if settings.max_failures >= 0 else None
    return Policy(settings.attempts, most, options.update, options.retry, memory)


def _child_command(output: Path, dataset: str, stage: str, unit: int) -> list[str]:
    return [sys.executable, "-m", "cytomill", "unit", str(output), dataset, stage, str(unit)]


def _conclude(opened: OpenCampaign, set_aside: dict[str, str], began: float) -> None:
    finished = len(opened.campaign.datasets) - len(set_aside)
    for name, sentence in set_aside.items():
        if name not in opened.set_aside:
            say(f"set aside: {sentence}")
    say(
        f"{number_of(finished, 'dataset')} finished, {len(set_aside)} set aside, "
        f"{time.time() - began:.1f} s; report: {opened.campaign.output / REPORT}"
    )


def compile_kernels(campaign: Campaign) -> None:
    """Compile, or load from the cache, every kernel that the campaign's datasets use."""
    for name, pipeline in PIPELINES.items():
        options = [dataset.options for dataset in campaign.datasets if dataset.pipeline == name]
        if options:
            pipeline.compile_kernels(options)
