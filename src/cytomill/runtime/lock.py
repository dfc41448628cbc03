"""One launch at a time works on a campaign: a lock file with a heartbeat, on any shared file system.

The lock is made by a hard link, which fails where one exists, also on network file systems. Whether
its owner lives is judged by process where that can be seen from here, by Slurm's restart count where
the job is the same, and by the heartbeat elsewhere: it is watched for changes, because the clocks of
two nodes cannot be compared.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cytomill.runtime.peers import process_start
from cytomill.storage.durable import write_atomic

log = logging.getLogger(__name__)

_PERIODS = 3
#: How long ranks of a dead launch may take to die: a launcher ends them within seconds.
_SURVIVORS_S = 20.0
_BEAT_DIGITS = 20


class CampaignLocked(RuntimeError):
    """Another launch works on the campaign, or has taken it over from this one."""


def _read_or_empty(read: Callable[[], str]) -> str:
    try:
        return read().strip()
    except OSError:
        return ""


def _identity(launch: str) -> dict[str, Any]:
    pid = os.getpid()
    return {
        "host": platform.node(),
        "boot": _read_or_empty(Path("/proc/sys/kernel/random/boot_id").read_text),
        "pid_namespace": _read_or_empty(lambda: os.readlink("/proc/self/ns/pid")),
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
    me = _identity("")
    return {key: me[key] for key in ("host", "boot", "pid_namespace", "pid", "started")}


def _who(owner: dict[str, Any]) -> str:
    return (
        f"host {owner.get('host', '?')}, pid {owner.get('pid', '?')}, "
        f"launch {owner.get('launch', '?')}, since {owner.get('since', '?')}"
    )


def _process_alive(owner: dict[str, Any], me: dict[str, Any]) -> bool | None:
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


def read_owner(folder: Path) -> Owner | None:
    """Return who holds the lock of a campaign's folder, None where nobody does; takes and changes nothing."""
    lock = CampaignLock(folder, "")
    try:
        owner, _ = lock._read()
        age_s = time.time() - lock.path.stat().st_mtime
    except FileNotFoundError:
        return None
    if owner is None:
        return None
    alive = _process_alive(owner, _identity(""))
    if alive is None:
        # Clocks of two nodes differ by seconds at most where jobs run at all: twice the patience is enough.
        alive = age_s < 2 * _PERIODS * lock.period_s
    return Owner(_who(owner), str(owner.get("launch", "")), alive)


class CampaignLock:
    """The lock of one campaign folder.

    Parameters
    ----------
    folder : Path
        The campaign's folder.
    launch : str
        Name of this launch.
    period_s : float
        Seconds between heartbeats; an owner out of sight is dead after three without one.
    notify : callable, optional
        Called with a sentence when the owner's heartbeat has to be watched, which takes a while.
    """

    def __init__(
        self,
        folder: Path,
        launch: str,
        period_s: float = 10.0,
        notify: Callable[[str], None] | None = None,
    ) -> None:
        self.path = Path(folder) / "campaign.lock"
        self.launch = str(launch)
        self.period_s = period_s
        self._notify = notify
        self._me: dict[str, Any] = {}
        self._descriptor = -1
        self._beat_offset = 0
        self._beats = 0
        self._last_beat = 0.0
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def acquire(self) -> str | None:
        """Take the lock and keep its heart beating.

        Returns
        -------
        str or None
            A sentence where the lock of a dead owner was taken over.

        Raises
        ------
        CampaignLocked
            If another launch holds it; names host, pid, launch and since when.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._me = _identity(self.launch)
        head = json.dumps(self._me, sort_keys=True) + "\n"
        self._beat_offset = len(head.encode())
        mine = self.path.with_name(f"{self.path.name}.{self._me['token']}")
        with open(mine, "w", encoding="utf-8") as file:
            file.write(head + "0" * _BEAT_DIGITS + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            sentence = self._enter(mine)
            self._descriptor = os.open(self.path, os.O_RDWR)
        finally:
            mine.unlink(missing_ok=True)
        try:
            self._wait_for_survivors()
        except CampaignLocked:
            os.close(self._descriptor)
            self._descriptor = -1
            self.path.unlink()
            raise
        self._ended.clear()
        self._last_beat = time.monotonic()
        self._thread = threading.Thread(target=self._keep_beating, name="campaign lock", daemon=True)
        self._thread.start()
        return sentence

    @property
    def _ranks_path(self) -> Path:
        return self.path.with_name("campaign.ranks")

    def record_ranks(self, ranks: list[dict[str, Any]]) -> None:
        """Write down every rank's process, so that a later launch can wait for survivors of this one.

        Parameters
        ----------
        ranks : list of dict
            What :func:`process_identity` returned on each rank.
        """
        write_atomic(self._ranks_path, json.dumps(ranks).encode())

    def _wait_for_survivors(self) -> None:
        """Wait until the ranks of the launch before are gone: one still writes the shard in its hand.

        Raises
        ------
        CampaignLocked
            If one of them still runs on this node after some time.
        """
        try:
            ranks = json.loads(self._ranks_path.read_text())
        except (FileNotFoundError, ValueError):
            return
        deadline = time.monotonic() + _SURVIVORS_S
        while alive := [rank["pid"] for rank in ranks if _process_alive(rank, self._me)]:
            if time.monotonic() > deadline:
                raise CampaignLocked(
                    f"processes {', '.join(map(str, alive))} of the launch before still run on this host "
                    "although its first rank is gone: end them, then run again"
                )
            time.sleep(0.1)

    def _enter(self, mine: Path) -> str | None:
        while True:
            if _link(mine, self.path):
                return None
            owner, _ = self._read()
            if owner is None:  # released between the two
                continue
            dead = self._why_dead(owner)
            if dead is None:
                raise CampaignLocked(
                    f"{self.path.parent} is being worked on by another launch ({_who(owner)}): wait for "
                    f"it to end, or stop it; if it certainly runs no more, remove {self.path}"
                )
            if self._replace(mine, owner):
                return f"took over the lock of a dead launch ({_who(owner)}): {dead}"

    def _read(self) -> tuple[dict[str, Any] | None, str]:
        """Return the owner in the lock file and its whole text; None where there is no lock."""
        try:
            text = self.path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return None, ""
        try:
            owner = json.loads(text.partition("\n")[0])
        except ValueError:
            owner = None
        # A lock that cannot be read has an owner too, who is judged by the heartbeat.
        return (owner if isinstance(owner, dict) else {}), text

    def _why_dead(self, owner: dict[str, Any]) -> str | None:
        """Return why the owner is taken for dead, None where it lives."""
        me = self._me
        if owner.get("slurm_job") and owner["slurm_job"] == me["slurm_job"]:
            if me["slurm_restarts"] > owner.get("slurm_restarts", 0):
                return f"Slurm job {owner['slurm_job']} was requeued since"
        alive = _process_alive(owner, me)
        if alive is None:
            return self._watch(owner)
        return None if alive else "its process is gone"

    def _watch(self, owner: dict[str, Any]) -> str | None:
        wait_s = _PERIODS * self.period_s
        if self._notify is not None:
            self._notify(
                f"{self.path.parent} is locked by another launch ({_who(owner)}); "
                f"watching its heartbeat for {wait_s:.0f} s"
            )
        _, before = self._read()
        deadline = time.monotonic() + wait_s
        while time.monotonic() < deadline:
            time.sleep(min(1.0, self.period_s / 4))
            if self._read()[1] != before:
                return None
        return f"its heartbeat stood still for {wait_s:.0f} s"

    def _replace(self, mine: Path, dead: dict[str, Any]) -> bool:
        """Put this launch's lock in the place of a dead one; False where another was quicker.

        A claim, exclusive like the lock, is held between the second look at the dead lock and its
        replacement: of two launches that found the same dead owner, one would else replace the other.
        """
        claim = self.path.with_name(f"{self.path.name}.claim")
        if not _link(mine, claim):
            self._wait_for_claim(claim)
            return False
        try:
            owner, _ = self._read()
            if owner is None or owner.get("token") != dead.get("token"):
                return False
            os.replace(mine, self.path)
        finally:
            claim.unlink(missing_ok=True)
        owner, _ = self._read()
        return owner is not None and owner.get("token") == self._me["token"]

    def _wait_for_claim(self, claim: Path) -> None:
        """Wait until another launch's takeover is over; remove a claim whose owner died in it."""
        before = _read_or_empty(claim.read_text)
        deadline = time.monotonic() + _PERIODS * self.period_s
        while claim.exists():
            if time.monotonic() > deadline:
                if _read_or_empty(claim.read_text) == before:
                    claim.unlink(missing_ok=True)
                return
            time.sleep(0.02)

    def _keep_beating(self) -> None:
        """Beat until the lock is given back; a beat that the file system refuses ends nothing yet.

        Only when none got through for as long as another launch would watch is the lock as good as lost.
        """
        alive = time.monotonic()
        while not self._ended.wait(self.period_s):
            try:
                self.beat()
            except OSError as error:
                if time.monotonic() - alive >= _PERIODS * self.period_s:
                    raise
                log.warning("no heartbeat in %s (%s); trying again", self.path, error)
            else:
                alive = time.monotonic()

    def beat(self) -> None:
        """Show that this launch lives; does nothing within half a period of the last beat.

        Raises
        ------
        CampaignLocked
            If another launch has taken the lock over meanwhile, or the lock was removed.
        OSError
            If the file system fails.
        """
        now = time.monotonic()
        if self._descriptor < 0 or now - self._last_beat < self.period_s / 2:
            return
        owner, _ = self._read()
        if owner is None or owner.get("token") != self._me["token"]:
            found = "it was removed" if owner is None else f"it is now held by {_who(owner)}"
            raise CampaignLocked(
                f"this launch ({self.launch}) has lost the lock {self.path}: {found}; it must not go on"
            )
        self._beats += 1
        os.pwrite(self._descriptor, f"{self._beats:0{_BEAT_DIGITS}d}".encode(), self._beat_offset)
        os.fsync(self._descriptor)
        self._last_beat = now

    def release(self) -> None:
        """Give the lock back; does nothing where it is not this launch's."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._descriptor < 0:
            return
        os.close(self._descriptor)
        self._descriptor = -1
        owner, _ = self._read()
        if owner is not None and owner.get("token") == self._me["token"]:
            self._ranks_path.unlink(missing_ok=True)
            self.path.unlink(missing_ok=True)


def _link(source: Path, target: Path) -> bool:
    """Make `target` with the content of `source`; False where it exists already."""
    try:
        os.link(source, target)
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links
        try:
            with open(target, "x", encoding="utf-8") as file:
                file.write(source.read_text(encoding="utf-8"))
        except FileExistsError:
            return False
    return True
