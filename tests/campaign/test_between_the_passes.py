"""What waits between the passes over cells goes once a dataset is complete, and is made again when needed."""

import logging
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import small_cells
from small_campaigns import run_waves
from small_cells import table_of, volume_of, write_campaign

from cytomill.campaign.config import load_campaign
from cytomill.campaign.opening import changed_since, open_datasets
from cytomill.campaign.verify import verify
from cytomill.partitioning import slab_stages
from cytomill.runtime import dataset
from cytomill.runtime.ledger import Journal, replay

BETWEEN = ("cells", "planes")
LABELS, SIZE = "labels/shells", "150-100-100"


class Killed(BaseException):
    """What ends a launch at once, as a kill does: nothing catches it."""


@pytest.fixture(scope="module", autouse=True)
def several_bands():
    """Bands of a size that cuts the small cell, throughout."""
    with pytest.MonkeyPatch.context() as patches:
        patches.setattr(slab_stages, "BAND_VOXELS", 30_000)
        yield


@pytest.fixture(scope="module")
def finished(several_bands, tmp_path_factory):
    """A cell by slabs, finished."""
    folder = tmp_path_factory.mktemp("between")
    table = small_cells.inputs(folder / "inputs")["single"]
    options = "bootstrap = 20\nzarr_chunks = [8, 32, 32]\nn_shells = 5\nlargest_crop = 40000"
    campaign = load_campaign(write_campaign(folder, table, options, "slices_per_unit = 8"))
    assert not run_waves(campaign).set_aside
    return campaign


@pytest.fixture
def campaign(finished, tmp_path):
    shutil.copytree(finished.output, tmp_path / "results")
    return replace(finished, output=tmp_path / "results")


def waiting(campaign) -> list[Path]:
    """Files that wait between the two passes over cells."""
    folder = campaign.output / "datasets/single/provisional"
    return [path for name in BETWEEN for path in (folder / name).rglob("*") if path.is_file()]


def damage_a_block(campaign) -> tuple[str, str, int]:
    """Have one block of shells painted again, of which the pieces are gone."""
    done = replay(campaign.output).stages["single", "shells"].done
    unit, path = max((u, campaign.output / r.path) for u in done for r in done[u].shards if r.size)
    path.unlink()
    assert verify(campaign.output, mend=True).units == [("single", "shells", unit)]
    return "single", "shells", unit


def assert_as(campaign, finished) -> None:
    """The results are those of `finished`, nothing waits, and verify is content."""
    found, expected = (volume_of(c.output, "single", LABELS, SIZE) for c in (campaign, finished))
    assert (found == expected).all()
    assert table_of(campaign.output, "single", "rdf").equals(table_of(finished.output, "single", "rdf"))
    assert waiting(campaign) == [] and verify(campaign.output).problems == []


def test_a_complete_dataset_keeps_nothing_of_its_cells_between_the_passes(campaign):
    assert waiting(campaign) == []
    ledger = replay(campaign.output).stages
    for name in ("planes", "columns"):
        assert all(done.released for done in ledger["single", name].done.values())
    assert all(ledger["single", name].complete for name in ("cells", "planes", "columns"))
    assert verify(campaign.output).problems == []
    engine = run_waves(campaign)
    assert (engine.computed, engine.reduced) == ([], [])


def test_they_wait_until_the_tables_are_written(finished, tmp_path):
    campaign = replace(finished, output=tmp_path / "half")
    run_waves(campaign, until="tables")
    assert len(waiting(campaign)) > 4
    engine = run_waves(campaign)
    assert engine.reduced == [("single", "tables")]
    assert_as(campaign, finished)


def test_they_are_made_again_for_a_block_that_is_lost(campaign, finished, caplog):
    lost = damage_a_block(campaign)
    ledger = replay(campaign.output).stages
    units = [
        ("single", name, unit.index)
        for name in ("planes", "columns")
        for unit in ledger["single", name].units
    ]
    engine = run_waves(campaign)
    assert sorted(engine.computed) == sorted([*units, lost])
    assert "stage columns is done again, as stage shells reads what it left" in caplog.text
    assert_as(campaign, finished)
    assert run_waves(campaign).computed == []


def test_a_change_says_which_stages_come_back_with_it(campaign, finished):
    source = finished.output.parent / "campaign.toml"

    def said(*overrides: str) -> str:
        changed = replace(load_campaign(source, overrides), output=campaign.output)
        return "; ".join(changed_since(open_datasets(changed), replay(campaign.output)))

    assert said() == ""
    assert "stages planes, columns, as what they left was removed" in said("partitioning.n_shells=4")
    words = said("partitioning.seed=3")
    assert "seed" in words and "removed" not in words


def killed_at(target, name: str, when: str, count: int = 1):
    """A method that ends the launch before or after its `count`-th call."""
    method = getattr(target, name)
    calls = []

    def kills(*arguments, **keywords):
        calls.append(1)
        if when == "before" and len(calls) == count:
            raise Killed
        found = method(*arguments, **keywords)
        if len(calls) == count:
            raise Killed
        return found

    return kills


def kill(campaign, monkeypatch, target, name: str, when: str, count: int = 1) -> None:
    """Run a launch that is killed there."""
    with monkeypatch.context() as patches:
        patches.setattr(target, name, killed_at(target, name, when, count))
        with pytest.raises(Killed):
            run_waves(campaign)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("name", "count"), [("reduced", 1), ("released", 1), ("released", 2)])
def test_a_kill_about_the_ledgers_line_costs_nothing(name, count, when, finished, tmp_path, monkeypatch):
    campaign = replace(finished, output=tmp_path / "half")
    run_waves(campaign, until="tables")
    kill(campaign, monkeypatch, Journal, name, when, count)
    assert verify(campaign.output).problems == []
    engine = run_waves(campaign)
    assert engine.computed == [] and engine.reduced == [("single", "tables")] * (
        when + name == "beforereduced"
    )
    assert_as(campaign, finished)


@pytest.mark.parametrize("files", [1, 3])
def test_a_kill_in_the_middle_of_the_removal_costs_nothing(files, finished, tmp_path, monkeypatch):
    campaign = replace(finished, output=tmp_path / "half")
    run_waves(campaign, until="tables")

    def removed_in_part(folder):
        for path in sorted(path for path in Path(folder).rglob("*") if path.is_file())[:files]:
            path.unlink()
        raise Killed

    with monkeypatch.context() as patches:
        patches.setattr(dataset.shutil, "rmtree", removed_in_part)
        with pytest.raises(Killed):
            run_waves(campaign)
    assert waiting(campaign) and verify(campaign.output).problems == []
    engine = run_waves(campaign)
    assert (engine.computed, engine.reduced) == ([], [])
    assert_as(campaign, finished)


@pytest.mark.parametrize(("name", "count"), [("void", 1), ("void", 3), ("done", 2)])
def test_a_kill_while_they_are_made_again_loses_no_unit(name, count, campaign, finished, monkeypatch):
    damage_a_block(campaign)
    kill(campaign, monkeypatch, Journal, name, "after", count)
    assert not run_waves(campaign).set_aside
    assert_as(campaign, finished)
    assert run_waves(campaign).computed == []


def test_what_cannot_be_removed_is_said_and_tried_again(finished, tmp_path, monkeypatch, caplog):
    campaign = replace(finished, output=tmp_path / "half")
    run_waves(campaign, until="tables")

    def refuse(folder):
        raise PermissionError(13, "not permitted", str(folder))

    with monkeypatch.context() as patches, caplog.at_level(logging.WARNING):
        patches.setattr(dataset.shutil, "rmtree", refuse)
        assert not run_waves(campaign).set_aside
    assert "cannot be removed" in caplog.text and waiting(campaign)
    assert run_waves(campaign).computed == []
    assert_as(campaign, finished)
