"""Example slices as pictures: image, posterior, and labels drawn as outlines over the image.

Pictures are palette PNGs: grey steps that the eye cannot tell apart are what keeps a page small.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from cytomill.reports.canvas import Picture, data_uri
from cytomill.reports.data import ExampleSlice
from cytomill.reports.quantities import count_text, figures_text

#: Longest side of a whole slice on a page, pixels.
DISPLAY_PIXELS = 720
#: Side of the detail at full resolution, pixels of the stack.
DETAIL_PIXELS = 240

_GREYS = 96
#: Grey (0 to 1) to which a gamma raises the median of a dark picture, and the lowest gamma.
_MIDDLE_GREY = 0.38
_LOWEST_GAMMA = 0.45
_HEAT = 160
_NOTE = 16
_OUTLINE_COLOUR = (255, 106, 0)
_FRAME_COLOUR = (64, 224, 255)


@dataclass(frozen=True)
class Window:
    """A rectangle of a slice: first row, first column, height, width (pixels)."""

    y: int
    x: int
    height: int
    width: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """The rectangle as an index."""
        return slice(self.y, self.y + self.height), slice(self.x, self.x + self.width)


@dataclass(frozen=True)
class SlicePanels:
    """The pictures of one example slice.

    Parameters
    ----------
    title : str
        Slice index, and how many labels it cuts.
    whole : list of Picture
        Image, posterior, outlines; those that exist.
    detail : list of Picture
        The same of the framed window at full resolution; empty when the whole slice shows every pixel.
    """

    title: str
    whole: list[Picture]
    detail: list[Picture]


def slice_panels(
    example: ExampleSlice, voxel_size_nm: tuple[float, float, float] | None = None
) -> SlicePanels:
    """Draw an example slice.

    Parameters
    ----------
    example : ExampleSlice
        The slice; any size.
    voxel_size_nm : tuple of float or None
        (Z, Y, X), nm; without it there is no scale bar.

    Returns
    -------
    SlicePanels
        Pictures of at most `DISPLAY_PIXELS` a side, and below that the strip of the scale bar.
    """
    pixel_nm = None if voxel_size_nm is None else float(voxel_size_nm[2])
    factor = -(-max(example.image.shape) // DISPLAY_PIXELS)
    grey = to_grey(example.image)
    title = f"Slice z = {example.z}"
    if example.labels is not None:
        number = int(np.count_nonzero(np.unique(example.labels)))
        title += f" · {count_text(number)} label{'s' if number != 1 else ''} cut"
    if factor == 1:
        everything = Window(0, 0, *example.image.shape)
        return SlicePanels(title, _close_up(example, grey, everything, pixel_nm, f"slice {example.z}"), [])
    window = detail_window(example)
    return SlicePanels(
        title,
        _reduced(example, grey, factor, window, pixel_nm),
        _close_up(example, grey, window, pixel_nm, f"detail of slice {example.z}"),
    )


def image_row(
    examples: Sequence[ExampleSlice], voxel_size_nm: tuple[float, float, float] | None = None
) -> SlicePanels:
    """The images of several slices side by side, without posterior and labels."""
    pixel_nm = None if voxel_size_nm is None else float(voxel_size_nm[2])
    row = []
    for example in examples:
        longest = max(example.image.shape)
        factor, zoom = -(-longest // DISPLAY_PIXELS), max(1, DISPLAY_PIXELS // longest)
        grey = enlarge(block_mean(to_grey(example.image), factor), zoom)
        size = None if pixel_nm is None else pixel_nm * factor / zoom
        row.append(grey_picture(grey, f"Image, slice {example.z}", size, caption=f"slice z = {example.z}"))
    return SlicePanels("", row, [])


def to_grey(image: np.ndarray, low_percent: float = 0.3, high_percent: float = 99.8) -> np.ndarray:
    """Stretch intensities to 0..1 between two percentiles; NaN and Inf count as the lowest.

    Where bright particles would leave all the rest dark, a gamma raises the median to `_MIDDLE_GREY`.

    Parameters
    ----------
    image : (Y, X) ndarray
        Any real dtype.
    low_percent, high_percent : float
        Percentiles that become black and white.

    Returns
    -------
    (Y, X) float32 ndarray
    """
    values = image.astype(np.float32)
    finite = np.isfinite(values)
    if not finite.any():
        return np.zeros(image.shape, np.float32)
    low, median, high = np.percentile(values[finite], (low_percent, 50, high_percent))
    if high <= low:
        low, high = float(values[finite].min()), float(values[finite].max())
    if high <= low:
        return np.full(image.shape, 0.5, np.float32)
    values[~finite] = low
    grey = np.clip((values - low) / (high - low), 0, 1)
    middle = (median - low) / (high - low)
    if not 0 < middle < _MIDDLE_GREY:
        return grey
    return grey ** np.float32(max(_LOWEST_GAMMA, np.log(_MIDDLE_GREY) / np.log(middle)))


def block_mean(image: np.ndarray, factor: int) -> np.ndarray:
    """Mean of factor × factor blocks; the last row and column of blocks repeat the edge."""
    return image if factor == 1 else _blocks(image, factor).mean(axis=(1, 3), dtype=np.float32)


def block_max(mask: np.ndarray, factor: int) -> np.ndarray:
    """Whether any pixel of a factor × factor block is set: no particle vanishes on a small picture."""
    return mask if factor == 1 else _blocks(mask, factor).max(axis=(1, 3))


def enlarge(image: np.ndarray, zoom: int) -> np.ndarray:
    """Every pixel as a zoom × zoom square."""
    return np.repeat(np.repeat(image, zoom, axis=0), zoom, axis=1)


def label_edges(labels: np.ndarray) -> np.ndarray:
    """Pixels of a label that touch another label or none, two pixels wide."""
    edge = np.zeros(labels.shape, bool)
    vertical = labels[1:] != labels[:-1]
    horizontal = labels[:, 1:] != labels[:, :-1]
    edge[1:] |= vertical
    edge[:-1] |= vertical
    edge[:, 1:] |= horizontal
    edge[:, :-1] |= horizontal
    return edge


def detail_window(example: ExampleSlice, side: int = DETAIL_PIXELS) -> Window:
    """The window that has most to show: most labelled pixels, else the highest posterior, else the middle.

    Ties go to the first in raster order, so that the same slice always gives the same picture.
    """
    height, width = (min(side, n) for n in example.image.shape)
    for weight in (None if example.labels is None else example.labels != 0, example.posterior):
        if weight is None:
            continue
        weight = _finite(weight)
        step = 8
        coarse = _blocks(weight, step).sum(axis=(1, 3), dtype=np.float64)
        table = np.pad(coarse.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
        rows, columns = -(-height // step), -(-width // step)
        rows, columns = min(rows, coarse.shape[0]), min(columns, coarse.shape[1])
        sums = (
            table[rows:, columns:]
            - table[:-rows, columns:]
            - table[rows:, :-columns]
            + table[:-rows, :-columns]
        )
        if sums.max() > 0:
            y, x = (step * int(i) for i in np.unravel_index(int(np.argmax(sums.round(6))), sums.shape))
            break
    else:
        y, x = ((n - s) // 2 for n, s in zip(example.image.shape, (height, width)))
    y, x = min(y, example.image.shape[0] - height), min(x, example.image.shape[1] - width)
    return Window(y, x, height, width)


def scale_bar_nm(width_nm: float) -> float:
    """A round length (1, 2 or 5 times a power of ten) between a tenth and a quarter of the width."""
    goal = 0.25 * width_nm
    power = 10.0 ** np.floor(np.log10(goal))
    return float(max(m * power for m in (1, 2, 5) if m * power <= goal))


def grey_picture(
    grey: np.ndarray,
    alt: str,
    pixel_nm: float | None = None,
    edges: np.ndarray | None = None,
    frame: Window | None = None,
    caption: str = "",
) -> Picture:
    """A grey picture, outlines and a frame over it, a scale bar on a strip below it.

    Parameters
    ----------
    grey : (Y, X) float ndarray
        0 (black) to 1 (white).
    alt, caption : str
        Words for the page.
    pixel_nm : float or None
        Size of a pixel of this picture; the strip adds to the picture's height.
    edges : (Y, X) bool ndarray or None
        Pixels drawn in the outline's colour.
    frame : Window or None
        Rectangle to draw, pixels of this picture.
    """
    steps = np.arange(_GREYS) * 255 // (_GREYS - 1)
    return _picture(grey, np.repeat(steps[:, None], 3, axis=1), alt, pixel_nm, edges, frame, caption)


def heat_picture(
    posterior: np.ndarray,
    alt: str,
    pixel_nm: float | None = None,
    frame: Window | None = None,
    caption: str = "",
) -> Picture:
    """A posterior, 0 (black) to 1 (pale yellow), perceptually even; see `heat_steps` for its legend."""
    return _picture(posterior, heat_steps(_HEAT), alt, pixel_nm, None, frame, caption)


def heat_steps(count: int) -> np.ndarray:
    """The posterior's colours, (count, 3) integers 0..255."""
    colours = matplotlib.colormaps["inferno"](np.linspace(0, 1, count))[:, :3]
    return np.rint(255 * colours).astype(np.int64)


def outline_overlay(edges: np.ndarray, height: int) -> str:
    """Outlines alone on transparent ground, as a data URI: one image may carry many of them.

    Parameters
    ----------
    edges : (Y, X) bool ndarray
        Pixels of the outlines.
    height : int
        Of the image that carries them, its strip included.
    """
    edges = np.pad(edges, ((0, height - edges.shape[0]), (0, 0)))
    image = Image.fromarray(edges.astype(np.uint8))
    image.putpalette([0, 0, 0, *_OUTLINE_COLOUR])
    return _png(image, transparency=0)


def _reduced(example, grey, factor, window, pixel_nm) -> list[Picture]:
    """The whole slice made small, outlines drawn around the labels, the window of the detail framed."""
    frame = Window(*(int(v) // factor for v in (window.y, window.x, window.height, window.width)))
    posterior, edges = None, None
    if example.posterior is not None:
        posterior = block_mean(_finite(example.posterior), factor)
    if example.labels is not None:
        edges = outer_ring(block_max(example.labels != 0, factor))
    pixel_nm = None if pixel_nm is None else pixel_nm * factor
    return _row(block_mean(grey, factor), posterior, edges, pixel_nm, f"slice {example.z}", frame)


def _close_up(example, grey, window, pixel_nm, name) -> list[Picture]:
    """A window with every pixel as a square, outlines on the labels' own edges."""
    part = window.slices
    zoom = max(1, DISPLAY_PIXELS // max(window.height, window.width))
    posterior, edges = None, None
    if example.posterior is not None:
        posterior = enlarge(_finite(example.posterior[part]), zoom)
    if example.labels is not None:
        edges = label_edges(enlarge(example.labels[part], zoom))
    pixel_nm = None if pixel_nm is None else pixel_nm / zoom
    return _row(enlarge(grey[part], zoom), posterior, edges, pixel_nm, name)


def _row(grey, posterior, edges, pixel_nm, name, frame=None) -> list[Picture]:
    """Image, posterior and outlines side by side; those that exist."""
    part = ", detail" if name.startswith("detail") else ""
    row = [grey_picture(grey, f"Image, {name}", pixel_nm, frame=frame, caption=f"image{part}")]
    if posterior is not None:
        row.append(heat_picture(posterior, f"Posterior, {name}", pixel_nm, frame, f"posterior{part}"))
    if edges is not None:
        alt = f"Labels outlined over the image, {name}"
        row.append(grey_picture(grey, alt, pixel_nm, edges, frame, f"labels{part}"))
    return row


def _picture(values, ramp, alt, pixel_nm, edges, frame, caption) -> Picture:
    """Palette: the ramp, then grey steps for the scale bar, then outline and frame."""
    base = len(ramp)
    index = np.rint(np.clip(values, 0, 1) * (base - 1)).astype(np.uint8)
    palette = np.concatenate(
        [
            ramp,
            np.repeat((np.arange(_NOTE) * 255 // (_NOTE - 1))[:, None], 3, axis=1),
            [_OUTLINE_COLOUR, _FRAME_COLOUR],
        ]
    )
    if edges is not None:
        index[edges] = base + _NOTE
    if frame is not None:
        _draw_frame(index, frame, base + _NOTE + 1)
    if pixel_nm is not None and pixel_nm > 0:
        index = np.concatenate([index, _scale_strip(index.shape[1], pixel_nm, base)])
    image = Image.fromarray(index)
    image.putpalette(palette.astype(np.uint8).ravel().tolist())
    height, width = index.shape
    return Picture(_png(image), "", alt, width, height, caption)


def _draw_frame(index: np.ndarray, frame: Window, colour: int) -> None:
    rows, columns = index.shape
    top, left = min(frame.y, rows - 1), min(frame.x, columns - 1)
    bottom, right = min(frame.y + frame.height, rows), min(frame.x + frame.width, columns)
    box = index[top:bottom, left:right]
    box[:2] = box[-2:] = colour
    box[:, :2] = box[:, -2:] = colour


def _scale_strip(columns: int, pixel_nm: float, base: int) -> np.ndarray:
    """Rows to put below a picture: a white bar and its length on black; none where they would not fit."""
    length_nm = scale_bar_nm(columns * pixel_nm)
    length = max(1, round(length_nm / pixel_nm))
    text = f"{figures_text(length_nm / 1000, 1)} µm"
    size = max(9, round(columns / 26))
    font = label_font(size)
    left, top, right, bottom = font.getbbox(text)
    pad = max(3, size // 3)
    bar = max(2, size // 5)
    if length + (right - left) + 3 * pad > columns:
        return np.empty((0, columns), np.uint8)
    rows = (bottom - top) + 2 * pad
    strip = Image.new("L", (columns, rows), 0)
    draw = ImageDraw.Draw(strip)
    middle = (rows - bar) // 2
    end = columns - pad
    draw.rectangle((end - length, middle, end - 1, middle + bar - 1), fill=255)
    draw.text((end - length - pad - right, pad - top), text, fill=255, font=font)
    return (base + np.asarray(strip).astype(np.int64) * (_NOTE - 1) // 255).astype(np.uint8)


def outer_ring(mask: np.ndarray) -> np.ndarray:
    """The ring around a mask: on a reduced picture the particle itself stays visible."""
    return ndimage.binary_dilation(mask, np.ones((3, 3), bool)) & ~mask


def _blocks(image: np.ndarray, factor: int) -> np.ndarray:
    pad = [(0, -n % factor) for n in image.shape]
    padded = np.pad(image, pad, mode="edge") if any(p for _, p in pad) else image
    rows, columns = (n // factor for n in padded.shape)
    return padded.reshape(rows, factor, columns, factor)


def _finite(values: np.ndarray) -> np.ndarray:
    return np.nan_to_num(values.astype(np.float32), nan=0.0, posinf=1.0, neginf=0.0)


def _png(image: Image.Image, **options) -> str:
    stream = io.BytesIO()
    image.save(stream, format="PNG", compress_level=6, **options)
    return data_uri("image/png", stream.getvalue())


@cache
def label_font(size: int) -> ImageFont.FreeTypeFont:
    """The font that matplotlib brings along: the same letters on every machine."""
    return ImageFont.truetype(
        str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size
    )
