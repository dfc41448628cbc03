"""The contact sheet of `run --preview`: a few slices of every dataset at several posterior thresholds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from matplotlib.ticker import MaxNLocator
from scipy import ndimage

from cytomill.reports import captions, slices
from cytomill.reports.canvas import LIGHT, Picture, new_figure, styled, to_picture
from cytomill.reports.data import ExampleSlice
from cytomill.reports.html import environment, verdict_tone
from cytomill.reports.quantities import number_of

#: A posterior below it is kept at no threshold that anybody would ask for.
LOWEST_THRESHOLD = 0.5
#: Side of the window shown of each slice, pixels of the stack.
WINDOW_PIXELS = 320


@dataclass
class PreviewSlice:
    """One slice of the contact sheet.

    Parameters
    ----------
    z : int
        Slice index in the stack.
    image : (Y, X) ndarray
        Intensities.
    posterior : (Y, X) float ndarray
        Probability of being particle, 0 to 1.
    """

    z: int
    image: np.ndarray
    posterior: np.ndarray


@dataclass
class PreviewDataset:
    """The slices of one dataset on the contact sheet.

    Parameters
    ----------
    name : str
        Name of the dataset.
    slices : list of PreviewSlice
        Empty when the dataset was set aside: say why in `notes`.
    shape : tuple of int
        (Z, Y, X) of the whole stack.
    voxel_size_nm : tuple of float or None
        (Z, Y, X), nm.
    verdict : str
        The estimator's verdict from these slices.
    notes : sequence of str
        Sentences of the estimator.
    posterior_th : float or None
        The threshold that the configuration asks for, marked on the sheet.
    """

    name: str
    slices: list[PreviewSlice] = field(default_factory=list)
    shape: tuple[int, ...] = ()
    voxel_size_nm: tuple[float, float, float] | None = None
    verdict: str = ""
    notes: tuple[str, ...] = ()
    posterior_th: float | None = None


@dataclass
class PreviewReport:
    """A contact sheet: slices by thresholds.

    Parameters
    ----------
    campaign : str
        Name of the campaign.
    datasets : list of PreviewDataset
        In the campaign's order.
    thresholds : sequence of float
        Posterior thresholds, ascending.
    min_pixels : int
        Regions of fewer pixels in the slice are not counted and not drawn.
    """

    campaign: str
    datasets: list[PreviewDataset] = field(default_factory=list)
    thresholds: tuple[float, ...] = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
    min_pixels: int = 1


@dataclass(frozen=True)
class ThresholdCount:
    """What one threshold keeps of one slice.

    Parameters
    ----------
    threshold : float
        Posterior threshold.
    regions : int
        Connected regions (8-connected) of at least `min_pixels` pixels.
    pixels : int
        Their pixels.
    share : float
        Their share of the slice, 0 to 1.
    volume_um3 : float or None
        Their volume, one slice thick; None without a voxel size.
    overlay : str
        Data URI of their outlines.
    """

    threshold: float
    regions: int
    pixels: int
    share: float
    volume_um3: float | None
    overlay: str = ""


def render_preview(report: PreviewReport) -> str:
    """The contact sheet of a campaign.

    Parameters
    ----------
    report : PreviewReport
        Plain data.

    Returns
    -------
    str
        HTML, UTF-8, self-contained; the same text for the same data and library versions.
    """
    sheets = [_sheet(report, dataset, number) for number, dataset in enumerate(report.datasets)]
    return environment().get_template("preview.html.j2").render(report=report, sheets=sheets)


def kept_regions(posterior: np.ndarray, threshold: float, min_pixels: int = 1) -> tuple[np.ndarray, int]:
    """Regions of a slice at or above a threshold.

    Parameters
    ----------
    posterior : (Y, X) float ndarray
        NaN is below every threshold.
    threshold : float
        Compared after rounding to float16, as labelling does.
    min_pixels : int
        Smaller regions are dropped.

    Returns
    -------
    (Y, X) int32 ndarray, int
        Labels in raster order without gaps, and their number.
    """
    mask = posterior >= np.float16(threshold)
    labels, number = ndimage.label(mask, structure=np.ones((3, 3), bool))
    if min_pixels > 1 and number:
        keep = np.bincount(labels.ravel(), minlength=number + 1) >= min_pixels
        keep[0] = False
        renumbered = np.where(keep, np.cumsum(keep), 0).astype(np.int32)
        labels, number = renumbered[labels], int(keep.sum())
    return labels, int(number)


def _sheet(report: PreviewReport, dataset: PreviewDataset, number: int) -> dict:
    cells = [
        _slice_cells(report, dataset, part, f"d{number}s{position}")
        for position, part in enumerate(dataset.slices)
    ]
    return {
        "name": dataset.name,
        "verdict": dataset.verdict,
        "tone": verdict_tone(dataset.verdict),
        "notes": dataset.notes,
        "shape": dataset.shape,
        "voxel_size_nm": dataset.voxel_size_nm,
        "posterior_th": dataset.posterior_th,
        "slices": cells,
        "nothing": not any(count.regions for cell in cells for count in cell["counts"]),
        "curve": _threshold_curve(report.thresholds, cells, dataset.posterior_th),
    }


def _slice_cells(report: PreviewReport, dataset: PreviewDataset, part: PreviewSlice, key: str) -> dict:
    size = dataset.voxel_size_nm
    voxel_um3 = None if size is None else float(np.prod(size)) * 1e-9
    example = ExampleSlice(part.z, part.image, part.posterior)
    window = slices.detail_window(example, WINDOW_PIXELS)
    inside = window.slices
    ground = slices.grey_picture(
        slices.to_grey(part.image)[inside], f"Image, slice {part.z}", None if size is None else float(size[2])
    )
    counts = []
    for threshold in report.thresholds:
        labels, regions = kept_regions(part.posterior, threshold, report.min_pixels)
        pixels = int(np.count_nonzero(labels))
        counts.append(
            ThresholdCount(
                threshold,
                regions,
                pixels,
                pixels / labels.size,
                None if voxel_um3 is None else pixels * voxel_um3,
                slices.outline_overlay(slices.outer_ring(labels[inside] != 0), ground.height),
            )
        )
    return {
        "z": part.z,
        "key": key,
        "ground": ground,
        "flat": bool(np.ptp(part.image) == 0),
        "blank": slices.outline_overlay(np.zeros((window.height, window.width), bool), ground.height),
        "window": f"window of {window.width} × {window.height} pixels, {_where(example)}",
        "cropped": (window.height, window.width) != part.image.shape,
        "counts": counts,
    }


def _where(example: ExampleSlice) -> str:
    """Why the window lies where it does, in words; see :func:`slices.detail_window`."""
    highest = np.nanmax(example.posterior, initial=0.0)
    if highest <= 0:
        return "from the middle"
    return "where most particles are" if highest >= LOWEST_THRESHOLD else "where the posterior is highest"


def _threshold_curve(thresholds: Sequence[float], cells: list[dict], asked: float | None) -> Picture | None:
    """Regions by threshold, a line a slice: a flat stretch is where the choice does not matter.

    None where there is no region at any threshold: there is nothing to choose.
    """
    most = max((count.regions for cell in cells for count in cell["counts"]), default=0)
    if not most or len(thresholds) < 2:
        return None
    positions = np.arange(len(thresholds))
    with styled():
        figure, (ax,) = new_figure(6.2, 2.9)
        for cell in cells:
            ax.plot(
                positions,
                [c.regions for c in cell["counts"]],
                color=LIGHT["particle"],
                lw=1.1,
                marker="o",
                ms=3.5,
            )
        if asked in list(thresholds):
            ax.axvline(list(thresholds).index(asked), color=LIGHT["background"], lw=1.0, ls=(0, (4, 2)))
        ax.set_ylim(0, 1.08 * max(most, 1))
        ax.set_xticks(positions, [f"{t:g}" for t in thresholds])
        ax.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        ax.set_xlabel("posterior threshold")
        ax.set_ylabel("regions in a slice")
        return to_picture(
            figure,
            f"Regions in {number_of(len(cells), 'slice')} by posterior threshold, {most} at the most.",
            captions.THRESHOLDS,
        )
