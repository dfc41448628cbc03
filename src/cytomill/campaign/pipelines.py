"""The pipelines that a campaign can name, and how one dataset of each is opened and cut into stages."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cytomill.campaign.datasets import Dataset
from cytomill.campaign.settings import RunSettings
from cytomill.kernels.devices import Device
from cytomill.nanoparticles.config import NanoparticleSegConfig
from cytomill.runtime.stage import Stage

#: Folder of the datasets' outputs in a campaign's output folder.
DATASETS = "datasets"


@dataclass(frozen=True)
class Place:
    """Where a dataset is opened.

    Parameters
    ----------
    device : Device
        Where this rank's kernels run.
    ranks : int
        Ranks that will share the work; with many, units are cut smaller.
    """

    device: Device = Device()
    ranks: int = 1


@dataclass(frozen=True)
class Pipeline:
    """One kind of analysis.

    Parameters
    ----------
    config : type
        Dataclass of its options.
    order : callable
        ``() -> names of its stages in order``; datasets may lack some.
    open_dataset : callable
        ``(dataset, output, run settings, place) -> state``; reads headers only and raises ValueError
        (one sentence) for an input that it cannot use.
    stages : callable
        ``state -> stages``.
    """

    config: type
    order: Callable[[], Sequence[str]]
    open_dataset: Callable[[Dataset, Path, RunSettings, Place], Any]
    stages: Callable[[Any], Sequence[Stage]]


def dataset_folder(output: Path, dataset: str) -> Path:
    """Where a dataset's store, tables and report are."""
    return output / DATASETS / dataset


def _open_nanoparticles(dataset: Dataset, output: Path, run: RunSettings, place: Place) -> Any:
    from cytomill.nanoparticles.stages import check_input
    from cytomill.nanoparticles.state import STORE, DatasetState, Layout
    from cytomill.storage.volumes import open_volume

    folder = dataset_folder(output, dataset.name)
    source = open_volume(dataset.input)
    size = dataset.voxel_size_nm or source.voxel_size_nm
    if size is None:
        raise ValueError(
            f"{dataset.input} does not state its voxel size; give voxel_size_nm = [z, y, x] for dataset "
            f"'{dataset.name}'"
        )
    state = DatasetState(
        dataset=dataset.name,
        folder=folder,
        input=dataset.input,
        voxel_size_nm=tuple(float(s) for s in size),
        config=dataset.options,
        layout=Layout(run.slices_per_unit, tuple(run.block), place.ranks),
        device=place.device,
    )
    state.source = source
    if source.voxel_size_nm is not None and tuple(size) != tuple(source.voxel_size_nm):
        state.notes = (
            f"dataset {dataset.name}: voxel size {_sizes(size)} nm as configured; its file says "
            f"{_sizes(source.voxel_size_nm)} nm",
        )
    state.config = dataclasses.replace(
        dataset.options, root_path=str(folder / STORE), spacing_dir=state.spacing
    )
    check_input(state)
    return state


def _sizes(size: Sequence[float]) -> str:
    return " × ".join(f"{s:g}" for s in size)


def _nanoparticle_order() -> Sequence[str]:
    from cytomill.nanoparticles.stages import ORDER

    return ORDER


def _nanoparticle_stages(state: Any) -> Sequence[Stage]:
    from cytomill.nanoparticles.stages import build_stages

    return build_stages(state)


PIPELINES: dict[str, Pipeline] = {
    "nanoparticles": Pipeline(
        NanoparticleSegConfig, _nanoparticle_order, _open_nanoparticles, _nanoparticle_stages
    ),
}


def waves(stages: Sequence[tuple[str, Sequence[Stage]]]) -> list[list[Stage]]:
    """Group stages that run together: the k-th of the order of each dataset's pipeline.

    Parameters
    ----------
    stages : sequence of (pipeline, stages)
        One entry a dataset.
    """
    length = max((len(PIPELINES[name].order()) for name, _ in stages), default=0)
    grouped = []
    for position in range(length):
        wave = []
        for pipeline, own in stages:
            order = PIPELINES[pipeline].order()
            wave += [s for s in own if position < len(order) and s.name == order[position]]
        if wave:
            grouped.append(wave)
    return grouped
