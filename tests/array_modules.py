"""Array modules for tests of device kernels: the real CuPy where there is a GPU, and a stand-in."""

import sys
import types

import numpy as np
import pytest


def needs_gpu():
    """CuPy with a usable device; skips with a message otherwise."""
    cupy = pytest.importorskip("cupy", reason="needs CuPy and a CUDA device: CuPy is not installed")
    if not cupy.cuda.is_available():
        pytest.skip("needs a CUDA device: CuPy is installed but finds none")
    return cupy


def fake_cupy(monkeypatch):
    """A module named cupy that computes with NumPy and records which functions were called.

    Its arrays are recognised as device arrays, and refuse implicit conversion to the host as CuPy does.
    """
    module = types.ModuleType("cupy")
    module.calls = []

    class ndarray:
        def __init__(self, host):
            self._host = np.asarray(host)
            self.dtype, self.shape, self.ndim = self._host.dtype, self._host.shape, self._host.ndim

        def get(self):
            return self._host.copy()

        def ravel(self):
            return ndarray(self._host.ravel())

        def astype(self, dtype):
            return ndarray(self._host.astype(dtype))

        def __len__(self):
            return len(self._host)

        def __iter__(self):
            return (ndarray(row) for row in self._host)

        def __array__(self, *args, **kwargs):
            raise TypeError("Implicit conversion to a NumPy array is not allowed")

    ndarray.__module__ = "cupy"

    def asarray(array):
        module.calls.append("asarray")
        return array if isinstance(array, ndarray) else ndarray(np.array(array))

    def bincount(array, minlength):
        module.calls.append("bincount")
        return ndarray(np.bincount(array._host, minlength=minlength))

    def take(table, indices, out=None):
        module.calls.append("take")
        taken = np.take(table._host, indices._host)
        if out is None:
            return ndarray(taken)
        out._host[...] = taken
        return out

    module.ndarray, module.int64 = ndarray, np.int64
    module.asarray, module.bincount, module.take = asarray, bincount, take
    monkeypatch.setitem(sys.modules, "cupy", module)
    return module
