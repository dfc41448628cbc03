"""Compiled kernels: one rank a node compiles, the others load what it left in the cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from numba.core import event

from cytomill.runtime.ranks import World


@contextmanager
def telling_of_compiling(tell: Callable[[str], None]) -> Iterator[None]:
    """Have the first kernel that is compiled within told, in a sentence; not those loaded from the cache.

    Parameters
    ----------
    tell : callable
        Called with the sentence once, in the thread that compiles.
    """
    with event.install_listener("numba:compile", _Once(tell)):
        yield


class _Once(event.Listener):
    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell

    def on_start(self, begun: event.Event) -> None:
        tell, self._tell = self._tell, lambda sentence: None
        tell("compiling kernels for this machine, once; this may take half a minute")

    def on_end(self, ended: event.Event) -> None:
        """Nothing: numba tells of the end too."""


def warm(world: World, compile_all: Callable[[], None]) -> str | None:
    """Compile every kernel once a node (collective).

    Parameters
    ----------
    world : World
        The ranks.
    compile_all : callable
        Calls each kernel once with small arguments of the types that the run uses.

    Returns
    -------
    str or None
        A sentence where the cache could not be written: each rank then compiles for itself.
    """
    trouble = None

    def run() -> None:
        nonlocal trouble
        try:
            compile_all()
        # The kernel is compiled by then and only its saving failed; a second call finds it in memory.
        except OSError as error:
            trouble = f"compiled kernels could not be cached on {world.host} ({error}): each rank compiles"
            compile_all()

    if world.local_rank == 0:
        run()
    world.node_barrier()
    if world.local_rank != 0:
        run()
    return trouble
