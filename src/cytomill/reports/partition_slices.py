"""Three planes through a cell at one scale, shells coloured from NE to PM, organelles outlined."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageDraw

from cytomill.kernels.cell_codes import NUCLEUS_ID, UNASSIGNED_ID
from cytomill.reports.canvas import Picture, data_uri
from cytomill.reports.partition_colours import (
    NUCLEUS_COLOUR,
    ORGANELLE_COLOURS,
    UNASSIGNED_COLOUR,
    shell_colours,
)
from cytomill.reports.partition_examples import ExampleCell, PlaneSlice
from cytomill.reports.quantities import figures_text
from cytomill.reports.slices import label_edges, label_font, scale_bar_nm, to_grey

#: Longest sides of the picture, pixels; shown at about half of that.
WIDTH, HEIGHT = 960, 760
_GAP = 16
_STRIP = 44
_TEXT = 22
#: Width that the scale bar with its text needs beside the x–z plane.
_LEAST_CORNER = 330
_GROUND = (22, 27, 33)
_FRAME = (10, 13, 16)
_ENVELOPE = (255, 255, 255)
#: Share of a shell's colour over an image; without one the colour stands alone.
_COVER = 0.55
_MOST_PIXELS_PER_VOXEL = 12


def orthogonal_planes(example: ExampleCell, n_shells: int) -> Picture:
    """Draw x–y, below it x–z and to its right z–y, all at the same scale in both directions.

    Parameters
    ----------
    example : ExampleCell
        Planes of any size; voxels may be anisotropic.
    n_shells : int
        Shells from NE to PM.

    Returns
    -------
    Picture
        Dark ground, a scale bar below.
    """
    planes = {plane.axis: plane for plane in example.planes}
    size = example.voxel_size_nm
    extents = {axis: _extent(plane, size) for axis, plane in planes.items()}
    height_nm, width_nm = extents[0]
    # Columns: x, then z of the z–y plane. Rows: y, then z of the x–z plane.
    aside_nm = extents[2][0] if 2 in planes else 0.0
    below_nm = extents[1][0] if 1 in planes else 0.0
    room = _GAP if len(planes) > 1 else 0
    pixel = max(
        (width_nm + aside_nm) / (WIDTH - room),
        (height_nm + below_nm) / (HEIGHT - room),
        min(size[1:]) / _MOST_PIXELS_PER_VOXEL,
    )
    pictures = {axis: _plane(plane, size, pixel, n_shells) for axis, plane in planes.items()}
    if 2 in pictures:
        # (z, y) is stored; beside x–y it shares the vertical y.
        pictures[2] = pictures[2].transpose(1, 0, 2)
    canvas, origins = _arranged(pictures, room)
    image = Image.fromarray(canvas)
    _write(image, planes, origins, pixel)
    stream = io.BytesIO()
    image.quantize(128, dither=Image.Dither.NONE).save(stream, format="PNG", compress_level=6)
    names = ", ".join(f"{p.name} at {'zyx'[p.axis]} = {p.index}" for p in example.planes)
    return Picture(
        data_uri("image/png", stream.getvalue()),
        "",
        f"Shells of cell {example.cell} in planes through the nucleus: {names}",
        image.width,
        image.height,
    )


def _extent(plane: PlaneSlice, size) -> tuple[float, float]:
    """Height and width of a plane, nm."""
    first, second = (size[a] for a in range(3) if a != plane.axis)
    return plane.codes.shape[0] * first, plane.codes.shape[1] * second


def _plane(plane: PlaneSlice, size, pixel: float, n_shells: int) -> np.ndarray:
    """A plane in square pixels, RGB; voxels stay visible as the boxes that they are."""
    height, width = (max(1, round(nm / pixel)) for nm in _extent(plane, size))
    rows, columns = (
        np.minimum((np.arange(pixels) + 0.5) * n / pixels, n - 1).astype(np.intp)
        for pixels, n in zip((height, width), plane.codes.shape)
    )
    at = np.ix_(rows, columns)
    codes = plane.codes[at]
    table = np.zeros((256, 3), np.float32)
    table[0] = _GROUND
    table[1 : n_shells + 1] = shell_colours(n_shells)
    table[NUCLEUS_ID], table[UNASSIGNED_ID] = NUCLEUS_COLOUR, UNASSIGNED_COLOUR
    rgb = table[codes]
    if plane.image is not None:
        grey = 255 * to_grey(plane.image)[at][..., None]
        cover = np.where((codes > 0) & (codes != NUCLEUS_ID), _COVER, 0.0)[..., None].astype(np.float32)
        rgb = cover * rgb + (1 - cover) * grey
    for mask, colour in zip(plane.organelles.values(), _organelle_colours(plane)):
        rgb[label_edges(mask[at]) & (codes > 0)] = colour
    # NE and PM last: they are what the shells are measured from.
    surface = np.where(codes == NUCLEUS_ID, 2, np.where(codes > 0, 1, 0)).astype(np.uint8)
    rgb[label_edges(surface)] = _ENVELOPE
    return np.rint(rgb).astype(np.uint8)


def _organelle_colours(plane: PlaneSlice) -> list[tuple[int, int, int]]:
    return [ORGANELLE_COLOURS[i % len(ORGANELLE_COLOURS)] for i in range(len(plane.organelles))]


def _arranged(pictures, room) -> tuple[np.ndarray, dict[int, tuple[int, int]]]:
    """Planes on one canvas; (row, column) of each plane's corner. A lone plane gets a strip below."""
    main = pictures[0].shape
    origins = {0: (0, 0), 1: (main[0] + room, 0), 2: (0, main[1] + room)}
    origins = {axis: origins[axis] for axis in pictures}
    bottom = max(origins[a][0] + p.shape[0] for a, p in pictures.items())
    right = max(origins[a][1] + p.shape[1] for a, p in pictures.items())
    corner_fits = bottom - main[0] - room >= 2 * _STRIP and right - main[1] - room >= _LEAST_CORNER
    canvas = np.empty((bottom if corner_fits else bottom + _STRIP, right, 3), np.uint8)
    canvas[:] = _FRAME
    for axis, picture in pictures.items():
        row, column = origins[axis]
        canvas[row : row + picture.shape[0], column : column + picture.shape[1]] = picture
    return canvas, origins


def _write(image: Image.Image, planes, origins, pixel: float) -> None:
    """Names of planes in their corners; the scale bar in the free corner, or on the strip."""
    draw = ImageDraw.Draw(image)
    font = label_font(_TEXT)
    words = {0: "x–y", 1: "x–z", 2: "z–y"}
    for axis in planes:
        row, column = origins[axis]
        # A dark rim: the cell may lie under the letters.
        draw.text(
            (column + 9, row + 6), words[axis], (222, 228, 235), font, stroke_width=3, stroke_fill=_GROUND
        )
    length_nm = scale_bar_nm(image.width * pixel)
    length = max(1, round(length_nm / pixel))
    text = f"{figures_text(length_nm / 1000, 1)} µm"
    end, middle = image.width - 14, image.height - _STRIP // 2
    draw.rectangle((end - length, middle - 2, end - 1, middle + 2), fill=(255, 255, 255))
    draw.text((end - length - 12, middle), text, fill=(255, 255, 255), font=font, anchor="rm")
