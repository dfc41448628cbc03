"""Replacing every 8-bit value of an image by its entry in a table."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from cytomill.kernels.devices import on_gpu


@njit(nogil=True, cache=True)
def _gather(image, table, out):
    for i in range(image.size):
        out[i] = table[image[i]]


def apply_table(image: Any, table: Any, out: Any = None) -> Any:
    """Return ``table[image]`` at the speed of memory.

    Parameters
    ----------
    image : uint8 ndarray or CuPy array of any shape
    table : (256,) float16 or uint8 array
        Lives where `image` lives; a NumPy table is moved to the device of a CuPy image.
    out : array, optional
        Contiguous, of the shape of `image` and the dtype of `table`; made when not given.

    Returns
    -------
    array
        `out`, on the device that `image` lives on; the same values on both.

    Raises
    ------
    TypeError
        If `image` is not uint8 or `table` is neither float16 nor uint8.
    ValueError
        If `table` has not 256 entries, or `out` does not fit.
    """
    if image.dtype != np.uint8:
        raise TypeError(f"a table of 256 entries needs uint8 pixels, found {image.dtype}: bin them first")
    if table.dtype not in (np.float16, np.uint8):
        raise TypeError(f"the table must be float16 or uint8, found {table.dtype}")
    if table.shape != (256,):
        raise ValueError(f"the table must have 256 entries, found shape {table.shape}")
    if out is not None and (out.shape != image.shape or out.dtype != table.dtype):
        raise ValueError(
            f"out must be {table.dtype} of shape {image.shape}, found {out.dtype} of shape {out.shape}"
        )
    if on_gpu(image):
        import cupy

        return cupy.take(cupy.asarray(table), image, out=out)
    if out is None:
        out = np.empty(image.shape, table.dtype)
    elif not out.flags.c_contiguous:
        raise ValueError("out must be contiguous")
    # numba knows no float16 on the host: entries are moved as bit patterns of the same width.
    bits = np.uint16 if table.dtype == np.float16 else np.uint8
    _gather(
        np.ascontiguousarray(image).reshape(-1),
        np.ascontiguousarray(table).view(bits),
        out.reshape(-1).view(bits),
    )
    return out
