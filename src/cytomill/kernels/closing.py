"""Binary closing of a volume by a ball, in voxels or in physical units, whole or block by block.

A ball is a set of segments along X, one for each (dz, dy).  A volume is widened along X once for
each length of segment, in place, and whole rows are OR-ed: the work grows with the ball's
cross-section instead of its volume, and every inner loop runs over contiguous bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit

from cytomill.kernels.blocks import Region

#: What lies outside a volume when it is closed.
BORDERS = ("pad", "zero")


@dataclass(frozen=True)
class Ball:
    """A ball, or an ellipsoid in voxels where voxels are not cubes.

    Parameters
    ----------
    half_widths : (2·rz + 1, 2·ry + 1) int64 ndarray
        Half the length of the ball's segment along X at each (dz, dy), without its centre voxel;
        -1 where the ball has no voxel.
    """

    half_widths: np.ndarray

    @property
    def reach(self) -> tuple[int, int, int]:
        """Voxels from the centre to the last voxel along Z, Y and X."""
        depth, height = self.half_widths.shape
        return depth // 2, height // 2, int(self.half_widths.max())

    @property
    def halo(self) -> tuple[int, int, int]:
        """Voxels that a block must read around itself for its closing to be exact."""
        depth, height, width = self.reach
        return 2 * depth, 2 * height, 2 * width

    @property
    def footprint(self) -> np.ndarray:
        """The ball's voxels, a bool array of shape 2·reach + 1."""
        width = self.reach[2]
        return np.abs(np.arange(-width, width + 1)) <= self.half_widths[..., None]


def ball(radius: float, voxel_size: Sequence[float] = (1.0, 1.0, 1.0)) -> Ball:
    """Make the ball of voxels whose centre lies within `radius` of the origin.

    Parameters
    ----------
    radius : float
        In the unit of `voxel_size`; with the default, in voxels.
    voxel_size : sequence of float
        (Z, Y, X).

    Returns
    -------
    Ball
        With a radius in voxels, the voxels of ``skimage.morphology.ball(radius)``.

    Raises
    ------
    ValueError
        For a negative radius, or a voxel size that is not positive.
    """
    if not (np.isfinite(radius) and radius >= 0):
        raise ValueError(f"the radius of a closing must be a number of at least 0, got {radius}")
    size_z, size_y, size_x = (float(size) for size in voxel_size)
    if min(size_z, size_y, size_x) <= 0:
        raise ValueError(f"a voxel size must be positive, got {tuple(voxel_size)}")
    # 3 × 0.1 is not 0.3: a voxel that lies on the surface belongs to the ball.
    limit = radius * (1 + 1e-9)
    reach_z, reach_y = int(limit / size_z), int(limit / size_y)
    offsets_z = np.arange(-reach_z, reach_z + 1)[:, None] * size_z
    offsets_y = np.arange(-reach_y, reach_y + 1)[None, :] * size_y
    left = limit**2 - offsets_z**2 - offsets_y**2
    widths = np.floor(np.sqrt(np.maximum(left, 0)) / size_x).astype(np.int64)
    return Ball(np.where(left >= 0, widths, -1))


@njit(nogil=True, cache=True)
def _widen(volume, keep_centre):
    scratch = np.empty(volume.shape[2], np.uint8)
    for z in range(volume.shape[0]):
        for y in range(volume.shape[1]):
            row = volume[z, y]
            for x in range(row.size):
                scratch[x] = row[x]
            target, left, right = row[1:-1], scratch[:-2], scratch[2:]
            if keep_centre:
                for x in range(target.size):
                    target[x] |= left[x] | right[x]
            else:
                for x in range(target.size):
                    target[x] = left[x] | right[x]


@njit(nogil=True, cache=True)
def _dilate(source, out, half_widths):
    """OR into `out` (zeros) the ball around every voxel of `source`, which is used up.

    `source` is larger than `out` by the ball's reach on every side.
    """
    widest = half_widths.max()
    for width in range(widest + 1):
        if width > 0:
            # Two segments of half-width w - 1, one step left and right, make one of half-width w,
            # but for the first, whose halves leave the centre out.
            _widen(source, width == 1)
        if not (half_widths == width).any():
            continue
        for z in range(out.shape[0]):
            for y in range(out.shape[1]):
                target = out[z, y]
                for dz in range(half_widths.shape[0]):
                    for dy in range(half_widths.shape[1]):
                        if half_widths[dz, dy] == width:
                            row = source[z + dz, y + dy][widest : widest + target.size]
                            for x in range(target.size):
                                target[x] |= row[x]


def canvas_for(region: Region, element: Ball) -> np.ndarray:
    """Return the zeros that :func:`close_canvas` wants for a block: the block and its halo, uint8."""
    return np.zeros(
        [stop - start + 2 * halo for (start, stop), halo in zip(region, element.halo, strict=True)],
        np.uint8,
    )


def close_canvas(
    canvas: np.ndarray, region: Region, shape: Sequence[int], element: Ball, border: str = "pad"
) -> np.ndarray:
    """Close one block, exactly as if the whole volume had been closed.

    Parameters
    ----------
    canvas : (Z + 2·halo, …) uint8 ndarray
        The mask (0 and 1) of the block and its halo (:attr:`Ball.halo`), zero outside the volume.
        It is used up.
    region : Region
        The block.
    shape : sequence of int
        The volume.
    element : Ball
        Structuring element.
    border : {"pad", "zero"}
        ``pad`` closes as if the volume went on with zeros, so that particles at its faces keep their
        voxels; ``zero`` takes the dilation, too, as zero outside, so that voxels at the faces go.

    Returns
    -------
    (Z, Y, X) uint8 ndarray
        0 and 1, the block alone.
    """
    check_border(border)
    reach = element.reach
    if not any(reach):
        return canvas
    dilated = np.zeros([size - 2 * step for size, step in zip(canvas.shape, reach, strict=True)], np.uint8)
    _dilate(canvas, dilated, element.half_widths)
    if border == "zero":
        for axis, ((start, stop), step, length) in enumerate(zip(region, reach, shape, strict=True)):
            planes = np.moveaxis(dilated, axis, 0)
            planes[: max(step - start, 0)] = 0
            planes[planes.shape[0] - max(stop + step - length, 0) :] = 0
    # Erosion is dilation of what is not there.
    np.bitwise_xor(dilated, 1, out=dilated)
    closed = np.zeros([stop - start for start, stop in region], np.uint8)
    _dilate(dilated, closed, element.half_widths)
    return np.bitwise_xor(closed, 1, out=closed)


def binary_closing(mask: np.ndarray, element: Ball, border: str = "pad") -> np.ndarray:
    """Close a whole mask.

    Parameters
    ----------
    mask : (Z, Y, X) bool or uint8 ndarray
        Non-zero is inside.
    element : Ball
        Structuring element.
    border : {"pad", "zero"}
        See :func:`close_canvas`.

    Returns
    -------
    (Z, Y, X) bool ndarray
    """
    region = tuple((0, size) for size in mask.shape)
    canvas = canvas_for(region, element)
    inner = tuple(slice(halo, halo + size) for halo, size in zip(element.halo, mask.shape, strict=True))
    canvas[inner] = mask != 0
    return close_canvas(canvas, region, mask.shape, element, border).view(bool)


def check_border(border: str) -> None:
    """Refuse a border that is not one of :data:`BORDERS`."""
    if border not in BORDERS:
        raise ValueError(f"border must be one of {', '.join(BORDERS)}, got {border!r}")
