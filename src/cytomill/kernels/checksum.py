"""CRC-32C of an array's bytes, at the speed of memory."""

from __future__ import annotations

import google_crc32c
import numpy as np

#: The library takes bytes only; a piece that fits the cache is copied almost for free.
_PIECE_BYTES = 2**18


def crc32c_of(array: np.ndarray, before: int = 0) -> int:
    """CRC-32C of the array's bytes in C order.

    Parameters
    ----------
    array : ndarray
        Any dtype; not contiguous costs a copy.
    before : int
        CRC-32C of what comes before it, so that an array can be checked piece by piece.

    Returns
    -------
    int
        In [0, 2³²).
    """
    flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    for start in range(0, flat.size, _PIECE_BYTES):
        before = google_crc32c.extend(before, flat[start : start + _PIECE_BYTES].tobytes())
    return before
