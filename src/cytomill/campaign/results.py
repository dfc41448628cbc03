"""What ran, gathered for the reports: plain data from ledger and telemetry."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from cytomill.reports.data import SetAside, StageTiming
from cytomill.runtime.ledger import LedgerState


def units_set_aside(ledger: LedgerState, attempts: int) -> list[SetAside]:
    """Every unit that was given up, with its last error."""
    rows = []
    for stage in ledger.stages.values():
        for unit in stage.set_aside(attempts):
            region = ", ".join(f"{axis} {a}–{b}" for axis, (a, b) in zip("zyx", stage.units[unit].region))
            errors = stage.failures[unit]
            rows.append(SetAside(stage.stage, region, len(errors), errors[-1], stage.dataset))
    return rows


def stage_timings(events: Iterable[Mapping[str, Any]]) -> dict[str, list[StageTiming]]:
    """Timings of every dataset, and of all under the empty name, from the telemetry of all launches.

    The wall time of a stage is from its first unit's beginning to its last unit's end, launch by launch.
    """
    busy: dict[tuple[str, str], dict[int, float]] = defaultdict(lambda: defaultdict(float))
    span: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(dict)
    units: dict[tuple[str, str], int] = defaultdict(int)
    written: dict[tuple[str, str], int] = defaultdict(int)
    voxels: dict[tuple[str, str], float] = defaultdict(float)
    peaks: dict[str, dict[int, int]] = defaultdict(dict)
    predicted: dict[str, int] = {}
    last_rank: dict[str, int] = defaultdict(int)
    for event in events:
        kind, rank = event["kind"], event["rank"]
        last_rank[event["launch"]] = max(last_rank[event["launch"]], rank)
        if kind == "unit":
            end, seconds = event["t"], event["seconds"] + event["commit_s"]
            for dataset in (event["dataset"], ""):
                key = (dataset, event["stage"])
                units[key] += 1
                busy[key][rank] += seconds
                written[key] += event["bytes"]
                voxels[key] += event.get("voxels", 0)
                first_last = span[key].setdefault(event["launch"], [end - seconds, end])
                first_last[0] = min(first_last[0], end - seconds)
                first_last[1] = max(first_last[1], end)
        elif kind in ("stage", "reduce"):
            for stage in event.get("stages") or [event["stage"]]:
                peaks[stage][rank] = max(peaks[stage].get(rank, 0), event["peak_bytes"])
                predicted[stage] = max(predicted.get(stage, 0), event["predicted_bytes"])
    timings: dict[str, list[StageTiming]] = defaultdict(list)
    for dataset, stage in units:
        key = (dataset, stage)
        # A rank that found no unit left was idle all the same.
        ranks = range(max(last_rank[launch] for launch in span[key]) + 1)
        timings[dataset].append(
            StageTiming(
                name=stage,
                units=units[key],
                seconds=sum(last - first for first, last in span[key].values()),
                busy_seconds=[busy[key].get(rank, 0.0) for rank in ranks],
                voxels=int(voxels[key]),
                bytes_written=written[key],
                peak_memory_bytes=[peaks[stage][rank] for rank in sorted(peaks[stage])],
                predicted_bytes=predicted.get(stage),
            )
        )
    for dataset, rows in timings.items():
        began = {row.name: min(first for first, _ in span[dataset, row.name].values()) for row in rows}
        rows.sort(key=lambda row, began=began: began[row.name])
    return dict(timings)


def run_seconds(events: Iterable[Mapping[str, Any]]) -> float:
    """Wall time of all launches together, each from its first event to its last."""
    spans: dict[str, list[float]] = {}
    for event in events:
        span = spans.setdefault(event["launch"], [event["t"], event["t"]])
        span[0], span[1] = min(span[0], event["t"]), max(span[1], event["t"])
    return sum(last - first for first, last in spans.values())
