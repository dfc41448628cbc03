"""What arrays are taken as masks or labels, and the sentences for those that are not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit

#: Float64 counts whole numbers up to here.
_LARGEST_WHOLE = 2**53


def _refuse_value(name: str, where: tuple[int, ...], value: object, count: int, what: str) -> None:
    raise ValueError(
        f"{name} holds {value} at (z, y, x) = {where} ({count:,} such voxels in that slice), {what}"
    )


@njit(nogil=True, cache=True)
def _largest_whole(values):
    """Return the largest value, or -1 where one is no whole number from 0 on."""
    largest = 0.0
    for value in values:
        # Written so that NaN fails.
        if not (value >= 0 and value <= _LARGEST_WHOLE and value == np.floor(value)):
            return -1.0
        largest = max(largest, float(value))
    return largest


def _check_slice(plane: np.ndarray, z: int, name: str) -> float:
    """Refuse a float slice that holds no labels; return its largest value."""
    kind = np.float32 if plane.dtype.itemsize <= 4 else np.float64
    largest = _largest_whole(np.ascontiguousarray(plane, kind).reshape(-1))
    if largest >= 0:
        return largest
    expected = "but labels are whole numbers from 0 on: "
    for find_bad, what in (
        (lambda: ~np.isfinite(plane), "set voxels without a value to 0"),
        (lambda: plane < 0, "set background to 0"),
        (lambda: np.rint(plane) != plane, "give a mask (threshold a probability or an image first)"),
    ):
        is_bad = find_bad()
        if is_bad.any():
            y, x = np.argwhere(is_bad)[0]
            where = (z, int(y), int(x))
            _refuse_value(name, where, plane[y, x], int(is_bad.sum()), expected + what)
    raise ValueError(f"{name} has labels up to {plane.max():g} in slice {z}: give labels below 2^53")


def as_masks(volume: np.ndarray, name: str = "the mask", first_slice: int = 0) -> np.ndarray:
    """Take an array as a mask or labels: bool or integers, 0 for background.

    Bool and integers of any size are taken as they are (0 and 255 are a mask like 0 and 1), without a
    copy where the byte order is the machine's.  Floats that hold whole numbers are taken as those.

    Parameters
    ----------
    volume : (Z, Y, X) or (Y, X) ndarray
        A volume, a slab of one, or an image.
    name : str
        For sentences, like ``"the PM mask"``.
    first_slice : int
        Z of the slab in its volume, for sentences.

    Returns
    -------
    (Z, Y, X) bool or integer ndarray
        Z is 1 for an image.  Values, not dtypes, are the same for any cutting into slabs; floats need
        1 to 8 bytes a voxel for the copy, and some of a slice.

    Raises
    ------
    ValueError
        For other dtypes and dimensions, negative labels, NaN, infinity and fractions.
    """
    volume = np.asarray(volume)
    if volume.ndim not in (2, 3):
        raise ValueError(
            f"{name} has the shape {volume.shape}, expected (Z, Y, X), or (Y, X) for an image: "
            "take out one channel and one time point"
        )
    if volume.ndim == 2:
        volume = volume[None]
    if volume.dtype.kind == "b":
        return volume
    if volume.dtype.kind == "f":
        largest = max(
            (_check_slice(plane, first_slice + z, name) for z, plane in enumerate(volume)), default=0.0
        )
        return volume.astype(np.min_scalar_type(int(largest)))
    if volume.dtype.kind not in "iu":
        raise ValueError(
            f"{name} has the dtype {volume.dtype}, expected bool, integers, or floats that hold labels"
        )
    if volume.dtype.kind == "i" and volume.size and volume.min() < 0:
        where = np.unravel_index(np.argmax(volume < 0), volume.shape)
        count = int((volume[where[0]] < 0).sum())
        place = (first_slice + int(where[0]), int(where[1]), int(where[2]))
        _refuse_value(
            name, place, volume[where], count, "but labels are whole numbers from 0 on: set background to 0"
        )
    if volume.dtype.kind == "u" and volume.dtype.itemsize == 8 and volume.size and volume.max() >= 2**63:
        raise ValueError(f"{name} has labels of 2^63 or more: give smaller ones")
    return volume.astype(volume.dtype.newbyteorder("="), copy=False)


def check_crop(nucleus: np.ndarray, cell: np.ndarray) -> None:
    """Refuse a crop whose masks are not two volumes of one shape, or that has no nucleus."""
    if nucleus.shape != cell.shape or cell.ndim != 3:
        raise ValueError(
            f"nucleus and cell must be (Z, Y, X) masks of one shape, found {nucleus.shape} and {cell.shape}: "
            "crop both alike, and give a 2-D image one slice"
        )
    if not nucleus.any():
        raise ValueError("the nucleus mask of this cell is empty: a radial position needs a nuclear envelope")


def check_shapes(nucleus: Sequence[int], cell: Sequence[int]) -> None:
    """Refuse a nucleus and a cell volume of different shapes."""
    if tuple(nucleus) != tuple(cell):
        raise ValueError(
            f"the NE mask has the shape {tuple(nucleus)} and the PM mask {tuple(cell)}, but they must lie "
            "on the same voxels: crop or resample one of them"
        )
