"""How every figure looks, and how it gets into a page: one file, light and dark, the same bytes each time."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from functools import lru_cache

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_mixed import MixedModeRenderer
from matplotlib.backends.backend_svg import FigureCanvasSVG, RendererSVG
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import TICKLEFT, Line2D
from matplotlib.textpath import text_to_path
from matplotlib.ticker import FuncFormatter, NullLocator

#: Colours of the light scheme; names are roles, so that figures and page speak of the same thing.
LIGHT = {
    "ink": "#1c2530",
    "muted": "#5b6776",
    "grid": "#e1e6ec",
    "stack": "#b9c4d1",
    "background": "#0072b2",
    "particle": "#d55e00",
    "threshold": "#7a4fbf",
    "good": "#1b8a5a",
    "idle": "#d8dee6",
}
#: The same roles on dark paper.
DARK = {
    "ink": "#e6ebf1",
    "muted": "#9aa7b6",
    "grid": "#2f3945",
    "stack": "#56657a",
    "background": "#56b4e9",
    "particle": "#ff9d4d",
    "threshold": "#b79cf0",
    "good": "#4fc08d",
    "idle": "#3b4654",
}

_STYLE = {
    "svg.fonttype": "path",
    "svg.hashsalt": "cytomill",
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.edgecolor": LIGHT["muted"],
    "axes.labelcolor": LIGHT["ink"],
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.formatter.use_mathtext": False,
    "grid.color": LIGHT["grid"],
    "grid.linewidth": 0.7,
    "text.color": LIGHT["ink"],
    "xtick.color": LIGHT["muted"],
    "ytick.color": LIGHT["muted"],
    "xtick.labelcolor": LIGHT["ink"],
    "ytick.labelcolor": LIGHT["ink"],
    "legend.frameon": False,
    "legend.fontsize": 8.8,
    "lines.linewidth": 1.7,
    "lines.solid_capstyle": "round",
}


@dataclass(frozen=True)
class Picture:
    """A figure as a page needs it.

    Parameters
    ----------
    light : str
        Data URI.
    dark : str
        Data URI for the dark scheme; empty when the light one serves both (photographs).
    alt : str
        What a reader who cannot see it needs to know.
    width, height : int
        Natural size in CSS pixels.
    caption : str
        What it shows and how to read it.
    """

    light: str
    dark: str
    alt: str
    width: int
    height: int
    caption: str = ""


def data_uri(media_type: str, content: bytes) -> str:
    """Bytes as a URI that needs no network."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"


def styled():
    """Context in which figures must be built and drawn: fixed fonts, colours and identifiers."""
    return matplotlib.rc_context(matplotlib.rcParamsDefault | _STYLE)


def new_figure(
    width: float, height: float, rows: int = 1, columns: int = 1, **grid
) -> tuple[Figure, list[Axes]]:
    """A figure without pyplot's global state.

    Parameters
    ----------
    width, height : float
        Size in inches.
    rows, columns : int
        Grid of axes.
    **grid
        Passed to `Figure.subplots`.

    Returns
    -------
    Figure, list of Axes
        Axes in raster order.
    """
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.patch.set_alpha(0.0)
    axes = list(figure.subplots(rows, columns, squeeze=False, **grid).flat)
    for ax in axes:
        ax.patch.set_alpha(0.0)
    return figure, axes


def log_y_axis(ax: Axes, between_decades: bool = True) -> None:
    """Make the y axis logarithmic, with its limits as they are now or as the data ask for.

    Decades are written without mathtext and the ticks between them drawn as one line: tick by tick they cost
    as much as the rest of a figure.

    Parameters
    ----------
    ax : Axes
        With its limits set, or its data drawn.
    between_decades : bool
        Draw the ticks at 2, 3, … 9 times a power of ten; a low axis has no room for them.
    """
    ax.set_yscale("log")
    low, high = ax.get_ylim()
    ax.set_ylim(low, high)
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _power_text(value)))
    if between_decades:
        _ticks_between_decades(ax, low, high)


def _ticks_between_decades(ax: Axes, low: float, high: float) -> None:
    decades = np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)))
    between = (10.0 ** decades[:, None] * np.arange(2, 10)).ravel()
    between = between[(between >= low) & (between <= high)]
    ticks = Line2D(
        np.zeros(between.size),
        between,
        ls="none",
        marker=TICKLEFT,
        ms=matplotlib.rcParams["ytick.minor.size"],
        mew=matplotlib.rcParams["ytick.minor.width"],
        color=LIGHT["muted"],
        transform=ax.get_yaxis_transform(),
        clip_on=False,
        zorder=2.01,
    )
    ticks.set_in_layout(False)
    ax.add_artist(ticks)


def _power_text(value: float) -> str:
    """A power of ten with its exponent raised."""
    exponent = round(float(np.log10(value))) if value > 0 else 0
    return "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


@lru_cache(4096)
def _text_size(text: str, font: FontProperties, is_math: bool) -> tuple[float, float, float]:
    """Width, height and descent of a text, remembered from figure to figure."""
    return text_to_path.get_text_width_height_descent(text, font, is_math)


class _Renderer(RendererSVG):
    """Writes SVG; a text that was measured once is not measured again."""

    def get_text_width_height_descent(self, s, prop, ismath):
        return _text_size(s, prop.copy(), ismath)


class _Canvas(FigureCanvasSVG):
    """Where a figure finds the renderer that it measures its layout with."""

    def get_renderer(self) -> RendererSVG:
        return _renderer(self.figure, io.StringIO())


def _renderer(figure: Figure, stream: io.StringIO) -> RendererSVG:
    width, height = figure.get_size_inches()
    metadata = {"Date": None, "Creator": None}
    return _Renderer(72 * width, 72 * height, stream, image_dpi=72, metadata=metadata)


def to_picture(figure: Figure, alt: str, caption: str = "") -> Picture:
    """Draw a figure once, and colour it for both schemes.

    The dark picture is the light one with its colours exchanged: one layout, one drawing.
    """
    stream = io.StringIO()
    _Canvas(figure)
    figure.dpi = 72
    renderer = MixedModeRenderer(figure, *figure.get_size_inches(), 72, _renderer(figure, stream))
    figure.draw(renderer)
    renderer.finalize()
    light = stream.getvalue().encode()
    dark = light
    for role, colour in LIGHT.items():
        dark = dark.replace(colour.encode(), f"<{role}>".encode())
    for role, colour in DARK.items():
        dark = dark.replace(f"<{role}>".encode(), colour.encode())
    width, height = (round(96 * inches) for inches in figure.get_size_inches())
    return Picture(
        light=data_uri("image/svg+xml", light),
        dark=data_uri("image/svg+xml", dark),
        alt=alt,
        width=width,
        height=height,
        caption=caption,
    )
