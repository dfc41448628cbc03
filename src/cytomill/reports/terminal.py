"""Tables for the terminal: what `status` and `plan` print, also into a file."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import IO

from rich import box
from rich.console import Console, RenderableType
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from cytomill.reports.quantities import NOTHING, bytes_text, count_text, percent_text, seconds_text

_STATE_STYLES = {
    "done": "green",
    "running": "cyan",
    "waiting": "dim",
    "set aside": "bold red",
    "stopped": "yellow",
}


@dataclass
class StatusRow:
    """A stage's line of `status`.

    Parameters
    ----------
    dataset, stage : str
        Whose line it is.
    state : str
        ``waiting``, ``running``, ``done``, ``stopped`` or ``set aside``.
    done, total : int
        Units finished, and all.
    set_aside : int
        Units given up.
    bytes_per_second : float or None
        Present rate.
    seconds_left : float or None
        Estimated.
    """

    dataset: str
    stage: str
    state: str
    done: int = 0
    total: int = 0
    set_aside: int = 0
    bytes_per_second: float | None = None
    seconds_left: float | None = None


@dataclass
class PlanRow:
    """A stage's line of `plan`.

    Parameters
    ----------
    dataset, stage : str
        Whose line it is.
    units : int
        Units of work.
    memory_bytes : int or None
        Predicted peak memory a rank.
    disk_bytes : int or None
        Written at the most.
    files : int or None
        Files written at the most.
    seconds : float or None
        Estimated wall time.
    note : str
        For example a read amplification.
    """

    dataset: str
    stage: str
    units: int
    memory_bytes: int | None = None
    disk_bytes: int | None = None
    files: int | None = None
    seconds: float | None = None
    note: str = ""


#: Up to so many datasets a table has all stages of each; beyond, :func:`fold_status` and :func:`fold_plan`.
MANY = 8


def fold_status(rows: Sequence[StatusRow]) -> list[StatusRow]:
    """The same state in fewer lines: datasets that are equally far share one.

    Parameters
    ----------
    rows : sequence of StatusRow
        The stages of each dataset together, in order.

    Returns
    -------
    list of StatusRow
        A dataset's stage is the one that it is at. Datasets set aside have a line each.
    """
    groups: dict[tuple[str, str, str], list[tuple[StatusRow, str]]] = {}
    for dataset, stages in groupby(rows, key=lambda row: row.dataset):
        row = _where_it_is(list(stages))
        alone = dataset if row.state == "set aside" else ""
        groups.setdefault((row.stage, row.state, alone), []).append((row, dataset))
    return [
        replace(
            members[0][0],
            dataset=members[0][1] if len(members) == 1 else f"{count_text(len(members))} datasets",
            done=sum(row.done for row, _ in members),
            total=sum(row.total for row, _ in members),
            set_aside=sum(row.set_aside for row, _ in members),
            bytes_per_second=_of(sum, (row for row, _ in members), "bytes_per_second"),
            seconds_left=_of(max, (row for row, _ in members), "seconds_left"),
        )
        for members in groups.values()
    ]


def _where_it_is(stages: Sequence[StatusRow]) -> StatusRow:
    """The line of the stage that a dataset is at, or one of all its stages where they are alike."""
    states = {row.state for row in stages}
    if len(stages) > 1 and len(states) == 1 and states <= {"done", "waiting"}:
        done, total = sum(row.done for row in stages), sum(row.total for row in stages)
        return replace(stages[0], stage=f"all {len(stages)}", done=done, total=total)
    at = next((i for i, row in enumerate(stages) if row.state != "done"), 0)
    # What waits behind a stage that is done is at the next one, which has not begun.
    name = stages[at].stage
    return replace(stages[at], stage=f"{name}, {at + 1} of {len(stages)}" if name else "")


def fold_plan(rows: Sequence[PlanRow], kinds: Sequence[str]) -> list[PlanRow]:
    """One line a stage for all datasets of a kind: sums, and the largest memory.

    Parameters
    ----------
    rows : sequence of PlanRow
    kinds : sequence of str
        Of each row, the pipeline.
    """
    groups: dict[tuple[str, str], list[PlanRow]] = {}
    for kind, row in zip(kinds, rows, strict=True):
        groups.setdefault((kind, row.stage), []).append(row)
    datasets = {kind: len({r.dataset for k, r in zip(kinds, rows) if k == kind}) for kind in set(kinds)}
    return [
        PlanRow(
            f"{count_text(datasets[kind])} × {kind}",
            stage,
            sum(row.units for row in members),
            _of(max, members, "memory_bytes"),
            _of(sum, members, "disk_bytes"),
            _of(sum, members, "files"),
            _of(sum, members, "seconds"),
            _worst_note([row.note for row in members]),
        )
        for (kind, stage), members in sorted(groups.items(), key=lambda item: item[0][0])
    ]


def _worst_note(notes: Sequence[str]) -> str:
    """Notes of a stage differ by a number: the largest stands for all."""
    worst = max(notes, key=lambda note: (len(note), note))
    return f"{worst} at the most" if worst and len(set(notes)) > 1 else worst


def status_table(rows: Sequence[StatusRow]) -> Table:
    """A table of stages and their progress; each dataset is named once."""
    table = _table(
        ("Dataset", "left"),
        ("Stage", "left"),
        ("State", "left"),
        ("Units", "right"),
        ("Done", "right"),
        ("Set aside", "right"),
        ("Rate", "right"),
        ("Time left", "right"),
    )
    previous = None
    for row in rows:
        rate = NOTHING if row.bytes_per_second is None else f"{bytes_text(row.bytes_per_second)}/s"
        table.add_row(
            _name(row.dataset, previous),
            Text(row.stage),
            Text(row.state, style=_STATE_STYLES.get(row.state, "")),
            f"{count_text(row.done)}/{count_text(row.total)}",
            percent_text(row.done / row.total if row.total else None),
            Text(str(row.set_aside), style="bold red" if row.set_aside else "dim"),
            rate,
            seconds_text(row.seconds_left),
        )
        previous = row.dataset
    return table


def plan_table(rows: Sequence[PlanRow]) -> Table:
    """A table of what each stage needs, with totals; memory is a peak, so its total is the largest."""
    table = _table(
        ("Dataset", "left"),
        ("Stage", "left"),
        ("Units", "right"),
        ("Memory a rank", "right"),
        ("Disk", "right"),
        ("Files", "right"),
        ("Time", "right"),
        ("", "left"),
    )
    previous = None
    for row in rows:
        table.add_row(
            _name(row.dataset, previous),
            Text(row.stage),
            count_text(row.units),
            bytes_text(row.memory_bytes),
            bytes_text(row.disk_bytes),
            count_text(row.files),
            seconds_text(row.seconds),
            Text(row.note),
        )
        previous = row.dataset
    if len(rows) > 1:
        table.add_section()
        table.add_row(
            "total",
            "",
            count_text(sum(r.units for r in rows)),
            bytes_text(_of(max, rows, "memory_bytes")),
            bytes_text(_of(sum, rows, "disk_bytes")),
            count_text(_of(sum, rows, "files")),
            seconds_text(_of(sum, rows, "seconds")),
            "",
            style="bold",
        )
    return table


def print_renderable(table: RenderableType, file: IO[str] | None = None) -> None:
    """Print tables: fitted to a terminal, at full width and without colour codes anywhere else."""
    file = sys.stdout if file is None else file
    console = Console(file=file)
    if not console.is_terminal:
        wide = Console(file=file, width=10_000)
        width = Measurement.get(wide, wide.options, table).maximum
        console = Console(file=file, width=width, no_color=True, force_terminal=False)
    console.print(table)


def _table(*columns: tuple[str, str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading, justify in columns:
        table.add_column(heading, justify=justify, overflow="fold")
    return table


def _name(dataset: str, previous: str | None) -> Text:
    """Plain text: a dataset called ``[red]`` is not markup."""
    return Text("" if dataset == previous else dataset, style="bold")


def _of(merge, rows: Iterable[PlanRow | StatusRow], name: str):
    values = [getattr(row, name) for row in rows if getattr(row, name) is not None]
    return merge(values) if values else None
