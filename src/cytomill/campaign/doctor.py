"""`cytomill doctor`: whether this machine, launcher and installation can run a campaign, before one is lost.

Every rank examines itself and its node; what they find is gathered, and the same list of checks is
returned on every rank. A check that fails says what to do.
"""

from __future__ import annotations

import os
import platform
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.text import Text

import cytomill
from cytomill.campaign.provenance import library_versions
from cytomill.reports.quantities import bytes_text
from cytomill.reports.terminal import print_renderable
from cytomill.runtime.devices import bind
from cytomill.runtime.failures import ExitCode
from cytomill.runtime.launcher import check_world, launched_first, launched_size
from cytomill.runtime.memory import memory_limit, predicted_peak_bytes
from cytomill.runtime.ranks import MpiWorld, SoloWorld, World, connect, install_abort_hook
from cytomill.runtime.sharing import make_sharing
from cytomill.runtime.startup import THREAD_VARIABLES, numba_cache_folder, threads_per_rank
from cytomill.runtime.telemetry import resident_bytes
from cytomill.storage.codecs import FAST_PIPELINE

#: Written and made durable by every rank.
WRITE_BYTES = 32 * 2**20

#: Slower than this for all ranks together, the file system is not one to write volumes to.
SLOW_BYTES_A_SECOND = 20e6

#: Launches are told apart by number, not by time; but logs and job times of nodes that differ confuse.
SKEW_S = 2.0

#: Units handed out in the test of the shared counter, a rank.
TAKES = 8

#: What a rank needs for a unit at the least, beside its imports.
UNIT_BYTES = 250_000_000


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Parameters
    ----------
    name : str
        What.
    ok : bool
        Whether a campaign can run with it.
    text : str
        What was found; where it is not ok, what to do.
    """

    name: str
    ok: bool
    text: str


def doctor(folder: Path | None = None, world: World | None = None) -> list[Check]:
    """Examine machine, launcher and installation (collective).

    Parameters
    ----------
    folder : Path, optional
        Where the write test is made: the folder of future results. The working folder by default.
    world : World, optional
        The ranks; by default those of the launcher are joined.

    Returns
    -------
    list of Check
        The same on every rank.
    """
    folder = Path.cwd() if folder is None else Path(folder)
    world, joined = (world, None) if world is not None else _join()
    examinations: list[Callable[[World], list[Check]]] = [
        _check_ranks,
        _check_devices,
        _check_counter,
        lambda world: _check_writing(world, folder),
        _check_memory,
        _check_threads,
        _check_clocks,
    ]
    checks = [joined] if joined is not None else []
    for examine_one in examinations:
        checks += examine_one(world)
    checks += [_check_hdf5(), _check_zarrs(), _check_versions()]
    return world.bcast(checks)


def _join() -> tuple[World, Check | None]:
    try:
        return connect(), None
    except RuntimeError as error:
        return SoloWorld(), Check("MPI library", False, str(error))


def examine(folder: Path | None = None) -> int:
    """Run :func:`doctor` on the launcher's ranks, print what it found on rank 0; returns the exit code."""
    world, joined = _join()
    install_abort_hook(world)
    checks = ([joined] if joined else []) + doctor(folder, world)
    # Where launcher and library do not match, every rank is the first of its own world.
    if world.rank == 0 and launched_first():
        print_renderable(render_checks(checks))
    world.finish()
    return exit_code(checks)


def exit_code(checks: Sequence[Check]) -> int:
    """0 where every check is ok, else 1."""
    return int(ExitCode.FINISHED if all(check.ok for check in checks) else ExitCode.FAILED)


def render_checks(checks: Sequence[Check]) -> Group:
    """What a person sees: a line a check, those that failed in red."""
    width = max(len(check.name) for check in checks)
    lines = []
    for check in checks:
        line = Text("ok    " if check.ok else "FAILED", style="green" if check.ok else "bold red")
        lines.append(line.append(f" {check.name:{width}}  {check.text}", style="default"))
    failed = sum(not check.ok for check in checks)
    verdict = "all is well" if not failed else f"{failed} of {len(checks)} checks failed"
    return Group(*lines, Text(verdict, style="bold"))


def _everywhere(world: World, found: Any) -> list[Any]:
    """What every rank found, on every rank, in rank order (collective)."""
    return world.bcast(world.gather(found))


def _check_ranks(world: World) -> list[Check]:
    launched = launched_size()
    hosts: dict[str, int] = {}
    for host in _everywhere(world, world.host):
        hosts[host] = hosts.get(host, 0) + 1
    try:
        check_world(world.size, world.library)
    except RuntimeError as mismatch:
        return [Check("ranks", False, str(mismatch))]
    nodes = ", ".join(f"{host}: {count}" for host, count in hosts.items())
    said = "no launcher" if launched is None else f"the launcher started {launched}"
    checks = [Check("ranks", True, f"{world.size} ({nodes}), {said}")]
    if not isinstance(world, MpiWorld):
        text = "not used: this is one process; start it with mpirun or srun to use several"
        return [*checks, Check("MPI library", True, text)]
    mpi = world.mpi
    levels = {getattr(mpi, name): name for name in _THREAD_LEVELS}
    library = " ".join(mpi.Get_library_version().strip("\0 \n").splitlines()[0].split())
    level = levels.get(mpi.Query_thread(), "an unknown thread level")
    advice = ""
    if level != "THREAD_MULTIPLE":
        advice = "; units are dealt out beforehand: take an MPI with THREAD_MULTIPLE for balanced ranks"
    text = f"{library}, MPI {mpi.VERSION}.{mpi.SUBVERSION}, {level}{advice}"
    return [*checks, Check("MPI library", True, text)]


_THREAD_LEVELS = ("THREAD_SINGLE", "THREAD_FUNNELED", "THREAD_SERIALIZED", "THREAD_MULTIPLE")


def _check_devices(world: World) -> list[Check]:
    binding = bind(world)
    found = _everywhere(world, (world.host, world.local_rank, binding.label, binding.notes))
    devices: dict[tuple[str, str], list[int]] = {}
    for rank, (host, _, label, _) in enumerate(found):
        devices.setdefault((host, label), []).append(rank)
    text = "; ".join(f"{host}: {_numbers(ranks)} on {label}" for (host, label), ranks in devices.items())
    notes = sorted({note for _, _, _, own in found for note in own})
    broken = [note for note in notes if "does not work" in note]
    if broken:
        notes.append('have the driver and CuPy\'s CUDA version checked, or set device = "cpu"')
    return [Check("devices", not broken, "; ".join([text, *notes]))]


def _numbers(ranks: Sequence[int]) -> str:
    if len(ranks) == 1:
        return f"rank {ranks[0]}"
    if list(ranks) == list(range(ranks[0], ranks[-1] + 1)):
        return f"ranks {ranks[0]}-{ranks[-1]}"
    return "ranks " + ", ".join(map(str, ranks))


def _check_counter(world: World) -> list[Check]:
    """Hand out a few positions and see that each goes to one rank."""
    sharing = make_sharing(world, "auto")
    sharing.open(TAKES * world.size)
    taken, longest = [], 0.0
    while True:
        began = time.monotonic()
        position = sharing.take()
        longest = max(longest, time.monotonic() - began)
        if position is None:
            break
        taken.append(position)
    sharing.close()
    sharing.shutdown()
    everyones = _everywhere(world, (taken, longest))
    positions = sorted(position for own, _ in everyones for position in own)
    slowest = max(seconds for _, seconds in everyones)
    if positions != list(range(TAKES * world.size)):
        text = (
            f"{TAKES * world.size} units were handed out as {positions}: this MPI's one-sided operations are "
            'broken; set sharing = "static"'
        )
        return [Check("sharing of units", False, text)]
    text = (
        f"{sharing.mode}, each of {len(positions)} units handed out once, "
        f"longest wait {1000 * slowest:.1f} ms"
    )
    if sharing.mode == "static" and world.size > 1:
        text += "; no one-sided operations with threads here, so that ranks may wait at a stage's end"
    return [Check("sharing of units", True, text)]


def _check_writing(world: World, folder: Path) -> list[Check]:
    """Every rank writes a file and makes it durable."""
    path = folder / f".cytomill-doctor-{world.rank}-{secrets.token_hex(4)}"
    seconds, trouble = 0.0, ""
    data = os.urandom(2**20)
    made = [above for above in (folder, *folder.parents) if not above.exists()]
    world.barrier()
    try:
        if world.rank == 0:
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        trouble = f"it cannot be made ({error.strerror})"
    world.barrier()
    try:
        began = time.monotonic()
        with open(path, "xb") as file:
            for _ in range(WRITE_BYTES // len(data)):
                file.write(data)
            file.flush()
            os.fsync(file.fileno())
        seconds = time.monotonic() - began
        if path.stat().st_size != WRITE_BYTES:
            trouble = f"{path.stat().st_size} of {WRITE_BYTES} bytes arrived"
        path.unlink()
    except OSError as error:
        trouble = trouble or f"it cannot be written ({error.strerror})"
        with suppress(OSError):  # a full disk leaves a part of the file; on a read-only one there is none
            path.unlink(missing_ok=True)
    found = _everywhere(world, (seconds, trouble))
    if world.rank == 0:
        with suppress(OSError):  # it is not this test's business to leave folders
            for above in made:
                above.rmdir()
    troubles = {f"rank {rank}: {trouble}" for rank, (_, trouble) in enumerate(found) if trouble}
    if troubles:
        advice = "choose an output folder that every rank can write to"
        return [Check("write test", False, f"{folder}: {'; '.join(sorted(troubles))}: {advice}")]
    rate = WRITE_BYTES * world.size / max(seconds for seconds, _ in found)
    ranks = "1 rank" if world.size == 1 else f"{world.size} ranks"
    text = f"{bytes_text(rate)}/s by {ranks}, made durable, in {folder}"
    if rate < SLOW_BYTES_A_SECOND:
        text += ": too slow for volumes, choose a parallel or local file system"
    return [Check("write test", rate >= SLOW_BYTES_A_SECOND, text)]


def _check_memory(world: World) -> list[Check]:
    limit = memory_limit()
    found = _everywhere(world, (world.host, world.local_size, limit.bytes, limit.source, resident_bytes()))
    checks = {}
    for host, ranks, allowed, source, own in found:
        each = predicted_peak_bytes(0) + UNIT_BYTES
        fits = each * ranks <= allowed
        text = (
            f"{source} is {bytes_text(allowed)} for {ranks} rank{'s' if ranks > 1 else ''}; a rank is "
            f"planned with {bytes_text(predicted_peak_bytes(0))} of imports and its unit (the doctor "
            f"itself holds {bytes_text(own)})"
        )
        if not fits:
            text += f": ask for more memory, or start at most {max(allowed // each, 1)} ranks a node"
        checks.setdefault(host, Check(f"memory of {host}", fits, text))
    return list(checks.values())


def _check_threads(world: World) -> list[Check]:
    set_to = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    cores, fitting = len(os.sched_getaffinity(0)), threads_per_rank()
    asked = max((int(value) for value in set_to.values() if value and value.isdecimal()), default=0)
    try:
        cache, cache_trouble = str(numba_cache_folder()), ""
    except RuntimeError as error:
        cache, cache_trouble = "", str(error)
    found = _everywhere(world, (cores, fitting, asked, all(set_to.values()), cache, cache_trouble))
    crowded = [rank for rank, (cores, _, asked, _, _, _) in enumerate(found) if asked > cores]
    unset = [rank for rank, entry in enumerate(found) if not entry[3]]
    cores, fitting, asked, *_ = found[0]
    text = f"{asked or 'any number of'} a rank, {cores} cores visible, {fitting} would fit"
    if crowded:
        text += f": more than cores on {_numbers(crowded)}; unset {THREAD_VARIABLES[0]} and its like"
    elif unset:
        text += f": not set on {_numbers(unset)}; start by the command cytomill, which sets them"
    caches = sorted({entry[4] for entry in found if entry[4]})
    broken = sorted({entry[5] for entry in found if entry[5]})
    return [
        Check("threads", not crowded, text),
        Check("cache of compiled kernels", not broken, "; ".join([*caches, *broken])),
    ]


def _check_clocks(world: World) -> list[Check]:
    world.barrier()
    times = _everywhere(world, time.time())
    skew = max(times) - min(times)
    text = f"ranks differ by {1000 * skew:.0f} ms at the most"
    if skew > SKEW_S:
        text = f"ranks differ by {skew:.1f} s: have the nodes' clocks set (NTP)"
    return [Check("clocks", skew <= SKEW_S, text)]


def _check_hdf5() -> Check:
    import h5py

    build = "parallel (MPI)" if h5py.get_config().mpi else "serial"
    return Check("HDF5", True, f"h5py {h5py.__version__} on HDF5 {h5py.version.hdf5_version}, {build}")


def _check_zarrs() -> Check:
    import zarr

    try:
        import zarrs
    except ImportError as error:
        text = f"zarr {zarr.__version__}, but {FAST_PIPELINE} cannot be loaded ({error}): pip install zarrs"
        return Check("Zarr", False, text)
    return Check("Zarr", True, f"zarr {zarr.__version__}, coded by {zarrs.__name__} ({FAST_PIPELINE})")


def _check_versions() -> Check:
    libraries = ", ".join(f"{name} {version}" for name, version in library_versions().items())
    head = f"cytomill {cytomill.__version__}, Python {platform.python_version()}"
    if not libraries:
        return Check("versions", False, f"{head}: the package is not installed; pip install it")
    return Check("versions", True, f"{head}; {libraries}")
