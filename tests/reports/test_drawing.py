"""Pictures are drawn quickly, and as the slow way would draw them."""

import base64
import io

import numpy as np
import pytest
from matplotlib.backends.backend_svg import FigureCanvasSVG
from scipy import ndimage

from cytomill.reports.canvas import log_y_axis, new_figure, styled, to_picture
from cytomill.reports.shell_rays import cast_rays


def drawn():
    figure, axes = new_figure(4, 3, columns=2)
    for ax in axes:
        ax.plot([1, 20, 300], label="a line")
        log_y_axis(ax)
        ax.set_xlabel("$x^2$ in $\\mu$m")
        ax.legend()
    return figure


def test_a_picture_has_the_bytes_that_matplotlib_saves():
    stream = io.BytesIO()
    with styled():
        picture = to_picture(drawn(), "")
        FigureCanvasSVG(drawn()).print_svg(stream, metadata={"Date": None, "Creator": None})
    assert base64.b64decode(picture.light.split(",", 1)[1]) == stream.getvalue()


@pytest.mark.parametrize(
    ("limits", "decades", "between"),
    [
        ((0.5, 2e3), ["10⁻¹", "10⁰", "10¹", "10²", "10³", "10⁴"], 5 + 3 * 8 + 1),
        ((2.0, 9.0), ["10⁰", "10¹"], 8),
    ],
)
def test_a_log_axis_names_decades_and_marks_what_lies_between(limits, decades, between):
    with styled():
        figure, (ax,) = new_figure(4, 3)
        ax.set_ylim(*limits)
        log_y_axis(ax)
        labels = [label.get_text() for label in ax.get_yticklabels()]
        (ticks,) = ax.get_lines()
    assert set(labels) <= set(decades) and {d for d in decades if d in ("10¹", "10²", "10³")} <= set(labels)
    values = ticks.get_ydata()
    assert len(values) == between and limits[0] <= values.min() and values.max() <= limits[1]
    assert ax.get_ylim() == limits


def test_rays_see_a_ball_its_nucleus_and_the_cut_faces():
    size, n, radius = np.full(3, 0.1), 4, 1.6
    place = (np.indices((45, 45, 45)) - 22) * 0.1
    r = np.sqrt((place**2).sum(axis=0))
    # Shells of equal thickness from 0.8 to 1.6 µm.
    level = np.clip(0.5 + (r - 0.8) / (0.8 / n), 0, n + 1).astype(np.float32)
    clearances = [
        np.maximum(ndimage.distance_transform_edt(level >= edge, size) - 0.18, 0).astype(np.float32)
        for edge in (n + 0.5, 0.5)
    ]
    middle = np.full(3, 2.2)
    cuts = np.array([[0.0, 0.8, 0.6], [0.0, 0.8, -0.6]])
    axes = np.array([[0, 0, 1.0], [1.0, 0, 0], [0, 1.0, 0]])
    label, facing, sky = cast_rays(
        level, *clearances, size, n, axes, middle, middle, cuts, 0.08, 200, 200, 0.02, 2.0,
        np.array([0, 0, 1.0]), axes,
    )  # fmt: skip
    assert np.isclose((label >= 0).sum() * 0.02**2, np.pi * radius**2, rtol=0.02)
    assert label[100, 100] == 0 and np.isclose(facing[100, 100], 1, atol=0.01)
    # From the middle to the right: nucleus, then the steps of the shells outwards, then the outer face.
    seen = label[100, 100:]
    assert list(dict.fromkeys(seen.tolist())) == [0, 1, 2, 3, 4, n + 1, -1]
    # The nucleus shows up to where it meets the cut of the first shell: 0.8 √(0.8² − x²) = 3 · 0.08 + 0.6 x.
    assert np.isclose((seen == 0).sum() * 0.02, 0.467, atol=0.03)
    faces = (label > 0) & (label <= n)
    assert np.isclose(np.median(facing[faces]), 0.8, atol=0.01)
    looked = np.isfinite(sky)
    assert looked.sum() == (label[::3, ::3] >= 0).sum() and 0 <= sky[looked].min() <= sky[looked].max() <= 1
