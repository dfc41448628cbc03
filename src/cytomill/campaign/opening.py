"""Opening a campaign: its datasets by their headers, its stages, the results that its ledger has."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cytomill.campaign.config import Campaign, CampaignError, from_resolved, resolved
from cytomill.campaign.datasets import Dataset, check_input_exists
from cytomill.campaign.pipeline import Place
from cytomill.campaign.pipelines import PIPELINES, waves
from cytomill.runtime.failures import is_environment_failure
from cytomill.runtime.journals import LedgerError, epoch_key, load_arrays
from cytomill.runtime.ledger import LedgerState
from cytomill.runtime.planning import changed_fields, recalled_sentence
from cytomill.runtime.stage import Stage
from cytomill.storage.durable import write_atomic

RESOLVED = "campaign.json"
TELEMETRY = "telemetry"
HERE = Place()
_TIMED_NAME = re.compile(r"nps-\d{8}-\d{6}")


@dataclass
class OpenCampaign:
    """A campaign on one rank: its datasets opened, their stages built."""

    campaign: Campaign
    states: dict[str, Any] = field(default_factory=dict)
    stages: dict[str, Sequence[Stage]] = field(default_factory=dict)
    set_aside: dict[str, str] = field(default_factory=dict)

    def waves(self) -> list[list[Stage]]:
        """Stages that run together, in order."""
        pipelines = {dataset.name: dataset.pipeline for dataset in self.campaign.datasets}
        return waves([(pipelines[name], stages) for name, stages in self.stages.items()])


def open_datasets(campaign: Campaign, place: Place = HERE, only: Sequence[str] | None = None) -> OpenCampaign:
    """Open every dataset (headers only); one that cannot be used is set aside with its sentence.

    A dataset comes after those whose results it reads; these are opened too where `only` leaves them out.
    """
    opened = OpenCampaign(campaign)
    for dataset in in_order(campaign.datasets, only):
        pipeline = PIPELINES[dataset.pipeline]
        try:
            check_input_exists(dataset)
            state = pipeline.open_dataset(dataset, campaign.output, campaign.run, place, opened.states)
            opened.stages[dataset.name] = pipeline.stages(state)
            opened.states[dataset.name] = state
        except (ValueError, OSError) as error:
            if is_environment_failure(error):
                raise
            opened.set_aside[dataset.name] = f"dataset {dataset.name}: {error}"
    return opened


def in_order(datasets: Sequence[Dataset], only: Sequence[str] | None = None) -> list[Dataset]:
    """Datasets in the order of their pipelines; with `only`, these and those whose results they read."""
    if only is not None:
        wanted = set(only)
        for dataset in datasets:
            if dataset.name in only:
                wanted.update(PIPELINES[dataset.pipeline].depends_on(dataset.options))
        datasets = [dataset for dataset in datasets if dataset.name in wanted]
    order = list(PIPELINES)
    return sorted(datasets, key=lambda dataset: order.index(dataset.pipeline))


def keep_timed_names(campaign: Campaign) -> Campaign:
    """Give datasets the names with a time in them that their first run resolved."""
    path = campaign.output / RESOLVED
    if not path.exists():
        return campaign
    before = {d.name: d for d in stored_campaign(campaign.output).datasets}
    return replace(campaign, datasets=tuple(_keep_name(d, before.get(d.name)) for d in campaign.datasets))


def write_resolved(campaign: Campaign) -> None:
    """Write the campaign as resolved beside its results."""
    write_atomic(campaign.output / RESOLVED, json.dumps(resolved(campaign), indent=1).encode())


def _keep_name(dataset: Any, before: Any) -> Any:
    name = getattr(dataset.options, "model_name", None)
    if before is None or name is None or not _TIMED_NAME.fullmatch(name):
        return dataset
    return replace(dataset, options=replace(dataset.options, model_name=before.options.model_name))


def stored_campaign(folder: Path) -> Campaign:
    """The campaign whose results are in `folder`.

    Raises
    ------
    CampaignError
        If there is none.
    """
    path = folder / RESOLVED
    try:
        stored = from_resolved(json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, NotADirectoryError):
        raise CampaignError(
            f"{folder} holds no campaign ({RESOLVED} is missing); give the output folder of 'cytomill run'"
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CampaignError(f"{path} is damaged ({error}); run 'cytomill verify --mend {folder}'") from error
    # A copied or moved folder is the campaign too; what is written belongs where it lies now.
    return replace(stored, output=folder.resolve())


def restore_results(opened: OpenCampaign, ledger: LedgerState) -> dict[str, str]:
    """Give every opened dataset the results that the ledger has.

    Returns
    -------
    dict of str to str
        Datasets that are not complete, and why.
    """
    incomplete = dict(opened.set_aside)
    for name, stages in opened.stages.items():
        for stage in stages:
            known = ledger.stages.get((name, stage.name))
            if known is None or not known.complete:
                refused = known.refused if known is not None else None
                incomplete[name] = refused or f"dataset {name}: stage {stage.name} is not complete"
                break
            stage.accept(load_arrays(opened.campaign.output, known.reduced))
    return incomplete


def changed_since(opened: OpenCampaign, ledger: LedgerState) -> list[str]:
    """Fields that differ from what the ledger's results were made with, before anything runs.

    A stage's fields may hang on the results of the stages before it, so each dataset is followed as far
    as its results hold. Where an earlier stage was done again since, the user has agreed already.
    """
    changes = []
    for name, stages in opened.stages.items():
        newest = ("", 0)
        for place, stage in enumerate(stages):
            known = ledger.stages.get((name, stage.name))
            if known is None or newest > known.agreed:
                break
            newest = max(newest, epoch_key(known.epoch))
            own = changed_fields(stage, known)
            changes += own
            recalled = recalled_sentence(stages[place:], ledger) if own else ""
            changes += [recalled] if recalled else []
            if own or not known.complete:
                break
            try:
                stage.accept(load_arrays(opened.campaign.output, known.reduced))
            except LedgerError:  # the planner sets the dataset aside for it
                break
    return changes


def input_identities(opened: OpenCampaign) -> dict[str, dict[str, Any]]:
    """What tells a changed file, of every input of every opened dataset."""
    return {
        dataset.name: {
            name: volume.identity()
            for name, volume in PIPELINES[dataset.pipeline].inputs(opened.states[dataset.name]).items()
        }
        for dataset in opened.campaign.datasets
        if dataset.name in opened.states
    }


def changed_inputs(opened: OpenCampaign, before: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Datasets whose inputs are no longer those of `before`, and a sentence each; headers are read again."""
    again = open_datasets(opened.campaign, only=list(before))
    now = input_identities(again)
    return {
        name: again.set_aside.get(name)
        or f"dataset {name}: its input was changed while it was worked on, so that results may mix old and "
        "new; run again with --update"
        for name, identity in before.items()
        if now.get(name) != identity
    }
