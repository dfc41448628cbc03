"""Where a kernel runs: host cores or one CUDA device.

A kernel with a GPU version chooses it by the array that it is given (a CuPy array lives on the
device), never by a module global; a stage moves a region there with :meth:`Device.put`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Device:
    """A compute device of one rank.

    Parameters
    ----------
    cuda_index : int or None
        Index of the CUDA device as this process sees it; None means the CPU.
    """

    cuda_index: int | None = None

    @property
    def is_gpu(self) -> bool:
        """Whether arrays put here live on a CUDA device."""
        return self.cuda_index is not None

    def put(self, array: np.ndarray) -> Any:
        """Return `array` on this device (the same object on the CPU, a CuPy copy on a GPU)."""
        if not self.is_gpu:
            return array
        import cupy

        with cupy.cuda.Device(self.cuda_index):
            return cupy.asarray(array)


def on_gpu(array: Any) -> bool:
    """Whether `array` is a CuPy array."""
    return type(array).__module__.partition(".")[0] == "cupy"


def to_host(array: Any) -> np.ndarray:
    """Return `array` as a NumPy array, copied from the device if it lives there."""
    return array.get() if on_gpu(array) else np.asarray(array)
