"""Who holds a campaign's lock: which process of which host, and whether it still runs."""

from __future__ import annotations

import json
import os
import platform
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cytomill.runtime.peers import process_start

LOCK = "campaign.lock"

#: Seconds between heartbeats, and how many may be missed before an owner out of sight is taken for dead.
PERIOD_S, PERIODS = 10.0, 3


def read_or_empty(read: Callable[[], str]) -> str:
    """What `read` returns, stripped; empty where the file system refuses."""
    try:
        return read().strip()
    except OSError:
        return ""


def identity(launch: str) -> dict[str, Any]:
    """What a lock says of its owner; `token` tells this lock from every other."""
    pid = os.getpid()
    return {
        "host": platform.node(),
        "boot": read_or_empty(Path("/proc/sys/kernel/random/boot_id").read_text),
        "pid_namespace": read_or_empty(lambda: os.readlink("/proc/self/ns/pid")),
        "pid": pid,
        "started": process_start(pid),
        "launch": launch,
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
        "slurm_job": os.environ.get("SLURM_JOB_ID", ""),
        "slurm_restarts": int(os.environ.get("SLURM_RESTART_COUNT") or 0),
        "token": uuid.uuid4().hex,
    }


def process_identity() -> dict[str, Any]:
    """What tells this process from every other: host, boot, namespace, pid and when it began."""
    me = identity("")
    return {key: me[key] for key in ("host", "boot", "pid_namespace", "pid", "started")}


def who(owner: dict[str, Any]) -> str:
    """An owner in words."""
    return (
        f"host {owner.get('host', '?')}, pid {owner.get('pid', '?')}, "
        f"launch {owner.get('launch', '?')}, since {owner.get('since', '?')}"
    )


def process_alive(owner: dict[str, Any], me: dict[str, Any]) -> bool | None:
    """Whether the owner's process runs; None where it cannot be seen from here."""
    if not me["boot"] or any(owner.get(k) != me[k] for k in ("host", "boot", "pid_namespace")):
        return None
    started = process_start(int(owner.get("pid", 0)))
    return started is not None and started == owner.get("started")


@dataclass(frozen=True)
class Owner:
    """Who holds a campaign's lock, as far as it can be told without waiting.

    Parameters
    ----------
    text : str
        Host, pid, launch and since when.
    launch : str
        Name of the launch.
    alive : bool
        Whether it runs: by its process where that can be seen, else by the age of its heartbeat.
    """

    text: str
    launch: str
    alive: bool


def read_lock(path: Path) -> tuple[dict[str, Any] | None, str]:
    """Return the owner in a lock file and its whole text; None where there is no lock."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None, ""
    try:
        owner = json.loads(text.partition("\n")[0])
    except ValueError:
        owner = None
    # A lock that cannot be read has an owner too, who is judged by the heartbeat.
    return (owner if isinstance(owner, dict) else {}), text


def read_owner(folder: Path) -> Owner | None:
    """Return who holds the lock of a campaign's folder, None where nobody does; takes and changes nothing."""
    path = Path(folder) / LOCK
    try:
        owner, _ = read_lock(path)
        age_s = time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return None
    if owner is None:
        return None
    alive = process_alive(owner, identity(""))
    if alive is None:
        # Clocks of two nodes differ by seconds at most where jobs run at all: twice the patience is enough.
        alive = age_s < 2 * PERIODS * PERIOD_S
    return Owner(who(owner), str(owner.get("launch", "")), alive)
