"""The first thing a process does: signals, threads and caches, before anything heavy is imported.

Numerical libraries read their number of threads once, when they are imported, and take every core of
the node by default: four ranks a node would run four times too many threads.
"""

from __future__ import annotations

import ctypes
import getpass
import hashlib
import io
import os
import resource
import sys
import tempfile
from pathlib import Path

from cytomill.runtime import launcher, signals

#: Read by the libraries at import. RAYON_NUM_THREADS is the zarrs codec pipeline's.
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "RAYON_NUM_THREADS",
)


#: Larger blocks of memory go back to the system when they are freed; a chunk of labels, 4 MiB by default,
#: is taken and freed too often for that.
KEPT_BLOCK_BYTES = 12 * 2**20

# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def _cores_of_node(cores: set[int]) -> set[int]:
    """Return the cores that the ranks of this node share: the launcher's, if it bound this rank."""
    try:
        return cores | os.sched_getaffinity(os.getppid())
    except OSError:  # the parent lives in another process namespace, or is gone
        return cores


def threads_per_rank() -> int:
    """Return how many threads this rank may run: its cores, shared with the ranks of its node.

    A launcher may bind each rank to cores of its own, or several of them to one socket, and a control group
    may confine them all: so a rank takes the cores that it sees, but no more than its part of the node's, and
    of those that Slurm granted there. Where Slurm promises cores a task and the ranks on the node are no more
    than that promise allows, it is a lower bound.
    """
    cores = os.sched_getaffinity(0)
    local_size = launcher.launched_local_size()
    threads = min(len(cores), len(_cores_of_node(cores)) // local_size)
    promised = launcher.positive_int("SLURM_CPUS_PER_TASK")
    on_node = launcher.positive_int("SLURM_CPUS_ON_NODE")
    if on_node:
        threads = min(threads, on_node // local_size)
    if promised and on_node and promised * local_size <= on_node:
        threads = max(threads, min(promised, len(cores)))
    return max(1, threads)


def _usable(folder: Path) -> bool:
    """Whether files can be made in `folder`, which is created where it is missing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def sources_digest() -> str:
    """A name for the package's sources as they are, from the sizes and times of its files.

    Numba looks for changes in a kernel's own file only, not in those of the kernels that it calls: another
    version of the package must not find the compiled kernels of this one.
    """
    package = Path(__file__).parents[1]
    total = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        status = path.stat()
        total.update(f"{path.relative_to(package)}|{status.st_size}|{status.st_mtime_ns}|".encode())
    return total.hexdigest()[:12]


def numba_cache_folder() -> Path:
    """Return the first usable of $NUMBA_CACHE_DIR, the user's cache folder and a temporary folder.

    In it, a folder of its own for the package's sources as they are.

    Raises
    ------
    RuntimeError
        If not even the temporary folder can be written.
    """
    candidates = []
    if os.environ.get("NUMBA_CACHE_DIR"):
        candidates.append(Path(os.environ["NUMBA_CACHE_DIR"]))
    cache_home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if os.path.isabs(cache_home):
        candidates.append(Path(cache_home) / "cytomill" / "numba")
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no entry in the password file
        user = str(os.getuid())
    candidates.append(Path(tempfile.gettempdir()) / f"cytomill-{user}" / "numba")
    sources = sources_digest()
    for candidate in candidates:
        # A process that a rank starts finds the rank's own folder in its environment.
        folder = candidate if candidate.name == sources else candidate / sources
        if _usable(folder):
            return folder
    tried = ", ".join(str(folder) for folder in candidates)
    raise RuntimeError(
        f"no folder for compiled kernels can be written (tried {tried}): "
        "set NUMBA_CACHE_DIR to a writable folder"
    )


def return_freed_memory() -> None:
    """Have glibc give large blocks back to the system when they are freed.

    By default it learns from every freed block to keep blocks of that size, up to 32 MB, and keeps twice
    that much for each thread: a rank that reads large chunks grew by 170 MB over its stages.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # another C library
        return
    for parameter in (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD):
        mallopt(parameter, KEPT_BLOCK_BYTES)


def raise_file_limit() -> None:
    """Allow this process as many open files as the system lets it have: every dataset keeps one open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (ValueError, OSError):  # the system's own limit is below what it says
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def replace_unknown_characters() -> None:
    """Have characters that the encoding of standard output lacks written as ``?``, as × in a C locale."""
    # None where there is no output; a replacement by whoever imported this may not know it.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def prepare_process() -> None:
    """Prepare this process; call it before NumPy, numba, mpi4py or matplotlib are imported.

    Installs the stop signals' handlers, has freed memory returned, allows as many open files as the system
    does, and lets no character end a command that the output's encoding lacks. Sets, where the user has not,
    the number of threads of each library; sets numba's cache folder to one that can be written, and
    matplotlib's back-end to one that needs no display.
    """
    signals.install()
    return_freed_memory()
    raise_file_limit()
    replace_unknown_characters()
    threads = str(threads_per_rank())
    for name in THREAD_VARIABLES:
        os.environ.setdefault(name, threads)
    os.environ["NUMBA_CACHE_DIR"] = str(numba_cache_folder())
    os.environ.setdefault("MPLBACKEND", "Agg")
