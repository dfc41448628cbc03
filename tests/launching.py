"""Starting processes in tests: scripts under mpirun, in groups that leave nobody behind."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent

import pytest

#: Variables that would make a test's process believe that a launcher started it.
LAUNCHER_PREFIXES = ("PMI_", "PMIX_", "OMPI_", "MV2_", "MPI_", "SLURM_", "HYDRA_", "HYDI_")


def mpirun_path() -> str:
    """Return the mpirun beside the running interpreter; skips the test where there is none."""
    path = Path(sys.executable).parent / "mpirun"
    if not path.exists():
        pytest.skip(f"needs an mpirun beside {sys.executable} (the mpich wheel brings one)")
    return str(path)


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return this process's environment without any launcher's variables, and with `extra`."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(LAUNCHER_PREFIXES)}
    return {**kept, "PYTHONUNBUFFERED": "1", **(extra or {})}


@contextmanager
def started(
    n: int,
    arguments: Sequence[str],
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    launcher: Sequence[str] | None = None,
):
    """Start ``python arguments`` on `n` ranks; the whole group is killed when the block is left.

    Parameters
    ----------
    n : int
        Ranks; 0 starts one process without a launcher.
    arguments : sequence of str
        What follows the interpreter.
    launcher : sequence of str, optional
        Replaces ``mpirun -n N``.

    Yields
    ------
    subprocess.Popen
        With its output and errors as text pipes.
    """
    if launcher is None:
        launcher = [mpirun_path(), "-n", str(n)] if n else []
    process = subprocess.Popen(
        [*launcher, sys.executable, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        cwd=cwd,
        env=clean_environment(env),
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            # hydra ends its ranks, which live in sessions of their own, when it is told to.
            process.terminate()
            try:
                process.wait(3)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        for stream in (process.stdout, process.stderr):
            stream.close()


def run_ranks(
    n: int,
    arguments: Sequence[str],
    env: Mapping[str, str] | None = None,
    timeout: float = 60.0,
    meanwhile: Callable[[subprocess.Popen], None] | None = None,
    cwd: Path | None = None,
) -> subprocess.CompletedProcess:
    """Run ``python arguments`` on `n` ranks and return what came of it, with `elapsed_s` added.

    Raises
    ------
    subprocess.TimeoutExpired
        If it takes more than `timeout` seconds; it is ended then.
    """
    began = time.monotonic()
    with started(n, arguments, env, cwd) as process:
        if meanwhile is not None:
            meanwhile(process)
        out, err = process.communicate(timeout=timeout)
        done = subprocess.CompletedProcess(process.args, process.returncode, out, err)
        done.elapsed_s = time.monotonic() - began
        return done


def mpirun(
    n: int,
    script_text: str,
    env: Mapping[str, str] | None = None,
    timeout: float = 60.0,
    meanwhile: Callable[[subprocess.Popen], None] | None = None,
    args: Sequence[str] = (),
) -> subprocess.CompletedProcess:
    """Run the text of a Python script on `n` ranks (0: alone, without a launcher).

    Parameters
    ----------
    meanwhile : callable, optional
        Called with the launcher's process once it is started, for instance to send it a signal.
    """
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "script.py"
        script.write_text(dedent(script_text))
        return run_ranks(n, [str(script), *args], env, timeout, meanwhile)


def wait_for(condition: Callable[[], bool], timeout: float = 20.0) -> None:
    """Wait until `condition` holds.

    Raises
    ------
    TimeoutError
        If it does not within `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout} s in vain")
        time.sleep(0.02)
