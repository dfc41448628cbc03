"""Timing, and the table of what was timed, for the benchmarks."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cytomill.runtime.telemetry import peak_memory_bytes, reset_peak_memory, resident_bytes

#: Copying speed of the machine that the targets were set for, GB/s.
REFERENCE_COPY_GBS = 10.9


@dataclass(frozen=True)
class Timing:
    """Times of repeated runs over the same number of voxels."""

    voxels: int
    seconds: tuple[float, ...]

    @property
    def rate(self) -> float:
        """Voxels a second of the best run."""
        return self.voxels / min(self.seconds)

    @property
    def median_rate(self) -> float:
        """Voxels a second of the median run."""
        return self.voxels / statistics.median(self.seconds)


@dataclass(frozen=True)
class Row:
    """One line of the table: what was measured, what is asked for, what bounds it (Mvoxel/s)."""

    stage: str
    plain: Timing
    cytomill: Timing
    target: float | None = None
    limit: str = ""
    limit_rate: float | None = None


def timed(voxels: int, run: Callable[[], Any], repeats: int) -> Timing:
    """Run several times; the result of each run is dropped before the next."""
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        result = run()
        seconds.append(time.perf_counter() - began)
        del result
    return Timing(voxels, tuple(seconds))


def copy_rate(repeats: int = 7, megabytes: int = 256) -> float:
    """Bytes a second at which one thread copies memory."""
    source = np.ones(megabytes << 20, np.uint8)
    target = np.empty_like(source)
    target[:] = 0
    return timed(source.size, lambda: np.copyto(target, source), repeats).rate


def peak_of(run: Callable[[], Any]) -> int:
    """Bytes by which the process grows at the most while `run` runs."""
    before = resident_bytes()
    reset_peak_memory()
    result = run()
    peak = peak_memory_bytes() - before
    del result
    return peak


def rows_table(rows: Sequence[Row], copy: float) -> list[str]:
    """The table of speed as Markdown, Mvoxel/s: best (median)."""
    scale = REFERENCE_COPY_GBS * 1e9 / copy
    lines = [
        "| stage | plain | cytomill | ratio | target | scaled to "
        f"{REFERENCE_COPY_GBS} GB/s copy | limit | of the limit |",
        "|---|--:|--:|--:|--:|--:|---|--:|",
    ]
    for row in rows:
        slow, fast = (f"{t.rate / 1e6:.3g} ({t.median_rate / 1e6:.3g})" for t in (row.plain, row.cytomill))
        scaled = row.cytomill.rate / 1e6 * scale
        reached = row.target is not None and scaled >= row.target
        target = "" if row.target is None else f"≥ {row.target:g} {'✓' if reached else '✗'}"
        # A limit measured in this run is compared as it is, one from another machine after scaling.
        share = ""
        if row.limit_rate is not None:
            rate = row.cytomill.rate / 1e6 if "in this run" in row.limit else scaled
            share = f"{rate / row.limit_rate:.0%}"
        ratio = row.cytomill.rate / row.plain.rate
        cells = (row.stage, slow, fast, f"{ratio:.1f}", target, f"{scaled:.4g}", row.limit, share)
        lines.append(f"| {' | '.join(cells)} |")
    return lines
