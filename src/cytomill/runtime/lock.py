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
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from cytomill.runtime.lock_owner import (
    LOCK,
    PERIOD_S,
    PERIODS,
    identity,
    process_alive,
    read_lock,
    read_or_empty,
    who,
)
from cytomill.storage.durable import make_directories, write_atomic

log = logging.getLogger(__name__)

#: How long ranks of a dead launch may take to die: a launcher ends them within seconds.
_SURVIVORS_S = 20.0
#: How long an owner in sight is looked at before a launch is refused: a killed process takes a moment to go.
_DYING_S = 0.5
_BEAT_DIGITS = 20


class CampaignLocked(RuntimeError):
    """Another launch works on the campaign, or has taken it over from this one."""


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
        Called with a sentence when the owner's heartbeat has to be watched, which takes a while; a warning
        in the log by default.
    """

    def __init__(
        self,
        folder: Path,
        launch: str,
        period_s: float = PERIOD_S,
        notify: Callable[[str], None] | None = None,
    ) -> None:
        self.path = Path(folder) / LOCK
        self.launch = str(launch)
        self.period_s = period_s
        self._notify = notify or log.warning
        self._me: dict[str, Any] = {}
        self._descriptor = -1
        self._beat_offset = 0
        self._beats = 0
        self._last_beat = 0.0
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def acquire(self, name: Callable[[], str] | None = None) -> str | None:
        """Take the lock and keep its heart beating.

        Parameters
        ----------
        name : callable, optional
            Called once the lock is held: its answer becomes the launch's name, in the lock too. Which
            number a launch has is certain only then.

        Returns
        -------
        str or None
            A sentence where the lock of a dead owner was taken over.

        Raises
        ------
        CampaignLocked
            If another launch holds it; names host, pid, launch and since when.
        OSError
            If the folder cannot be made or written.
        """
        make_directories(self.path.parent)
        self._me = identity(self.launch)
        mine = self.path.with_name(f"{self.path.name}.{self._me['token']}")
        try:
            with open(mine, "wb") as file:
                file.write(self._content())
                file.flush()
                os.fsync(file.fileno())
            sentence = self._enter(mine)
            self._descriptor = os.open(self.path, os.O_RDWR)
            self._wait_for_survivors()
            if name is not None:
                self._rename(name())
        except BaseException:
            self._withdraw()
            raise
        finally:
            mine.unlink(missing_ok=True)
        self._ended.clear()
        self._last_beat = time.monotonic()
        self._thread = threading.Thread(target=self._keep_beating, name="campaign lock", daemon=True)
        self._thread.start()
        return sentence

    def _content(self) -> bytes:
        """The lock file's text: who holds it, and a beat that is written over again and again."""
        head = json.dumps(self._me, sort_keys=True) + "\n"
        self._beat_offset = len(head.encode())
        return f"{head}{0:0{_BEAT_DIGITS}d}\n".encode()

    def _rename(self, launch: str) -> None:
        if launch != self.launch:
            self.launch = self._me["launch"] = launch
            content = self._content()
            os.pwrite(self._descriptor, content, 0)
            os.ftruncate(self._descriptor, len(content))

    def _withdraw(self) -> None:
        """Remove the lock where it is this launch's."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        owner, _ = read_lock(self.path)
        if owner is not None and owner.get("token") == self._me["token"]:
            self.path.unlink(missing_ok=True)

    @property
    def _ranks_path(self) -> Path:
        return self.path.with_name("campaign.ranks")

    def record_ranks(self, ranks: list[dict[str, Any]]) -> None:
        """Write down every rank's process, so that a later launch can wait for survivors of this one.

        Parameters
        ----------
        ranks : list of dict
            What :func:`cytomill.runtime.lock_owner.process_identity` returned on each rank.
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
        while alive := [rank["pid"] for rank in ranks if process_alive(rank, self._me)]:
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
            owner, _ = read_lock(self.path)
            if owner is None:  # released between the two
                continue
            dead = self._why_dead(owner)
            if dead is None:
                raise CampaignLocked(
                    f"{self.path.parent} is being worked on by another launch ({who(owner)}): wait for "
                    f"it to end, or stop it; if it certainly runs no more, remove {self.path}"
                )
            if self._replace(mine, owner):
                return f"took over the lock of a dead launch ({who(owner)}): {dead}"

    def _why_dead(self, owner: dict[str, Any]) -> str | None:
        """Return why the owner is taken for dead, None where it lives."""
        me = self._me
        if owner.get("slurm_job") and owner["slurm_job"] == me["slurm_job"]:
            if me["slurm_restarts"] > owner.get("slurm_restarts", 0):
                return f"Slurm job {owner['slurm_job']} was requeued since"
        deadline = time.monotonic() + _DYING_S
        while (alive := process_alive(owner, me)) and time.monotonic() < deadline:
            time.sleep(0.02)
        if alive is None:
            return self._watch(owner)
        return None if alive else "its process is gone"

    def _watch(self, owner: dict[str, Any]) -> str | None:
        wait_s = PERIODS * self.period_s
        self._notify(
            f"{self.path.parent} is locked by another launch ({who(owner)}); "
            f"watching its heartbeat for {wait_s:.0f} s"
        )
        _, before = read_lock(self.path)
        deadline = time.monotonic() + wait_s
        while time.monotonic() < deadline:
            time.sleep(min(1.0, self.period_s / 4))
            if read_lock(self.path)[1] != before:
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
            owner, _ = read_lock(self.path)
            if owner is None or owner.get("token") != dead.get("token"):
                return False
            # The reply of a network file system may be lost, and the call repeated: what counts is below.
            with suppress(FileNotFoundError):
                os.replace(mine, self.path)
        finally:
            claim.unlink(missing_ok=True)
        owner, _ = read_lock(self.path)
        return owner is not None and owner.get("token") == self._me["token"]

    def _wait_for_claim(self, claim: Path) -> None:
        """Wait until another launch's takeover is over; remove a claim whose owner died in it."""
        before = read_or_empty(claim.read_text)
        deadline = time.monotonic() + PERIODS * self.period_s
        while claim.exists():
            if time.monotonic() > deadline:
                if read_or_empty(claim.read_text) == before:
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
                if time.monotonic() - alive >= PERIODS * self.period_s:
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
        owner, _ = read_lock(self.path)
        if owner is None or owner.get("token") != self._me["token"]:
            found = "it was removed" if owner is None else f"it is now held by {who(owner)}"
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
        owner, _ = read_lock(self.path)
        if owner is not None and owner.get("token") == self._me["token"]:
            self._ranks_path.unlink(missing_ok=True)
        self._withdraw()


def _link(source: Path, target: Path) -> bool:
    """Make `target` with the content of `source`; False where another has made it already."""
    try:
        os.link(source, target)
    except FileExistsError:
        return _same_content(source, target)
    except OSError:  # a file system without hard links
        try:
            with open(target, "xb") as file:
                file.write(source.read_bytes())
        except FileExistsError:
            return _same_content(source, target)
        except OSError:
            target.unlink(missing_ok=True)
            raise
    return True


def _same_content(source: Path, target: Path) -> bool:
    """Whether `target` is this launch's own: where the reply to a link is lost, the repeated call fails."""
    try:
        return target.read_bytes() == source.read_bytes()
    except FileNotFoundError:  # given back meanwhile
        return False
