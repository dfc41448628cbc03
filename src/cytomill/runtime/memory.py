"""The memory of a rank: its imports and one unit, compared with what the node allows.

A rank's peak is the import baseline plus the bytes of one unit; the volume's size is not in it. Beside them
stand the small results of all units, which the ranks hold and rank 0 alone puts together in the end.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from cytomill.runtime import launcher
from cytomill.runtime.telemetry import resident_bytes

#: Resident memory of a rank after its imports, for planning where no run has measured it.
PLANNING_BASELINE_BYTES = 460_000_000
#: What a process comes to hold after its imports beside its units: libraries loaded when a file first
#: needs them, results of stages, and what the allocator keeps.
LATE_BYTES = 48_000_000
#: cgroup v1 writes "no limit" as the largest multiple of the page size in 63 bits.
_NO_LIMIT = 1 << 60

_measured: int | None = None


class PlanDoesNotFit(ValueError):
    """The ranks of a node would need more memory than the node allows."""


@dataclass(frozen=True)
class Demand:
    """Memory that the stages of a wave need above the import baseline.

    Parameters
    ----------
    unit_bytes : int
        On every rank: the largest unit, and the partial results that it holds meanwhile.
    reduce_bytes : int
        On rank 0 alone, when the units are done.
    """

    unit_bytes: int = 0
    reduce_bytes: int = 0

    @classmethod
    def of_wave(cls, stages: Iterable[tuple[int, int, int]], ranks: int) -> Demand:
        """Demand of stages that run together, given as bytes of (a unit, all partial results, the reduction).

        The units of a stage are shared evenly, as far as one can tell before.
        """
        stages = list(stages)
        held = sum(partial for _, partial, _ in stages) // ranks
        unit, reduction = (max((stage[i] for stage in stages), default=0) for i in (0, 2))
        return cls(unit + held, reduction and reduction + held)

    def __or__(self, other: Demand) -> Demand:
        """Demand of both, one after the other."""
        return Demand(max(self.unit_bytes, other.unit_bytes), max(self.reduce_bytes, other.reduce_bytes))


@dataclass(frozen=True)
class MemoryLimit:
    """How much memory the ranks of this node may use together.

    Parameters
    ----------
    bytes : int
        The limit.
    source : str
        What sets it, in words.
    """

    bytes: int
    source: str


@dataclass(frozen=True)
class Share:
    """One rank's share of its node's memory.

    Parameters
    ----------
    host : str
        Name of the node.
    local_rank, local_ranks : int
        The rank among the ranks of the node.
    limit : MemoryLimit
        What these may use together.
    baseline_bytes : int
        What a rank holds before its first unit.
    """

    host: str
    local_rank: int
    local_ranks: int
    limit: MemoryLimit
    baseline_bytes: int

    def needed_bytes(self, unit_bytes: int) -> int:
        """Bytes that all ranks of the node need with one unit each."""
        return self.local_ranks * (self.baseline_bytes + unit_bytes)

    def fitting_children(self, unit_bytes: int) -> int:
        """How many ranks of the node may run a unit in a process of its own at one time.

        Such a process has a baseline too, beside that of the rank that waits for it.
        """
        spare = self.limit.bytes - self.local_ranks * self.baseline_bytes
        return max(0, min(self.local_ranks, spare // (self.baseline_bytes + unit_bytes)))


def measure_baseline() -> int:
    """Measure this process's baseline in bytes: what is resident after the imports, and what comes late."""
    global _measured
    _measured = resident_bytes() + LATE_BYTES
    return _measured


def baseline_bytes() -> int:
    """Return the measured baseline in bytes, the planning figure where nothing was measured."""
    return PLANNING_BASELINE_BYTES if _measured is None else _measured


def predicted_peak_bytes(unit_bytes: int) -> int:
    """Return the predicted peak of a rank whose units need `unit_bytes` above the baseline."""
    return baseline_bytes() + int(unit_bytes)


def _read_limit(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() and int(text) < _NO_LIMIT else None


def _cgroup_limit(proc: Path, mount: Path) -> int | None:
    """Return the least limit of this process's control group and the groups above it."""
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return None
    limits = []
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if not controllers:
            roots, name = (mount, mount / "unified"), "memory.max"
        elif "memory" in controllers.split(","):
            roots, name = (mount / "memory",), "memory.limit_in_bytes"
        else:
            continue
        relative = PurePosixPath(group.lstrip("/"))
        for root in roots:
            for folder in (relative, *relative.parents):
                limit = _read_limit(root / folder / name)
                if limit is not None:
                    limits.append(limit)
    return min(limits, default=None)


def _meminfo(proc: Path) -> dict[str, int]:
    fields = {}
    for line in (proc / "meminfo").read_text().splitlines():
        name, _, value = line.partition(":")
        words = value.split()
        if words and words[0].isdecimal():
            fields[name] = int(words[0]) * 1024
    return fields


def _slurm_limit() -> int | None:
    """Return what Slurm granted on this node; its variables are in MiB, 0 meaning the whole node."""
    per_node = launcher.positive_int("SLURM_MEM_PER_NODE")
    if per_node:
        return per_node << 20
    per_cpu = launcher.positive_int("SLURM_MEM_PER_CPU")
    cpus = launcher.positive_int("SLURM_CPUS_ON_NODE")
    return (per_cpu * cpus) << 20 if per_cpu and cpus else None


def memory_limit(proc: Path = Path("/proc"), mount: Path = Path("/sys/fs/cgroup")) -> MemoryLimit:
    """Return how much memory the ranks of this node may use together, and what says so.

    The least of the control groups' limits, Slurm's grant and the node's memory; where neither of
    the first two exists, the memory that is free now.
    """
    memory = _meminfo(proc)
    total = MemoryLimit(memory["MemTotal"], "this node's memory")
    found = [
        MemoryLimit(limit, source)
        for limit, source in (
            (_cgroup_limit(proc, mount), "the control group's limit"),
            (_slurm_limit(), "Slurm's grant"),
        )
        if limit is not None
    ]
    if not found and "MemAvailable" in memory:
        return MemoryLimit(memory["MemAvailable"], "the memory free on this node")
    return min([*found, total], key=lambda limit: limit.bytes)


def memory_limit_bytes() -> int:
    """Return how many bytes the ranks of this node may use together."""
    return memory_limit().bytes


def own_share(local_rank: int, local_ranks: int, limit: MemoryLimit | None = None) -> Share:
    """Return this rank's share of its node's memory; `limit` takes the place of what the machine says."""
    limit = memory_limit() if limit is None else limit
    return Share(platform.node(), local_rank, local_ranks, limit, baseline_bytes())


def check_fits(demand: Demand, local_ranks: int, limit: MemoryLimit | None = None) -> None:
    """Refuse a plan whose ranks cannot fit on this node.

    Parameters
    ----------
    demand : Demand
    local_ranks : int
        Ranks on this node.
    limit : MemoryLimit, optional
        This node's by default.

    Raises
    ------
    PlanDoesNotFit
        If they need more than the limit.
    """
    check_shares_fit(demand, [own_share(0, local_ranks, limit)])


def check_shares_fit(demand: Demand, shares: Sequence[Share]) -> None:
    """Refuse a plan whose ranks cannot fit on one of their nodes; names the one with the least room.

    Parameters
    ----------
    demand : Demand
    shares : sequence of Share
        One a node, or one a rank; that of rank 0 first.

    Raises
    ------
    PlanDoesNotFit
        If the ranks of a node need more than its limit.
    """
    unit_bytes = demand.unit_bytes
    share = min(shares, key=lambda share: share.limit.bytes - share.needed_bytes(unit_bytes))
    needed = share.needed_bytes(unit_bytes)
    if needed <= share.limit.bytes:
        _check_reduction_fits(demand.reduce_bytes, shares[0])
        return
    fitting = share.limit.bytes // (share.baseline_bytes + unit_bytes)
    spare = share.limit.bytes // share.local_ranks - share.baseline_bytes
    ways = []
    if fitting >= 1:
        ways.append(f"start at most {fitting} a node")
    if spare > 0:
        ways.append(f"make the units smaller (at most {spare / 1e6:.0f} MB each)")
    ways.append("ask for more memory")
    ranks = "1 rank needs" if share.local_ranks == 1 else f"{share.local_ranks} ranks need"
    raise PlanDoesNotFit(
        f"{ranks} {needed / 1e9:.2f} GB on {share.host} "
        f"({share.baseline_bytes / 1e6:.0f} MB of imports and {unit_bytes / 1e6:.0f} MB for a unit each), "
        f"but {share.limit.source} is {share.limit.bytes / 1e9:.2f} GB: {', or '.join(ways)}"
    )


def _check_reduction_fits(reduce_bytes: int, share: Share) -> None:
    needed = share.needed_bytes(0) + reduce_bytes
    if needed > share.limit.bytes:
        raise PlanDoesNotFit(
            f"rank 0 needs {reduce_bytes / 1e9:.2f} GB to put the results of all units together, "
            f"{needed / 1e9:.2f} GB on {share.host} with the imports of its ranks "
            f"({share.local_ranks} x {share.baseline_bytes / 1e6:.0f} MB), but {share.limit.source} is "
            f"{share.limit.bytes / 1e9:.2f} GB: start fewer ranks a node, or ask for more memory"
        )
