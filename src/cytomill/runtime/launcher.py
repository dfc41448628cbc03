"""What the launcher's environment says about this process: how many ranks, how many on this node.

The variables that a launcher gives to the ranks themselves come first. Slurm's job variables say what
the job asked for, not what ``mpirun -n 2`` inside the batch script started, so only those of a step
count, and only where no launcher has spoken.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

_WORLD_SIZES = ("PMI_SIZE", "PMIX_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
_LOCAL_SIZES = ("MPI_LOCALNRANKS", "OMPI_COMM_WORLD_LOCAL_SIZE", "MV2_COMM_WORLD_LOCAL_SIZE")
_RANKS = ("PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")

#: What launchers put into the environment of a rank: whoever inherits it seems to be that rank.
LAUNCHER_PREFIXES = (
    "PMI_",
    "PMI2_",
    "PMIX_",
    "OMPI_",
    "PRTE_",
    "MPI_LOCAL",
    "MPIEXEC_",
    "MV2_",
    "HYDRA_",
    "HYDI_",
    "PALS_",
    "FLUX_",
    "CRAY_PMI",
    "SLURM_STEP",
    "SLURM_PROCID",
    "SLURM_LOCALID",
    "SLURM_NODEID",
)


def without_launcher(environment: Mapping[str, str]) -> dict[str, str]:
    """Return `environment` without what an MPI launcher put there."""
    return {name: value for name, value in environment.items() if not name.startswith(LAUNCHER_PREFIXES)}


def positive_int(name: str) -> int | None:
    """Return the environment variable `name` as a positive integer, None where it is not one."""
    text = os.environ.get(name, "")
    return int(text) if text.isdecimal() and int(text) > 0 else None


def _first(names: tuple[str, ...]) -> str | None:
    return next((name for name in names if positive_int(name) is not None), None)


def _size_variable() -> str | None:
    return _first((*_WORLD_SIZES, "SLURM_STEP_NUM_TASKS"))


def launched_size() -> int | None:
    """Return how many ranks the launcher says it started, None where no launcher is seen."""
    name = _size_variable()
    return None if name is None else positive_int(name)


def launched_first() -> bool:
    """Whether the launcher calls this process rank 0, or no launcher is seen: one that speaks for all."""
    name = next((name for name in (*_RANKS, "SLURM_PROCID") if name in os.environ), None)
    return name is None or os.environ[name] == "0"


def launched_by_mpi() -> bool:
    """Whether an MPI world is to be joined: a launcher gave a rank, or a step has several tasks."""
    return any(name in os.environ for name in _RANKS + _WORLD_SIZES) or (launched_size() or 1) > 1


def launched_local_size() -> int:
    """Return how many ranks the launcher says it started on this node; 1 where nothing says it."""
    name = _first(_LOCAL_SIZES)
    if name is not None:
        return positive_int(name) or 1
    # Slurm writes 2(x3),1 for nodes of 2, 2, 2 and 1 tasks.
    counts: list[int] = []
    for entry in os.environ.get("SLURM_STEP_TASKS_PER_NODE", "").split(","):
        match = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", entry.strip())
        if match:
            counts += [int(match[1])] * int(match[2] or 1)
    node = os.environ.get("SLURM_NODEID", "0")
    if node.isdecimal() and int(node) < len(counts):
        return max(1, counts[int(node)])
    return max(counts, default=1)


def check_world(world_size: int, library: str = "") -> None:
    """Refuse a world that is smaller than what was launched.

    Parameters
    ----------
    world_size : int
        Number of ranks of the world that this process joined.
    library : str
        The MPI library that gave it, for the message.

    Raises
    ------
    RuntimeError
        If the launcher started more ranks than the world has: each of them would do the whole
        campaign by itself.
    """
    launched = launched_size()
    if launched is not None and launched > world_size:
        ranks = "1 rank" if world_size == 1 else f"{world_size} ranks"
        seen = f" ({library})" if library else ""
        raise RuntimeError(
            f"the launcher started {launched} ranks ({_size_variable()}), but the MPI library of this process"
            f"{seen} sees a world of {ranks}: launcher and library do not match; take the mpirun that "
            "belongs to the library, or srun with --mpi=pmi2 for MPICH and --mpi=pmix for Open MPI"
        )
