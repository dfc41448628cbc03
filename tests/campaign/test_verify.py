"""What the ledger says is finished is compared with the disk; what is damaged is made again, only that."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from small_campaigns import run_waves, small_campaign

from cytomill.campaign.config import CampaignError
from cytomill.campaign.opening import RESOLVED
from cytomill.campaign.verify import verify
from cytomill.runtime.ledger import JOURNALS, replay
from cytomill.runtime.lock import CampaignLock, CampaignLocked

STORE = "datasets/alpha/store.zarr"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished campaign, its folder and every file of its results."""
    folder = tmp_path_factory.mktemp("finished")
    campaign = small_campaign(folder, ("alpha", "beta"))
    engine = run_waves(campaign)
    assert not engine.set_aside
    return folder


@pytest.fixture
def results(finished, tmp_path, monkeypatch):
    """The results of a finished campaign that the test may damage; the inputs lie where they were."""
    shutil.copytree(finished / "results", tmp_path / "results")
    return tmp_path / "results"


def run_again(finished, results):
    from dataclasses import replace

    from cytomill.campaign.config import load_campaign

    campaign = load_campaign(finished / "campaign.toml")
    return run_waves(replace(campaign, output=results))


def written_shard(results: Path, stage: str) -> tuple[int, Path]:
    """The last unit that left a shard, and the shard."""
    done = replay(results).stages["alpha", stage].done
    return max(
        (unit, results / record.path) for unit in done for record in done[unit].shards if record.size
    )


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def decoded(results: Path) -> dict[str, np.ndarray]:
    from cytomill.storage.stores import open_store

    store = open_store(results / STORE)
    names = ("labels/nps/posterior/50-10-10", "labels/nps/masks/50-10-10")
    return {name: store.open(name).read() for name in names}


def test_a_finished_campaign_has_no_problems(results):
    seen = []
    report = verify(results, progress=lambda done, total: seen.append((done, total)), inputs=True)
    assert report.problems == []
    assert report.shards > 10 and report.files == 8 and report.slices == 16
    assert seen[-1][0] == seen[-1][1] == report.bytes
    assert "no damage" in report.summary


@pytest.mark.parametrize("stage", ["posterior", "components", "masks"])
@pytest.mark.parametrize("harm", ["deleted", "truncated", "flipped"])
def test_a_damaged_shard_is_named_and_its_unit_alone_is_computed_again(finished, results, stage, harm):
    before = decoded(results)
    unit, path = written_shard(results, stage)
    if harm == "deleted":
        path.unlink()
    elif harm == "truncated":
        os.truncate(path, path.stat().st_size - 1)
    else:
        flip(path)

    report = verify(results)
    assert len(report.problems) == 1 and not report.mended
    for part in (str(path), "dataset alpha", f"stage {stage}", f"unit {unit}"):
        assert part in report.problems[0].sentence
    assert "verify --mend" in report.summary
    assert run_again(finished, results).computed == [], "verify alone changes nothing"

    report = verify(results, mend=True)
    assert report.mended and report.units == [("alpha", stage, unit)]
    engine = run_again(finished, results)
    assert engine.computed == [("alpha", stage, unit)]
    assert engine.reduced == [("alpha", stage)]
    assert verify(results).problems == []
    for name, values in decoded(results).items():
        np.testing.assert_array_equal(values, before[name])


def test_a_file_where_a_shard_was_recorded_as_empty_is_a_problem(finished, results):
    masks = replay(results).stages["alpha", "masks"]
    unit, path = next(
        (unit, record.path)
        for unit, done in masks.done.items()
        for record in done.shards
        if record.size is None
    )
    (results / path).parent.mkdir(parents=True, exist_ok=True)
    (results / path).write_bytes(b"stray")
    assert [p.units for p in verify(results, mend=True).problems] == [(unit,)]
    assert run_again(finished, results).computed == [("alpha", "masks", unit)]


def test_a_damaged_table_has_its_reduction_done_again_and_no_unit(finished, results):
    table = next((results / "datasets/alpha/tables").glob("particles*.parquet"))
    content = table.read_bytes()
    flip(table)
    report = verify(results, mend=True)
    assert str(table) in report.problems[0].sentence and report.units == []
    assert report.reductions == [("alpha", "masks")]
    engine = run_again(finished, results)
    assert (engine.computed, engine.reduced) == ([], [("alpha", "masks")])
    assert table.read_bytes() == content
    assert verify(results).problems == []


def test_damaged_stored_results_are_made_again(tmp_path, monkeypatch):
    monkeypatch.setattr("cytomill.runtime.ledger.INLINE_LIMIT_BYTES", 1000)
    campaign = small_campaign(tmp_path)
    run_waves(campaign, until="components")
    stages = replay(campaign.output).stages
    stored = (stages["alpha", "histograms"].done[0].partials, stages["alpha", "mixture"].reduced)
    of_unit, of_stage = (campaign.output / entry["aside"] for entry in stored)
    flip(of_unit)
    of_stage.unlink()
    report = verify(campaign.output, mend=True)
    assert len(report.problems) == 2
    assert str(of_unit) in report.problems[0].sentence and str(of_stage) in report.problems[1].sentence
    engine = run_waves(campaign, until="components")
    assert engine.computed == report.units == [("alpha", "histograms", 0)]
    assert engine.reduced == [("alpha", "histograms"), ("alpha", "mixture")]
    assert not engine.set_aside
    assert verify(campaign.output).problems == []


def test_an_array_without_its_metadata_is_written_again(finished, results):
    before = decoded(results)
    path = results / STORE / "labels/nps/posterior/50-10-10/zarr.json"
    path.write_bytes(path.read_bytes()[:100])
    report = verify(results, mend=True)
    assert [str(path) in p.sentence for p in report.problems] == [True]
    engine = run_again(finished, results)
    assert engine.computed == [("alpha", "posterior", unit) for unit in range(4)]
    assert verify(results).problems == []
    for name, values in decoded(results).items():
        np.testing.assert_array_equal(values, before[name])


def test_a_damaged_journal_line_costs_what_it_recorded_and_nothing_else(finished, results):
    journal = next((results / JOURNALS).glob("*.jsonl"))
    lines = journal.read_bytes().split(b"\n")
    position = next(i for i, line in enumerate(lines) if b'"k":"done"' in line and b"store.zarr" in line)
    lines[position] = lines[position].replace(b'"done"', b'"dome"')
    journal.write_bytes(b"\n".join(lines))
    report = verify(results, mend=True)
    assert len(report.problems) == 1
    for part in (str(journal), f"line {position + 1}"):
        assert part in report.problems[0].sentence
    assert verify(results).problems == [], "the damaged line is out of the journal"
    engine = run_again(finished, results)
    assert [entry[1] for entry in engine.computed] == ["posterior"]


def test_a_changed_input_is_named_by_its_header_and_by_its_slices(tmp_path):
    campaign = small_campaign(tmp_path)
    run_waves(campaign, until="posterior")
    path = Path(campaign.datasets[0].input)
    stamp = path.stat().st_mtime_ns
    voxels = np.load(path)
    voxels[3, 5, 7] ^= 1
    np.save(path, voxels)
    problems = verify(campaign.output).problems
    assert len(problems) == 1 and str(path) in problems[0].sentence and not problems[0].mendable
    # A change that header, size and time do not show is found by reading.
    os.utime(path, ns=(stamp, stamp))
    assert verify(campaign.output).problems == []
    problems = verify(campaign.output, inputs=True).problems
    assert len(problems) == 1
    for part in ("1 of 8 slices", "(slices 3)"):
        assert part in problems[0].sentence
    path.unlink()
    assert str(path) in verify(campaign.output).problems[0].sentence


def test_an_unreadable_stored_campaign_is_a_problem_that_the_next_run_mends(finished, results):
    (results / RESOLVED).write_text('{"format": 1, "na')
    report = verify(results)
    assert str(results / RESOLVED) in report.problems[0].sentence
    verify(results, mend=True)
    assert run_again(finished, results).computed == []
    assert verify(results).problems == []


def test_a_running_campaign_is_not_mended(results):
    flip(written_shard(results, "masks")[1])
    lock = CampaignLock(results, "00009-other")
    lock.acquire()
    try:
        with pytest.raises(CampaignLocked, match="00009-other"):
            verify(results, mend=True)
        assert len(verify(results).problems) == 1, "looking is allowed"
    finally:
        lock.release()
    assert verify(results, mend=True).mended


def test_a_folder_without_a_campaign_gets_a_sentence(tmp_path):
    with pytest.raises(CampaignError, match="holds no campaign"):
        verify(tmp_path)


def test_mending_a_folder_that_cannot_be_written_is_refused_in_a_sentence(results, monkeypatch):
    def refuse(*arguments, **keywords):
        raise PermissionError(13, "Permission denied", "campaign.lock.abc")

    monkeypatch.setattr(CampaignLock, "acquire", refuse)
    with pytest.raises(CampaignError, match=r"cannot be written \(Permission denied\), which --mend has to"):
        verify(results, mend=True)
