"""A cell as nested shells in three dimensions: one static picture, cast ray by ray on the processor.

The cell is opened by a wedge that faces the viewer. Every shell is cut a little further out than the one
around it, so that the shells lie as steps around the nucleus, which stays whole.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from cytomill.kernels.cell_codes import NUCLEUS_ID, UNASSIGNED_ID
from cytomill.reports.canvas import Picture, data_uri
from cytomill.reports.partition_colours import MEMBRANE_COLOUR, NUCLEUS_COLOUR, shell_colours
from cytomill.reports.quantities import figures_text
from cytomill.reports.shell_rays import BORDER, SKY_EVERY, cast_rays
from cytomill.reports.slices import label_font, scale_bar_nm

#: Longest side of the picture, pixels; shown at about half of that.
PIXELS = 780
_ELEVATION = np.deg2rad(32.0)
#: Turn of the two cut planes away from the viewer: the wedge opens by 180° less twice this.
_TURN = np.deg2rad(34.0)
#: Width of a step between the cuts of two shells, share of the mean shell thickness.
_STEP = 0.42
_LIGHT = (-0.45, 0.62, 0.75)
_COLOURS = 256
_STRIP = 40
#: Readable on light and on dark paper.
_INK = (122, 134, 148, 255)


def nested_shells(
    codes: np.ndarray, voxel_size_nm: tuple[float, float, float], n_shells: int, name: str = "cell"
) -> Picture:
    """Draw a cell's shells in three dimensions.

    Parameters
    ----------
    codes : (Z, Y, X) uint8 ndarray
        0 outside, 1..n shells, `NUCLEUS_ID`, `UNASSIGNED_ID`; coarse, about 100 voxels a side (the cost is in
        pixels times depth: below a second).
    voxel_size_nm : tuple of float
        (Z, Y, X), nm.
    n_shells : int
        Shells from NE to PM.
    name : str
        Of the cell, for the alternative text.

    Returns
    -------
    Picture
        Transparent ground: one picture serves both schemes.
    """
    level, size = _level(codes, voxel_size_nm, n_shells)
    right, up, toward, cuts = _camera(codes, size)
    nucleus = codes == NUCLEUS_ID
    centre = _centroid(nucleus if nucleus.any() else codes != 0, size)
    middle, half_width, half_height, half_depth = _frame(level, size, n_shells, right, up, toward)
    pixel = 2 * max(half_width, half_height) / PIXELS
    rows, columns = max(1, round(2 * half_height / pixel)), max(1, round(2 * half_width / pixel))
    # Thickness by volume: the cytoplasm is a wall about the nucleus, as thick as the radii differ.
    radii = [np.cbrt(np.count_nonzero(m) * np.prod(size) * 3 / (4 * np.pi)) for m in (nucleus, codes != 0)]
    step = _STEP * (radii[1] - radii[0]) / n_shells
    label, facing, open_sky = cast_rays(
        level,
        *_clearances(level, size, n_shells),
        size,
        n_shells,
        np.stack([right, up, toward]),
        middle,
        centre,
        cuts,
        step,
        rows,
        columns,
        pixel,
        half_depth,
        _unit(np.asarray(_LIGHT)),
        _hemisphere(10),
    )
    return Picture(
        _png(_with_scale(_paint(label, facing, open_sky, n_shells), pixel)),
        "",
        f"{name} in three dimensions, opened: {n_shells} shells nested around the nucleus",
        columns,
        rows + _STRIP,
    )


def _clearances(level, size, n_shells) -> tuple[np.ndarray, np.ndarray]:
    """Distance of every grid point to the cell and to the nucleus, µm: so far a ray may step at once."""
    margin = np.sqrt((size**2).sum())
    return tuple(
        np.maximum(ndimage.distance_transform_edt(~mask, size) - margin, 0).astype(np.float32)
        if mask.any()
        else np.full(level.shape, 1e6, np.float32)
        for mask in (level < n_shells + 0.5, level < 0.5)
    )


def _level(codes, voxel_size_nm, n_shells) -> tuple[np.ndarray, np.ndarray]:
    """Shell number as a smooth field, 0 in the nucleus and n + 1 outside, with a border of outside."""
    table = np.full(256, n_shells, np.float32)
    table[: n_shells + 1] = np.arange(n_shells + 1)
    table[0], table[NUCLEUS_ID], table[UNASSIGNED_ID] = n_shells + 1, 0, n_shells
    size = np.asarray(voxel_size_nm, np.float64) / 1000
    level = np.pad(table[codes], BORDER + 1, constant_values=n_shells + 1)
    sigma = 0.75 * size.max() / size
    return ndimage.gaussian_filter(level, np.minimum(sigma, 2.5), mode="nearest"), size


def _camera(codes, size) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Right, up, towards the viewer, and the normals of the two cuts, all as (Z, Y, X).

    Seen from the side of the cell's longer extent in the plane, and from above.
    """
    flat = (codes != 0).sum(axis=0).astype(np.float64)
    y, x = np.indices(flat.shape)
    y, x = y * size[1], x * size[2]
    y, x = y - np.average(y, weights=flat), x - np.average(x, weights=flat)
    spread = np.array(
        [
            [np.average(y * y, weights=flat), np.average(y * x, weights=flat)],
            [np.average(y * x, weights=flat), np.average(x * x, weights=flat)],
        ]
    )
    long = np.linalg.eigh(spread)[1][:, 1]
    long = long if long[1] >= 0 else -long
    right = np.array([0.0, long[0], long[1]])
    # Rows run down on a page, so the viewer stands at large y.
    front = np.array([0.0, long[1], -long[0]])
    upward = np.array([1.0, 0.0, 0.0])
    toward = np.cos(_ELEVATION) * front + np.sin(_ELEVATION) * upward
    up = -np.sin(_ELEVATION) * front + np.cos(_ELEVATION) * upward
    cuts = np.stack([np.cos(_TURN) * front + s * np.sin(_TURN) * right for s in (1, -1)])
    return right, up, toward, cuts


def _frame(level, size, n_shells, right, up, toward):
    """Middle of the picture and half its width, height and depth, µm: the cell with a little air."""
    points = np.argwhere(level < n_shells + 0.5)[::7] * size
    ends = [((points @ axis).min(), (points @ axis).max()) for axis in (right, up, toward)]
    middle = sum(0.5 * (low + high) * axis for (low, high), axis in zip(ends, (right, up, toward)))
    air = 2 * size.max()
    return middle, *(0.5 * (high - low) + air for low, high in ends)


def _centroid(mask, size) -> np.ndarray:
    # The border that `_level` adds shifts every index.
    return (np.argwhere(mask).mean(axis=0) + BORDER + 1) * size


def _unit(vector) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def _hemisphere(count: int) -> np.ndarray:
    """Directions spread evenly over a sphere: the open ones say how much sky a point sees."""
    i = np.arange(2 * count) + 0.5
    z = 1 - i / count
    angle = np.pi * (1 + 5**0.5) * i
    return np.stack([z, np.sqrt(1 - z * z) * np.sin(angle), np.sqrt(1 - z * z) * np.cos(angle)], axis=1)


def _paint(label, facing, open_sky, n_shells) -> np.ndarray:
    """RGBA from shell, light and sky; thin dark lines where one shell meets another."""
    colours = np.concatenate([[NUCLEUS_COLOUR], shell_colours(n_shells), [MEMBRANE_COLOUR]])
    colours = colours.astype(np.float32) / 255
    # The sky was sampled at few places in few directions: a blur over the samples there are joins them.
    weight = ndimage.gaussian_filter(np.isfinite(open_sky).astype(np.float32), SKY_EVERY)
    sky = ndimage.gaussian_filter(np.nan_to_num(open_sky), SKY_EVERY) / np.maximum(weight, 1e-6)
    light = 0.30 + 0.34 * sky + 0.46 * np.clip(facing, 0, 1) * (0.35 + 0.65 * sky)
    rgb = colours[np.maximum(label, 0)] * light[..., None]
    rgb += (0.16 * np.clip(facing, 0, 1) ** 24 * sky)[..., None]
    line = np.zeros(label.shape, bool)
    for shift, other in ((label[1:], label[:-1]), (label[:, 1:], label[:, :-1])):
        differ = shift != other
        if differ.shape[0] == label.shape[0] - 1:
            line[1:] |= differ
        else:
            line[:, 1:] |= differ
    rgb[line] *= 0.62
    rgba = np.dstack([np.clip(rgb, 0, 1), label >= 0])
    return np.rint(255 * rgba).astype(np.uint8)


def _with_scale(rgba: np.ndarray, pixel_um: float) -> np.ndarray:
    """A scale bar below: the view is parallel, so lengths across it hold anywhere in the picture."""
    image = Image.fromarray(np.pad(rgba, ((0, _STRIP), (0, 0), (0, 0))))
    draw = ImageDraw.Draw(image)
    length_nm = scale_bar_nm(1000 * pixel_um * image.width)
    length = max(1, round(length_nm / 1000 / pixel_um))
    end, middle = image.width - 6, image.height - _STRIP // 2
    draw.rectangle((end - length, middle - 2, end - 1, middle + 2), fill=_INK)
    text = f"{figures_text(length_nm / 1000, 1)} µm"
    draw.fontmode = "1"
    draw.text((end - length - 12, middle), text, fill=_INK, font=label_font(22), anchor="rm")
    return np.asarray(image)


def _png(rgba: np.ndarray) -> str:
    """A palette PNG with one transparent index: a shaded picture of few hues needs no more."""
    picture = Image.fromarray(rgba[..., :3]).quantize(_COLOURS - 1, dither=Image.Dither.NONE)
    index = np.asarray(picture).copy()
    index[rgba[..., 3] == 0] = _COLOURS - 1
    image = Image.fromarray(index)
    palette = (picture.getpalette() or [])[: 3 * (_COLOURS - 1)]
    image.putpalette(palette + [0] * (3 * _COLOURS - len(palette)))
    stream = io.BytesIO()
    image.save(stream, format="PNG", compress_level=6, transparency=_COLOURS - 1)
    return data_uri("image/png", stream.getvalue())
