"""What a report shows, as plain data: the campaign collects it, this package only draws it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

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
class Calibration:
    """How often a pixel is particle where the posterior says p; known on phantoms only.

    Parameters
    ----------
    predicted, observed : (N,) float ndarray
        Mean posterior and true share of particle voxels in each bin of the posterior.
    counts : (N,) integer ndarray
        Voxels in each bin.
    """

    predicted: np.ndarray
    observed: np.ndarray
    counts: np.ndarray


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
    runtime_seconds : float or None
        Wall time; the sum of the stages when None.
    calibration : Calibration or None
        On phantoms with known truth.
    campaign, campaign_link : str
        Name and page of the campaign, for the link back; empty for none.

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
    posterior_th: float | None = None
    examples: list[ExampleSlice] = field(default_factory=list)
    particles: pd.DataFrame | None = None
    particles_path: str = ""
    set_aside: list[SetAside] = field(default_factory=list)
    timings: list[StageTiming] = field(default_factory=list)
    runtime_seconds: float | None = None
    calibration: Calibration | None = None
    campaign: str = ""
    campaign_link: str = ""

    def __post_init__(self) -> None:
        lengths = dict.fromkeys(("hist_stack", "hist_bg", "p_bg", "p_np"), BINS)
        if self.shape:
            lengths |= dict.fromkeys(("pi_map", "pi_ml", "usable", "slice_shift"), self.shape[0])
        for name, length in lengths.items():
            array = getattr(self, name)
            if array is not None and np.shape(array) != (length,):
                raise ValueError(
                    f"report of {self.name}: {name} has shape {np.shape(array)}, expected ({length},)"
                )

    @property
    def slices_set_aside(self) -> int:
        """Slices that the estimator left out."""
        return 0 if self.usable is None else int(np.count_nonzero(~np.asarray(self.usable, bool)))

    @property
    def usable_voxels(self) -> int:
        """Voxels of the slices that took part."""
        if not self.shape:
            return 0
        slices = self.shape[0] - self.slices_set_aside
        return slices * int(np.prod(self.shape[1:], dtype=np.int64))

    @property
    def load(self) -> float | None:
        """Labelled share of the usable volume, 0 to 1; None when nothing was measured."""
        if self.particles is None or not self.usable_voxels:
            return None
        if self.particles.empty:
            return 0.0
        if "voxel_count" not in self.particles:
            return None
        return float(self.particles["voxel_count"].sum()) / self.usable_voxels

    @property
    def seconds(self) -> float | None:
        """Wall time, given or summed over stages."""
        if self.runtime_seconds is not None:
            return self.runtime_seconds
        return sum(t.seconds for t in self.timings) if self.timings else None


@dataclass
class DatasetRow:
    """A dataset's line on the campaign's page.

    Parameters
    ----------
    name, pipeline, verdict, state : str
        ``state`` is ``finished``, ``set aside``, ``stopped`` or ``running``.
    link : str
        Path of the dataset's page relative to the campaign's page; empty for none.
    particles : int or None
        Labels found; None when not measured.
    load : float or None
        Labelled share of the usable volume, 0 to 1.
    median_diameter_um : float or None
        Median equivalent diameter, µm.
    shape : tuple of int
        (Z, Y, X).
    voxel_size_nm : tuple of float or None
        (Z, Y, X), nm.
    slices_set_aside, units_set_aside : int
        Left out by the estimator; given up by the runtime.
    seconds : float or None
        Wall time.
    """

    name: str
    pipeline: str = ""
    verdict: str = ""
    state: str = "finished"
    link: str = ""
    particles: int | None = None
    load: float | None = None
    median_diameter_um: float | None = None
    shape: tuple[int, ...] = ()
    voxel_size_nm: tuple[float, float, float] | None = None
    slices_set_aside: int = 0
    units_set_aside: int = 0
    seconds: float | None = None

    @classmethod
    def of(cls, report: DatasetReport, link: str = "", state: str = "finished") -> DatasetRow:
        """The line that belongs to a dataset's page."""
        table = report.particles
        diameter = None
        if table is not None and not table.empty and "equivalent_diameter_um" in table:
            median = float(table["equivalent_diameter_um"].median())
            diameter = median if np.isfinite(median) else None
        return cls(
            name=report.name,
            pipeline=report.pipeline,
            verdict=report.verdict,
            state=state,
            link=link,
            particles=None if table is None else len(table),
            load=report.load,
            median_diameter_um=diameter,
            shape=report.shape,
            voxel_size_nm=report.voxel_size_nm,
            slices_set_aside=report.slices_set_aside,
            units_set_aside=len(report.set_aside),
            seconds=report.seconds,
        )


@dataclass
class CampaignReport:
    """Everything on the campaign's page.

    Parameters
    ----------
    name, started, finished, state : str
        Times as they are to be shown (ISO 8601 with zone); ``state`` is ``finished``, ``finished with
        failures``, ``stopped`` or ``running``.
    ranks : int
        Ranks of the last launch.
    hosts : list of str
        Hosts that took part.
    provenance : dict
        Nested and JSON-able.
    datasets : list of DatasetRow
        In the campaign's order.
    set_aside : list of SetAside
        Units given up, with their dataset.
    timings : list of StageTiming
        Stages over all datasets.
    runtime_seconds : float or None
        Wall time over all launches; the sum of the stages when None.
    launches : int
        How often the campaign was started.
    """

    name: str
    started: str = ""
    finished: str = ""
    state: str = "finished"
    ranks: int = 1
    hosts: list[str] = field(default_factory=list)
    provenance: dict[str, Any] = field(default_factory=dict)
    datasets: list[DatasetRow] = field(default_factory=list)
    set_aside: list[SetAside] = field(default_factory=list)
    timings: list[StageTiming] = field(default_factory=list)
    runtime_seconds: float | None = None
    launches: int = 1

    @property
    def seconds(self) -> float | None:
        """Wall time, given or summed over stages."""
        if self.runtime_seconds is not None:
            return self.runtime_seconds
        return sum(t.seconds for t in self.timings) if self.timings else None
