"""Units left open by a launch that was killed: run in a child process, so that one that kills its
process is found without harming the job, and an innocent one is not blamed.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cytomill.runtime.arrays import from_npz, to_npz
from cytomill.runtime.devices import device_to_environment
from cytomill.runtime.failures import MachineFailed, is_environment_failure, sentence
from cytomill.runtime.launcher import without_launcher
from cytomill.runtime.ranks import wait_politely
from cytomill.runtime.signals import stop_requested
from cytomill.runtime.stage import Arrays, Stage, Unit
from cytomill.storage.durable import ShardRecord, seal

_SHARDS = "cytomill.shards"
_SECONDS = "cytomill.seconds"
_PR_SET_PDEATHSIG = 1
#: Exit code of a child that met trouble of the machine (EX_IOERR): its unit is not to blame.
_MACHINE_FAILED = 74


#: How long a rank waits before it blames a unit whose process was killed: whoever kills all of a job's
#: processes, or asks them to stop first, reaches the rank too within this time.
BLAME_AFTER_S = 2.0


class ChildInterrupted(RuntimeError):
    """The child process was killed while the job was asked to stop: the unit is not to blame."""


class ChildFailed(RuntimeError):
    """The child process of a suspect unit died or failed; the message says how."""


def few_children_sentence(able: int, ranks: int) -> str:
    """What is said where memory does not hold a child process beside every rank."""
    open_units = "units that a killed launch left open run"
    if able:
        return f"memory holds a process beside {able} of {ranks} ranks only: {open_units} on these alone"
    return (
        f"memory holds no process beside a rank: {open_units} in the ranks themselves, where one that kills "
        "its process ends the job; give the ranks more memory, or start fewer of them"
    )


def child_environment() -> dict[str, str]:
    """This process's environment without what an MPI launcher put there, and with its device.

    A child with the launcher's variables would join the job's world, or be taken for one of its ranks.
    """
    return without_launcher(os.environ) | device_to_environment()


def run_in_child(command: Sequence[str]) -> tuple[list[ShardRecord], Arrays, float]:
    """Run a unit by `command` plus ``--result FILE``; return its shards, partial results and seconds.

    Raises
    ------
    ChildFailed
        If the child exits non-zero or is killed.
    ChildInterrupted
        If it is killed and this process is asked to stop, before or at most 2 s after.
    MachineFailed
        If the child found the disk full, or the like.
    """
    with tempfile.TemporaryDirectory(prefix="cytomill-unit-") as folder:
        result, log = Path(folder) / "result.npz", Path(folder) / "log"
        with open(log, "wb") as stream:
            child = subprocess.Popen(
                [*command, "--result", str(result), "--parent", str(os.getpid())],
                env=child_environment(),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                # A launcher signals its ranks' process groups: a stop must not kill a child that has
                # no handler yet, or an innocent unit would be blamed.
                start_new_session=True,
            )
            wait_politely(lambda: child.poll() is not None)
        if child.returncode < 0 and wait_politely(stop_requested, BLAME_AFTER_S):
            raise ChildInterrupted(_how_it_ended(child.returncode))
        if child.returncode != 0:
            lines = log.read_text(errors="replace").strip().splitlines()
            last = f": {lines[-1]}" if lines else ""
            if child.returncode == _MACHINE_FAILED:
                raise MachineFailed(f"the unit's process could not go on{last}")
            raise ChildFailed(f"{_how_it_ended(child.returncode)}{last}")
        arrays = from_npz(result.read_bytes())
    shards = json.loads(arrays.pop(_SHARDS).tobytes())
    seconds = float(arrays.pop(_SECONDS))
    return [ShardRecord(*record) for record in shards], arrays, seconds


def _how_it_ended(code: int) -> str:
    if code < 0:
        return f"the unit killed its process (signal {-code}, {signal.Signals(-code).name})"
    return f"the unit's process exited with code {code}"


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when the rank that started it dies.

    An orphan would go on writing shards that the next launch gives to somebody else.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the rank that started this unit is gone")


def run_as_child(stage: Stage, unit: Unit, root: Path, result: Path) -> None:
    """The child's side: run the unit, make its shards durable, leave the result for the parent."""
    try:
        began = time.monotonic()
        output = stage.process(unit)
        seconds = np.array(time.monotonic() - began)
        records = [[r.path, r.size, r.crc32c] for r in seal(output.shards, root)]
        listed = np.frombuffer(json.dumps(records).encode(), np.uint8)
        result.write_bytes(to_npz({**output.partials, _SHARDS: listed, _SECONDS: seconds}))
    except Exception as error:
        if not is_environment_failure(error):
            raise
        print(sentence(error), file=sys.stderr)
        sys.exit(_MACHINE_FAILED)
