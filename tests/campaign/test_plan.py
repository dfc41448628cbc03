"""A plan reads headers alone, and what it predicts is what a run then needs."""

import io
import json
import os
from math import prod

import numpy as np
import pytest
import tifffile
from small_campaigns import phantom, run_waves, small_campaign, write_campaign

from cytomill.campaign import plan as planning
from cytomill.campaign.config import CampaignError, load_campaign
from cytomill.campaign.plan import estimate, make_plan, render_plan
from cytomill.reports.terminal import print_renderable
from cytomill.runtime.ledger import replay
from cytomill.runtime.memory import MemoryLimit, predicted_peak_bytes
from cytomill.runtime.needs import amplification, steps
from cytomill.storage.volumes import Volume

ROOMY = MemoryLimit(10**12, "a test's limit")


def rows(plan, dataset="alpha"):
    return {needs.stage: needs for needs in plan.stages if needs.dataset == dataset}


def printed(plan) -> str:
    stream = io.StringIO()
    print_renderable(render_plan(plan), stream)
    return stream.getvalue()


def sparse_npy(path, shape, dtype=np.uint8):
    """An NPY file of any size that takes no space."""
    with open(path, "wb") as file:
        header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + prod(shape) * np.dtype(dtype).itemsize)


@pytest.fixture
def no_voxel(monkeypatch):
    """Makes every reading of voxels fail."""

    def refuse(self, region=None):
        raise AssertionError(f"a plan read voxels of {self.path}")

    monkeypatch.setattr(Volume, "read", refuse)
    monkeypatch.setattr(Volume, "slabs", refuse)


@pytest.mark.parametrize("kind", ["npy", "uint16 tif", "npz"])
def test_units_files_and_bytes_are_those_of_the_run(tmp_path, no_voxel, monkeypatch, kind):
    path = tmp_path / f"alpha.{kind.split()[-1]}"
    if kind == "npy":
        np.save(path, phantom())
    elif kind == "npz":
        np.savez_compressed(path, phantom())
    else:
        tifffile.imwrite(path, phantom(dtype="uint16"))
    campaign = write_campaign(tmp_path, [path], options="downsample = [1, 2, 2]" if kind == "npy" else "")
    plan = make_plan(campaign, limit=ROOMY)
    assert not campaign.output.exists(), "a plan writes nothing"
    assert plan.fits and not plan.refused
    monkeypatch.undo()

    engine = run_waves(campaign)
    assert not engine.set_aside
    ledger = replay(campaign.output).stages
    assert [("alpha", needs.stage) for needs in plan.stages] == list(ledger)
    for (_, stage), known in ledger.items():
        needs = rows(plan)[stage]
        assert needs.units == len(known.units)
        assert needs.cost == sum(unit.cost for unit in known.units)
        shards = [record for done in known.done.values() for record in done.shards]
        assert len(shards) == sum(volume.files for volume in needs.volumes)
        written = sum(record.size or 0 for record in shards)
        assert written <= sum(volume.raw_bytes for volume in needs.volumes) + 1000 * len(shards)
    found = sum(1 for file in campaign.output.rglob("*") if file.is_file())
    assert found <= plan.files


def test_a_hundred_gigabytes_are_planned_from_the_header(tmp_path, no_voxel):
    shape = (2000, 7000, 7200)
    sparse_npy(tmp_path / "alpha.npy", shape)
    file = tmp_path / "c.toml"
    file.write_text('[[dataset]]\ninput = "alpha.npy"\nvoxel_size_nm = [50.0, 10.0, 10.0]\n')
    plan = make_plan(load_campaign(file), ranks=64, local_ranks=16, limit=ROOMY)
    volumes = prod(shape) * (2 + 4)
    assert 0 < plan.raw_bytes - volumes < 0.2 * prod(shape), "between the passes only runs are kept"
    assert plan.peak_bytes < 4e9, "memory does not grow with the volume"
    assert rows(plan)["posterior"].units > 64
    assert plan.core_seconds > 3600 and plan.wall_seconds < plan.core_seconds / 32
    assert plan.sbatch[:2] == ["--ntasks=64", "--ntasks-per-node=16"]
    assert {"--cpus-per-task=1", "--signal=B:USR1@120", "--requeue"} <= set(plan.sbatch)
    granted = int(next(flag for flag in plan.sbatch if flag.startswith("--mem="))[6:-1]) * 2**30
    assert 1.1 * 16 * plan.peak_bytes <= granted < 1.1 * 16 * plan.peak_bytes + 2**30
    assert "64 ranks, 16 a node" in printed(plan) and "core-hours" in printed(plan)


def test_memory_is_the_baseline_and_the_largest_unit(tmp_path):
    campaign = small_campaign(tmp_path)
    plan = make_plan(campaign, limit=ROOMY)
    largest = max(needs.memory_bytes for needs in estimate(campaign, campaign.datasets[0]))
    assert plan.peak_bytes == predicted_peak_bytes(largest)


def test_a_plan_that_cannot_fit_says_so_as_the_run_would(tmp_path):
    campaign = small_campaign(tmp_path)
    plan = make_plan(campaign, ranks=4, limit=MemoryLimit(10**9, "the batch system's grant"))
    assert not plan.fits
    assert "4 ranks need" in plan.refusal and "the batch system's grant is 1.00 GB" in plan.refusal
    assert f"refused: {plan.refusal}" in printed(plan)
    assert make_plan(campaign, ranks=4, local_ranks=1, limit=MemoryLimit(10**9, "the grant")).fits
    tight = small_campaign(tmp_path, run="memory_per_rank_gb = 0.1")
    assert "memory_per_rank_gb" in make_plan(tight).refusal


def test_an_unusable_dataset_is_listed_and_the_others_are_planned(tmp_path):
    np.save(tmp_path / "odd.npy", np.zeros((4, 32, 32), np.float32))
    np.save(tmp_path / "alpha.npy", phantom())
    (tmp_path / "torn.tif").write_bytes(b"II*\0")
    paths = [tmp_path / name for name in ("odd.npy", "alpha.npy", "torn.tif")]
    plan = make_plan(write_campaign(tmp_path, paths), limit=ROOMY)
    assert sorted(plan.refused) == ["odd", "torn"] and "float32" in plan.refused["odd"]
    assert plan.fits and rows(plan)
    assert plan.refused["odd"] in printed(plan)
    none = make_plan(write_campaign(tmp_path, paths[:1]), limit=ROOMY)
    assert not none.fits and none.refusal in printed(none)


def test_chunks_that_a_read_cuts_are_counted_and_said(tmp_path):
    import zarr

    path = tmp_path / "alpha.zarr"
    group = zarr.create_group(path, zarr_format=3)
    array = group.create_array("raw", shape=(8, 160, 192), chunks=(4, 64, 64), dtype=np.uint8)
    array[:] = phantom()
    campaign = write_campaign(tmp_path, [f"{path}::/raw"], shard_depth=1)
    with_units = rows(make_plan(campaign, limit=ROOMY), campaign.datasets[0].name)
    # Units are whole chunks deep, but the posterior is written and so read a slice at a time.
    assert with_units["histograms"].read_amplification == 1.0
    assert with_units["posterior"].read_amplification == 4.0
    assert "decodes its input 4.00 times" in printed(make_plan(campaign, limit=ROOMY))


def test_amplification_counts_whole_chunks():
    assert amplification([steps(8, 4)], (4,), (8,)) == 1.0
    assert amplification([steps(8, 2)], (4,), (8,)) == 2.0
    assert amplification([[(0, 5), (3, 8)]], (1,), (8,)) == 10 / 8  # a halo of one on either side
    assert amplification([steps(7, 4)], (4,), (7,)) == 1.0  # a chunk cut by the edge


def test_times_are_refined_by_an_earlier_launch_and_by_what_is_done(tmp_path):
    campaign = small_campaign(tmp_path, ("alpha", "beta"))
    before = make_plan(campaign, limit=ROOMY)
    assert before.measured == [] and "from assumed rates" in printed(before)
    run_waves(campaign, until="posterior")
    after = make_plan(campaign, limit=ROOMY)
    assert after.measured == ["background", "histograms"]
    assert after.done == {"histograms": 8, "background": 8, "mixture": 0}
    assert rows(after)["histograms"].seconds == rows(after)["mixture"].seconds == 0
    assert rows(after)["posterior"].seconds == rows(before)["posterior"].seconds
    units = sum(needs.units for needs in after.stages)
    assert f"16 of {units} units are done already" in printed(after)
    # A third dataset of the same folder takes the measured rate.
    np.save(tmp_path / "gamma.npy", phantom())
    grown = write_campaign(tmp_path, [tmp_path / f"{name}.npy" for name in ("alpha", "beta", "gamma")])
    expected = 0.0
    for (_, stage), known in replay(campaign.output).stages.items():
        if stage == "histograms":
            expected += sum(done.seconds for done in known.done.values()) / 2
    assert rows(make_plan(grown, limit=ROOMY), "gamma")["histograms"].seconds >= expected > 0


def test_a_plan_is_json(tmp_path):
    plan = make_plan(small_campaign(tmp_path), ranks=2, limit=ROOMY)
    found = json.loads(json.dumps(plan.as_dict(), allow_nan=False))
    assert found["sbatch"][0] == "--ntasks=2" and found["disk_bytes"] == plan.disk_bytes
    assert [stage["stage"] for stage in found["stages"]][0] == "histograms"


def test_too_little_room_on_the_disk_is_said(tmp_path, monkeypatch):
    usage = planning.shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(planning.shutil, "disk_usage", lambda folder: usage)
    assert "1.00 kB are free" in printed(make_plan(small_campaign(tmp_path), limit=ROOMY))


@pytest.mark.parametrize("ranks, local", [(0, None), (2, 3), (2, 0)])
def test_numbers_of_ranks_that_make_no_sense_are_refused(tmp_path, ranks, local):
    with pytest.raises(CampaignError, match="ranks"):
        make_plan(small_campaign(tmp_path), ranks, local)


def test_core_hours_are_the_wall_time_of_all_ranks(tmp_path):
    """A reader multiplies one figure of the line by another and must get the third."""
    plan = make_plan(small_campaign(tmp_path), 4, limit=ROOMY)
    assert f"{plan.wall_seconds * 4 / 3600:.2g} core-hours" in printed(plan)


def test_a_stage_that_has_begun_is_planned_with_its_own_units(tmp_path):
    campaign = small_campaign(tmp_path)
    run_waves(campaign)
    other = load_campaign(campaign.source, ["run.slices_per_unit=4"])
    plan = make_plan(other, limit=ROOMY)
    total = sum(needs.units for needs in plan.stages)
    assert sum(plan.done.values()) == total
    assert f"{total} of {total} units are done already" in printed(plan)


def test_an_output_that_cannot_be_written_is_noted(tmp_path, monkeypatch):
    campaign = small_campaign(tmp_path)
    assert make_plan(campaign, limit=ROOMY).notes == []
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert f"{tmp_path} cannot be written" in printed(make_plan(campaign, limit=ROOMY))
