"""The ranks of a run: an MPI world under a launcher, a one-rank stand-in elsewhere.

Every wait is polite. An MPI library spins a whole core inside a blocking collective, and runs no
Python signal handler there; so each collective here is entered only after a non-blocking barrier has
been tested, with short sleeps between, and then returns at once.
"""

from __future__ import annotations

import atexit
import os
import platform
import sys
import threading
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cytomill.runtime import launcher
from cytomill.runtime.failures import JobFailed, is_environment_failure, sentence
from cytomill.runtime.peers import Peer, Peers

_FIRST_SLEEP_S = 0.0002
_LONGEST_SLEEP_S = 0.005
#: How long a rank that leaves early waits for the others to leave too, before it ends the job.
_EXIT_PATIENCE_S = 5.0
#: Time for the launcher to forward what was printed, before an abort ends it.
_FORWARD_S = 0.1


def _flush_streams() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):  # closed, detached or full: nothing left to do
            continue


def wait_politely(done: Callable[[], bool], patience_s: float | None = None) -> bool:
    """Call `done` until it is true, with sleeps that grow from 0.2 to 5 ms between the calls.

    Returns
    -------
    bool
        False if `patience_s` seconds went by first.
    """
    deadline = None if patience_s is None else time.monotonic() + patience_s
    pause = _FIRST_SLEEP_S
    while not done():
        if deadline is not None and time.monotonic() > deadline:
            return False
        time.sleep(pause)
        pause = min(_LONGEST_SLEEP_S, pause * 1.3)
    return True


def node_identity() -> str:
    """Return what tells this node from every other: its name, and the identifier of its running kernel."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        boot = ""
    return f"{platform.node()} {boot}"


class World(ABC):
    """The ranks of a run, and what they can say to each other.

    Attributes
    ----------
    rank, size : int
        This rank and the number of ranks.
    local_rank, local_size : int
        The same among the ranks of this node.
    host : str
        Name of this node.
    one_sided : bool
        Whether one-sided operations work while another thread is inside MPI.
    library : str
        Name and version of the MPI library; empty without one.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    one_sided: bool = False
    library: str = ""

    def __init__(self) -> None:
        self.host = platform.node()
        self.finished = False
        self._before_finish: list[Callable[[], None]] = []

    def before_finish(self, callback: Callable[[], None]) -> None:
        """Have `callback` called, on this rank, before it leaves the world (last one first)."""
        self._before_finish.append(callback)

    def _run_callbacks(self) -> None:
        while self._before_finish:
            self._before_finish.pop()()

    @abstractmethod
    def bcast(self, obj: Any, root: int = 0) -> Any:
        """Return `obj` of rank `root` on every rank (collective)."""

    @abstractmethod
    def gather(self, obj: Any, root: int = 0) -> list[Any] | None:
        """Return the ranks' objects, in rank order, on `root` and None elsewhere (collective)."""

    @abstractmethod
    def any(self, flag: bool) -> bool:
        """Whether `flag` is true on any rank: the same answer everywhere (collective)."""

    @abstractmethod
    def barrier(self) -> None:
        """Return when every rank has come here (collective)."""

    @abstractmethod
    def node_barrier(self) -> None:
        """Return when every rank of this node has come here (collective on the node)."""

    @abstractmethod
    def abort(self, code: int) -> None:
        """End every rank now; the launcher exits with `code`. Does not return."""

    @abstractmethod
    def finish(self) -> None:
        """Leave the world together (collective): the last barrier, nothing may come after it."""

    def leave(self) -> None:
        """At the process's end without :meth:`finish`: end the job if the others do not end too."""
        if not self.finished:
            self.finished = True
            self._run_callbacks()


class SoloWorld(World):
    """One rank without MPI: a laptop, or a login node without an MPI library."""

    def bcast(self, obj: Any, root: int = 0) -> Any:
        return obj

    def gather(self, obj: Any, root: int = 0) -> list[Any] | None:
        return [obj]

    def any(self, flag: bool) -> bool:
        return bool(flag)

    def barrier(self) -> None:
        """Return at once: there is nobody to wait for."""

    def node_barrier(self) -> None:
        """Return at once: there is nobody to wait for."""

    def abort(self, code: int) -> None:
        _flush_streams()
        os._exit(code)

    def finish(self) -> None:
        self.leave()
        _flush_streams()


class MpiWorld(World):
    """The ranks that an MPI launcher started.

    Objects travel by pickle protocol 5, arrays out of band, between the ranks of one launch only:
    nothing of it reaches a file.

    Raises
    ------
    RuntimeError
        If mpi4py or its MPI library cannot be loaded.
    """

    def __init__(self) -> None:
        super().__init__()
        try:
            from mpi4py import MPI
            from mpi4py.util import pkl5
        except (ImportError, RuntimeError) as error:
            raise RuntimeError(
                f"an MPI launcher started this process, but no MPI library could be loaded ({error}): "
                "install mpi4py with a library that matches the launcher, for instance "
                "pip install 'cytomill[mpich]'"
            ) from error
        self.mpi = MPI
        # MPICH says the rest in further lines, Open MPI after a comma.
        first_line = MPI.Get_library_version().strip("\0 \n").splitlines()[0]
        self.library = " ".join(first_line.split(",")[0].split())
        self.comm = pkl5.Intracomm(MPI.COMM_WORLD.Dup())
        # Leaving has a communicator of its own: a rank that leaves early must not be taken for one
        # that came to a barrier.
        self._leaving = MPI.COMM_WORLD.Dup()
        # Not Split_type: under a Slurm whose PMIx differs from its own, Open MPI takes each rank for the only
        # one of its node, and each would then plan with the node's whole memory and take its first GPU.
        nodes = MPI.COMM_WORLD.allgather(node_identity())
        self._node = MPI.COMM_WORLD.Split(nodes.index(nodes[MPI.COMM_WORLD.rank]), MPI.COMM_WORLD.rank)
        self.rank, self.size = self.comm.rank, self.comm.size
        self.local_rank, self.local_size = self._node.rank, self._node.size
        self.one_sided = self._probe_one_sided()
        self._peers = Peers(dict(self._node.allgather((self.rank, Peer.own()))), self._end_after_death)

    def _probe_one_sided(self) -> bool:
        MPI = self.mpi
        works = MPI.Query_thread() >= MPI.THREAD_MULTIPLE
        if self.any(not works):
            return False
        try:
            MPI.Win.Allocate(8 if self.rank == 0 else 0, 8, comm=self.comm).Free()
        except (MPI.Exception, NotImplementedError):
            works = False
        return not self.any(not works)

    def _settle(self, comm: Any) -> None:
        """Wait until every rank of `comm` is about to enter the same collective."""
        request = comm.Ibarrier()
        wait_politely(request.Test)

    def _end_after_death(self, rank: int, pid: int) -> None:
        sys.stderr.write(
            f"cytomill: rank {rank} on {self.host} (pid {pid}) was killed, often for want of memory; "
            "the job ends here\n"
        )
        self.abort(1)

    def bcast(self, obj: Any, root: int = 0) -> Any:
        self._settle(self.comm)
        return self.comm.bcast(obj, root)

    def gather(self, obj: Any, root: int = 0) -> list[Any] | None:
        self._settle(self.comm)
        return self.comm.gather(obj, root)

    def any(self, flag: bool) -> bool:
        self._settle(self.comm)
        return bool(self.comm.allreduce(int(bool(flag)), self.mpi.MAX))

    def barrier(self) -> None:
        self._settle(self.comm)

    def node_barrier(self) -> None:
        self._settle(self._node)

    def abort(self, code: int) -> None:
        _flush_streams()
        time.sleep(_FORWARD_S)
        self.mpi.COMM_WORLD.Abort(code)
        os._exit(code)

    def finish(self) -> None:
        self._run_callbacks()
        _flush_streams()
        self._settle(self._leaving)
        self.finished = True
        self._peers.end()
        self.mpi.Finalize()

    def leave(self) -> None:
        if self.finished or self.mpi.Is_finalized():
            return
        super().leave()
        self._peers.end()
        request = self._leaving.Ibarrier()
        if not wait_politely(request.Test, _EXIT_PATIENCE_S):
            sys.stderr.write(
                f"cytomill: rank {self.rank} on {self.host} left while others went on; the job ends here\n"
            )
            self.abort(1)


def connect() -> World:
    """Join the ranks of this run: an MPI world under a launcher, a one-rank stand-in elsewhere.

    Raises
    ------
    RuntimeError
        If a launcher started this process and no MPI library can be loaded.
    """
    return MpiWorld() if launcher.launched_by_mpi() else SoloWorld()


def install_abort_hook(world: World, code: int = 1) -> None:
    """Have an uncaught exception on any rank, in any thread, end the job within seconds.

    Installed by the program itself, so that no launcher option or wrapper module is needed. The
    traceback is printed with the rank and its host; of trouble of the machine and of an interrupt a line.
    A rank that exits without :meth:`World.finish` while others go on ends the job too.

    Parameters
    ----------
    world : World
        The ranks to end.
    code : int
        Exit code of the job; an interrupt by the keyboard gives 130.
    """

    def end(kind: type[BaseException], error: BaseException | None, trace: Any, thread: str) -> None:
        where = f"rank {world.rank} on {world.host}{thread}"
        interrupted = issubclass(kind, KeyboardInterrupt)
        # Where in the program a disk was full, or a key was pressed, helps nobody.
        plain = interrupted or error is not None and is_environment_failure(error)
        lines = "" if plain else "".join(traceback.format_exception(kind, error, trace))
        if isinstance(error, JobFailed):  # a sentence of our own says where by itself
            what = str(error)
        elif plain:
            what = f"{where}: {'interrupted' if interrupted else sentence(error)}"
        else:
            what = f"uncaught exception on {where}"
        sys.stderr.write(f"cytomill: {what}; the job ends here\n{lines}")
        world.abort(130 if interrupted else code)

    def end_thread(arguments: threading.ExceptHookArgs) -> None:
        if not issubclass(arguments.exc_type, SystemExit):
            name = f", thread {arguments.thread.name}" if arguments.thread else ""
            end(arguments.exc_type, arguments.exc_value, arguments.exc_traceback, name)

    sys.excepthook = lambda kind, error, trace: end(kind, error, trace, "")
    threading.excepthook = end_thread
    atexit.register(world.leave)
