"""Whether the other ranks of this node still run: a rank that is killed tells nobody.

``mpirun`` ends the job then, but ``srun`` lets the others wait for ever unless it is started with
``--kill-on-bad-exit=1`` or the site has set that for all. A rank alone on its node has nobody to watch it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

#: How often the others are looked at, and how long one may be gone before that is taken for a death.
_WATCH_S, _LAST_WORD_S = 2.0, 3.0


def process_start(pid: int) -> str | None:
    """Return when process `pid` began, in kernel ticks; None where it is gone or a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The command's name, in parentheses, may hold spaces and parentheses itself.
    fields = text[text.rindex(")") + 2 :].split()
    return None if fields[0] in "ZX" else fields[19]


@dataclass(frozen=True)
class Peer:
    """A rank's process, as the others of its node see it.

    Parameters
    ----------
    pid : int
        Its number.
    started : str or None
        When it began, in kernel ticks: numbers are given again.
    namespace : str
        In which the number means this process; empty where that cannot be told.
    """

    pid: int
    started: str | None
    namespace: str

    @staticmethod
    def own() -> Peer:
        """Return this process."""
        try:
            namespace = os.readlink("/proc/self/ns/pid")
        except OSError:
            namespace = ""
        return Peer(os.getpid(), process_start(os.getpid()), namespace)


class Peers:
    """The ranks of this node that can be watched from here, and the thread that watches them.

    A thread, because a rank may be computing, or inside a call of MPI that never returns.

    Parameters
    ----------
    ranks : mapping of int to Peer
        Every rank of this node, this one included.
    on_death : callable
        Called, in the thread, with rank and process number of one that ended before :meth:`end`.
    """

    def __init__(self, ranks: Mapping[int, Peer], on_death: Callable[[int, int], None]) -> None:
        own = Peer.own()
        self._watched = {
            rank: peer
            for rank, peer in ranks.items()
            if peer != own and peer.started and peer.namespace and peer.namespace == own.namespace
        }
        self._on_death = on_death
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="peers", daemon=True)
        if self._watched:
            self._thread.start()

    def gone(self) -> tuple[int, int] | None:
        """Return rank and process number of one whose process is gone, None where all of them run."""
        for rank, peer in self._watched.items():
            if process_start(peer.pid) != peer.started:
                return rank, peer.pid
        return None

    def end(self) -> None:
        """Watch no longer: from now on they may end."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(_WATCH_S):
            gone = self.gone()
            # It may have left the last barrier sooner; and a launcher that ends the job itself goes first.
            if gone is not None and not self._ended.wait(_LAST_WORD_S):
                self._on_death(*gone)
                return
