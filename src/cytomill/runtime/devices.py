"""Which device a rank computes on.

A node's GPUs are dealt to its ranks in turn; where the scheduler shows each rank one device, that is
the rank's. Several ranks on one GPU are allowed, and said. Without a usable GPU the CPU is taken.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from cytomill.kernels.devices import Device
from cytomill.runtime.ranks import World

POLICIES = ("auto", "cpu", "gpu")
#: Tells a rank's child process which device the rank has: ``cpu``, or the index of a CUDA device.
DEVICE_VARIABLE = "CYTOMILL_DEVICE"
_VISIBLE = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")


_bound: Device | None = None


@dataclass(frozen=True)
class Binding:
    """The device of one rank.

    Parameters
    ----------
    device : Device
        Where the rank's kernels run.
    label : str
        The device in words: ``cpu``, or ``gpu 0 (NVIDIA …)``.
    notes : list of str
        What the user should know about the choice.
    """

    device: Device
    label: str
    notes: list[str] = field(default_factory=list)


def visible_devices() -> str | None:
    """Return the scheduler's list of devices that this process may see, None where it gave none."""
    return next((os.environ[name] for name in _VISIBLE if name in os.environ), None)


def device_count() -> int:
    """Return how many CUDA devices this process sees; 0 without CuPy, driver or device."""
    try:
        import cupy
    except ImportError:
        return 0
    try:
        return int(cupy.cuda.runtime.getDeviceCount())
    except cupy.cuda.runtime.CUDARuntimeError:
        return 0


def choose_device(
    local_rank: int, local_size: int, device_count: int, visible_env: str | None
) -> tuple[int | None, list[str]]:
    """Choose a device for one rank of a node.

    Parameters
    ----------
    local_rank, local_size : int
        This rank among the ranks of its node.
    device_count : int
        Devices that this process sees.
    visible_env : str or None
        The scheduler's list of visible devices, for example ``"0,1"``.

    Returns
    -------
    index : int or None
        Index of the device as this process sees it, None for the CPU.
    notes : list of str
        What the user should know.
    """
    if device_count < 1:
        return None, []
    if device_count == 1 and visible_env is not None:
        # Each rank may be shown a device of its own, or all of them the same one: the index is 0
        # either way, and `bind` compares the devices' identities.
        return 0, []
    notes = []
    if local_size > device_count:
        gpus = "1 GPU" if device_count == 1 else f"{device_count} GPUs"
        notes.append(f"{local_size} ranks share {gpus} on this node")
    elif local_size < device_count:
        notes.append(f"{device_count - local_size} of {device_count} GPUs on this node have no rank")
    return local_rank % device_count, notes


def _probe(index: int) -> tuple[str, str]:
    """Make the device current, run a kernel on it, and return its name and identity."""
    import cupy

    cupy.cuda.Device(index).use()
    cupy.arange(2).sum().item()
    properties = cupy.cuda.runtime.getDeviceProperties(index)
    identity = properties.get("uuid") or cupy.cuda.runtime.deviceGetPCIBusId(index)
    return properties["name"].decode(), repr(identity)


def bind(world: World, policy: str = "auto", visible: str | None = None) -> Binding:
    """Give this rank its device, and make it the current one (collective).

    Parameters
    ----------
    world : World
        The ranks.
    policy : {'auto', 'cpu', 'gpu'}
        'auto' takes a GPU where there is a usable one.
    visible : str, optional
        The scheduler's list of visible devices; the environment's by default.

    Raises
    ------
    ValueError
        If `policy` is none of these.
    RuntimeError
        If a GPU is asked for and this rank has none that works.
    """
    if policy not in POLICIES:
        raise ValueError(f"device is one of {', '.join(POLICIES)}, not {policy!r}")
    index, notes, name, identity = None, [], "", ""
    if policy != "cpu":
        visible = visible_devices() if visible is None else visible
        index, notes = choose_device(world.local_rank, world.local_size, device_count(), visible)
    trouble = "CuPy is not installed or sees no CUDA device"
    if index is not None:
        try:
            name, identity = _probe(index)
        # CuPy raises its own kinds for driver, runtime and compiler: all mean the same here.
        except Exception as error:
            trouble = f"GPU {index} does not work ({type(error).__name__}: {error})"
            notes = [f"{trouble}: this rank computes on the CPU"]
            index = None
    if policy == "gpu" and index is None:
        raise RuntimeError(
            f"device = 'gpu' was asked for, but on rank {world.rank} ({world.host}) {trouble}: install "
            "cytomill[gpu] on a node with a GPU, or take device = 'auto' or 'cpu'"
        )
    global _bound
    _bound = Device(index)
    everyone = world.bcast(world.gather((world.host, identity)))
    sharers = everyone.count((world.host, identity))
    if index is not None and sharers > 1 and not any("share" in note for note in notes):
        notes.append(f"{sharers} ranks share one GPU on this node")
    label = "cpu" if index is None else f"gpu {index} ({name})"
    return Binding(_bound, label, notes)


def device_to_environment() -> dict[str, str]:
    """Return the variable that gives this rank's device to a child process; empty before :func:`bind`."""
    if _bound is None:
        return {}
    return {DEVICE_VARIABLE: "cpu" if _bound.cuda_index is None else str(_bound.cuda_index)}


def device_from_environment() -> Device | None:
    """Return the device of the rank that started this process, made current; None where there is none.

    Raises
    ------
    ValueError
        If the variable names no device.
    """
    text = os.environ.get(DEVICE_VARIABLE)
    if text is None:
        return None
    if text == "cpu":
        return Device(None)
    if not text.isdecimal():
        raise ValueError(f"{DEVICE_VARIABLE} is {text!r}, expected 'cpu' or the index of a CUDA device")
    _probe(int(text))
    return Device(int(text))
