"""`cytomill plan`: what a run would need, before it is started. Headers are read, voxels never.

Units, memory, files and bytes follow from the headers and the configuration; bytes on disk and times
are estimates, the times from what an earlier launch into the same folder needed, where there was one.
"""

from __future__ import annotations

import math
import os
import shutil
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.text import Text

from cytomill.campaign.config import Campaign, CampaignError, Dataset
from cytomill.campaign.datasets import check_input_exists
from cytomill.campaign.opening import TELEMETRY, in_order
from cytomill.campaign.pipeline import Place
from cytomill.campaign.pipelines import PIPELINES
from cytomill.reports.quantities import bytes_text, count_text, seconds_text
from cytomill.reports.terminal import MANY, PlanRow, fold_plan, plan_table
from cytomill.runtime.ledger import JOURNALS, LedgerState, replay
from cytomill.runtime.memory import (
    Demand,
    MemoryLimit,
    PlanDoesNotFit,
    check_fits,
    memory_limit,
    predicted_peak_bytes,
)
from cytomill.runtime.needs import StageNeeds, demand_of
from cytomill.runtime.telemetry import read_events

#: Start of a launch and its reports, beside the stages: imports, kernels from the cache, pages.
LAUNCH_SECONDS = 20.0

#: Files of a dataset beside its shards: metadata of groups and arrays, tables, model, page, provenance.
FILES_A_DATASET = 40

#: Read amplification from which it is said.
SAID_AMPLIFICATION = 1.05

#: The batch system is asked for this much more than predicted, as a late end costs more than a long queue.
MEMORY_MARGIN, TIME_MARGIN, TIME_MARGIN_S = 1.1, 2.0, 600

_GIB = 2**30


@dataclass
class CampaignPlan:
    """What a run of a campaign would need.

    Parameters
    ----------
    name : str
        The campaign's name.
    output : Path
        Folder of the results.
    ranks, local_ranks : int
        Ranks in all, and those that share a node's memory.
    stages : list of StageNeeds
        A row a stage, datasets in their order. Times are of what is not done yet.
    pipelines : dict of str to str
        Each dataset's pipeline.
    refused : dict of str to str
        Datasets that cannot be used, and why.
    fits : bool
        Whether the ranks of a node fit into its memory, and a dataset is left at all.
    refusal : str
        The sentence with which the run would refuse; empty where it fits.
    memory_limit_bytes : int
        What the ranks of this node may use.
    free_disk_bytes : int
        Free where the results go.
    done : dict of str to int
        Units that the ledger holds already, by stage of all datasets.
    measured : list of str
        Stages whose rate was measured by an earlier launch.
    notes : list of str
        Further sentences.
    """

    name: str
    output: Path
    ranks: int
    local_ranks: int
    stages: list[StageNeeds] = field(default_factory=list)
    pipelines: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    fits: bool = True
    refusal: str = ""
    memory_limit_bytes: int = 0
    free_disk_bytes: int = 0
    done: dict[str, int] = field(default_factory=dict)
    measured: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def peak_bytes(self) -> int:
        """Predicted peak memory of a rank, rank 0's when it puts results together left aside."""
        return predicted_peak_bytes(self.demand.unit_bytes)

    @property
    def node_bytes(self) -> int:
        """Predicted peak memory of the node that needs most: that of rank 0."""
        reducing = predicted_peak_bytes(0) * self.local_ranks + self.demand.reduce_bytes
        return max(self.peak_bytes * self.local_ranks, reducing)

    @property
    def demand(self) -> Demand:
        """Memory beside the imports."""
        return demand_of(self.stages, self.ranks)

    @property
    def raw_bytes(self) -> int:
        """Bytes of the volumes written, before compression."""
        return sum(volume.raw_bytes for stage in self.stages for volume in stage.volumes)

    @property
    def disk_bytes(self) -> int:
        """Bytes of the volumes on disk (estimate)."""
        return sum(volume.disk_bytes for stage in self.stages for volume in stage.volumes)

    @property
    def files(self) -> int:
        """Files written, at the most."""
        shards = sum(volume.files for stage in self.stages for volume in stage.volumes)
        return shards + FILES_A_DATASET * len({stage.dataset for stage in self.stages}) + 2 * self.ranks

    @property
    def core_seconds(self) -> float:
        """Time on one core (estimate)."""
        return sum(stage.seconds for stage in self.stages)

    @property
    def wall_seconds(self) -> float:
        """Time on these ranks (estimate): no stage is shorter than its costliest unit."""
        total = LAUNCH_SECONDS
        for name in dict.fromkeys(stage.stage for stage in self.stages):
            wave = [stage for stage in self.stages if stage.stage == name]
            parallel = [stage for stage in wave if stage.units]
            work = sum(stage.seconds for stage in parallel)
            longest = max((s.seconds * s.largest_cost / s.cost for s in parallel if s.cost), default=0.0)
            total += max(work / self.ranks, longest) + longest * (1 - 1 / self.ranks) / 2
            total += sum(stage.seconds for stage in wave if not stage.units)
        return total

    @property
    def sbatch(self) -> list[str]:
        """Flags for Slurm."""
        flags = [f"--ntasks={self.ranks}"]
        if self.local_ranks < self.ranks:
            flags.append(f"--ntasks-per-node={self.local_ranks}")
        memory = math.ceil(self.node_bytes * MEMORY_MARGIN / _GIB)
        minutes = 5 * math.ceil((self.wall_seconds * TIME_MARGIN + TIME_MARGIN_S) / 300)
        return [
            *flags,
            "--cpus-per-task=1",
            f"--mem={memory}G",
            f"--time={minutes // 60}:{minutes % 60:02d}:00",
            "--signal=B:USR1@120",
            "--requeue",
        ]

    def as_dict(self) -> dict[str, Any]:
        """JSON-able, with the totals."""
        totals = ("peak_bytes", "raw_bytes", "disk_bytes", "files", "core_seconds", "wall_seconds", "sbatch")
        values = asdict(self) | {"output": str(self.output)}
        return values | {name: getattr(self, name) for name in totals}


def make_plan(
    campaign: Campaign, ranks: int = 1, local_ranks: int | None = None, limit: MemoryLimit | None = None
) -> CampaignPlan:
    """Plan a run.

    Parameters
    ----------
    campaign : Campaign
        What to run.
    ranks : int
        MPI ranks.
    local_ranks : int, optional
        Ranks that share a node's memory; all by default.
    limit : MemoryLimit, optional
        Memory of a node; by default the campaign's `memory_per_rank_gb`, or this machine's.

    Raises
    ------
    CampaignError
        If the numbers of ranks make no sense.
    """
    local_ranks = ranks if local_ranks is None else local_ranks
    if ranks < 1 or not 1 <= local_ranks <= ranks:
        raise CampaignError(
            f"found {ranks} ranks, {local_ranks} of them a node; expected 1 or more ranks, and from 1 to all "
            "of them a node"
        )
    plan = CampaignPlan(campaign.name, campaign.output, ranks, local_ranks, notes=list(campaign.warnings))
    opened: dict[str, Any] = {}
    for dataset in in_order(campaign.datasets):
        plan.pipelines[dataset.name] = dataset.pipeline
        try:
            check_input_exists(dataset)
            plan.stages += estimate(campaign, dataset, ranks, opened)
        except (ValueError, OSError) as error:
            plan.refused[dataset.name] = f"dataset {dataset.name}: {error}"
    if (campaign.output / JOURNALS).is_dir():
        _take_into_account(plan, replay(campaign.output))
    _check_memory(plan, campaign, limit)
    _check_disk(plan)
    if not plan.stages:
        plan.fits, plan.refusal = False, "no dataset of the campaign can be used"
    return plan


def estimate(
    campaign: Campaign, dataset: Dataset, ranks: int = 1, others: dict[str, Any] | None = None
) -> list[StageNeeds]:
    """What the stages of one dataset will need, from its header alone.

    Parameters
    ----------
    campaign, dataset
        Whose.
    ranks : int
        That share the work.
    others : dict of str to state, optional
        Datasets before it, whose results it may read; the dataset joins them.

    Raises
    ------
    ValueError, OSError
        If the dataset cannot be used; one sentence.
    """
    pipeline = PIPELINES[dataset.pipeline]
    others = {} if others is None else others
    state = pipeline.open_dataset(dataset, campaign.output, campaign.run, Place(ranks=ranks), others)
    others[dataset.name] = state
    return pipeline.expect(state, pipeline.stages(state))


def _take_into_account(plan: CampaignPlan, ledger: LedgerState) -> None:
    """Put measured rates in the place of assumed ones, and leave out the time of what is done."""
    rates = _measured_rates(plan.output, ledger)
    stages = []
    done: dict[str, int] = defaultdict(int)
    for needs in plan.stages:
        known = ledger.stages.get((needs.dataset, needs.stage))
        seconds = needs.cost / rates[needs.stage] if needs.stage in rates else needs.seconds
        units = needs.units
        if known is not None:
            units = len(known.units)  # a stage that has begun keeps its units
            done[needs.stage] += len(known.done)
            cost = sum(unit.cost for unit in known.units)
            left = sum(unit.cost for unit in known.units if unit.index not in known.done)
            seconds *= left / cost if cost else float(known.reduced is None)
        stages.append(replace(needs, units=units, seconds=seconds))
    plan.stages, plan.done, plan.measured = stages, dict(done), sorted(rates)


def _measured_rates(output: Path, ledger: LedgerState) -> dict[str, float]:
    """Cost a second and rank of each stage, over all launches into the folder."""
    costs: dict[str, float] = defaultdict(float)
    seconds: dict[str, float] = defaultdict(float)
    for event in read_events(output / TELEMETRY):
        if event["kind"] != "unit":
            continue
        known = ledger.stages.get((event["dataset"], event["stage"]))
        if known is not None and event["unit"] < len(known.units):
            costs[event["stage"]] += known.units[event["unit"]].cost
            seconds[event["stage"]] += event["seconds"] + event["commit_s"]
    return {stage: costs[stage] / seconds[stage] for stage in costs if seconds[stage] and costs[stage]}


def _check_memory(plan: CampaignPlan, campaign: Campaign, limit: MemoryLimit | None) -> None:
    if limit is None and campaign.run.memory_per_rank_gb:
        allowed = int(campaign.run.memory_per_rank_gb * 1e9) * plan.local_ranks
        limit = MemoryLimit(allowed, "memory_per_rank_gb for these ranks")
    limit = memory_limit() if limit is None else limit
    plan.memory_limit_bytes = limit.bytes
    try:
        check_fits(plan.demand, plan.local_ranks, limit)
    except PlanDoesNotFit as refusal:
        plan.fits, plan.refusal = False, str(refusal)


def _check_disk(plan: CampaignPlan) -> None:
    folder = next(path for path in (plan.output, *plan.output.parents) if path.is_dir())
    plan.free_disk_bytes = shutil.disk_usage(folder).free
    if not os.access(folder, os.W_OK):
        plan.notes.append(f"{folder} cannot be written: choose another with --set campaign.output=FOLDER")
    if plan.disk_bytes > plan.free_disk_bytes and not plan.done:
        plan.notes.append(
            f"the results need about {bytes_text(plan.disk_bytes)}, but {bytes_text(plan.free_disk_bytes)} "
            f"are free in {folder}: free some, or choose another output folder"
        )


def render_plan(plan: CampaignPlan, every: bool = False) -> Group:
    """What a person sees of a plan: a table, the totals, the flags for Slurm.

    Parameters
    ----------
    plan : CampaignPlan
    every : bool
        Every stage of every dataset, however many there are.
    """
    rows = [_row(stage) for stage in plan.stages]
    if not every and len({row.dataset for row in rows}) > MANY:
        rows = fold_plan(rows, [plan.pipelines[row.dataset] for row in rows])
    lines = [Text(f"set aside: {sentence}") for sentence in plan.refused.values()]
    table = [plan_table(rows)] if rows else []
    return Group(
        Text(f"{plan.name}: {_ranks(plan)}, results in {plan.output}"),
        *table,
        *lines,
        *[Text(line) for line in _totals(plan)],
        *[Text(note) for note in plan.notes],
    )


def _ranks(plan: CampaignPlan) -> str:
    ranks = "1 rank" if plan.ranks == 1 else f"{plan.ranks} ranks"
    return ranks if plan.local_ranks == plan.ranks else f"{ranks}, {plan.local_ranks} a node"


def _row(needs: StageNeeds) -> PlanRow:
    note = ""
    if needs.read_amplification > SAID_AMPLIFICATION:
        note = f"decodes its input {needs.read_amplification:.2f} times"
    return PlanRow(
        needs.dataset,
        needs.stage,
        needs.units,
        predicted_peak_bytes(needs.memory_bytes),
        sum(volume.disk_bytes for volume in needs.volumes) if needs.volumes else None,
        sum(volume.files for volume in needs.volumes) if needs.volumes else None,
        needs.seconds,
        note,
    )


def _totals(plan: CampaignPlan) -> Sequence[str]:
    if not plan.stages:
        return [plan.refusal]
    lines = [
        f"memory: {bytes_text(plan.peak_bytes)} a rank, {bytes_text(plan.node_bytes)} a node{_merging(plan)}"
        f"; the limit here is {bytes_text(plan.memory_limit_bytes)}",
        f"disk: about {bytes_text(plan.disk_bytes)} in at most {count_text(plan.files)} files "
        f"({bytes_text(plan.raw_bytes)} before compression); {bytes_text(plan.free_disk_bytes)} are free",
        f"time: about {seconds_text(plan.wall_seconds)} on {_ranks(plan)}, start and reports included: "
        f"{plan.wall_seconds * plan.ranks / 3600:.2g} core-hours ({_basis(plan)})",
        "flags for a job script such as that of docs/cluster.md, whose trap passes USR1 on:",
        "sbatch " + " ".join(plan.sbatch),
    ]
    return [*lines, f"refused: {plan.refusal}"] if plan.refusal else lines


def _merging(plan: CampaignPlan) -> str:
    """Said where rank 0 needs more to put results together than for a unit."""
    if plan.demand.reduce_bytes <= plan.demand.unit_bytes:
        return ""
    return f", of which rank 0 may need {bytes_text(plan.demand.reduce_bytes)} to put results together"


def _basis(plan: CampaignPlan) -> str:
    basis = "from rates measured in this folder" if plan.measured else "from assumed rates"
    done, units = sum(plan.done.values()), sum(stage.units for stage in plan.stages)
    if not done:
        return basis
    said = f"{count_text(done)} of {count_text(units)} units are done already"
    # What was changed since is found by the run, which reads the whole ledger for it.
    return f"{basis}; {said}" if done < units else f"{said}; what a change has done again is not counted"
