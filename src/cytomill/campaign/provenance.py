"""Where results come from: program, libraries, machine, job. Never the whole environment (secrets)."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import cytomill

#: What identifies a job to its scheduler: Slurm, PBS, LSF, Grid Engine, Flux.
JOB_VARIABLES = (
    "SLURM_CLUSTER_NAME",
    "SLURM_JOB_ID",
    "SLURM_JOB_NAME",
    "SLURM_JOB_PARTITION",
    "SLURM_JOB_NODELIST",
    "SLURM_JOB_NUM_NODES",
    "SLURM_ARRAY_JOB_ID",
    "SLURM_ARRAY_TASK_ID",
    "SLURM_RESTART_COUNT",
    "SLURM_STEP_ID",
    "PBS_JOBID",
    "PBS_ARRAY_INDEX",
    "LSB_JOBID",
    "LSB_JOBINDEX",
    "SGE_CLUSTER_NAME",
    "FLUX_JOB_ID",
)

CONTAINER_VARIABLES = ("APPTAINER_CONTAINER", "APPTAINER_NAME", "SINGULARITY_CONTAINER", "SINGULARITY_NAME")

_GIT_SECONDS = 5


def collect(world_info: Mapping[str, Any], started: float | None = None) -> dict[str, Any]:
    """Describe this process and its machine; called on rank 0 at the start of a launch.

    Parameters
    ----------
    world_info : dict
        What the caller knows of the MPI world (ranks, devices, library), JSON-able; kept as `world`.
    started : float, optional
        When the launch began, seconds since the epoch; now where not given.

    Returns
    -------
    dict
        JSON-able: version, commit, python, libraries, host, platform, cpu, container, job, command,
        working_folder, started (ISO 8601 with its zone), world. What cannot be known is None.
    """
    began = time.time() if started is None else started
    return {
        "version": cytomill.__version__,
        "commit": commit_of_checkout(Path(cytomill.__file__).parent),
        "python": platform.python_version(),
        "libraries": library_versions(),
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "cpu": cpu_info(),
        "container": container_info(os.environ),
        "job": {name: os.environ[name] for name in JOB_VARIABLES if name in os.environ},
        "command": [_printable(word) for word in sys.argv],
        "working_folder": _working_folder(),
        "started": datetime.fromtimestamp(began).astimezone().isoformat(timespec="seconds"),
        "world": dict(world_info),
    }


def commit_of_checkout(package: Path) -> dict[str, Any] | None:
    """Commit from which the package in `package` runs.

    Returns
    -------
    dict or None
        `hash` and `modified` (tracked files differ from it; None where git does not say). None
        where there is no git, or git does not track the package: an environment may lie in
        somebody else's checkout.
    """
    if _git(package, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    commit = _git(package, "rev-parse", "HEAD")
    if commit is None:
        return None
    changes = _git(package, "status", "--porcelain", "--untracked-files=no")
    return {"hash": commit, "modified": None if changes is None else bool(changes)}


def library_versions() -> dict[str, str]:
    """Versions of the installed libraries that the package depends on, extras too but for tests."""
    try:
        requirements = metadata.requires("cytomill") or []
    except metadata.PackageNotFoundError:
        return {}
    versions = {}
    for requirement in requirements:
        if re.search(r"""extra == ["']test["']""", requirement):
            continue
        name = re.match(r"[A-Za-z0-9._-]+", requirement).group()
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue  # an extra that is not installed here
    return dict(sorted(versions.items()))


def cpu_info(cpuinfo: Path = Path("/proc/cpuinfo")) -> dict[str, Any]:
    """Model, features and number of the CPUs that this process may use.

    Floating-point libraries choose code by CPU feature, so values are promised for equal features:
    `features_sha256` is a digest of their sorted list (None where the system has no such list).
    """
    found: dict[str, str] = {}
    try:
        # Only the first processor's paragraph: the others repeat it, hundreds of times on big nodes.
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").split("\n\n", 1)[0].splitlines():
            key, _, value = line.partition(":")
            found[key.strip().lower()] = value.strip()
    except OSError:
        found = {}
    flags = found.get("flags") or found.get("features")
    digest = hashlib.sha256(" ".join(sorted(flags.split())).encode()).hexdigest() if flags else None
    return {
        "model": found.get("model name") or platform.processor() or platform.machine() or None,
        "features_sha256": digest,
        "usable": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
    }


def container_info(environment: Mapping[str, str]) -> dict[str, str] | None:
    """What says that this is a container (Apptainer, Singularity, Docker, Podman); None outside."""
    named = {name.lower(): environment[name] for name in CONTAINER_VARIABLES if environment.get(name)}
    if named:
        return named
    for mark, kind in (("/.dockerenv", "docker"), ("/run/.containerenv", "podman")):
        if os.path.exists(mark):
            return {"kind": kind}
    return None


def _git(folder: Path, *words: str) -> str | None:
    # Variables such as GIT_DIR (set in hooks) would point git at another repository.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", "--no-optional-locks", "-C", str(folder), *words],
            check=False,
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            timeout=_GIT_SECONDS,
            env=environment,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _working_folder() -> str | None:
    try:
        return _printable(os.getcwd())
    except OSError:
        return None  # the folder was removed under the process


def _printable(text: str) -> str:
    """File names need not be UTF-8; JSON files must be."""
    return os.fsencode(text).decode("utf-8", "backslashreplace")
