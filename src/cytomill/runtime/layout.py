"""How a dataset is cut into units, as its campaign asks for it."""

from __future__ import annotations

from dataclasses import dataclass

#: Bytes of an input that a slab covers, where the layout may choose.
SLAB_BYTES = 128 * 2**20


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

    def slab_depth(self, depth: int, slice_bytes: int, multiple: int = 1) -> int:
        """Slices of a unit that covers whole slices.

        Parameters
        ----------
        depth : int
            Slices of the input.
        slice_bytes : int
            Bytes of one of them.
        multiple : int
            Slices that are read at once; a unit holds whole multiples.
        """
        wanted = self.slices_per_unit
        if not wanted:
            least_units = max(16, 4 * self.ranks)
            wanted = max(1, min(SLAB_BYTES // max(slice_bytes, 1), -(-depth // least_units)))
        return max(wanted // multiple, 1) * multiple
