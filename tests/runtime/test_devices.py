"""Promises of device binding, with simulated devices; the fallback with CuPy and no device."""

import sys
import types

import pytest
from launching import mpirun

from cytomill.runtime import devices
from cytomill.runtime.ranks import SoloWorld


@pytest.fixture(autouse=True)
def no_binding_left(monkeypatch):
    monkeypatch.setattr(devices, "_bound", None)


def deal(local_size, count, visible=None):
    return [devices.choose_device(r, local_size, count, visible) for r in range(local_size)]


def test_more_ranks_than_gpus_share_and_are_told():
    chosen = deal(5, 2)
    assert [index for index, _ in chosen] == [0, 1, 0, 1, 0]
    assert all(notes == ["5 ranks share 2 GPUs on this node"] for _, notes in chosen)
    assert deal(2, 1)[1] == (0, ["2 ranks share 1 GPU on this node"])


def test_fewer_ranks_than_gpus_leave_some_idle_and_are_told():
    assert [index for index, _ in deal(2, 4, "0,1,2,3")] == [0, 1]
    assert deal(2, 4)[0][1] == ["2 of 4 GPUs on this node have no rank"]


def test_as_many_ranks_as_gpus_need_no_note():
    assert deal(4, 4) == [(0, []), (1, []), (2, []), (3, [])]


@pytest.mark.parametrize("visible", ["3", "GPU-1fe0a3e2"])
def test_the_one_device_that_the_scheduler_shows_is_taken(visible):
    assert deal(4, 1, visible) == [(0, [])] * 4


@pytest.mark.parametrize("visible", [None, "", "0"])
def test_without_a_device_the_cpu_is_taken(visible):
    assert deal(2, 0, visible) == [(None, [])] * 2


@pytest.fixture
def no_cupy(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)


class CUDARuntimeError(RuntimeError):
    """What CuPy raises where there is no driver or no device."""


@pytest.fixture
def cupy_without_device(monkeypatch):
    def refuse(*arguments):
        raise CUDARuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected")

    cupy = types.ModuleType("cupy")
    runtime = types.SimpleNamespace(getDeviceCount=refuse, CUDARuntimeError=CUDARuntimeError)
    cupy.cuda = types.SimpleNamespace(runtime=runtime, Device=refuse)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    return cupy


@pytest.mark.parametrize("situation", ["no_cupy", "cupy_without_device"])
def test_cpu_is_the_fallback_and_gpu_on_demand_is_refused(situation, request):
    request.getfixturevalue(situation)
    assert devices.device_count() == 0
    binding = devices.bind(SoloWorld())
    assert (binding.device.is_gpu, binding.label, binding.notes) == (False, "cpu", [])
    with pytest.raises(RuntimeError, match=r"device = 'gpu' was asked for.*no CUDA device.*'auto'"):
        devices.bind(SoloWorld(), "gpu")
    with pytest.raises(ValueError, match="'tpu'"):
        devices.bind(SoloWorld(), "tpu")


def test_a_device_that_does_not_work_is_said_and_the_cpu_taken(cupy_without_device):
    cupy_without_device.cuda.runtime.getDeviceCount = lambda: 1
    binding = devices.bind(SoloWorld())
    assert not binding.device.is_gpu and "GPU 0 does not work" in binding.notes[0]
    with pytest.raises(RuntimeError, match="GPU 0 does not work"):
        devices.bind(SoloWorld(), "gpu")


def test_installed_cupy_without_a_device_falls_back():
    pytest.importorskip("cupy", reason="needs CuPy (the gpu extra)")
    binding = devices.bind(SoloWorld())
    assert binding.device.is_gpu == (devices.device_count() > 0)


def test_ranks_that_see_one_device_each_are_told_apart_by_its_identity():
    script = """
        import sys, os, json
        from cytomill.runtime import devices, ranks
        world = ranks.connect()
        identities = json.loads(sys.argv[1])
        devices.device_count = lambda: 1
        devices._probe = lambda index: ("Simulated", identities[world.rank])
        binding = devices.bind(world, visible="0")
        told = world.gather([binding.label, binding.notes])
        if world.rank == 0:
            print(json.dumps(told), flush=True)
        world.finish()
    """
    apart = mpirun(3, script, args=['["a", "b", "c"]'])
    assert apart.stdout.strip() == str([["gpu 0 (Simulated)", []]] * 3).replace("'", '"'), apart.stderr
    together = mpirun(3, script, args=['["a", "b", "a"]'])
    assert together.stdout.count("2 ranks share one GPU on this node") == 2, together.stderr


@pytest.mark.gpu
def test_a_real_gpu_is_bound_and_current():
    cupy = pytest.importorskip("cupy", reason="needs CuPy (the gpu extra)")
    if devices.device_count() == 0:
        pytest.skip("needs a CUDA device")
    binding = devices.bind(SoloWorld(), "gpu")
    assert binding.device.is_gpu and binding.label.startswith("gpu 0 (")
    assert cupy.cuda.Device().id == binding.device.cuda_index
