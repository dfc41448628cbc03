"""Sharing a queue of units between the ranks, with no rank spent as a master.

All ranks agree on an order, costliest first, and take positions in it::

    position   0   1   2   3   4   5   6   7
    cost      10   9   1   1   1   1   1   1
               |   |   '---'---'---'---'---'--- from a shared counter, as ranks come free
               |   '--- rank 1 begins here
               '------- rank 0 begins here

The counter is one word of a one-sided MPI window on rank 0; a second word is the stop flag. The
owner of the window must let MPI make progress while it computes, or every other rank waits as long
as its unit takes: a thread there calls MPI every millisecond while a queue is open.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from cytomill.runtime import signals
from cytomill.runtime.ranks import MpiWorld, World, wait_politely

_COUNTER, _STOP = 0, 1
_WORD = 8
_PROGRESS_S = 0.001
_TICK_S = 0.5

T = TypeVar("T")


class Sharing(ABC):
    """A queue of units shared by the ranks; opened and closed once a stage.

    Parameters
    ----------
    world : World
        The ranks that share.
    on_tick : callable, optional
        Called about twice a second on rank 0 with the number of units taken, possibly from another
        thread.
    """

    #: What the queue is kept in, for logs and the doctor.
    mode: str

    def __init__(self, world: World, on_tick: Callable[[int], None] | None = None) -> None:
        self.world = world
        self.on_tick = on_tick if world.rank == 0 else None
        self.n_units = 0
        self._stopped = False
        self._next_tick = 0.0

    def open(self, n_units: int) -> None:
        """Begin a queue of `n_units` positions (collective). A stop that was raised stays raised."""
        self.n_units = n_units
        self._next_tick = 0.0
        self._reset()

    @abstractmethod
    def _reset(self) -> None:
        """Put the queue back to its beginning (collective)."""

    @abstractmethod
    def take(self) -> int | None:
        """Return the next position for this rank; None when none is left or a stop was seen."""

    def prefetch(self) -> None:
        """Take the next position early, while many are left; call it right after :meth:`take`."""
        return

    def stop(self) -> None:
        """Raise the stop flag for every rank (for this one alone where nothing is shared)."""
        self._stopped = True

    def stopped(self) -> bool:
        """Whether this rank has seen a stop; what all ranks do about it is agreed by `World.any`."""
        if signals.stop_requested() and not self._stopped:
            self.stop()
        return self._stopped

    @abstractmethod
    def taken(self) -> int:
        """Return how many positions were taken by all ranks (estimated where nothing is shared)."""

    def close(self) -> None:
        """End the queue (collective)."""
        self.world.barrier()

    def shutdown(self) -> None:
        """Release what the queue is kept in (collective); call it before :meth:`World.finish`."""
        return

    def _tick(self) -> None:
        now = time.monotonic()
        if self.on_tick is not None and now >= self._next_tick:
            self._next_tick = now + _TICK_S
            self.on_tick(self.taken())


class StaticSharing(Sharing):
    """Rank r takes r, r + n, r + 2n …: for one rank, or where MPI has no one-sided operations."""

    mode = "static"
    _next = 0

    def _reset(self) -> None:
        self._next = self.world.rank
        self.world.barrier()

    def take(self) -> int | None:
        if self.stopped():
            return None
        self._tick()
        if self._next >= self.n_units:
            return None
        position = self._next
        self._next += self.world.size
        return position

    def taken(self) -> int:
        return max(0, min(self._next - self.world.rank, self.n_units))


class CounterSharing(Sharing):
    """Positions from a shared counter in a one-sided window on rank 0."""

    mode = "counter"

    def __init__(self, world: MpiWorld, on_tick: Callable[[int], None] | None = None) -> None:
        super().__init__(world, on_tick)
        self._mpi: Any = world.mpi
        self._window = self._mpi.Win.Allocate(
            2 * _WORD if world.rank == 0 else 0, _WORD, comm=world.comm
        )
        self._window.Lock_all()
        # One operation on both words takes a position and looks at the flag.
        self._one_more = np.array([1, 0], np.int64)
        self._no_more = np.zeros(2, np.int64)
        self._raise_flag = np.array([0, 1], np.int64)
        self._early = np.zeros(2, np.int64)
        self._early_request: Any = None
        self._counter = 0
        self._first = False
        self._open = False
        self._wake = threading.Event()
        self._ending = False
        self._thread: threading.Thread | None = None
        if world.rank == 0:
            words = np.frombuffer(self._window.tomemory(), np.int64)
            words[:] = 0
            self._window.Sync()
            self._thread = threading.Thread(target=self._progress, name="sharing progress", daemon=True)
            self._thread.start()
        world.before_finish(self._end_thread)

    def _progress(self) -> None:
        comm = self.world.comm
        while True:
            self._wake.wait()
            if self._ending:
                return
            comm.Iprobe(self._mpi.ANY_SOURCE, self._mpi.ANY_TAG)
            self._tick()
            time.sleep(_PROGRESS_S)

    def _end_thread(self) -> None:
        if self._thread is not None:
            self._ending = True
            self._wake.set()
            self._thread.join()
            self._thread = None

    def _begin(self, change: np.ndarray, before: np.ndarray) -> Any:
        """Start to add `change` to the two words; `before` gets what they were."""
        return self._window.Rget_accumulate(change, before, 0, 0, op=self._mpi.SUM)

    def _add(self, change: np.ndarray) -> int:
        """Add `change` to the two words; return the counter before, and take note of the flag."""
        before = np.zeros(2, np.int64)
        wait_politely(self._begin(change, before).Test)
        self._counter = int(before[_COUNTER] + change[_COUNTER])
        self._stopped |= bool(before[_STOP])
        return int(before[_COUNTER])

    def _reset(self) -> None:
        self.world.barrier()
        self._first = True
        self._early_request = None
        if self.world.rank == 0:
            start = np.array([self.world.size], np.int64)
            self._window.Accumulate(start, 0, _COUNTER, op=self._mpi.REPLACE)
            self._window.Flush(0)
            self._wake.set()
        self.world.barrier()
        self._open = True
        if self._stopped:
            self._add(self._raise_flag)

    def take(self) -> int | None:
        if signals.stop_requested():
            self.stop()
        if self._first:
            self._add(self._no_more)
            position = self.world.rank
            self._first = False
        elif self._early_request is not None:
            wait_politely(self._early_request.Test)
            self._early_request = None
            position = int(self._early[_COUNTER])
            self._add(self._no_more)
        else:
            position = self._add(self._one_more)
        return None if self._stopped or position >= self.n_units else position

    def prefetch(self) -> None:
        """Take the next position early, while more than two a rank are left.

        Nothing waits for it here: it travels while the present unit is computed. Near the end of the
        queue an early take would keep a unit from a rank that is free.
        """
        if self._early_request is not None or self._stopped:
            return
        if self.n_units - self._counter > 2 * self.world.size:
            self._early_request = self._begin(self._one_more, self._early)

    def stop(self) -> None:
        # Between queues nobody makes progress on the window: the flag goes there at the next opening.
        if not self._stopped and self._open:
            self._add(self._raise_flag)
        self._stopped = True

    def stopped(self) -> bool:
        if not super().stopped() and self._open:
            self._add(self._no_more)
        return self._stopped

    def taken(self) -> int:
        if self.world.rank == 0:
            counter = int(np.frombuffer(self._window.tomemory(), np.int64)[_COUNTER])
        else:
            counter = self._add(self._no_more)
        return min(counter, self.n_units)

    def close(self) -> None:
        if self._early_request is not None:
            wait_politely(self._early_request.Test)
            self._early_request = None
        self._window.Flush(0)
        self._open = False
        super().close()
        self._wake.clear()

    def shutdown(self) -> None:
        self._end_thread()
        self.world.barrier()
        self._window.Unlock_all()
        self._window.Free()


def spread(entries: Sequence[T], workers: Sequence[int], size: int) -> list[T | None]:
    """A queue for some ranks only: None at the positions that the sharing would give to the others.

    ::

        size 3, workers 0 and 2      position  0   1   2   3   4   5
                                     rank      0   1   2   0   1   2
                                     entry     a   -   b   c   -   d
    """
    left = iter(entries)
    rows = -(-len(entries) // len(workers))
    return [next(left, None) if position % size in workers else None for position in range(rows * size)]


def make_sharing(
    world: World, mode: str = "auto", on_tick: Callable[[int], None] | None = None
) -> Sharing:
    """Return the queue that `world` can keep (collective).

    Parameters
    ----------
    world : World
        The ranks that share.
    mode : {'auto', 'counter', 'static'}
        'auto' takes the counter where several ranks have one-sided MPI and threads, else static.
    on_tick : callable, optional
        Called about twice a second on rank 0 with the number of units taken.

    Raises
    ------
    ValueError
        If `mode` is none of these.
    RuntimeError
        If a counter is asked for and this MPI cannot keep one.
    """
    if mode not in ("auto", "counter", "static"):
        raise ValueError(f"sharing is 'auto', 'counter' or 'static', not {mode!r}")
    wanted = mode == "counter" or (mode == "auto" and world.size > 1)
    if wanted and world.one_sided and isinstance(world, MpiWorld):
        return CounterSharing(world, on_tick)
    if mode == "counter":
        raise RuntimeError(
            "sharing = 'counter' needs an MPI world with one-sided operations and THREAD_MULTIPLE, "
            "which this run does not have: use 'auto' or 'static'"
        )
    return StaticSharing(world, on_tick)
