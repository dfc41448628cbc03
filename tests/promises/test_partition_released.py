"""Promise 3 for what waits between the passes over cells: gone when complete, made again where it is read."""

import pytest
from promise_campaigns import differing, results
from promise_cells import BY_SLABS, PromisedCells
from small_cells import inputs

from cytomill.cli import main
from cytomill.runtime.ledger import replay

LAYOUT = "slices_per_unit = 4\nblock = [8, 64, 64]"
RANKS = 2


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished campaign of the large cell by slabs and the small ones whole; tests work on copies."""
    folder = tmp_path_factory.mktemp("released")
    campaign = PromisedCells(folder / "base", inputs(folder / "inputs").values(), LAYOUT, BY_SLABS)
    with pytest.MonkeyPatch.context() as patches:
        assert campaign.alone(patches) == 0
    return campaign


@pytest.fixture
def campaign(finished, tmp_path):
    """A campaign that has lost a block of shells of the large cell."""
    copy = finished.copy(tmp_path / "c")
    copy.forget()
    done = replay(copy.output).stages["single", "shells"].done
    next(copy.output / record.path for record in done[0].shards if record.size).unlink()
    assert main(["verify", str(copy.output), "--mend"]) == 4
    return copy


def waiting(campaign):
    folders = (campaign.output / "datasets").glob("*/provisional/*")
    return [folder.name for folder in folders if folder.name in ("cells", "planes")]


def assert_as(campaign, finished):
    assert differing(results(campaign.output), results(finished.output)) == []
    assert waiting(campaign) == [] and main(["verify", str(campaign.output)]) == 0


def test_ranks_go_back_together_and_make_it_again(campaign, finished):
    done = campaign.mpirun(RANKS)
    assert done.returncode == 0, done.stderr
    assert "stage planes is done again" in done.stderr
    assert set(campaign.stages_called()) == {"planes", "columns", "shells"}
    assert {call["dataset"] for call in campaign.calls()} == {"single"}
    assert campaign.stages_called()["shells"] == 1
    assert_as(campaign, finished)
    campaign.forget()
    assert campaign.mpirun(RANKS).returncode == 0
    assert campaign.calls() == [] and campaign.calls("reduce") == []


@pytest.mark.parametrize(
    "moment",
    [
        {"what": "ledger", "kind": "void", "when": "after", "first": 1},
        {"what": "process", "stage": "columns", "when": "after", "first": 1},
        {"what": "ledger", "kind": "released", "when": "after", "first": 0},
    ],
)
def test_a_kill_at_any_moment_of_it_is_made_good(moment, campaign, finished):
    campaign.rules({**moment, "times": 1, "do": "kill rank"})
    assert campaign.mpirun(RANKS).returncode not in (0, 2, 3, 75)
    assert main(["verify", str(campaign.output)]) == 0
    campaign.rules()
    done = campaign.mpirun(RANKS)
    assert done.returncode == 0, done.stderr
    assert_as(campaign, finished)
