"""The pipelines that a campaign can name."""

from __future__ import annotations

from collections.abc import Sequence

from cytomill.campaign.nanoparticle_pipeline import NanoparticlePipeline
from cytomill.campaign.partition_pipeline import PartitionPipeline
from cytomill.campaign.pipeline import Pipeline
from cytomill.runtime.stage import Stage

#: In the order in which they run: a dataset may use the results of those before it.
PIPELINES: dict[str, Pipeline] = {
    "nanoparticles": NanoparticlePipeline(),
    "partitioning": PartitionPipeline(),
}


def waves(stages: Sequence[tuple[str, Sequence[Stage]]]) -> list[list[Stage]]:
    """Group stages that run together: the k-th of its pipeline's order, of every dataset that has it.

    Parameters
    ----------
    stages : sequence of (pipeline, stages)
        One entry a dataset.
    """
    grouped = []
    for name, pipeline in PIPELINES.items():
        for stage_name in pipeline.order():
            wave = [s for own, members in stages if own == name for s in members if s.name == stage_name]
            if wave:
                grouped.append(wave)
    return grouped
