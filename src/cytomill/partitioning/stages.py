"""The partitioning pipeline: its stages, in order, for one dataset."""

from __future__ import annotations

from collections.abc import Sequence

from cytomill.partitioning.block_stages import ShellStage
from cytomill.partitioning.cell_stages import CellStage
from cytomill.partitioning.organelle_stages import ContentStage, CountStage, ObjectStage, PlaceStage
from cytomill.partitioning.slab_stages import ColumnStage, PlaneStage
from cytomill.partitioning.state import PartitionState
from cytomill.partitioning.survey_stage import SurveyStage
from cytomill.partitioning.table_stage import TableStage
from cytomill.partitioning.xvg_stage import XvgStage
from cytomill.runtime.stage import Stage

_CELLS = (SurveyStage, CellStage, PlaneStage, ColumnStage, ShellStage)
_ORGANELLES = (ContentStage, ObjectStage, CountStage, PlaceStage)

#: Stages in the order of the pipeline; datasets that lack one wait for nobody.
ORDER = tuple(stage.name for stage in (*_CELLS, XvgStage, *_ORGANELLES, TableStage))


def build_stages(state: PartitionState) -> Sequence[Stage]:
    """The stages of one dataset; those of organelles where it names any."""
    text = (XvgStage,) if state.config.xvg else ()
    kinds = (*_CELLS, *text, *(_ORGANELLES if state.organelles else ()), TableStage)
    return [kind(state) for kind in kinds]
