"""Radial partitioning of cells, as a campaign sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cytomill.campaign.datasets import OF_DATASET, Dataset, named_path
from cytomill.campaign.pipeline import PageFacts, Pipeline, Place, dataset_folder, voxel_size_of
from cytomill.campaign.settings import RunSettings
from cytomill.partitioning.config import PartitioningConfig
from cytomill.runtime.needs import StageNeeds
from cytomill.runtime.stage import Stage
from cytomill.storage.volumes import Volume

# Every start of the program passes here: what is heavy is imported where it is used.


class PartitionPipeline(Pipeline):
    """Shells from nuclear envelope to plasma membrane, and where organelles lie in them."""

    config = PartitioningConfig

    def order(self) -> Sequence[str]:
        from cytomill.partitioning.stages import ORDER

        return ORDER

    def depends_on(self, options: Any) -> Sequence[str]:
        paths = [named_path(text)[1] for text in options.organelles]
        return [path[len(OF_DATASET) :] for path in paths if path.startswith(OF_DATASET)]

    def open_dataset(
        self, dataset: Dataset, output: Path, run: RunSettings, place: Place, others: Mapping[str, Any]
    ) -> Any:
        from cytomill.partitioning.state import PartitionState
        from cytomill.runtime.layout import Layout
        from cytomill.storage.volumes import open_volume

        source = open_volume(dataset.input)
        size, notes = voxel_size_of(dataset, source)
        state = PartitionState(
            dataset=dataset.name,
            folder=dataset_folder(output, dataset.name),
            input=dataset.input,
            voxel_size_nm=size,
            config=dataset.options,
            layout=Layout(run.slices_per_unit, tuple(run.block), place.ranks),
            device=place.device,
            notes=notes,
        )
        state.source = source
        self._check(state)
        organelles = [_organelle(*named_path(text), state, others) for text in dataset.options.organelles]
        names = [organelle.name for organelle in organelles]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two organelles are named '{name}'; name them apart: name=path")
        state.organelles = tuple(organelles)
        return state

    def _check(self, state: Any) -> None:
        """Refuse masks that cannot belong together (headers only)."""
        nucleus, config = state.nucleus, state.config
        if nucleus.shape != state.shape:
            raise ValueError(
                f"{config.nucleus} has {nucleus.shape} voxels, but the cell mask {state.input} has "
                f"{state.shape}; expected the same shape (Z, Y, X): crop or resample one of them"
            )
        if not config.nucleus and not config.ne_labels:
            raise ValueError(
                f'no nucleus is named for {state.input}: give nucleus = "path" of its mask, or ne_labels = '
                "[...] where the nucleus is a label of the input"
            )

    def stages(self, state: Any) -> Sequence[Stage]:
        from cytomill.partitioning.stages import build_stages

        return build_stages(state)

    def expect(self, state: Any, stages: Sequence[Stage]) -> list[StageNeeds]:
        from cytomill.partitioning.needs import expect

        return expect(state, stages)

    def inputs(self, state: Any) -> Mapping[str, Volume]:
        from cytomill.storage.volumes import open_volume

        found = {"": state.source}
        if state.config.nucleus:
            found[" nucleus"] = state.nucleus
        return found | {f" {o.name}": open_volume(o.path) for o in state.organelles if not o.dataset}

    def write_page(self, state: Any, facts: PageFacts) -> tuple[Any, str]:
        from cytomill.campaign.partition_results import write_page

        return write_page(state, facts)

    def stored_row(self, values: dict[str, Any]) -> Any:
        from cytomill.reports.partitioning import PartitionRow

        return PartitionRow(**values)

    def row_without_page(self, dataset: str, reason: str) -> Any:
        from cytomill.reports.partitioning import PartitionRow

        return PartitionRow(dataset, state="set aside", reason=reason)

    def compile_kernels(self, options: Sequence[Any]) -> None:
        from cytomill.partitioning.warming import warm_kernels
        from cytomill.reports.shell_rays import warm_rays

        warm_kernels({(o.method, o.field) for o in options})
        warm_rays()

    def campaign_sections(self, states: Sequence[Any], output: Path) -> Sequence[Any]:
        from cytomill.campaign.partition_results import condition_sections

        return condition_sections(states, output)


def _organelle(name: str, path: str, state: Any, others: Mapping[str, Any]) -> Any:
    """An organelle's volume, by its header or by what another dataset will write.

    Raises
    ------
    ValueError
        It does not lie on the cells' grid, or a grid finer by whole factors.
    """
    from cytomill.partitioning.state import Organelle
    from cytomill.storage.volumes import open_volume

    where = f"organelle {name}"
    if path.startswith(OF_DATASET):
        return _particles(name, path[len(OF_DATASET) :], state, others)
    volume = open_volume(path)
    if not volume.region_readable:
        raise ValueError(
            f"{where}: {path} cannot be read by region ({volume.format}): convert it first (cytomill convert)"
        )
    factors = _factors(where, path, volume.shape, state)
    return Organelle(name, path, volume.shape, volume.dtype, volume.identity(), factors)


def _particles(name: str, dataset: str, state: Any, others: Mapping[str, Any]) -> Any:
    """The labels of a nanoparticle dataset of the same campaign."""
    from dataclasses import asdict

    import numpy as np

    from cytomill.nanoparticles.label_stages import PARTICLES, TABLES
    from cytomill.nanoparticles.state import MASKS, DatasetState
    from cytomill.partitioning.organelle_stages import LABELS_OF_PARTICLES
    from cytomill.partitioning.state import Organelle
    from cytomill.runtime.arrays import digest_of
    from cytomill.runtime.dataset import STORE

    other = others.get(dataset)
    if not isinstance(other, DatasetState):
        known = ", ".join(key for key, value in others.items() if isinstance(value, DatasetState)) or "none"
        raise ValueError(
            f'organelle {name} = "@{dataset}" names no nanoparticle dataset of this campaign that can be '
            f"used; there are: {known}"
        )
    factors = _factors(f"organelle {name}", f"@{dataset}", other.label_shape, state)
    options = {
        k: v for k, v in asdict(other.config).items() if k not in ("verbose", "model_name", "root_path")
    }
    made_by = digest_of([other.input_identity, list(other.voxel_size_nm), options])
    return Organelle(
        name=name,
        path=f"{other.folder / STORE}::/{MASKS}/{other.label_spacing}",
        shape=tuple(other.label_shape),
        dtype=np.dtype(np.int32),
        identity={"dataset": dataset, "made by": made_by},
        factors=factors,
        dataset=dataset,
        ready=lambda: LABELS_OF_PARTICLES in other.results,
        table=other.folder / TABLES / PARTICLES,
    )


def _factors(where: str, path: str, shape: Sequence[int], state: Any) -> tuple[int, ...]:
    factors = [fine // coarse for fine, coarse in zip(shape, state.shape, strict=True)]
    if min(factors) < 1 or [f * n for f, n in zip(factors, state.shape)] != list(shape):
        raise ValueError(
            f"{where}: {path} has {tuple(shape)} voxels, but the cell mask {state.input} has {state.shape}; "
            "expected the same shape, or whole multiples of it along each axis: resample the masks"
        )
    return tuple(factors)
