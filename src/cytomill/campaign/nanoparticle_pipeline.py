"""Nanoparticles in SBF-SEM stacks, as a campaign sees them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cytomill.campaign.datasets import Dataset
from cytomill.campaign.pipeline import PageFacts, Pipeline, Place, dataset_folder, voxel_size_of
from cytomill.campaign.settings import RunSettings
from cytomill.nanoparticles.config import NanoparticleSegConfig
from cytomill.runtime.needs import StageNeeds
from cytomill.runtime.stage import Stage
from cytomill.storage.volumes import Volume

# Every start of the program passes here: what is heavy is imported where it is used.

MODEL = "model"


class NanoparticlePipeline(Pipeline):
    """Intensity mixture, posterior, labels and measurements of nanoparticles."""

    config = NanoparticleSegConfig
    previews = True

    def order(self) -> Sequence[str]:
        from cytomill.nanoparticles.stages import ORDER

        return ORDER

    def open_dataset(
        self, dataset: Dataset, output: Path, run: RunSettings, place: Place, others: Mapping[str, Any]
    ) -> Any:
        from cytomill.nanoparticles.stages import check_input
        from cytomill.nanoparticles.state import DatasetState
        from cytomill.runtime.dataset import STORE
        from cytomill.runtime.layout import Layout
        from cytomill.storage.volumes import open_volume

        folder = dataset_folder(output, dataset.name)
        source = open_volume(dataset.input)
        size, notes = voxel_size_of(dataset, source)
        state = DatasetState(
            dataset=dataset.name,
            folder=folder,
            input=dataset.input,
            voxel_size_nm=size,
            config=dataset.options,
            layout=Layout(run.slices_per_unit, tuple(run.block), place.ranks),
            device=place.device,
            notes=notes,
        )
        state.source = source
        state.config = dataclasses.replace(
            dataset.options, root_path=str(folder / STORE), spacing_dir=state.spacing
        )
        check_input(state)
        return state

    def stages(self, state: Any) -> Sequence[Stage]:
        from cytomill.nanoparticles.stages import build_stages

        return build_stages(state)

    def expect(self, state: Any, stages: Sequence[Stage]) -> list[StageNeeds]:
        from cytomill.nanoparticles.needs import expect

        return expect(state, stages)

    def inputs(self, state: Any) -> Mapping[str, Volume]:
        return {"": state.source}

    def write_page(self, state: Any, facts: PageFacts) -> tuple[Any, str]:
        from cytomill.campaign.nanoparticle_results import nanoparticle_report
        from cytomill.campaign.pages import common_fields, write_dataset_page
        from cytomill.nanoparticles.model_files import FittedModel, save_model
        from cytomill.reports.campaign import DatasetRow
        from cytomill.reports.html import render_dataset

        fields = common_fields(state, facts)
        report, what, incomplete = write_dataset_page(
            state,
            facts,
            lambda with_volumes: nanoparticle_report(state, with_volumes=with_volumes, **fields),
            render_dataset,
        )
        if "mixture" in state.results:
            model = FittedModel(state.mixture, state.binning, state.source.dtype.name)
            save_model(state.folder / MODEL, model, state.config)
        return DatasetRow.of(report, facts.link, what, facts.refusal), incomplete

    def stored_row(self, values: dict[str, Any]) -> Any:
        from cytomill.reports.campaign import DatasetRow

        return DatasetRow(**values)

    def row_without_page(self, dataset: str, reason: str) -> Any:
        from cytomill.reports.campaign import DatasetRow

        return DatasetRow(dataset, "nanoparticles", reason=reason, state="set aside")

    def compile_kernels(self, options: Sequence[Any]) -> None:
        from cytomill.nanoparticles.warming import warm_kernels

        warm_kernels()

    def preview(self, state: Any, slices: int) -> Any:
        from cytomill.campaign.nanoparticle_preview import preview_sheet

        return preview_sheet(state, slices)
