"""Stages without biology, and an engine of one rank for them."""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from cytomill.runtime.engine import Engine
from cytomill.runtime.journals import next_launch
from cytomill.runtime.ledger import Journal, replay
from cytomill.runtime.memory import MemoryLimit, Share
from cytomill.runtime.planning import Policy
from cytomill.runtime.ranks import SoloWorld
from cytomill.runtime.stage import Arrays, DatasetRefused, Stage, Unit, UnitOutput
from cytomill.runtime.telemetry import Telemetry

MB = 10**6


class ToyStage(Stage):
    """Units of `depth` slices each; a slice's value is its square, and the reduction their list.

    Parameters
    ----------
    fail : callable, optional
        ``(unit, how often it was called before) -> whether it fails``.
    """

    def __init__(
        self,
        dataset: str = "d",
        name: str = "s",
        slices: int = 6,
        depth: int = 1,
        fields: dict | None = None,
        fail: Callable[[int, int], bool] = lambda unit, before: False,
        refuse: str = "",
    ) -> None:
        self.dataset, self.name = dataset, name
        self.slices, self.depth, self.given = slices, depth, fields or {}
        self.fail, self.refuse = fail, refuse
        self.calls: list[int] = []
        self.prepared = 0
        self.accepted: Arrays | None = None
        self.reductions = 0

    def fields(self) -> dict:
        return self.given

    def units(self) -> list[Unit]:
        starts = range(0, self.slices, self.depth)
        regions = [((z, min(z + self.depth, self.slices)),) for z in starts]
        return [Unit(i, region, float(region[0][1] - region[0][0])) for i, region in enumerate(regions)]

    def memory_bytes(self, units: Sequence[Unit]) -> int:
        return MB * max((unit.region[0][1] - unit.region[0][0] for unit in units), default=0)

    def check_unit_table(self, units: Sequence[Unit]) -> None:
        if self.given.get("misaligned"):
            raise ValueError(f"{self.name}: units are not aligned")

    def prepare(self, rank: int) -> None:
        self.prepared += 1
        if self.refuse:
            raise DatasetRefused(self.refuse)

    def process(self, unit: Unit) -> UnitOutput:
        self.calls.append(unit.index)
        if self.fail(unit.index, self.calls.count(unit.index) - 1):
            raise RuntimeError(f"bad unit {unit.index}")
        return UnitOutput({"squares": np.arange(*unit.region[0]) ** 2})

    def reduce(self, partials: Arrays) -> Arrays:
        self.reductions += 1
        return partials

    def accept(self, result: Arrays) -> None:
        self.accepted = result


def shares(*nodes: tuple[str, int, int], baseline: int = 100 * MB) -> list[Share]:
    """Shares of every rank of nodes given as (host, ranks, MB)."""
    return [
        Share(host, rank, ranks, MemoryLimit(limit * MB, f"the limit of {host}"), baseline)
        for host, ranks, limit in nodes
        for rank in range(ranks)
    ]


ROOMY = shares(("node", 1, 10**6))


def toy_engine(
    root: Path, policy: Policy | None = None, child: Callable[[str, str, int], Sequence[str]] | None = None
) -> Engine:
    """An engine of one rank for a new launch on what `root` holds."""
    policy = replace(policy or Policy(), memory=(policy or Policy()).memory or MemoryLimit(10**13, "a test"))
    launch = next_launch(root, f"toy-{os.getpid()}")
    telemetry = Telemetry(root / "telemetry", launch, 0)
    command = child or (lambda *unit: [sys.executable, "-c", "raise SystemExit('no child here')"])
    journal = Journal(root, launch, 0)
    return Engine(SoloWorld(), root, replay(root), journal, telemetry, policy, "auto", command)


def launch(root: Path, *waves: Sequence[Stage], policy: Policy | None = None, child=None) -> Engine:
    """Run waves of stages as one launch; whatever ends it ends its files too."""
    engine = toy_engine(root, policy, child)
    try:
        for wave in waves:
            engine.run_wave(wave)
    finally:
        engine.telemetry.close()
        engine.journal.close()
        engine.close()
    return engine


def journal_bytes(root: Path) -> dict[str, bytes]:
    """Content of every file of the ledger."""
    return {path.name: path.read_bytes() for path in sorted((root / "ledger").rglob("*")) if path.is_file()}
