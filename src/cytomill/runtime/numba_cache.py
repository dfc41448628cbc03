"""Compiled kernels: one rank a node compiles, the others load what it left in the cache."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from cytomill.runtime.ranks import World


def cache_filled() -> bool:
    """Whether the cache folder holds compiled kernels already."""
    folder = os.environ.get("NUMBA_CACHE_DIR", "")
    return bool(folder) and next(Path(folder).glob("*/*.nbi"), None) is not None


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
