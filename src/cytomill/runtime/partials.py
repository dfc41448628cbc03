"""The partial results of a stage's units, in the order of its frozen table: what its reduction is given."""

from __future__ import annotations

from pathlib import Path

from cytomill.runtime.journals import LedgerError, load_arrays
from cytomill.runtime.ledger import StageState
from cytomill.runtime.stage import Arrays


class Incomplete(Exception):
    """Not all of a stage's partial results are there; the message is one sentence for the user."""


def partials_in_order(
    root: Path, known: StageState, fresh: dict[int, Arrays], attempts: int
) -> list[Arrays]:
    """Partial results of all units of a stage.

    Parameters
    ----------
    root : Path
        Campaign folder.
    known : StageState
        The stage, with its units.
    fresh : dict of int to dict of ndarray
        Those of this launch by unit, which are taken out; the others are read from the ledger.
    attempts : int
        Failures after which a unit is set aside.

    Raises
    ------
    Incomplete
        A unit is not done, or its partial results are damaged.
    """
    stage = f"stage {known.stage}"
    missing = [unit for unit in known.units if unit.index not in known.done]
    if missing:
        errors = known.failures.get(missing[0].index) or ["not known"]
        raise Incomplete(
            f"dataset {known.dataset}: {len(missing)} of {len(known.units)} units of {stage} failed "
            f"{attempts} times and are set aside; unit {missing[0].index} {missing[0].region}: {errors[-1]}"
        )
    try:
        return [
            fresh.pop(unit.index)
            if unit.index in fresh
            else load_arrays(root, known.done[unit.index].partials)
            for unit in known.units
        ]
    except LedgerError as damage:
        raise Incomplete(f"dataset {known.dataset}: {stage} cannot be reduced: {damage}") from damage
