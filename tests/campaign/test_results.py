"""Reports of real campaigns: loads, timings and the comparison with a phantom's truth."""

import json

import numpy as np
import pytest
from small_campaigns import write_campaign

from cytomill.campaign import run
from cytomill.campaign.nanoparticle_results import (
    PHANTOM,
    in_polarity,
    nanoparticle_report,
    posterior_load,
    probabilities,
)
from cytomill.campaign.opening import open_datasets, restore_results
from cytomill.campaign.phantom import write_phantom
from cytomill.campaign.results import stage_timings
from cytomill.cli import main
from cytomill.phantoms.nanoparticles import NanoparticlePhantom
from cytomill.runtime.ledger import replay
from cytomill.storage.stores import open_store

SHAPE = (8, 192, 192)
BLANK = 3


def run_phantom(folder, options="", **recipe):
    """Write a phantom, run its campaign in this process; returns its campaign and its truth."""
    write_phantom(NanoparticlePhantom(SHAPE, 5, 0.03, blank_slices=(BLANK,), **recipe), folder)
    campaign = write_campaign(folder, [folder / "stack.zarr"], options)
    with pytest.MonkeyPatch.context() as patches:
        patches.setattr(run, "install_abort_hook", lambda world: None)
        assert main(["run", str(folder / "campaign.toml")]) == 0
    return campaign, open_store(folder / "stack.zarr").open("labels/truth/50-10-10").read()


def state_of(campaign):
    """State of the only dataset, with the results of its ledger."""
    opened = open_datasets(campaign)
    assert restore_results(opened, replay(campaign.output)) == {}
    return opened.states["stack"]


@pytest.fixture(scope="module", params=["float16", "uint8"])
def finished(request, tmp_path_factory):
    """Campaign, truth and posterior (as probabilities) of a phantom, for both types of posterior."""
    folder = tmp_path_factory.mktemp("phantom")
    campaign, truth = run_phantom(folder, f'posterior_dtype = "{request.param}"')
    state = state_of(campaign)
    posterior = probabilities(state.store.open("labels/nps/posterior/50-10-10").read())
    return campaign, truth, posterior


def used(volume):
    """Voxels of the slices that took part."""
    return np.delete(volume, BLANK, axis=0)


def test_load_is_the_mean_posterior_of_the_volume(finished):
    campaign, truth, posterior = finished
    report = nanoparticle_report(state_of(campaign), [], [])
    assert report.load == pytest.approx(used(posterior).mean(dtype=np.float64), rel=1e-6)
    assert report.load == pytest.approx(used(truth).mean(), rel=0.25)
    assert report.labelled_share > report.load


def test_tables_of_the_report_are_those_applied(finished):
    campaign, _, posterior = finished
    report = nanoparticle_report(state_of(campaign), [], [])
    image = open_store(campaign.output.parent / "stack.zarr").open("images/50-10-10").read()
    for z in range(SHAPE[0]):
        np.testing.assert_array_equal(report.tables[z][image[z]], posterior[z])


def test_calibration_is_that_of_the_whole_volume(finished):
    campaign, truth, posterior = finished
    state = state_of(campaign)
    found = nanoparticle_report(state, [], []).calibration
    p, true = used(posterior).ravel().astype(np.float64), used(truth).ravel() != 0
    part = np.minimum((10 * p).astype(int), 9)
    assert found.counts.tolist() == np.bincount(part, minlength=10).tolist()
    for i in np.flatnonzero(found.counts):
        assert found.predicted[i] == pytest.approx(p[part == i].mean(), abs=1e-6)
        assert found.observed[i] == pytest.approx(true[part == i].mean())
    kept = p >= state.config.posterior_th
    assert found.dice == pytest.approx(2 * (kept & true).sum() / (kept.sum() + true.sum()))
    assert found.precision == pytest.approx((kept & true).sum() / kept.sum())
    assert found.recall == pytest.approx((kept & true).sum() / true.sum())
    assert found.true_load == pytest.approx(true.mean())
    assert found.dice > 0.8


def test_page_of_a_phantom_shows_the_truth(finished):
    campaign, _, _ = finished
    page = (campaign.output / "datasets" / "stack" / "report.html").read_text()
    assert "Against the known truth" in page and "Dice" in page


def test_stack_beside_no_phantom_has_no_truth(finished):
    campaign, _, _ = finished
    state = state_of(campaign)
    recipe = state.source.path.parent / PHANTOM
    text = recipe.read_text()
    try:
        recipe.unlink()
        assert nanoparticle_report(state, [], []).calibration is None
        recipe.write_text(json.dumps({"truth": "labels/lost/50-10-10"}))
        report = nanoparticle_report(state, [], [])
        assert report.calibration is None and "not compared with the truth" in report.notes[-1]
        recipe.write_text("[")
        assert "not compared with the truth" in nanoparticle_report(state, [], []).notes[-1]
    finally:
        recipe.write_text(text)


def test_dark_stack_of_16_bits_is_told_in_its_own_words(tmp_path):
    campaign, truth = run_phantom(tmp_path, dtype="uint16", polarity="dark")
    report = nanoparticle_report(state_of(campaign), [], [])
    low, high = report.grey_levels
    assert report.polarity == "dark" and 0 < low < high < 65535
    assert any("darker than tissue" in note for note in report.notes)
    assert not any("brighter" in note for note in report.notes)
    assert report.load == pytest.approx(used(truth).mean(), rel=0.25)
    page = (campaign.output / "datasets" / "stack" / "report.html").read_text()
    assert "the bins run backwards" in page


def test_sentences_about_drift_keep_their_words():
    notes = ("particles are 9 bins brighter than tissue", "brightness drifts", "the bright mode")
    assert in_polarity(notes, False) == notes
    expected = ("particles are 9 bins darker than tissue", "brightness drifts", "the dark mode")
    assert in_polarity(notes, True) == expected


def test_no_usable_slice_has_no_load():
    histograms, tables = np.ones((2, 256), np.int64), np.ones((2, 256), np.float16)
    assert posterior_load(histograms, tables, np.zeros(2, bool)) is None
    assert posterior_load(histograms, tables, np.array([True, False])) == 1.0


def test_rank_without_a_unit_counts_as_idle():
    unit = {"kind": "unit", "launch": "a", "dataset": "d", "stage": "s", "commit_s": 0.0, "bytes": 0}
    events = [{"kind": "rank", "rank": rank, "launch": "a", "t": 0.0} for rank in range(3)]
    events += [{**unit, "rank": rank, "t": 2.0, "seconds": 2.0} for rank in range(2)]
    (timing,) = stage_timings(events)["d"]
    assert timing.busy_seconds == [2.0, 2.0, 0.0]
    assert timing.busy_share == pytest.approx(2 / 3)
