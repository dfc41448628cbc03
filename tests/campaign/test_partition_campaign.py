"""Campaigns of cells: planned, run, told, damaged, verified and mended."""

import io
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
import small_cells
from scipy import ndimage
from small_campaigns import run_waves
from small_cells import table_of, volume_of, write_campaign

from cytomill.campaign.config import load_campaign
from cytomill.campaign.plan import make_plan, render_plan
from cytomill.campaign.status import read_status
from cytomill.campaign.verify import verify
from cytomill.reports.terminal import print_renderable
from cytomill.runtime.ledger import replay
from cytomill.runtime.memory import MemoryLimit
from cytomill.storage.volumes import Volume

ROOMY = MemoryLimit(10**12, "a test's limit")


def cells_campaign(folder, by_slabs=True):
    """A cell by slabs and a tissue whole."""
    tables = small_cells.inputs(folder / "inputs")
    options = "bootstrap = 20\nzarr_chunks = [8, 32, 32]\nn_shells = 5"
    options += "\nlargest_crop = 40000" if by_slabs else ""
    return load_campaign(write_campaign(folder, "".join(tables.values()), options, "slices_per_unit = 8"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    campaign = cells_campaign(folder)
    assert not run_waves(campaign).set_aside
    return campaign


@pytest.fixture
def results(finished, tmp_path):
    """Results that the test may damage."""
    shutil.copytree(finished.output, tmp_path / "results")
    return tmp_path / "results"


def test_a_plan_reads_headers_and_is_printed(tmp_path, monkeypatch):
    campaign = cells_campaign(tmp_path)

    def refuse(self, region=None):
        raise AssertionError(f"a plan read voxels of {self.path}")

    monkeypatch.setattr(Volume, "read", refuse)
    monkeypatch.setattr(Volume, "slabs", refuse)
    plan = make_plan(campaign, limit=ROOMY)
    assert plan.fits and not plan.refused and not campaign.output.exists()
    stream = io.StringIO()
    print_renderable(render_plan(plan), stream)
    printed = stream.getvalue()
    for word in ("single", "tissue", "survey", "shells", "organelles"):
        assert word in printed
    # Every stage has its units and its time, in the order of the pipeline.
    rows = [needs for needs in plan.stages if needs.dataset == "single"]
    assert [needs.stage for needs in rows][0] == "survey" and rows[-1].stage == "tables"
    assert all(needs.seconds > 0 for needs in rows if needs.units)


def test_the_plan_covers_what_the_run_needs(finished):
    plan = make_plan(finished, limit=ROOMY)
    ledger = replay(finished.output).stages
    for needs in plan.stages:
        known = ledger[needs.dataset, needs.stage]
        written = sum(r.size or 0 for done in known.done.values() for r in done.shards)
        if needs.volumes:
            assert written <= sum(v.raw_bytes for v in needs.volumes) + 2000 * max(
                1, sum(v.files for v in needs.volumes)
            )
        if needs.stage in ("survey", "shells", "contents", "organelles", "places"):
            assert needs.units == len(known.units), needs.stage
    found = sum(1 for file in finished.output.rglob("*") if file.is_file())
    assert found <= plan.files


def test_a_huge_cell_is_planned_from_its_header_in_little_memory(tmp_path):
    shape = (300, 2000, 2000)
    for name in ("cell", "nucleus"):
        with open(tmp_path / f"{name}.npy", "wb") as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            file.truncate(file.tell() + int(np.prod(shape)))
    text = small_cells.table(
        "hela", tmp_path / "cell.npy", f'nucleus = "{tmp_path / "nucleus.npy"}"', (50.0, 10.0, 10.0)
    )
    plan = make_plan(load_campaign(write_campaign(tmp_path, text, options="")), ranks=8, limit=ROOMY)
    rows = {needs.stage: needs for needs in plan.stages}
    assert rows["planes"].units >= 8 and rows["columns"].units >= 8 and rows["cells"].units == 0
    assert plan.peak_bytes < 2e9


def test_a_status_in_the_middle_tells_what_waits(finished, tmp_path):
    campaign = replace(finished, output=tmp_path / "half")
    run_waves(campaign, until="shells")
    states = {r.stage: r.state for r in read_status(campaign.output).stages if r.dataset == "single"}
    assert states["survey"] == states["cells"] == states["planes"] == states["columns"] == "done"
    assert {states[name] for name in ("shells", "xvg", "contents", "organelles", "tables")} == {"waiting"}


def harmed(path, harm):
    if harm == "deleted":
        path.unlink()
    elif harm == "truncated":
        os.truncate(path, path.stat().st_size - 5)
    else:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)


def volumes(results):
    return {
        (name, group): volume_of(results, name, group, "150-100-100")
        for name in ("single", "tissue")
        for group in ("labels/shells", "images/position", "distances/nucleus", "labels/territories")
    }


@pytest.fixture(scope="module")
def without_tables(finished, tmp_path_factory):
    """The campaign before its tables: what they make superfluous is still there."""
    campaign = replace(finished, output=tmp_path_factory.mktemp("without") / "results")
    run_waves(campaign, until="tables")
    return campaign


@pytest.mark.parametrize(
    ("stage", "harm", "tables"),
    [
        ("shells", "flipped", False),
        ("shells", "deleted", False),
        ("columns", "truncated", False),
        ("planes", "flipped", False),
        ("components", "truncated", True),
        ("xvg", "flipped", True),
    ],
)
def test_damage_is_named_and_its_unit_alone_is_made_again(
    stage, harm, tables, finished, without_tables, tmp_path
):
    results = tmp_path / "results"
    shutil.copytree((finished if tables else without_tables).output, results)
    before = volumes(results)
    done = replay(results).stages["single", stage].done
    unit, path = max((u, results / r.path) for u in done for r in done[u].shards if r.size)
    harmed(path, harm)
    again = replace(finished, output=results)
    report = verify(results)
    assert [p.sentence for p in report.problems if str(path) in p.sentence and f"stage {stage}" in p.sentence]
    assert len(report.problems) == 1 and not report.mended
    report = verify(results, mend=True)
    assert report.mended and report.units == [("single", stage, unit)]
    engine = run_waves(again)
    assert engine.computed == [("single", stage, unit)] and not engine.set_aside
    assert verify(results).problems == []
    for name, values in volumes(results).items():
        np.testing.assert_array_equal(values, before[name])


def test_a_damaged_table_has_its_reduction_done_again_and_no_unit(finished, results):
    path = results / "datasets/tissue/tables/uptake.parquet"
    content = path.read_bytes()
    harmed(path, "flipped")
    report = verify(results, mend=True)
    assert report.units == [] and report.reductions == [("tissue", "tables")]
    engine = run_waves(replace(finished, output=results))
    assert (engine.computed, engine.reduced) == ([], [("tissue", "tables")])
    assert path.read_bytes() == content


def test_a_piece_that_is_lost_before_it_is_painted_sets_the_dataset_aside(finished, tmp_path):
    campaign = replace(finished, output=tmp_path / "results")
    run_waves(campaign, until="shells")
    done = replay(campaign.output).stages["single", "columns"].done
    path = campaign.output / done[0].shards[0].path
    harmed(path, "truncated")
    engine = run_waves(campaign)
    assert set(engine.set_aside) == {"single"}
    assert str(path) in engine.set_aside["single"] and "verify --mend" in engine.set_aside["single"]
    assert not [place for place in engine.computed if place[:2] == ("single", "shells")]
    verify(campaign.output, mend=True)
    engine = run_waves(campaign)
    assert not engine.set_aside and ("single", "columns", 0) in engine.computed
    assert table_of(campaign.output, "single", "rdf").equals(table_of(finished.output, "single", "rdf"))


def test_inputs_that_changed_are_found_by_verify(tmp_path):
    campaign = cells_campaign(tmp_path, by_slabs=False)
    run_waves(campaign)
    assert verify(campaign.output, inputs=True).problems == []
    for name in ("nuclei", "organelle"):
        path = tmp_path / "inputs/tissue" / f"{name}.npy"
        status, values = path.stat(), np.load(path)
        values[5, 20, 20] ^= 1
        np.save(path, values)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        problems = verify(campaign.output, inputs=True).problems
        assert any(str(path) in problem.sentence for problem in problems), name
        values[5, 20, 20] ^= 1
        np.save(path, values)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_cell_i_goes_with_nucleus_i(finished):
    truth = small_cells.tissue()
    cells = table_of(finished.output, "tissue", "cells")
    territories, shells = (
        volume_of(finished.output, "tissue", f"labels/{what}", "150-100-100")
        for what in ("territories", "shells")
    )
    assert cells["cell"].tolist() == [1, 2, 3, 4]
    for row in cells.to_dict("records"):
        own, nucleus = truth["cells"] == row["cell"], truth["nuclei"] == row["cell"]
        assert abs(row["nucleus_voxels"] - (nucleus & own).sum()) <= 0.02 * nucleus.sum()
        assert abs(row["cell_voxels"] - own.sum()) <= 0.02 * own.sum()
        cytoplasm = (shells > 0) & (territories == row["cell"])
        assert cytoplasm.sum() == row["cytoplasm_voxels"]
        assert (own & ~nucleus & ~cytoplasm).sum() <= 0.02 * own.sum()
    # The volume's first plane cuts all of them, its last column two at the most.
    assert all("z0" in faces for faces in cells["cut_faces"])
    assert (cells["censored_fraction"] > 0).all()


def test_an_object_is_whole_across_blocks(finished):
    """Components of a mask that blocks cut are those of the whole volume."""
    truth = small_cells.single_cell()["organelle"] > 0
    objects = table_of(finished.output, "single", "objects")
    blobs = objects[objects["organelle"] == "blobs"]
    labels, count = ndimage.label(truth, np.ones((3, 3, 3)))
    assert len(blobs) == count and sorted(blobs["voxel_count"]) == sorted(np.bincount(labels.ravel())[1:])
    granules = objects[objects["organelle"] == "granules"]
    sizes = np.bincount(small_cells.single_cell()["organelle"].ravel())
    assert granules["voxel_count"].tolist() == sizes[1:][sizes[1:] > 0].tolist()
