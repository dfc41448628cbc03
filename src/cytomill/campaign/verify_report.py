"""What `cytomill verify` finds, and how it says it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cytomill.reports.quantities import bytes_text, number_of, seconds_text


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
            f"checked {number_of(self.shards, 'shard')}, {number_of(self.results, 'result')} and "
            f"{number_of(self.files, 'file')} ({bytes_text(self.bytes)}) in {seconds_text(self.seconds)}"
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
        found = number_of(len(self.problems), "problem")
        if not any(problem.mendable for problem in self.problems):
            return found
        again = f"{number_of(len(self.units), 'unit')} and {number_of(len(self.reductions), 'reduction')}"
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
