"""Promise 2: the unit that kills its process is found, and an innocent one is not blamed."""

import os
import signal
import sys
import threading
import time

import numpy as np
import pytest

from cytomill.kernels.devices import Device
from cytomill.runtime import devices, launcher, signals, suspects
from cytomill.runtime.failures import MachineFailed
from cytomill.runtime.ranks import SoloWorld
from cytomill.runtime.stage import Unit, UnitOutput


@pytest.fixture(autouse=True)
def no_stop(monkeypatch):
    monkeypatch.setattr(signals, "_reason", "")


def child(text):
    return [sys.executable, "-c", text]


def test_a_unit_that_kills_its_process_is_blamed_after_a_while():
    began = time.monotonic()
    with pytest.raises(suspects.ChildFailed, match=r"signal 9, SIGKILL.*last words"):
        suspects.run_in_child(child("import os; os.write(2, b'last words'); os.kill(os.getpid(), 9)"))
    assert time.monotonic() - began >= suspects.BLAME_AFTER_S, "a rank about to die must not blame"


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_child_killed_with_a_stopping_job_is_not_blamed(moment):
    timer = threading.Timer(0.0 if moment == "before" else 1.0, signals.request_stop, ["a test"])
    timer.start()
    with pytest.raises(suspects.ChildInterrupted):
        suspects.run_in_child(child(f"import os; os.kill(os.getpid(), {int(signal.SIGTERM)})"))
    timer.join()


def test_a_unit_that_fails_while_the_job_stops_is_blamed_all_the_same():
    signals.request_stop("a test")
    with pytest.raises(suspects.ChildFailed, match="exited with code 3: why"):
        suspects.run_in_child(child("print('why'); raise SystemExit(3)"))


def test_trouble_of_the_machine_blames_nobody():
    with pytest.raises(MachineFailed, match="disk full"):
        suspects.run_in_child(child("print('disk full'); raise SystemExit(74)"))


class Slow:
    """A stage whose only unit takes 50 ms and returns what a child's result is packed with."""

    def process(self, unit):
        time.sleep(0.05)
        return UnitOutput({"allow_pickle": np.arange(3), "file": np.array(1.5)}, [])


def test_a_childs_result_comes_back_with_its_own_seconds(tmp_path, monkeypatch):
    def run(command, **keywords):
        result = command[command.index("--result") + 1]
        suspects.run_as_child(Slow(), Unit(0, ((0, 1),), 1.0), tmp_path, type(tmp_path)(result))
        return type("Done", (), {"poll": lambda self: 0, "returncode": 0})()

    monkeypatch.setattr(suspects.subprocess, "Popen", run)
    shards, partials, seconds = suspects.run_in_child(["unit"])
    assert shards == [] and sorted(partials) == ["allow_pickle", "file"] and partials["file"] == 1.5
    assert 0.05 <= seconds < 0.5


LAUNCHERS = {
    "PMI_RANK": "1",
    "PMI_FD": "6",
    "PMIX_RANK": "1",
    "OMPI_COMM_WORLD_SIZE": "2",
    "MV2_COMM_WORLD_RANK": "0",
    "MV2_COMM_WORLD_SIZE": "2",
    "PALS_RANKID": "0",
    "FLUX_TASK_RANK": "1",
    "CRAY_PMI_X": "1",
    "SLURM_PROCID": "1",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_STEP_NUM_TASKS": "2",
}


def test_a_child_is_no_rank(monkeypatch):
    for name, value in LAUNCHERS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "4096")
    environment = suspects.child_environment()
    assert not set(LAUNCHERS) & set(environment)
    assert environment["SLURM_MEM_PER_NODE"] == "4096" and environment["PATH"] == os.environ["PATH"]
    assert launcher.launched_by_mpi()
    for name in LAUNCHERS:
        monkeypatch.delenv(name)
    assert not launcher.launched_by_mpi()


def test_a_child_gets_the_device_of_its_rank(monkeypatch):
    monkeypatch.setattr(devices, "_bound", None)
    monkeypatch.delenv(devices.DEVICE_VARIABLE, raising=False)
    assert devices.DEVICE_VARIABLE not in suspects.child_environment()
    assert devices.device_from_environment() is None
    assert devices.bind(SoloWorld(), "cpu").device == Device(None)
    assert suspects.child_environment()[devices.DEVICE_VARIABLE] == "cpu"
    monkeypatch.setattr(devices, "_bound", Device(3))
    found = suspects.child_environment()[devices.DEVICE_VARIABLE]
    monkeypatch.setenv(devices.DEVICE_VARIABLE, found)
    probed = []
    monkeypatch.setattr(devices, "_probe", lambda index: probed.append(index) or ("", ""))
    assert devices.device_from_environment() == Device(3) and probed == [3], "and it is the current one"
    monkeypatch.setenv(devices.DEVICE_VARIABLE, "three")
    with pytest.raises(ValueError, match="CYTOMILL_DEVICE is 'three'"):
        devices.device_from_environment()
