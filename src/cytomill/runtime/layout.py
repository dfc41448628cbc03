"""How a dataset is cut into units, as its campaign asks for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from cytomill.kernels.blocks import align

#: Bytes of an input that a slab covers, where the layout may choose.
SLAB_BYTES = 128 * 2**20
#: Blocks a rank, where the layout may choose them, and layers of blocks at the least.
BLOCKS_A_RANK, LEAST_LAYERS = 6, 4


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

    def block_of(self, shape: Sequence[int], shards: Sequence[int], most_voxels: int) -> tuple[int, ...]:
        """Block of a unit that works on volumes: whole shards, cut to the volume.

        Parameters
        ----------
        shape, shards : sequence of int
            Volume and shard, voxels (Z, Y, X).
        most_voxels : int
            Voxels of a block, where the layout may choose; one shard at the least.
        """
        wanted = self.block
        if not any(wanted):
            # As deep as memory and the sharing allow: what lies between blocks along Z is read twice.
            counts = [-(-length // shard) for length, shard in zip(shape, shards)]
            layers = max(-(-BLOCKS_A_RANK * self.ranks // (counts[1] * counts[2])), LEAST_LAYERS)
            depth = max(1, min(most_voxels // prod(shards), -(-counts[0] // layers)))
            wanted = (shards[0] * depth, shards[1], shards[2])
        return align(wanted, shards, shape)
