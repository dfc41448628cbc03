"""Promise 5: whatever goes wrong on one rank, the job ends within seconds and says where."""

import errno

import numpy as np
import pytest
from launching import run_ranks
from promise_campaigns import one_dataset, save, several

from cytomill.runtime.lock import CampaignLock

#: Seconds that a job may live on after the fault.
PATIENCE_S = 10.0

FAULTS = {
    "prepare on rank 0": {"what": "prepare", "rank": 0, "stage": "posterior", "do": "raise"},
    "prepare on rank 2": {"what": "prepare", "rank": 2, "stage": "posterior", "do": "not found"},
    "reduce": {"what": "reduce", "rank": 0, "stage": "background", "do": "raise"},
    "accept on rank 1": {"what": "accept", "rank": 1, "stage": "background", "do": "raise"},
    "result line": {"what": "ledger", "kind": "reduced", "rank": 0, "stage": "background", "do": "raise"},
    "done line": {"what": "ledger", "kind": "done", "rank": 2, "stage": "posterior", "do": "not found"},
    "unit": {"what": "process", "rank": 1, "stage": "components", "do": "raise"},
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A campaign of two datasets; nothing is done yet."""
    names = ("alpha", "beta")
    return several(tmp_path_factory.mktemp("pair") / "c", names, (8, 128, 128), run="slices_per_unit = 2")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_on_one_rank_of_three_ends_the_job(fault, prepared, tmp_path):
    campaign = prepared.copy(tmp_path / "c")
    rule = {"when": "before", "times": 1, **FAULTS[fault]}
    campaign.rules(rule)
    arguments = ("--max-failures", "0") if fault == "unit" else ()
    done = campaign.mpirun(3, *arguments)
    (met,) = campaign.calls("rule")
    ended_s = done.ended_at - met["t"]
    assert done.returncode not in (0, 3, 75), done.stderr
    assert ended_s < PATIENCE_S, f"the job lived on for {ended_s:.1f} s"
    assert f"rank {rule['rank']}" in done.stderr
    where = met["at"]
    assert f"dataset {where['dataset']}" in done.stderr, done.stderr[-2000:]
    assert rule["stage"] in done.stderr
    if fault in ("unit", "done line"):
        assert f"unit {where['unit']}" in done.stderr, done.stderr[-2000:]


def test_what_a_failed_job_left_is_taken_up_again(prepared, tmp_path, monkeypatch):
    campaign = prepared.copy(tmp_path / "c")
    campaign.rules({"when": "before", "times": 1, **FAULTS["done line"]})
    assert campaign.mpirun(3).returncode != 0
    before = campaign.done()
    campaign.rules()
    assert campaign.alone(monkeypatch) == 0
    assert all(campaign.done()[place] == times for place, times in before.items())


@pytest.mark.parametrize("slices", ["2", "0"])
def test_a_preview_of_a_bad_campaign_ends_on_all_ranks(tmp_path, slices):
    bad = tmp_path / "bad.toml"
    bad.write_text("[campaign" if slices == "2" else "[campaign]\n")
    ended = run_ranks(2, ["-m", "cytomill", "run", "--preview", slices, str(bad)])
    assert ended.returncode == 2 and ended.stderr.count("cytomill: ") == 1
    assert ended.elapsed_s < PATIENCE_S


def test_an_output_that_cannot_be_written_is_refused_with_a_way_out(tmp_path, monkeypatch, capfd):
    campaign = one_dataset(tmp_path / "c", (4, 64, 64))

    def read_only(self, name=None):
        raise OSError(errno.EROFS, "Read-only file system", "campaign.lock")

    monkeypatch.setattr(CampaignLock, "acquire", read_only)
    assert campaign.alone(monkeypatch) == 2
    sentence = "results cannot be written (Read-only file system); choose another with --set campaign.output"
    assert sentence in capfd.readouterr().err


def test_ranks_write_reports_together_or_none_does(tmp_path, monkeypatch):
    campaign = several(tmp_path / "c", ("alpha", "beta", "gamma"), (4, 64, 64))
    assert campaign.alone(monkeypatch) == 0
    pages = sorted(campaign.output.rglob("report.html"))
    assert len(pages) == 4
    for page in pages:
        page.unlink()
    ended = run_ranks(2, ["-m", "cytomill", "report", str(campaign.output)])
    assert ended.returncode == 0 and ended.stdout.splitlines() == [str(campaign.output / "report.html")]
    assert sorted(campaign.output.rglob("report.html")) == pages
    ended = run_ranks(2, ["-m", "cytomill", "report", str(tmp_path / "nowhere")])
    assert ended.returncode == 2 and ended.stderr.count("holds no campaign") == 1


def test_work_for_one_process_is_refused_to_several(tmp_path):
    source = save(tmp_path, "a.npy", np.zeros((4, 8, 8), np.uint8))
    size = ["--voxel-size-nm", "5", "1", "1"]
    ended = run_ranks(2, ["-m", "cytomill", "convert", str(source), str(tmp_path / "a.zarr"), *size])
    assert ended.returncode == 2 and ended.stderr.count("'convert' is work for one process") == 1
    assert not (tmp_path / "a.zarr").exists()
