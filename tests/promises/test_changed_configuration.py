"""Promise 3: what did not change is not done again; what changed is named, and waits for --update."""

import numpy as np
import pytest
from promise_campaigns import STAGES, differing, one_dataset, results, several, touch

from cytomill.campaign import finish
from cytomill.campaign.finish import write_reports
from cytomill.campaign.nanoparticle_pipeline import NanoparticlePipeline
from cytomill.runtime.failures import Stopped

LATER = STAGES[STAGES.index("posterior") :]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished campaign; tests work on copies."""
    campaign = one_dataset(tmp_path_factory.mktemp("base") / "c")
    with pytest.MonkeyPatch.context() as patches:
        assert campaign.alone(patches) == 0
    return campaign


@pytest.fixture
def campaign(finished, tmp_path):
    # Copied as it is: its inputs keep their times.
    copy = finished.copy(tmp_path / "c")
    copy.forget()
    return copy


def fresh(tmp_path, monkeypatch, *arguments):
    """Results of a campaign made with these options from the beginning."""
    other = one_dataset(tmp_path / "fresh")
    assert other.alone(monkeypatch, *arguments) == 0
    return results(other.output)


def test_a_finished_campaign_calls_no_kernel(campaign, monkeypatch):
    before = results(campaign.output)
    assert campaign.alone(monkeypatch) == 0
    assert [c for what in ("process", "prepare", "reduce") for c in campaign.calls(what)] == []
    assert differing(results(campaign.output), before) == []


@pytest.mark.parametrize(
    ("field", "value", "stages"),
    [
        ("posterior_th", "0.7", ("components", "masks")),
        ("min_particle_size", "30", ("components", "masks")),
        ("radius", "2", ("components", "masks")),
        ("border", "zero", ("components", "masks")),
        ("beta_params", "[1.0, 40.0]", LATER),
        ("halo_pad", "4", STAGES[1:]),
        ("estimator", "reference", STAGES),
        ("posterior_dtype", "uint8", LATER),
        ("zarr_chunks", "[1, 32, 64]", LATER),
        ("shard_shape", "[4, 64, 64]", LATER),
    ],
)
def test_a_change_is_named_refused_and_redone_only_where_it_matters(
    field, value, stages, campaign, tmp_path, monkeypatch, capfd
):
    change = ("--set", f"nanoparticles.{field}={value}")
    before = results(campaign.output)
    assert campaign.alone(monkeypatch, *change) == 2
    said = capfd.readouterr().err
    assert field in said and "--update" in said and "alpha" in said
    assert campaign.calls() == [] and campaign.calls("reduce") == []
    assert differing(results(campaign.output), before) == []

    assert campaign.alone(monkeypatch, *change, "--update") == 0
    assert set(campaign.stages_called()) == set(stages)
    assert differing(results(campaign.output), fresh(tmp_path, monkeypatch, *change)) == []
    campaign.forget()
    assert campaign.alone(monkeypatch, *change) == 0
    assert campaign.calls() == []


def test_a_new_time_of_the_input_costs_one_pass_where_its_values_are_equal(campaign, monkeypatch, capfd):
    touch(campaign.folder / "inputs" / "alpha.npy")
    before = results(campaign.output)
    assert campaign.alone(monkeypatch) == 2
    assert "input" in capfd.readouterr().err
    assert campaign.alone(monkeypatch, "--update") == 0
    assert set(campaign.stages_called()) == {"histograms"}
    assert differing(results(campaign.output), before) == []
    campaign.forget()
    assert campaign.alone(monkeypatch) == 0
    assert campaign.calls() == []


def test_an_input_of_other_values_with_equal_histograms_is_done_again(campaign, monkeypatch):
    path = campaign.folder / "inputs" / "alpha.npy"
    volume = np.load(path)
    np.save(path, volume[:, ::-1, :])
    touch(path)
    before = results(campaign.output)
    assert campaign.alone(monkeypatch, "--update") == 0
    assert set(campaign.stages_called()) == set(STAGES)
    assert any("masks" in name for name in differing(results(campaign.output), before))


def test_an_update_that_was_interrupted_goes_on_without_the_flag(campaign, monkeypatch, tmp_path):
    change = ("--set", "nanoparticles.halo_pad=4")
    campaign.rules({"what": "process", "when": "before", "stage": "posterior", "first": 3, "do": "kill"})
    assert campaign.mpirun(0, *change, "--update").returncode != 0
    campaign.rules()
    redone = len(campaign.calls())
    assert redone == 12 + 4
    assert campaign.alone(monkeypatch, *change) == 0
    assert campaign.stages_called()["background"] == 12
    assert differing(results(campaign.output), fresh(tmp_path, monkeypatch, *change)) == []


def test_a_refused_change_leaves_the_stored_campaign_as_it_was(campaign, monkeypatch):
    before = (campaign.output / "campaign.json").read_bytes()
    assert campaign.alone(monkeypatch, "--set", "nanoparticles.posterior_th=0.7") == 2
    assert (campaign.output / "campaign.json").read_bytes() == before


def test_a_page_that_is_older_than_the_results_is_written_again(campaign, monkeypatch):
    """A run that is stopped between its last unit and its pages leaves them to the next one."""
    page = campaign.output / "datasets" / "alpha" / "report.html"
    before = page.read_text()

    def stopped(*arguments):
        raise Stopped

    change = ("--set", "nanoparticles.posterior_th=0.9")
    with monkeypatch.context() as patches:
        patches.setattr(finish, "finish", stopped)
        assert campaign.alone(patches, *change, "--update") == 75
    campaign.forget()
    assert campaign.alone(monkeypatch, *change) == 0
    assert campaign.calls() == []
    assert page.read_text() != before


def pages(campaign):
    return {path.parent.name: path.read_text() for path in campaign.output.glob("datasets/*/report.html")}


def test_pages_that_a_stop_left_are_all_that_is_written(tmp_path, monkeypatch):
    campaign = several(tmp_path / "c", ("alpha", "beta", "gamma"), (8, 128, 128))
    write, written = NanoparticlePipeline.write_page, []

    def stop_after_two(self, state, facts):
        if len(written) == 2:
            raise Stopped
        written.append(state.dataset)
        return write(self, state, facts)

    with monkeypatch.context() as patches:
        patches.setattr(NanoparticlePipeline, "write_page", stop_after_two)
        assert campaign.alone(patches) == 75
    before = pages(campaign)
    assert written == ["alpha", "beta"] == sorted(before)
    campaign.forget()
    assert campaign.alone(monkeypatch) == 0
    after = pages(campaign)
    assert campaign.calls() == [] and set(after) == {"alpha", "beta", "gamma"}
    assert {name: after[name] for name in before} == before
    # A page that somebody removed is written again with the next change, and by `report`.
    (campaign.output / "datasets/alpha/report.html").unlink()
    write_reports(campaign.output)
    assert set(pages(campaign)) == set(after)


def test_only_the_dataset_that_changed_is_done_again(tmp_path, monkeypatch):
    campaign = several(tmp_path / "c", ("alpha", "beta"), (8, 128, 128))
    assert campaign.alone(monkeypatch) == 0
    before = pages(campaign)
    campaign.forget()
    change = ("--set", "dataset.beta.nanoparticles.posterior_th=0.8", "--update")
    assert campaign.alone(monkeypatch, *change) == 0
    assert {(call["dataset"], call["stage"]) for call in campaign.calls()} == {
        ("beta", "components"),
        ("beta", "masks"),
    }
    after = pages(campaign)
    assert after["alpha"] == before["alpha"] and after["beta"] != before["beta"]


def test_a_dataset_added_later_is_all_that_is_done(tmp_path, monkeypatch):
    campaign = several(tmp_path / "c", ("alpha", "beta"), (8, 128, 128))
    text = campaign.toml.read_text()
    campaign.toml.write_text(text[: text.index('[[dataset]]\nname = "beta"')])
    assert campaign.alone(monkeypatch) == 0
    campaign.forget()
    campaign.toml.write_text(text)
    assert campaign.alone(monkeypatch) == 0
    assert {call["dataset"] for call in campaign.calls()} == {"beta"}
