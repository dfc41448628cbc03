"""How every figure looks, and how it gets into a page: one file, light and dark, the same bytes each time."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

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


def to_picture(figure: Figure, alt: str, caption: str = "") -> Picture:
    """Draw a figure once, and colour it for both schemes.

    The dark picture is the light one with its colours exchanged: one layout, one drawing.
    """
    stream = io.BytesIO()
    FigureCanvasSVG(figure).print_svg(stream, metadata={"Date": None, "Creator": None})
    light = stream.getvalue()
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
