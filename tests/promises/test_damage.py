"""Promises 2 and 4: what is damaged is named by the stage that would read it, and never read as zeros."""

import json
import shutil

import numpy as np
import pytest
from promise_campaigns import STAGES, Promised, differing, flip, one_dataset, results, several

from cytomill.cli import main
from cytomill.runtime.ledger import JOURNALS

POSTERIOR = "store.zarr/labels/nps/posterior/50-10-10/c"
PROVISIONAL = "provisional/50-10-10"
SHAPE = (24, 128, 128)


def stopped_before(folder, stage: str, monkeypatch):
    """A campaign that was stopped before the first unit of `stage`."""
    campaign = one_dataset(folder, SHAPE)
    campaign.rules({"what": "prepare", "when": "before", "stage": stage, "do": "stop"})
    assert campaign.alone(monkeypatch) == 75
    assert campaign.calls() and not campaign.calls(stage=stage)
    campaign.rules()
    campaign.forget()
    return campaign


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """Campaigns that have yet to begin components, and masks; and one that is finished."""
    folder = tmp_path_factory.mktemp("bases")
    with pytest.MonkeyPatch.context() as patches:
        found = {stage: stopped_before(folder / stage, stage, patches) for stage in ("components", "masks")}
        found["finished"] = one_dataset(folder / "finished", SHAPE)
        assert found["finished"].alone(patches) == 0
    return found


def delete(path):
    path.unlink()


def truncate(path):
    path.write_bytes(path.read_bytes()[:-7])


def flip_a_bit(path):
    flip(path)


def flip_the_index(path):
    flip(path, len(path.read_bytes()) - 9)


@pytest.mark.parametrize("harm", [delete, truncate, flip_a_bit, flip_the_index])
@pytest.mark.parametrize(
    ("stage", "volume"), [("components", POSTERIOR), ("masks", POSTERIOR), ("masks", PROVISIONAL)]
)
def test_a_damaged_shard_is_named_by_the_stage_that_would_read_it(
    harm, stage, volume, bases, tmp_path, monkeypatch, capfd
):
    campaign = bases[stage].copy(tmp_path / "c")
    shards = [path for path in (campaign.output / "datasets/alpha" / volume).rglob("*") if path.is_file()]
    shard = max(shards, key=lambda path: path.stat().st_size)
    harm(shard)
    assert campaign.alone(monkeypatch) == 3
    said = capfd.readouterr().err
    assert str(shard) in said, said
    assert "alpha" in said and stage in said
    assert campaign.calls("reduce", stage=stage) == []
    assert stage == "masks" or not (campaign.output / "datasets/alpha/store.zarr/labels/nps/masks").exists()


def test_a_shard_that_is_lost_while_the_job_runs_is_named_too(tmp_path, monkeypatch, capfd):
    campaign = one_dataset(tmp_path / "c", SHAPE)
    folder = campaign.output / "datasets/alpha" / POSTERIOR
    rule = {"what": "accept", "when": "after", "stage": "posterior", "do": "delete"}
    campaign.rules({**rule, "folder": str(folder), "files": "2/0/0"})
    assert campaign.alone(monkeypatch) == 3
    said = capfd.readouterr().err
    assert str(folder / "2/0/0") in said and "components" in said
    assert campaign.calls(stage="components") == []


def test_what_verify_mends_the_next_run_makes_again(bases, tmp_path, monkeypatch):
    campaign = bases["masks"].copy(tmp_path / "c")
    shard = next(p for p in (campaign.output / "datasets/alpha" / POSTERIOR).rglob("*") if p.is_file())
    flip(shard)
    assert campaign.alone(monkeypatch) in (0, 3)
    assert main(["verify", str(campaign.output), "--mend"]) == 4
    campaign.forget()
    assert campaign.alone(monkeypatch, "--retry") == 0
    assert campaign.stages_called()["posterior"] == 1
    assert differing(results(campaign.output), results(bases["finished"].output)) == []
    assert main(["verify", str(campaign.output)]) == 0


def test_a_partial_result_aside_that_is_gone_sets_one_dataset_aside(tmp_path, monkeypatch, capfd):
    # 70 slices of histograms of 256 bins at 8 bytes are more than a ledger's line holds.
    campaign = several(
        tmp_path / "c", ("alpha", "beta"), (70, 64, 64), run="slices_per_unit = 40\nblock = [70, 64, 64]"
    )
    last = {"what": "process", "when": "after", "stage": "histograms", "first": 2}
    campaign.rules({**last, "do": "stop"})
    assert campaign.alone(monkeypatch) == 75
    campaign.rules()
    epochs = {li["e"]: li["dataset"] for li in campaign.ledger_lines() if li["k"] == "stage"}
    done = [line for line in campaign.ledger_lines() if line["k"] == "done"]
    aside = next(li["p"]["aside"] for li in done if epochs[li["e"]] == "alpha" and "aside" in li["p"])
    (campaign.output / aside).unlink()
    assert campaign.alone(monkeypatch) == 3
    said = capfd.readouterr().err
    assert aside in said and "alpha" in said and "histograms" in said
    assert [call for call in campaign.calls() if call["dataset"] == "beta" and call["stage"] == "masks"]


def test_a_reduced_result_aside_that_is_gone_is_named(tmp_path, monkeypatch, capfd):
    campaign = one_dataset(tmp_path / "c", (70, 64, 64), run="slices_per_unit = 40\nblock = [70, 64, 64]")
    assert campaign.alone(monkeypatch) == 0
    (line,) = [li for li in campaign.ledger_lines() if li["k"] == "reduced" and "aside" in li["r"]][:1]
    (campaign.output / line["r"]["aside"]).unlink()
    assert campaign.alone(monkeypatch) == 3
    said = capfd.readouterr().err
    assert line["r"]["aside"] in said and "alpha" in said


@pytest.fixture
def finished(bases, tmp_path):
    campaign = bases["finished"].copy(tmp_path / "c")
    campaign.forget()
    return campaign


def the_journal(campaign):
    """The journal of the first launch."""
    return min((campaign.output / JOURNALS).glob("*.jsonl"))


def test_a_torn_last_line_is_ignored(finished, monkeypatch, capfd):
    journal = the_journal(finished)
    lines = journal.read_bytes().splitlines(keepends=True)
    last = max(i for i, line in enumerate(lines) if b'"k":"reduced"' in line)
    journal.write_bytes(b"".join(lines[:last]) + lines[last][:40])
    assert finished.alone(monkeypatch) == 0
    assert "checksum" not in capfd.readouterr().err
    assert finished.calls() == []
    assert [call["stage"] for call in finished.calls("reduce")] == ["masks"]


@pytest.mark.parametrize("kind", ["launch", "stage", "attempt", "done", "reduced"])
@pytest.mark.parametrize("stage", ["histograms", "posterior", "components"])
def test_a_flipped_bit_in_the_ledger_is_refused_and_mending_it_costs_only_work(
    kind, stage, finished, bases, monkeypatch, capfd
):
    journal = the_journal(finished)
    lines = journal.read_bytes().splitlines(keepends=True)
    texts = [json.loads(line.rpartition(b" ")[0]) for line in lines]
    epoch = next(t["e"] for t in texts if t["k"] == "stage" and t["stage"] == stage)
    number = next(i for i, t in enumerate(texts) if t["k"] == kind and t.get("e", epoch) == epoch)
    line = bytearray(lines[number])
    line[len(line) // 2] ^= 4
    lines[number] = bytes(line)
    journal.write_bytes(b"".join(lines))
    assert finished.alone(monkeypatch) == 2
    said = capfd.readouterr().err
    assert f"line {number + 1}" in said and journal.name in said
    assert f"verify --mend {finished.output}" in said
    assert [call for what in ("process", "prepare", "reduce") for call in finished.calls(what)] == []

    assert main(["verify", str(finished.output), "--mend"]) == 4
    assert main(["verify", str(finished.output)]) == 0
    assert finished.alone(monkeypatch) == 0
    counts = {"launch": 0, "attempt": 0, "reduced": 0, "done": 1}
    units = len([call for call in finished.calls() if call["stage"] == stage])
    assert units == counts.get(kind, units)
    assert kind != "stage" or units == 12
    assert {call["stage"] for call in finished.calls()} <= {stage}
    assert differing(results(finished.output), results(bases["finished"].output)) == []


@pytest.mark.parametrize("read", [True, False], ids=["readable", "unreadable"])
def test_a_lost_opening_line_does_not_revive_an_older_configuration(read, finished, monkeypatch):
    expected = results(finished.output)
    assert finished.alone(monkeypatch, "--update", "--set", "nanoparticles.halo_pad=10") == 0
    journal = max((finished.output / JOURNALS).glob("*.jsonl"))
    lines = journal.read_bytes().splitlines(keepends=True)
    opening = [i for i, line in enumerate(lines) if b'"k":"stage"' in line]
    assert len(opening) >= 3, "background and all that hangs on it"
    for i in opening:
        lines[i] = lines[i].replace(b'"units"', b'"unitz"') if read else b"\0" * (len(lines[i]) - 1) + b"\n"
    journal.write_bytes(b"".join(lines))
    assert finished.alone(monkeypatch) == 2, "refused, not taken for finished"
    assert main(["verify", str(finished.output), "--mend"]) == 4
    finished.forget()
    # The older epochs fit this configuration, but their shards were written over.
    assert finished.alone(monkeypatch) == 0
    called = {call["stage"] for call in finished.calls()}
    assert {"background", "posterior", "components", "masks"} <= called
    assert ("histograms" in called) != read
    assert differing(results(finished.output), expected) == []


def test_a_lost_journal_costs_its_work_only(bases, tmp_path, monkeypatch):
    campaign = bases["masks"].copy(tmp_path / "c")
    shutil.rmtree(campaign.output / JOURNALS)
    assert campaign.alone(monkeypatch) == 0
    assert set(campaign.stages_called()) == set(STAGES)
    assert differing(results(campaign.output), results(bases["finished"].output)) == []


def test_an_input_that_became_shorter_is_named_and_done_again(finished, tmp_path, monkeypatch, capfd):
    stack = finished.folder / "inputs" / "alpha.npy"
    np.save(stack, np.load(stack)[:20])
    assert finished.alone(monkeypatch) == 2
    assert "alpha, stage histograms: input" in capfd.readouterr().err
    assert finished.calls() == []
    assert finished.alone(monkeypatch, "--update") == 0
    fresh = Promised(tmp_path / "fresh", {"alpha": stack})
    assert fresh.alone(monkeypatch) == 0
    assert differing(results(finished.output), results(fresh.output)) == []
