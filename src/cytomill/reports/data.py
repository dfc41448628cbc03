"""What a dataset's page shows, as plain data: the campaign collects it, this package only draws it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from cytomill.nanoparticles.model import FLAGGED
from cytomill.reports.truth import Calibration

#: Bins of every intensity histogram.
BINS = 256


@dataclass
class ExampleSlice:
    """One slice to look at.

    Parameters
    ----------
    z : int
        Slice index in the stack.
    image : (Y, X) ndarray
        Intensities, any real dtype (uint8 as a rule).
    posterior : (Y, X) float ndarray or None
        Probability of being particle, 0 to 1; None where prediction did not run.
    labels : (Y, X) integer ndarray or None
        Label of every pixel, 0 for none.

    Raises
    ------
    ValueError
        When the image is not two-dimensional or the others have another shape.
    """

    z: int
    image: np.ndarray
    posterior: np.ndarray | None = None
    labels: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.image.ndim != 2:
            found = self.image.shape
            raise ValueError(f"example slice z={self.z}: the image has shape {found}, expected (Y, X)")
        for name in ("posterior", "labels"):
            array = getattr(self, name)
            if array is not None and array.shape != self.image.shape:
                raise ValueError(
                    f"example slice z={self.z}: {name} has shape {array.shape}, "
                    f"expected {self.image.shape} like the image"
                )


@dataclass
class SetAside:
    """A unit that was given up.

    Parameters
    ----------
    stage : str
        Name of the stage.
    region : str
        The unit's region in words, for example ``z 0–16``.
    attempts : int
        How often it was tried.
    error : str
        One sentence: why it failed the last time.
    dataset : str
        Name of the dataset (campaign pages).
    """

    stage: str
    region: str
    attempts: int
    error: str
    dataset: str = ""


@dataclass
class StageTiming:
    """What one stage took.

    Parameters
    ----------
    name : str
        Name of the stage.
    units : int
        Units computed.
    seconds : float
        Wall time of the stage.
    busy_seconds : list of float
        Time inside units, a number a rank.
    voxels : int
        Voxels that the units covered.
    bytes_written : int
        Bytes of the shards that the units wrote, compressed.
    peak_memory_bytes : list of int
        Peak resident memory, a number a rank; empty when not measured.
    predicted_bytes : int or None
        Peak memory a rank that the plan predicted.
    """

    name: str
    units: int
    seconds: float
    busy_seconds: list[float] = field(default_factory=list)
    voxels: int = 0
    bytes_written: int = 0
    peak_memory_bytes: list[int] = field(default_factory=list)
    predicted_bytes: int | None = None

    @property
    def busy_share(self) -> float | None:
        """Busy time over rank time, 0 to 1; None without busy times or wall time."""
        if not self.busy_seconds or self.seconds <= 0:
            return None
        return min(1.0, sum(self.busy_seconds) / (self.seconds * len(self.busy_seconds)))

    @property
    def voxels_per_second(self) -> float | None:
        """Throughput over wall time; None when nothing was counted."""
        return self.voxels / self.seconds if self.voxels and self.seconds > 0 else None

    @property
    def memory_ratio(self) -> float | None:
        """Predicted over measured peak memory; None when either is missing."""
        if not self.predicted_bytes or not self.peak_memory_bytes or not max(self.peak_memory_bytes):
            return None
        return self.predicted_bytes / max(self.peak_memory_bytes)


@dataclass
class DatasetReport:
    """Everything on a dataset's page.

    Arrays that a dataset never got to (it was set aside before) are None; the page says so.

    Parameters
    ----------
    name, pipeline, verdict : str
        Dataset, pipeline and the estimator's verdict on the stack.
    notes : sequence of str
        Sentences of the estimator.
    provenance : dict
        Nested and JSON-able: version, commit, config, input, ranks, devices, hosts, container, times.
    voxel_size_nm : tuple of float or None
        (Z, Y, X) in nm; None when the file has none.
    shape : tuple of int
        (Z, Y, X) of the stack.
    dtype : str
        Type of the input's voxels.
    polarity : str
        ``bright`` or ``dark``: what particles are in the input. Histogram bins run so that particles are
        on the right in both cases.
    grey_levels : tuple of int
        Lowest and highest grey level of the input that the bins share out evenly.
    hist_stack, hist_bg : (256,) integer ndarray
        Counts of the stack and of its background.
    p_bg, p_np : (256,) float64 ndarray
        Fitted probabilities a bin of background and nanoparticles.
    w_bg : float
        Weight of the background.
    th_low, th_high : int
        Thresholds of the background step, bins.
    summary : dict
        The fit in four figures: ``w_bg``, ``nll``, ``nit``, ``converged``.
    pi_map, pi_ml : (Z,) float64 ndarray
        Mixing weight of particles a slice, with and without the prior.
    usable : (Z,) bool ndarray
        False for slices set aside by the estimator.
    slice_shift : (Z,) float64 ndarray
        Brightness offset a slice, bins.
    tables : (Z, 256) float ndarray
        Posterior of every bin, 0 to 1, as it was applied to each slice.
    load : float or None
        Sum of the posterior over the voxels of the slices that took part, divided by their number.
    posterior_th : float or None
        Posterior threshold of a label.
    examples : list of ExampleSlice
        Slices to draw.
    particles : pandas.DataFrame or None
        One row a label; None when nothing was measured.
    particles_path : str
        Where the full table is, as shown to the reader.
    set_aside : list of SetAside
        Units given up.
    timings : list of StageTiming
        Stages in order.
    calibration : Calibration or None
        On phantoms with known truth.
    campaign, campaign_link : str
        Name and page of the campaign, for the link back; empty for none.
    refusal : str
        Why the dataset was set aside, one sentence; empty for none.
    downsample : tuple of int
        (Z, Y, X): voxels of the stack in one voxel of the labels, along each axis.

    Raises
    ------
    ValueError
        When an array has another length than its axis.
    """

    name: str
    pipeline: str
    verdict: str
    notes: tuple[str, ...] = ()
    provenance: dict[str, Any] = field(default_factory=dict)
    voxel_size_nm: tuple[float, float, float] | None = None
    shape: tuple[int, ...] = ()
    dtype: str = ""
    polarity: str = "bright"
    grey_levels: tuple[int, int] = (0, BINS - 1)
    hist_stack: np.ndarray | None = None
    hist_bg: np.ndarray | None = None
    p_bg: np.ndarray | None = None
    p_np: np.ndarray | None = None
    w_bg: float | None = None
    th_low: int | None = None
    th_high: int | None = None
    summary: dict[str, Any] = field(default_factory=dict)
    pi_map: np.ndarray | None = None
    pi_ml: np.ndarray | None = None
    usable: np.ndarray | None = None
    slice_shift: np.ndarray | None = None
    tables: np.ndarray | None = None
    load: float | None = None
    posterior_th: float | None = None
    examples: list[ExampleSlice] = field(default_factory=list)
    particles: pd.DataFrame | None = None
    particles_path: str = ""
    set_aside: list[SetAside] = field(default_factory=list)
    timings: list[StageTiming] = field(default_factory=list)
    calibration: Calibration | None = None
    campaign: str = ""
    campaign_link: str = ""
    refusal: str = ""
    downsample: tuple[int, int, int] = (1, 1, 1)

    def __post_init__(self) -> None:
        shapes: dict[str, tuple[int, ...]] = dict.fromkeys(("hist_stack", "hist_bg", "p_bg", "p_np"), (BINS,))
        if self.shape:
            shapes |= dict.fromkeys(("pi_map", "pi_ml", "usable", "slice_shift"), (self.shape[0],))
            shapes["tables"] = (self.shape[0], BINS)
        for name, shape in shapes.items():
            array = getattr(self, name)
            if array is not None and np.shape(array) != shape:
                raise ValueError(
                    f"report of {self.name}: {name} has shape {np.shape(array)}, expected {shape}"
                )

    @property
    def converged(self) -> bool:
        """False where the fit was stopped before it met its rule."""
        return bool(self.summary.get("converged", True))

    @property
    def bin_width(self) -> float:
        """Grey levels of the input in one bin."""
        low, high = self.grey_levels
        return (high - low + 1) / BINS

    @property
    def slices_set_aside(self) -> int:
        """Slices that the estimator left out."""
        return 0 if self.usable is None else int(np.count_nonzero(~np.asarray(self.usable, bool)))

    @property
    def nothing_usable(self) -> bool:
        """True where the estimator left out every slice."""
        return self.usable is not None and not np.any(self.usable)

    @property
    def nothing_found(self) -> bool:
        """True where the posterior is 0 everywhere."""
        return self.nothing_usable or (self.tables is not None and not np.any(self.tables))

    @property
    def undecided(self) -> bool:
        """True where the verdict is that intensity alone cannot tell: no load is known then, not even 0."""
        return self.verdict == FLAGGED and self.nothing_found

    @property
    def label_voxel_size_nm(self) -> tuple[float, ...] | None:
        """(Z, Y, X) of a voxel of the labels, nm; None when the file has none."""
        if self.voxel_size_nm is None:
            return None
        return tuple(size * factor for size, factor in zip(self.voxel_size_nm, self.downsample))

    @property
    def usable_voxels(self) -> int:
        """Voxels of the slices that took part."""
        if not self.shape:
            return 0
        slices = self.shape[0] - self.slices_set_aside
        return slices * int(np.prod(self.shape[1:], dtype=np.int64))

    @property
    def labelled_share(self) -> float | None:
        """Share of the usable volume that is labelled, 0 to 1; None when nothing was measured."""
        if self.particles is None or not self.usable_voxels:
            return None
        if self.particles.empty:
            return 0.0
        if "voxel_count" not in self.particles:
            return None
        labelled = float(self.particles["voxel_count"].sum()) * int(np.prod(self.downsample))
        return labelled / self.usable_voxels

    @property
    def seconds(self) -> float | None:
        """Wall time of its stages, added up; None where there are none."""
        return sum(t.seconds for t in self.timings) if self.timings else None
