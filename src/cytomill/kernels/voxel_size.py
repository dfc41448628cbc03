"""The size of a voxel, checked in one place; nothing heavy is imported."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def checked_voxel_size(voxel_size_nm: Sequence[float]) -> np.ndarray:
    """Return the voxel size (Z, Y, X) as a (3,) float64 array.

    Raises
    ------
    ValueError
        Unless it is three positive numbers.
    """
    size = np.asarray(voxel_size_nm, np.float64)
    if size.shape != (3,) or not (np.isfinite(size).all() and (size > 0).all()):
        raise ValueError(f"voxel_size_nm needs three positive numbers (Z, Y, X), got {voxel_size_nm!r}")
    return size
