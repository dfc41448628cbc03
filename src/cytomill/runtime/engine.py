"""The engine: runs the stages of all datasets, wave by wave, over the ranks.

A wave is the k-th stage of every dataset; its units share one queue, so that ten small datasets load
eight ranks evenly::

    open ──► prepare ──► rounds (failed units again, suspects last) ──► gather ──► reduce ──► accept
    rank 0    all         all ranks take units from the shared counter   rank 0     rank 0     all
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path

from cytomill.runtime.arrays import concatenate
from cytomill.runtime.failures import JobFailed, Refused, Stopped, is_environment_failure, naming, sentence
from cytomill.runtime.ledger import Journal, LedgerState, UnitDone
from cytomill.runtime.memory import PlanDoesNotFit, own_share, predicted_peak_bytes
from cytomill.runtime.partials import Incomplete, partials_in_order
from cytomill.runtime.planning import Policy, StagePlan, WavePlanner, children_of, wave_demand
from cytomill.runtime.ranks import World
from cytomill.runtime.sharing import make_sharing, spread
from cytomill.runtime.stage import Arrays, DatasetRefused, Stage
from cytomill.runtime.suspects import ChildInterrupted, few_children_sentence, run_in_child
from cytomill.runtime.telemetry import Progress, Telemetry
from cytomill.storage.durable import ShardRecord, seal

log = logging.getLogger(__name__)

#: What a unit gave: its partial results, and its shards as the ledger lists them.
Outcome = tuple[Arrays, list[ShardRecord]]
Finished, Queue = list[tuple[int, int, Outcome]], list[tuple[int, int]]


class Engine:
    """Runs waves of stages.

    Parameters
    ----------
    world : World
        The ranks.
    root : Path
        Campaign folder.
    state : LedgerState or None
        The replayed ledger, on rank 0; None elsewhere.
    journal : Journal
        This rank's journal.
    telemetry : Telemetry
        This rank's event stream.
    policy : Policy
        Failures and changes.
    sharing_mode : str
        `auto`, `counter` or `static`.
    child_command : callable
        ``(dataset, stage, unit) -> argv`` of a process that runs one unit by
        :func:`cytomill.runtime.suspects.run_as_child`.
    """

    def __init__(
        self,
        world: World,
        root: Path,
        state: LedgerState | None,
        journal: Journal,
        telemetry: Telemetry,
        policy: Policy,
        sharing_mode: str,
        child_command: Callable[[str, str, int], Sequence[str]],
    ) -> None:
        self.world = world
        self.root = root
        self.state = state
        self.journal = journal
        self.telemetry = telemetry
        self.policy = policy
        self.child_command = child_command
        self.planner = None if state is None else WavePlanner(root, state, journal, policy)
        self.sharing = make_sharing(world, sharing_mode, self._tick)
        #: Datasets set aside, and why; the same on every rank.
        self.set_aside: dict[str, str] = {}
        #: Whether this launch computed or reduced anything.
        self.worked = False
        self._failures = 0  # of all ranks, on rank 0, between rounds
        self._own_failures = 0  # so that one rank need not wait for the round's end
        self._progress: Progress | None = None
        self._done_before = 0
        self._waves: list[Sequence[Stage]] = []

    def close(self) -> None:
        """Release the shared counter (collective)."""
        self.sharing.shutdown()

    def run_wave(self, stages: Sequence[Stage]) -> None:
        """Run one stage of each dataset, together; the waves before it again where it needs them.

        Raises
        ------
        Refused
            Configuration or input changed without `update`, or the plan does not fit (all ranks).
        Stopped
            A stop was asked for (all ranks).
        JobFailed
            On the rank where the job has to end.
        """
        self._waves.append(stages)
        place = len(self._waves) - 1
        while place < len(self._waves):
            place = place + 1 if self._run_wave(self._waves[place]) else 0

    def _run_wave(self, stages: Sequence[Stage]) -> bool:
        """Run a wave; False where earlier ones have to come first, as what it reads of them was released."""
        stages = [stage for stage in stages if stage.dataset not in self.set_aside]
        if not stages:
            return True
        self.agree_on_stop()
        plans = self._open(stages)
        for stage, plan in zip(stages, plans):
            if plan.skip:
                self.set_aside[stage.dataset] = plan.skip
            elif plan.result is not None:
                stage.accept(plan.result)
        if any(plan.recalled for plan in plans):
            if self.planner is not None:
                self.planner = self.planner.anew()
                self.state = self.planner.state
            return False
        live = [i for i, plan in enumerate(plans) if not plan.skip and plan.result is None]
        if live:
            self._run_live(stages, plans, live)
        if self.planner is not None:
            self.planner.release([stage for stage in stages if stage.dataset not in self.set_aside])
        return True

    def _run_live(self, stages: Sequence[Stage], plans: list[StagePlan], live: list[int]) -> None:
        """Run the stages of a wave that are not done."""
        self.worked = True
        live = self._prepare(stages, plans, live)
        if not live:
            return
        names = sorted({stages[i].name for i in live})
        demand = wave_demand([(stages[i], plans[i].units) for i in live], self.world.size)
        with self.telemetry.measured("stage", predicted_peak_bytes(demand.unit_bytes), stages=names):
            finished = self._run_units(stages, plans, live, names)
        self._reduce(stages, plans, live, finished)

    def agree_on_stop(self) -> None:
        """Raise `Stopped` on every rank if any has seen a stop (collective)."""
        if self.world.any(self.sharing.stopped()):
            raise Stopped

    # -- opening ---------------------------------------------------------------------------------

    def _open(self, stages: Sequence[Stage]) -> list[StagePlan]:
        answer: tuple[str, list[StagePlan]] = ("", [])
        # Asked anew: where nothing limits the ranks, the memory that is free now does.
        limit = self.policy.memory
        shares = self.world.gather(own_share(self.world.local_rank, self.world.local_size, limit))
        if self.world.rank == 0:
            try:
                answer = ("", self.planner.plan(stages, shares))
            except (Refused, PlanDoesNotFit) as refusal:
                answer = (str(refusal), [])
        refusal, plans = self.world.bcast(answer)
        if refusal:
            raise Refused(refusal)
        return plans

    def _prepare(self, stages: Sequence[Stage], plans: list[StagePlan], live: list[int]) -> list[int]:
        """Prepare on rank 0 first (it creates what the others open), then on all; what is still live.

        A dataset that rank 0's preparation refuses is set aside, here and in the ledger.
        """
        refused: dict[int, str] = {}
        if self.world.rank == 0:
            for i in live:
                try:
                    self._call(stages[i], "prepare", lambda stage=stages[i]: stage.prepare(0))
                except DatasetRefused as refusal:
                    refused[i] = str(refusal)
                    self.journal.refused(plans[i].epoch, str(refusal))
        refused = self.world.bcast(refused)
        for i, why in refused.items():
            self.set_aside[stages[i].dataset] = why
        live = [i for i in live if i not in refused]
        if self.world.rank != 0:
            for i in live:
                self._call(stages[i], "prepare", lambda stage=stages[i]: stage.prepare(self.world.rank))
        return live

    def _call(self, stage: Stage, what: str, function: Callable):
        """Call a part of a stage outside its units: an exception there ends the job, and says where."""
        with naming(f"rank {self.world.rank}, dataset {stage.dataset}, stage {stage.name}, {what}"):
            return function()

    # -- units -----------------------------------------------------------------------------------

    def _run_units(
        self, stages: Sequence[Stage], plans: list[StagePlan], live: list[int], names: list[str]
    ) -> Finished:
        total = sum(len(plans[i].units) for i in live)
        queue: Queue = [(i, u) for i in live for u in plans[i].pending if u not in plans[i].suspects]
        suspects: Queue = [(i, u) for i in live for u in plans[i].suspects]
        self._done_before = total - len(queue) - len(suspects)
        if self.world.rank == 0 and total:
            self._progress = Progress(total, ", ".join(names), done=self._done_before)
        finished: Finished = []
        try:
            while queue:
                queue = self._round(stages, plans, queue, finished)
            if suspects:
                children = children_of([plans[i] for i, _ in suspects])
                if self.world.rank == 0 and len(children) < self.world.size:
                    log.warning(few_children_sentence(len(children), self.world.size))
                while suspects:
                    suspects = self._round(stages, plans, suspects, finished, children)
        finally:
            if self._progress is not None:
                self._progress.close()
                self._progress = None
        return finished

    def _round(
        self,
        stages: Sequence[Stage],
        plans: list[StagePlan],
        queue: Queue,
        finished: Finished,
        children: list[int] | None = None,
    ) -> Queue:
        """Run a queue once over all ranks; return what has to be run again (the same everywhere).

        Suspects come with the ranks that may run them in children; where there are none, all ranks run
        them in themselves.
        """
        entries = sorted(queue, key=lambda entry: (-plans[entry[0]].units[entry[1]].cost, entry))
        child = bool(children)
        order = spread(entries, children, self.world.size) if children else list(entries)
        failed: list[tuple[int, int, str]] = []
        self.sharing.open(len(order))
        while not child or self.world.rank in children:
            asked = time.monotonic()
            position = self.sharing.take()
            if position is None:
                break
            self.sharing.prefetch()
            if order[position] is None:
                continue
            i, u = order[position]
            waited = time.monotonic() - asked
            outcome = self._attempt(stages[i], plans[i], u, child, waited)
            if isinstance(outcome, str):
                failed.append((i, u, outcome))
            elif outcome is not None:
                finished.append((i, u, outcome))
        self.sharing.close()
        self.agree_on_stop()
        again: Queue = []
        everyones = self.world.gather(failed)
        if self.world.rank == 0:
            again = self._what_again(stages, everyones)
            self._done_before += len(entries) - len(again)
            if self._progress is not None:
                self._progress.update(self._done_before)
        return self.world.bcast(again)

    def _what_again(self, stages: Sequence[Stage], everyones: list[list[tuple[int, int, str]]]) -> Queue:
        """Count what failed on each rank; return what is tried again.

        Where a unit failed for the last time its stage can never be reduced, and no other of its units
        is tried again.

        Raises
        ------
        JobFailed
            If the ranks' failures together are more than the job bears.
        """
        again, last = set(), ""
        for rank, failed in enumerate(everyones):
            for i, u, why in failed:
                stage = stages[i]
                self.state.stages[stage.dataset, stage.name].failures.setdefault(u, []).append(why)
                again.add((i, u))
                last = f"rank {rank}, dataset {stage.dataset}, stage {stage.name}, unit {u}: {why}"
                self._failures += 1
        most = self.policy.max_failures
        if most is not None and self._failures > most:
            raise JobFailed(f"{self._failures} attempts failed, max_failures = {most}; the last: {last}")
        pending = {
            i: set(self.state.stages[stages[i].dataset, stages[i].name].pending(self.policy.attempts))
            for i, _ in again
        }
        return sorted((i, u) for i, u in again if u in pending[i])

    def _attempt(
        self, stage: Stage, plan: StagePlan, u: int, child: bool, waited: float
    ) -> Outcome | str | None:
        """Run one unit and commit it; a sentence if it failed, None if a stop ended its process."""
        unit = plan.units[u]
        where = f"rank {self.world.rank}, dataset {stage.dataset}, stage {stage.name}, unit {u} {unit.region}"
        with naming(where):
            self.journal.attempt(plan.epoch, u)
        self.telemetry.event("begin", dataset=stage.dataset, stage=stage.name, unit=u, child=child)
        began = time.monotonic()
        try:
            if child:
                records, partials, seconds = run_in_child(self.child_command(stage.dataset, stage.name, u))
            else:
                output = stage.process(unit)
                partials, seconds = output.partials, time.monotonic() - began
        except ChildInterrupted:
            return None  # its attempt stays open: the unit is as suspect as before
        except Exception as error:
            if is_environment_failure(error):
                raise JobFailed(f"{where}: {sentence(error)}") from error
            why = sentence(error)
            with naming(where):
                self.journal.failed(plan.epoch, u, why, traceback.format_exc())
            self.telemetry.event("failed", dataset=stage.dataset, stage=stage.name, unit=u, error=why)
            log.warning("%s failed: %s", where, why)
            self._own_failures += 1
            most = self.policy.max_failures
            if most is not None and self._own_failures > most:
                raise JobFailed(f"{where}: {why} (max_failures = {most})") from error
            return why
        computed = time.monotonic()
        with naming(where):
            if not child:
                records = seal(output.shards, self.root)
            self.journal.done(plan.epoch, u, records, partials, seconds)
        self.telemetry.event(
            "unit",
            dataset=stage.dataset,
            stage=stage.name,
            epoch=plan.epoch,
            unit=u,
            seconds=seconds,
            commit_s=time.monotonic() - computed,
            wait_s=waited,
            voxels=unit.cost,
            bytes=sum(record.size or 0 for record in records),
        )
        return partials, records

    def _tick(self, taken: int) -> None:
        progress = self._progress
        if progress is not None:
            progress.update(self._done_before + max(0, taken - self.world.size))

    # -- reduction -------------------------------------------------------------------------------

    def _reduce(
        self, stages: Sequence[Stage], plans: list[StagePlan], live: list[int], finished: Finished
    ) -> None:
        mine: dict[int, list[tuple[int, Outcome]]] = {i: [] for i in live}
        for i, u, outcome in finished:
            mine[i].append((u, outcome))
        finished.clear()
        for i in live:
            stage = stages[i]
            # Stage by stage: rank 0 never holds the partial results of two datasets.
            everyones = self.world.gather(mine.pop(i))
            answer: tuple[Arrays | None, str] = (None, "")
            if self.world.rank == 0:
                answer = self._reduce_stage(stage, plans[i], dict(chain.from_iterable(everyones)))
            result, why = self.world.bcast(answer)
            if result is None:
                self.set_aside[stage.dataset] = why
            else:
                self._call(stage, "accept", lambda stage=stage, result=result: stage.accept(result))

    def _reduce_stage(
        self, stage: Stage, plan: StagePlan, finished: dict[int, Outcome]
    ) -> tuple[Arrays | None, str]:
        known = self.state.stages[stage.dataset, stage.name]
        for u, (_, records) in finished.items():
            known.done[u] = UnitDone(records, None, self.journal.launch, self.world.rank, 0.0)
        fresh = {u: partials for u, (partials, _) in finished.items()}
        try:
            parts = partials_in_order(self.root, known, fresh, self.policy.attempts)
        except Incomplete as why:
            return None, str(why)
        predicted = predicted_peak_bytes(stage.reduce_bytes())
        with self.telemetry.measured("reduce", predicted, dataset=stage.dataset, stage=stage.name):
            try:
                result = self._call(stage, "reduce", lambda: stage.reduce(concatenate(parts)))
            except DatasetRefused as refusal:
                self.journal.refused(plan.epoch, str(refusal))
                return None, str(refusal)
            self._call(
                stage,
                "commit of its result",
                lambda: self.journal.reduced(plan.epoch, result, seal(stage.files(), self.root)),
            )
        return result, ""
