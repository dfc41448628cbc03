"""How a dataset is cut into units, as its campaign asks for it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Layout:
    """How a dataset is cut into units; it changes no value.

    Parameters
    ----------
    slices_per_unit : int
        Depth of a slab; 0 chooses it.
    block : tuple of int
        Block of the stages that work on volumes, voxels (Z, Y, X); zeros choose it.
    ranks : int
        Ranks that share the units; what is chosen gives each of them several.
    """

    slices_per_unit: int = 0
    block: tuple[int, int, int] = (0, 0, 0)
    ranks: int = 1
