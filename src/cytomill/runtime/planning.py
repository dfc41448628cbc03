"""Planning a wave on rank 0: what is done, what is pending, what changed, what does not fit."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cytomill.runtime.failures import Refused, naming
from cytomill.runtime.journals import LedgerError, epoch_key, load_arrays
from cytomill.runtime.ledger import Journal, LedgerState, StageState, replay
from cytomill.runtime.memory import Demand, MemoryLimit, Share, check_shares_fit
from cytomill.runtime.stage import Arrays, Stage, Unit
from cytomill.storage.durable import check

log = logging.getLogger(__name__)

_DIGEST = re.compile(r"[0-9a-f]{20}")


@dataclass(frozen=True)
class Policy:
    """How failures and changes are met.

    Parameters
    ----------
    attempts : int
        Failures of one unit before it is set aside.
    max_failures : int or None
        Failed attempts in one launch that the job bears; 0 ends it at the first, None bears all.
    update : bool
        Redo the stages whose fields changed, instead of refusing.
    retry : bool
        Give units and datasets set aside by earlier launches new attempts.
    memory : MemoryLimit or None
        Limit of all ranks of a node; None asks the machine.
    """

    attempts: int = 3
    max_failures: int | None = None
    update: bool = False
    retry: bool = False
    memory: MemoryLimit | None = None


@dataclass
class StagePlan:
    """What rank 0 tells every rank about one stage of a wave."""

    epoch: str = ""
    units: list[Unit] = field(default_factory=list)
    pending: list[int] = field(default_factory=list)
    suspects: list[int] = field(default_factory=list)
    #: Ranks whose node has room for a suspect's process; none where no node has.
    children: list[int] = field(default_factory=list)
    result: Arrays | None = None
    skip: str | None = None
    #: Whether units of earlier stages have to be done again first, as what this stage reads was released.
    recalled: bool = False


@dataclass
class _Draft:
    """What is to be done about one stage, before anything of it is in the ledger."""

    stage: Stage
    fields: dict[str, Any]
    units: list[Unit]
    pending: list[int]
    known: StageState | None
    confirm: bool = False
    forgive: bool = False


class WavePlanner:
    """Compares stages with the ledger, on rank 0.

    Parameters
    ----------
    root : Path
        Campaign folder.
    state : LedgerState
        The replayed ledger; epochs that are opened join it.
    journal : Journal
        Rank 0's journal.
    policy : Policy
        Failures and changes.
    """

    def __init__(self, root: Path, state: LedgerState, journal: Journal, policy: Policy) -> None:
        self.root = root
        self.state = state
        self.journal = journal
        self.policy = policy
        self._newest: dict[str, tuple[str, int]] = {}

    def plan(self, stages: Sequence[Stage], shares: Sequence[Share]) -> list[StagePlan]:
        """Decide, stage by stage, what there is to do; opens epochs in the ledger.

        Nothing is written before everything is decided: a plan that is refused leaves the ledger, here
        and on disk, as it was.

        Parameters
        ----------
        stages : sequence of Stage
            The stages of a wave.
        shares : sequence of Share
            Every rank's share of its node's memory, in rank order.

        Raises
        ------
        Refused
            The ledger is damaged, fields changed without `update`, or a unit table is not aligned to the
            shards.
        PlanDoesNotFit
            The largest unit does not fit the memory of a node with its ranks.
        """
        damage = damage_sentence(self.root, self.state)
        if damage:
            raise Refused(damage)
        changes = self._changes(stages)
        drafts = [self._draft(stage) for stage in stages]
        live = [draft for draft in drafts if draft.pending]
        if live:
            check_shares_fit(wave_demand([(d.stage, d.units) for d in live], len(shares)), shares)
        for change in changes:
            log.warning("changed: %s; the stage is done again", change)
        return [self._enter(draft, shares) for draft in drafts]

    def release(self, stages: Sequence[Stage]) -> None:
        """Have removed what nobody reads now that these stages are complete; the ledger says so before."""
        for stage in stages:
            for name in stage.releases():
                known = self.state.stages.get((stage.dataset, name))
                if known is not None and any(done.shards for done in known.done.values()):
                    self.journal.released(known.epoch)
                    known.release(self.journal.launch)
            try:
                stage.remove_released()
            except OSError as error:
                # Room is lost, no result: the next launch tries again.
                log.warning("%s: what waited between stages cannot be removed: %s", stage.dataset, error)

    def anew(self) -> WavePlanner:
        """A planner for waves that come again: what this launch has done is read like what others have."""
        return WavePlanner(self.root, replay(self.root), self.journal, self.policy)

    def _changes(self, stages: Sequence[Stage]) -> list[str]:
        """Sentences about changed fields; refuses those that nobody has agreed to."""
        changes: list[str] = []
        refused = False
        for stage in stages:
            known = self.state.stages.get((stage.dataset, stage.name))
            if known is not None:
                changed = changed_fields(stage, known)
                changes += changed
                refused = refused or bool(changed) and not self._update_under_way(known)
        if refused and not self.policy.update:
            raise Refused(changes_sentence(changes))
        return changes

    def _draft(self, stage: Stage) -> _Draft:
        known = self.state.stages.get((stage.dataset, stage.name))
        where = f"rank 0, dataset {stage.dataset}, stage {stage.name}, planning"
        with naming(where):
            fields = as_json(stage.fields())
        if known is not None and known.fields != fields:
            known = None
        if known is None:
            with naming(where):
                units = list(stage.units())
            try:
                stage.check_unit_table(units)
            except ValueError as misaligned:
                raise Refused(str(misaligned)) from misaligned
            return _Draft(stage, fields, units, [unit.index for unit in units], None)
        forgive = self.policy.retry and bool(known.failures or known.refused)
        if forgive:
            pending = [unit.index for unit in known.units if unit.index not in known.done]
        else:
            pending = [] if known.refused else known.pending(self.policy.attempts)
        return _Draft(stage, fields, known.units, pending, known, self._update_under_way(known), forgive)

    def _enter(self, draft: _Draft, shares: Sequence[Share]) -> StagePlan:
        """Write a decision down, and make the stage's plan of it."""
        stage, known = draft.stage, draft.known
        if known is None:
            epoch = self.journal.stage(stage.dataset, stage.name, draft.fields, draft.units)
            known = StageState(stage.dataset, stage.name, epoch, draft.fields, draft.units)
            self.state.stages[stage.dataset, stage.name] = known
        elif draft.confirm:
            known.confirmed = self.journal.confirm(known.epoch)
        self._newest[stage.dataset] = max(epoch_key(known.epoch), self._newest.get(stage.dataset, ("", 0)))
        if draft.forgive:
            self.journal.forgive(known.epoch)
            known.failures.clear()
            known.refused = None
        if known.refused:
            return StagePlan(skip=known.refused)
        plan = StagePlan(known.epoch, known.units, draft.pending)
        if known.complete:
            try:
                plan.result = load_arrays(self.root, known.reduced)
            except LedgerError as error:
                plan.skip = f"dataset {stage.dataset}: result of stage {stage.name}: {error}"
            return plan
        suspects = known.suspects()
        plan.suspects = [unit for unit in draft.pending if unit in suspects]
        if plan.suspects:
            plan.children = ranks_for_children(shares, stage.memory_bytes(known.units))
        if draft.pending:
            plan.skip = self._damaged_input(stage)
            plan.recalled = not plan.skip and self._recall(stage)
        return plan

    def _update_under_way(self, known: StageState) -> bool:
        """Whether an earlier stage of the dataset was redone since: the user has agreed to the rest."""
        return self._newest.get(known.dataset, ("", 0)) > known.agreed

    def _recall(self, stage: Stage) -> bool:
        """Take back the units whose shards the stage reads and that were released; whether there are any."""
        recalled = False
        for dataset, name in _required(stage):
            upstream = self.state.stages[dataset, name]
            released = [unit for unit, done in upstream.done.items() if done.released]
            for unit in released:
                self.journal.void(upstream.epoch, unit)
                del upstream.done[unit]
            if released:
                recalled = True
                log.warning(
                    "dataset %s: stage %s is done again, as stage %s reads what it left, which was removed "
                    "when the dataset was complete", dataset, name, stage.name,
                )  # fmt: skip
        return recalled

    def _damaged_input(self, stage: Stage) -> str | None:
        """A sentence about the first shard of an upstream stage that is not as the ledger says."""
        for dataset, name in _required(stage):
            upstream = self.state.stages.get((dataset, name))
            if upstream is None:
                return (
                    f"dataset {stage.dataset}: stage {stage.name} reads what stage {name} of dataset "
                    f"{dataset} would have written, which was not run"
                )
            for done in upstream.done.values():
                for record in done.shards:
                    trouble = check(record, self.root, deep=False)
                    if trouble:
                        return (
                            f"dataset {stage.dataset}: stage {stage.name} would read a damaged shard of "
                            f"{name}: {trouble} Run 'cytomill verify --mend' and then the campaign again"
                        )
        return None


def wave_demand(stages: Sequence[tuple[Stage, Sequence[Unit]]], ranks: int) -> Demand:
    """Memory that stages need together with these units."""
    wave = [(s.memory_bytes(units), s.partial_bytes(), s.reduce_bytes()) for s, units in stages]
    return Demand.of_wave(wave, ranks)


def ranks_for_children(shares: Sequence[Share], unit_bytes: int) -> list[int]:
    """Ranks that may run a suspect unit in a process of its own, all at one time.

    Parameters
    ----------
    shares : sequence of Share
        Every rank's, in rank order.
    unit_bytes : int
        Bytes that the largest unit needs above the baseline.
    """
    fitting = [share.fitting_children(unit_bytes) for share in shares]
    return [rank for rank, share in enumerate(shares) if share.local_rank < fitting[rank]]


def children_of(plans: Sequence[StagePlan]) -> list[int]:
    """Ranks that run suspects of all these stages in processes of their own; none where no node has room."""
    return sorted(set.intersection(*(set(plan.children) for plan in plans)))


def damage_sentence(root: Path, state: LedgerState) -> str:
    """Why nothing may be run on a damaged ledger; empty where it is whole.

    A lost line may have opened an epoch, or taken results back: older results would pass for the present.
    """
    if not state.damaged:
        return ""
    return f"the ledger is damaged: {'; '.join(state.damaged)}. Run 'cytomill verify --mend {root}' first"


def _required(stage: Stage) -> list[tuple[str, str]]:
    """Dataset and name of the stages whose shards a stage reads."""
    return [(stage.dataset, r) if isinstance(r, str) else r for r in stage.requires()]


def recalled_sentence(stages: Sequence[Stage], ledger: LedgerState) -> str:
    """Which earlier stages have to be done again with any of these, because their shards were released.

    Parameters
    ----------
    stages : sequence of Stage
        A stage that changed, and those after it.
    ledger : LedgerState
        What is done.

    Returns
    -------
    str
        Empty where there are none.
    """
    changed = stages[0]
    read = dict.fromkeys(place for stage in stages for place in _required(stage))
    names = [
        name
        for dataset, name in read
        if (dataset, name) in ledger.stages
        and any(done.released for done in ledger.stages[dataset, name].done.values())
        and (dataset, name) != (changed.dataset, changed.name)
    ]
    if not names:
        return ""
    return (
        f"{changed.dataset}, done again with it where they are read: stages {', '.join(names)}, as what they "
        "left was removed when the dataset was complete"
    )


def as_json(fields: dict[str, Any]) -> dict[str, Any]:
    """Fields as they come back from a journal (tuples as lists)."""
    return json.loads(json.dumps(fields))


def changed_fields(stage: Stage, known: StageState) -> list[str]:
    """Sentences ``dataset, stage name: field old -> new`` for each field that differs from the ledger's."""
    fields = as_json(stage.fields())
    names = [n for n in {**known.fields, **fields} if known.fields.get(n) != fields.get(n)]
    where = f"{stage.dataset}, stage {stage.name}"
    return [f"{where}: {_change(name, known.fields.get(name), fields.get(name))}" for name in names]


def _change(name: str, old: Any, new: Any) -> str:
    if all(isinstance(value, str) and _DIGEST.fullmatch(value) for value in (old, new)):
        return f"{name} was made again with other values"
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
        return ", ".join(f"{name} {key} {old.get(key)!r} -> {new.get(key)!r}" for key in keys)
    return f"{name} {old!r} -> {new!r}"


def changes_sentence(changes: Sequence[str]) -> str:
    """Why a run is refused whose configuration or input is not that of its results."""
    return (
        f"configuration or input changed since these results were made: {'; '.join(changes)}. Run again with "
        "--update to redo the stages that depend on it, or restore the old values"
    )
