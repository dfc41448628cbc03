"""`cytomill unit`: one suspect unit in a process of its own, for a rank that waits."""

from __future__ import annotations

from pathlib import Path

from cytomill.campaign.opening import open_datasets, stored_campaign
from cytomill.campaign.pipeline import Place
from cytomill.kernels.devices import Device
from cytomill.runtime.devices import device_from_environment
from cytomill.runtime.journals import load_arrays
from cytomill.runtime.ledger import replay
from cytomill.runtime.suspects import die_with_parent, run_as_child


def run_unit(output: Path, dataset: str, stage_name: str, unit_index: int, result: Path, parent: int) -> None:
    """Run one unit and leave its result for the rank that started this process.

    Parameters
    ----------
    output : Path
        Folder of the campaign.
    dataset, stage_name : str
        Whose unit.
    unit_index : int
        Its index in the stage's frozen table.
    result : Path
        File for the partial results and the shards, see :mod:`cytomill.runtime.suspects`.
    parent : int
        Process that waits; this one ends with it.
    """
    die_with_parent(parent)
    place = Place(device_from_environment() or Device())
    opened = open_datasets(stored_campaign(output), place, [dataset])
    ledger = replay(output)
    for stage in opened.stages[dataset]:
        known = ledger.stages[dataset, stage.name]
        if stage.name == stage_name:
            stage.prepare(1)
            run_as_child(stage, known.units[unit_index], output, result)
            return
        stage.accept(load_arrays(output, known.reduced))
