"""Strong scaling of a campaign from one rank to two and more, one thread a rank, and what bookkeeping costs.

The same campaign is run afresh on every number of ranks; times are those of the ranks' own telemetry.
Outside its units a rank takes them from the shared counter, writes the ledger before and after each, makes
their shards durable, and waits for the others at a stage's end.  What that costs where there is nothing
to make durable is the bookkeeping, the same for a unit of any length.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from memory import Case, one_thread, write_stack

from cytomill.campaign.run import TELEMETRY
from cytomill.runtime.telemetry import read_events

#: 16 slabs and 16 blocks of 67 Mvoxel: enough units to share between two ranks.
CHUNKS = (1, 1024, 1024)
CASE = Case("scaling", (64, 4096, 4096), chunks=CHUNKS, shards=(4, 1024, 4096), block=(4, 4096, 4096))
QUICK = Case("scaling", (16, 1024, 1024), chunks=CHUNKS, shards=CHUNKS, block=(2, 1024, 1024))

#: What bookkeeping may take of the run where units take this long, s.
UNIT_S, BOOKKEEPING = 5.0, 0.001


@dataclass
class StageTime:
    """Times of one stage on all ranks, seconds.

    Parameters
    ----------
    wall : float
        Of the slowest rank.
    computing, committing, waiting : float
        Sums over all units: computing; shards and the ledger's line made durable; asking for the unit.
    units, written : int
        How many; bytes of their shards.
    """

    wall: float = 0.0
    computing: float = 0.0
    committing: float = 0.0
    waiting: float = 0.0
    units: int = 0
    written: int = 0


@dataclass
class Run:
    """One campaign on some ranks."""

    ranks: int
    seconds: float
    stages: dict[str, StageTime] = field(default_factory=dict)

    @property
    def in_stages(self) -> float:
        """Seconds from the first unit's stage to the last's, imports and reports left out."""
        return sum(stage.wall for stage in self.stages.values())


def run_campaign(stack: Path, ranks: int, case: Case, slices: int, folder: Path) -> Run:
    """Run the campaign afresh.

    Raises
    ------
    RuntimeError
        If it fails; with what it said.
    """
    folder.mkdir()
    (folder / "campaign.toml").write_text(
        f'[campaign]\noutput = "{folder / "results"}"\n'
        f"[run]\nslices_per_unit = {slices}\nblock = {list(case.block)}\n"
        f"[nanoparticles]\nshard_shape = {list(case.shards)}\n"
        f'[[dataset]]\nname = "stack"\ninput = "{stack}"\nvoxel_size_nm = [50.0, 10.0, 10.0]\n'
    )
    mpirun = Path(sys.executable).parent / "mpirun"
    command = [str(mpirun), "-n", str(ranks), sys.executable, "-m", "cytomill", "run"]
    began = time.monotonic()
    ran = subprocess.run(
        [*command, str(folder / "campaign.toml")],
        env=one_thread(),
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    if ran.returncode:
        raise RuntimeError(f"{ranks} ranks ended with {ran.returncode}: {ran.stderr.strip()}")
    return Run(ranks, time.monotonic() - began, stage_times(folder / "results"))


def stage_times(results: Path) -> dict[str, StageTime]:
    """Times of every stage that has units, from the telemetry of all ranks."""
    stages: dict[str, StageTime] = defaultdict(StageTime)
    walls: dict[str, float] = {}
    for event in read_events(results / TELEMETRY):
        if event["kind"] == "unit":
            stage = stages[event["stage"]]
            stage.units += 1
            stage.computing += event["seconds"]
            stage.committing += event["commit_s"]
            stage.waiting += event["wait_s"]
            stage.written += event["bytes"]
        elif event["kind"] == "stage":
            name = ", ".join(event["stages"])
            walls[name] = max(walls.get(name, 0.0), event["seconds"])
    for name, stage in stages.items():
        stage.wall = walls[name]
    return dict(stages)


def scaling_table(runs: Sequence[Run]) -> list[str]:
    """Seconds a stage on every number of ranks, and the efficiency against the first run; Markdown."""
    first = runs[0]
    heads = [f"{run.ranks} rank{'s' if run.ranks > 1 else ''} s" for run in runs]
    heads += [f"efficiency at {run.ranks}" for run in runs[1:]]
    lines = [f"| stage | units | {' | '.join(heads)} |", "|---|--:|" + "--:|" * len(heads)]
    rows = [(name, s.units, [run.stages[name].wall for run in runs]) for name, s in first.stages.items()]
    units = sum(stage.units for stage in first.stages.values())
    rows.append(("**all stages**", units, [run.in_stages for run in runs]))
    rows.append(("whole command", "", [run.seconds for run in runs]))
    for name, count, walls in rows:
        cells = [f"{wall:.2f}" for wall in walls]
        for run, wall in zip(runs[1:], walls[1:]):
            cells.append(f"{walls[0] * first.ranks / (wall * run.ranks):.2f}" if wall else "")
        lines.append(f"| {name} | {count} | {' | '.join(cells)} |")
    return lines


def bookkeeping_table(runs: Sequence[Run]) -> list[str]:
    """What a unit costs beside its computing, and its share of a run of units of 5 s; Markdown.

    The share is judged where a unit writes no shards: elsewhere it is the disk that is waited for.
    """
    lines = [
        "| ranks | stage | computing ms a unit | shards and ledger durable ms | taking a unit ms | rest ms "
        f"| share at {UNIT_S:g} s a unit |",
        "|--:|---|--:|--:|--:|--:|--:|",
    ]
    for run in runs:
        for name, stage in run.stages.items():
            rest = max(stage.wall * run.ranks - stage.computing - stage.committing - stage.waiting, 0.0)
            outside = (stage.committing + stage.waiting + rest) / stage.units
            share = outside / (UNIT_S + outside)
            verdict = "" if stage.written else " ✓" if share < BOOKKEEPING else " ✗"
            figures = (stage.computing, stage.committing, stage.waiting, rest)
            cells = " | ".join(f"{1e3 * value / stage.units:.2f}" for value in figures)
            lines.append(f"| {run.ranks} | {name} | {cells} | {share:.3%}{verdict} |")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--quick", action="store_true", help="a small stack, to see whether it runs")
    parser.add_argument("--folder", type=Path, help="where stack and results lie meanwhile (5 GB)")
    options = parser.parse_args()
    case = QUICK if options.quick else CASE
    slices = max(case.shape[0] // 16, 1)
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
        folder = Path(scratch)
        stack = write_stack(case, folder)
        load = os.getloadavg()[0]
        # Once to compile the kernels and bring the stack into the page cache.
        run_campaign(stack, 1, case, slices, folder / "warm")
        runs = [run_campaign(stack, n, case, slices, folder / f"ranks-{n}") for n in options.ranks]
    shape = "×".join(map(str, case.shape))
    print(
        f"{shape} uint8, one thread a rank, {os.cpu_count()} cores, load {load:.1f} at the start.\n\n"
        + "\n".join(scaling_table(runs))
        + "\n\n"
        + "\n".join(bookkeeping_table(runs))
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
