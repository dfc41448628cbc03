"""What a campaign's page shows, as plain data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cytomill.reports.data import DatasetReport, SetAside, StageTiming
from cytomill.reports.partitioning import PartitionRow
from cytomill.reports.sections import Section


@dataclass
class DatasetRow:
    """A dataset's line on the campaign's page.

    Parameters
    ----------
    name, pipeline, verdict, state : str
        ``state`` is ``finished``, ``set aside``, or ``incomplete`` where a result could not be read.
    link : str
        Path of the dataset's page relative to the campaign's page; empty for none.
    particles : int or None
        Clusters labelled; None when not measured.
    load : float or None
        Mean posterior of the usable volume, 0 to 1; None where it is not known.
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
    labelled_share : float or None
        Share of the usable volume that is labelled, 0 to 1.
    converged : bool
        False where the fit was stopped before it met its rule.
    reason : str
        Why it was set aside, one sentence; empty for none.
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
    labelled_share: float | None = None
    converged: bool = True
    reason: str = ""

    @classmethod
    def of(
        cls, report: DatasetReport, link: str = "", state: str = "finished", reason: str = ""
    ) -> DatasetRow:
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
            load=None if report.undecided else report.load,
            median_diameter_um=diameter,
            shape=report.shape,
            voxel_size_nm=report.voxel_size_nm,
            slices_set_aside=report.slices_set_aside,
            units_set_aside=len(report.set_aside),
            seconds=report.seconds,
            labelled_share=None if report.undecided else report.labelled_share,
            converged=report.converged,
            reason=reason,
        )


@dataclass
class CampaignReport:
    """Everything on the campaign's page.

    Parameters
    ----------
    name, started, finished, state : str
        Times as they are to be shown (ISO 8601 with zone); ``state`` is ``finished`` or ``finished with
        failures``.
    ranks : int
        Ranks of the last launch.
    hosts : list of str
        Hosts that took part.
    provenance : dict
        Nested and JSON-able.
    datasets : list of DatasetRow or PartitionRow
        In the campaign's order; the page has a table a pipeline.
    set_aside : list of SetAside
        Units given up, with their dataset.
    timings : list of StageTiming
        Stages over all datasets.
    runtime_seconds : float or None
        Wall time over all launches; the sum of the stages when None.
    launches : int
        How often the campaign was started.
    sections : list of Section
        What compares its datasets, between their table and the times.
    """

    name: str
    started: str = ""
    finished: str = ""
    state: str = "finished"
    ranks: int = 1
    hosts: list[str] = field(default_factory=list)
    provenance: dict[str, Any] = field(default_factory=dict)
    datasets: list[DatasetRow | PartitionRow] = field(default_factory=list)
    set_aside: list[SetAside] = field(default_factory=list)
    timings: list[StageTiming] = field(default_factory=list)
    runtime_seconds: float | None = None
    launches: int = 1
    sections: list[Section] = field(default_factory=list)

    @property
    def seconds(self) -> float | None:
        """Wall time, given or summed over stages."""
        if self.runtime_seconds is not None:
            return self.runtime_seconds
        return sum(t.seconds for t in self.timings) if self.timings else None
