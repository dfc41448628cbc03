"""Finding Z, Y and X among the axes of an array."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cytomill.storage.errors import VolumeError


@dataclass(frozen=True)
class SpatialAxes:
    """Where Z, Y and X are among an array's axes, and which index is taken along the others.

    Parameters
    ----------
    positions : tuple of (int or None)
        Positions of Z, Y and X in the array; None for Z of a plane.
    indices : dict of int to int
        Index taken along each other axis, by position.
    """

    positions: tuple[int | None, int, int]
    indices: Mapping[int, int]

    def pick(self, per_axis: Sequence[int]) -> tuple[int, int, int]:
        """Return the (Z, Y, X) entries of something given for every axis; 1 where there is no Z."""
        return tuple(1 if position is None else int(per_axis[position]) for position in self.positions)

    def index(self, slices: Sequence[slice]) -> tuple[slice | int, ...]:
        """Return the index into the array of (Z, Y, X) slices."""
        full: dict[int, slice | int] = dict(self.indices)
        full.update({p: part for p, part in zip(self.positions, slices) if p is not None})
        return tuple(full[position] for position in range(len(full)))

    def arrange(self, taken: np.ndarray) -> np.ndarray:
        """Return what :meth:`index` took out of the array as (Z, Y, X), without a copy."""
        kept = sorted(position for position in self.positions if position is not None)
        order = [kept.index(position) for position in self.positions if position is not None]
        arranged = taken.transpose(order)
        return arranged if self.positions[0] is not None else arranged[np.newaxis]


def find_spatial_axes(
    source: str, names: str, shape: Sequence[int], indices: Mapping[str, int]
) -> SpatialAxes:
    """Decide which axes are Z, Y and X, and take the asked index, or the only one, along the rest.

    Parameters
    ----------
    source : str
        What to call the volume in a message.
    names : str
        One letter an axis.
    shape : sequence of int
        Extent of every axis.
    indices : mapping of str to int
        What the selector says.

    Raises
    ------
    VolumeError
        If an axis other than Z, Y, X has several entries and none is chosen, or a choice does not exist.
    """
    described = f"axes {names.upper()} of {tuple(int(n) for n in shape)}"
    if len(names) != len(shape) or len(set(names)) != len(names):
        raise VolumeError(
            f"{source} has an array of {tuple(shape)}, which axes {names.upper()} do not describe."
        )
    if "y" not in names or "x" not in names:
        raise VolumeError(f"{source} has {described}; an image needs Y and X.")
    unknown = [key for key in indices if key not in names or key in "zyx"]
    if unknown:
        raise VolumeError(
            f"{source} has {described}; {unknown[0]!r} is no axis that an index can be chosen along."
        )
    chosen, open_axes = {}, []
    for position, (name, extent) in enumerate(zip(names, shape)):
        if name in "zyx":
            continue
        index = indices.get(name, 0)
        if index >= extent:
            raise VolumeError(f"{source} has {described}; there is no {name}={index}.")
        if name not in indices and extent > 1:
            open_axes.append(name)
        chosen[position] = index
    if open_axes:
        example = ",".join(f"{name}=0" for name in open_axes)
        slices = _as_slices(names, shape, open_axes)
        raise VolumeError(
            f"{source} has {described}, which is not one volume: choose one by adding '::{example}'{slices}."
        )
    if 0 in shape:
        raise VolumeError(f"{source} has {described}: it is empty.")
    z = names.index("z") if "z" in names else None
    return SpatialAxes((z, names.index("y"), names.index("x")), chosen)


def _as_slices(names: str, shape: Sequence[int], open_axes: Sequence[str]) -> str:
    """What to add where the entries of the only open axis may be slices: some programs write Z as T or S."""
    if len(open_axes) != 1 or ("z" in names and shape[names.index("z")] > 1):
        return ""
    swapped = names.translate(str.maketrans({"z": open_axes[0], open_axes[0]: "z"}))
    return f", or '::axes={swapped}' where they are its slices"


def guess_axes(source: str, shape: Sequence[int], hint: str) -> tuple[str, tuple[int, ...]]:
    """Name the axes of an array that does not name them: (Z, Y, X) or (Y, X) after axes of one entry.

    Parameters
    ----------
    source : str
        What to call the array in a message.
    shape : sequence of int
        Extent of every axis.
    hint : str
        Example of the selector that names the axes.

    Returns
    -------
    names : str
        One letter an axis; the axes of one entry that are left over get letters that are no axis.
    shape : tuple of int

    Raises
    ------
    VolumeError
        If there is more than one way to see it.
    """
    extents = list(shape)
    left = right = 0
    while len(extents) > 3 and extents[-1] == 1:
        extents.pop()
        right += 1
    while len(extents) > 3 and extents[0] == 1:
        extents.pop(0)
        left += 1
    if not 2 <= len(extents) <= 3:
        raise VolumeError(
            f"{source} has an array of {tuple(int(n) for n in shape)} without names for its axes; name them, "
            f"for example '{hint}'."
        )
    spare = "ijklmnopq"
    names = spare[:left] + "zyx"[-len(extents) :] + spare[left : left + right]
    return names, tuple(int(n) for n in shape)
