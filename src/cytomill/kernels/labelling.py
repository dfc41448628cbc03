"""Labels of nanoparticle clusters: threshold, closing, components; block by block, one answer.

:func:`label_unit` labels a block on its own; :func:`merge_blocks` sees of all blocks only their
components and the runs on shared faces, and decides the final ids; :func:`paint_unit` writes them.
The result is that of the whole volume at once, whatever the blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, prod

import numpy as np
from numba import njit

from cytomill.kernels.block_faces import FACE_COLUMNS, face_runs, join_faces
from cytomill.kernels.blocks import Region, grid, grow, region_shape, region_slices
from cytomill.kernels.closing import Ball, ball, canvas_for, check_border, close_canvas
from cytomill.kernels.components import Runs, label_runs, paint_runs

#: Columns of a block's row: its region, its components, its runs on shared faces.
BLOCK_COLUMNS = ("z0", "z1", "y0", "y1", "x0", "x1", "components", "face_runs")

#: Row, ends, parent, label and what is derived from them while faces are picked or ids sorted.
_BYTES_A_RUN = 40


@dataclass(frozen=True)
class LabelMap:
    """Final ids of the components of all blocks.

    Parameters
    ----------
    offsets : (B + 1,) int64 ndarray
        Where each block's components begin in `final`.
    final : (C,) int32 ndarray
        Final id of each component, 0 where it was too small.
    first_voxel : (N,) int64 ndarray
        C-order index, in the volume, of the first voxel of labels 1 … N.
    voxel_count : (N,) int64 ndarray
        Voxels of labels 1 … N.
    """

    offsets: np.ndarray
    final: np.ndarray
    first_voxel: np.ndarray
    voxel_count: np.ndarray

    @property
    def count(self) -> int:
        """Number of labels."""
        return self.first_voxel.size

    def of_block(self, index: int) -> np.ndarray:
        """Return the final id of each local label of a block, 0 first: (n + 1,) int32."""
        return np.append(np.int32(0), self.final[self.offsets[index] : self.offsets[index + 1]])

    def as_arrays(self) -> dict[str, np.ndarray]:
        """Return the map as named arrays, to be sent or stored."""
        return {
            "offsets": self.offsets,
            "final": self.final,
            "first_voxel": self.first_voxel,
            "voxel_count": self.voxel_count,
        }


def _cutoff(threshold: float, dtype: np.dtype) -> int:
    if not 0 < threshold <= 1:
        raise ValueError(f"the posterior threshold must lie in (0, 1], got {threshold}")
    if dtype == np.float16:
        # Below half the smallest float16 the threshold would round to 0 and take in every voxel.
        return max(int(np.float16(threshold).view(np.uint16)), 1)
    if dtype == np.uint8:
        # Decimal digits, not the binary float: 255 × 0.2 is 51, whatever the last bit of 0.2.
        return ceil(255 * Fraction(str(float(threshold))))
    raise ValueError(f"a posterior is float16, or uint8 from 0 to 255; got {np.dtype(dtype).name}")


@njit(nogil=True, cache=True)
def _threshold(bits, low, high, out):
    for z in range(bits.shape[0]):
        for y in range(bits.shape[1]):
            source, target = bits[z, y], out[z, y]
            for x in range(source.size):
                target[x] = (source[x] >= low) & (source[x] <= high)


def threshold_mask(posterior: np.ndarray, threshold: float, out: np.ndarray | None = None) -> np.ndarray:
    """Mark the voxels whose posterior reaches the threshold.

    Float16 values in [0, 1] order like their bits, so they are compared as integers.

    Parameters
    ----------
    posterior : (Z, Y, X) float16 or uint8 ndarray
        uint8 is the probability times 255.
    threshold : float
        In (0, 1]; float16 is compared with ``float16(threshold)``, uint8 with ``ceil(255·threshold)``.
    out : (Z, Y, X) uint8 ndarray, optional
        Where to write.

    Returns
    -------
    (Z, Y, X) uint8 ndarray
        0 and 1; NaN and negative values give 0.

    Raises
    ------
    ValueError
        For another dtype or a threshold out of range.
    """
    low = _cutoff(threshold, posterior.dtype)
    is_float = posterior.dtype == np.float16
    if out is None:
        out = np.empty(posterior.shape, np.uint8)
    kind = np.uint16 if is_float else np.uint8
    # Above +inf there are NaN and the negative numbers.
    high = 0x7C00 if is_float else 255
    _threshold(posterior.view(kind), kind(low), kind(high), out)
    return out


def label_unit(
    posterior: np.ndarray,
    region: Region,
    shape: Sequence[int],
    threshold: float,
    element: Ball,
    connectivity: int = 2,
    border: str = "pad",
) -> tuple[Runs, dict[str, np.ndarray]]:
    """Label one block on its own.

    Parameters
    ----------
    posterior : (…) float16 or uint8 ndarray
        The block and its halo, clipped to the volume: ``grow(region, element.halo, shape)``.
    region : Region
        The block.
    shape : sequence of int
        The volume.
    threshold : float
        See :func:`threshold_mask`.
    element : Ball
        Structuring element of the closing.
    connectivity : {1, 2, 3}
        Voxels that share a face; or an edge; or a corner.
    border : {"pad", "zero"}
        The closing at the volume's faces, see :func:`cytomill.kernels.closing.close_canvas`.

    Returns
    -------
    runs : Runs
        The block's components as runs, 1 … n by first voxel: far less than a volume of labels.
    partials : dict of str to ndarray
        ``blocks`` (1, 8) int64, :data:`BLOCK_COLUMNS`; ``first_voxel`` (n,) int64, C-order index in
        the volume; ``voxel_count`` (n,) int64; ``faces`` (m, 6) int32, see
        :mod:`cytomill.kernels.block_faces`.  Rows of all blocks are joined in raster order.
    """
    read, _ = grow(region, element.halo, shape)
    if posterior.shape != region_shape(read):
        raise ValueError(
            f"the block {region} with its halo {element.halo} has shape {region_shape(read)}, "
            f"but the posterior read has {posterior.shape}"
        )
    canvas = canvas_for(region, element)
    within = tuple(
        slice(low - start + halo, high - start + halo)
        for (low, high), (start, _), halo in zip(read, region, element.halo, strict=True)
    )
    threshold_mask(posterior, threshold, out=canvas[within])
    # The canvas is all that is needed from here on: a caller that keeps no posterior has its room back.
    del posterior
    mask = close_canvas(canvas, region, shape, element, border)
    # The canvas is as large as the mask, and of no more use.
    del canvas
    runs = label_runs(mask.view(bool), connectivity)
    del mask
    faces = face_runs(runs, region, shape)
    (z0, _), (y0, _), (x0, _) = region
    _, height, width = region_shape(region)
    row, x = np.divmod(runs.first_voxel, width)
    z, y = np.divmod(row, height)
    first_voxel = ((z + z0) * shape[1] + (y + y0)) * shape[2] + x + x0
    bounds = [bound for pair in region for bound in pair]
    partials = {
        "blocks": np.array([[*bounds, first_voxel.size, len(faces)]], np.int64),
        "first_voxel": first_voxel,
        "voxel_count": runs.voxel_count,
        "faces": faces,
    }
    return runs, partials


def merge_blocks(partials: dict[str, np.ndarray], connectivity: int = 2, min_size: int = 10) -> LabelMap:
    """Decide the final labels from what the blocks returned.

    Parameters
    ----------
    partials : dict of str to ndarray
        Of :func:`label_unit`, rows of all blocks joined.
    connectivity : {1, 2, 3}
        As for the blocks.
    min_size : int
        Labels with fewer voxels are dropped.

    Returns
    -------
    LabelMap
        Ids 1 … N by first voxel in C order.

    Raises
    ------
    ValueError
        Where the labels do not fit int32.
    """
    blocks = dict(zip(BLOCK_COLUMNS, partials["blocks"].T, strict=True))
    offsets = np.concatenate([[0], np.cumsum(blocks["components"])]).astype(np.int64)
    total = int(offsets[-1])
    faces = partials["faces"]
    label = FACE_COLUMNS.index("label")
    item = faces[:, label].astype(np.int64) - 1 + np.repeat(offsets[:-1], blocks["face_runs"])
    root = join_faces(faces, item, total, connectivity)

    voxel_count = np.zeros(total, np.int64)
    np.add.at(voxel_count, root, partials["voxel_count"])
    first_voxel = partials["first_voxel"].copy()
    np.minimum.at(first_voxel, root, partials["first_voxel"])
    kept = np.flatnonzero((root == np.arange(total)) & (voxel_count >= min_size))
    if kept.size > np.iinfo(np.int32).max:
        raise ValueError(
            f"{kept.size} labels do not fit the int32 of the label volume: "
            "raise the threshold or the smallest size"
        )
    kept = kept[np.argsort(first_voxel[kept])]
    final = np.zeros(total, np.int32)
    final[kept] = np.arange(1, kept.size + 1)
    return LabelMap(offsets, final[root], first_voxel[kept], voxel_count[kept])


def paint_unit(runs: Runs, shape: Sequence[int], block_map: np.ndarray) -> np.ndarray:
    """Write a block with its final labels.

    Parameters
    ----------
    runs : Runs
        Of :func:`label_unit`.
    shape : sequence of int
        Of the block, (Z, Y, X).
    block_map : (n + 1,) int32 ndarray
        :meth:`LabelMap.of_block`.

    Returns
    -------
    (Z, Y, X) int32 ndarray

    Raises
    ------
    ValueError
        Where the block holds a label that the map does not know.
    """
    if runs.label.size and int(runs.label.max()) >= block_map.size:
        raise ValueError(
            f"a block holds the label {runs.label.max()} but its map ends at {block_map.size - 1}: "
            "its runs are not those that were merged; run the components stage again"
        )
    return paint_runs(runs, shape, block_map)


def label_volume(
    posterior: np.ndarray,
    threshold: float = 0.5,
    radius: float | Ball = 1,
    connectivity: int = 2,
    min_size: int = 10,
    border: str = "pad",
    block: Sequence[int] | None = None,
) -> np.ndarray:
    """Label a posterior that lies in memory.

    Parameters
    ----------
    posterior : (Z, Y, X) float16 or uint8 ndarray
        Probability of being particle (uint8: times 255).
    threshold : float
        Posterior of a particle voxel, in (0, 1].
    radius : float or Ball
        Radius of the closing, voxels, or its structuring element; 0 for none.
    connectivity : {1, 2, 3}
        Voxels that share a face; or an edge; or a corner.
    min_size : int
        Smallest label, voxels.
    border : {"pad", "zero"}
        The closing at the volume's faces, see :func:`cytomill.kernels.closing.close_canvas`.
    block : sequence of int, optional
        Label block by block; the result is the same.

    Returns
    -------
    (Z, Y, X) int32 ndarray
        1 … N by first voxel in C order; a label is a cluster of particles.
    """
    check_border(border)
    if posterior.ndim != 3:
        raise ValueError(f"a posterior to be labelled is (Z, Y, X), got the shape {posterior.shape}")
    if not posterior.size:
        return np.zeros(posterior.shape, np.int32)
    element = radius if isinstance(radius, Ball) else ball(radius)
    shape = posterior.shape
    regions = grid(shape, block or shape)
    pieces, partials = [], []
    for region in regions:
        read, _ = grow(region, element.halo, shape)
        around = posterior[region_slices(read)]
        runs, partial = label_unit(around, region, shape, threshold, element, connectivity, border)
        pieces.append(runs)
        partials.append(partial)
    joined = {name: np.concatenate([partial[name] for partial in partials]) for name in partials[0]}
    label_map = merge_blocks(joined, connectivity, min_size)
    final = np.empty(shape, np.int32)
    for index, region in enumerate(regions):
        block_map = label_map.of_block(index)
        final[region_slices(region)] = paint_unit(pieces[index], region_shape(region), block_map)
    return final


def unit_bytes(
    block: Sequence[int],
    element: Ball,
    dtype: np.dtype | type = np.float16,
    fill: float = 0.05,
    read: Sequence[int] | None = None,
) -> int:
    """Estimate the peak memory of :func:`label_unit`.

    Parameters
    ----------
    block : sequence of int
        The block, voxels an axis.
    element : Ball
        Structuring element of the closing.
    dtype : dtype
        Of the posterior.
    fill : float
        Room for runs: the share of voxels in the mask, at two voxels a run.  Clusters have longer
        runs, so that the default is enough for 10 % of the volume.
    read : sequence of int, optional
        What is read of the posterior, voxels an axis: less than the block and its halo where the
        volume ends.

    Returns
    -------
    int
        Bytes of posterior, masks and runs at the worst moment, the posterior being released once it
        is compared with the threshold.
    """
    voxels = prod(block)
    canvas = prod(size + 2 * halo for size, halo in zip(block, element.halo, strict=True))
    dilated = prod(size + 2 * reach for size, reach in zip(block, element.reach, strict=True))
    closing = canvas + dilated + voxels if any(element.reach) else voxels
    runs = int(voxels * fill / 2) * _BYTES_A_RUN
    posterior = np.dtype(dtype).itemsize * (canvas if read is None else prod(read))
    return max(posterior + canvas, closing, voxels + runs)


def masks_unit_bytes(
    block: Sequence[int],
    dtype: np.dtype | type = np.float16,
    image_dtype: np.dtype | type = np.uint8,
    factors: Sequence[int] = (1, 1, 1),
    fill: float = 0.05,
) -> int:
    """Estimate the peak memory of :func:`paint_unit`, then measuring the block.

    Parameters
    ----------
    block : sequence of int
        The block, voxels an axis.
    dtype, image_dtype : dtype
        Of the posterior and the image.
    factors : sequence of int
        Image voxels a label's voxel.
    fill : float
        Room for runs: the share of voxels in the mask, at two voxels a run.  Clusters have longer
        runs, so that the default is enough for 10 % of the volume.

    Returns
    -------
    int
        Bytes at the worst moment.
    """
    voxels = prod(block)
    read = voxels * (np.dtype(dtype).itemsize + np.dtype(image_dtype).itemsize * prod(factors))
    runs = int(voxels * fill / 2) * _BYTES_A_RUN
    return 4 * voxels + read + runs
