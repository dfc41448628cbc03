"""Promise 3 for cells: a kill costs the units in flight, a change the stages that depend on it."""

import random
from collections import Counter

import pytest
from promise_campaigns import differing, results
from promise_cells import BY_SLABS, STAGES, PromisedCells
from small_cells import inputs

KILLS = 20
RANKS = 2
SEED = 21
LAYOUT = "slices_per_unit = 4\nblock = [8, 64, 64]"
#: A rank lives on for some milliseconds after another was killed, and must not finish the stage in them.
SLOWLY = {"what": "process", "when": "before", "do": "sleep", "seconds": 0.05}
CALLED = ("process", "prepare", "reduce")


def moments(seed: int) -> list[dict]:
    """Where each launch is killed: kinds of moments drawn by chance, every stage twice at least."""
    draw = random.Random(seed)
    kinds = [
        {"what": "process", "when": "before"},
        {"what": "process", "when": "after"},
        {"what": "ledger", "kind": "attempt", "when": "after"},
        {"what": "ledger", "kind": "done", "when": "before"},
        {"what": "ledger", "kind": "done", "when": "after"},
    ]
    found = [
        {"what": "reduce", "when": "after", "stage": "survey", "first": 0},
        {"what": "prepare", "when": "after", "stage": "shells", "first": 0},
    ]
    while len(found) < KILLS - 2:
        stage = STAGES[len(found) % len(STAGES)]
        # A moment that is not met would let the launch finish what later ones are to interrupt.
        first = 0 if stage in ("cells", "columns", "xvg") else draw.randrange(2)
        found.append({**draw.choice(kinds), "stage": stage, "first": first})
    # In the order of the pipeline, or a late kill would leave nothing for the early ones.
    order = {"prepare": 0, "process": 1, "ledger": 1, "reduce": 2}
    found.sort(key=lambda moment: (STAGES.index(moment["stage"]), order[moment["what"]]))
    found += [{"what": "reduce", "when": when, "stage": "tables", "first": 0} for when in ("before", "after")]
    return [{**m, "times": 1, "do": draw.choice(["kill rank", "kill rank", "kill launcher"])} for m in found]


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    return inputs(tmp_path_factory.mktemp("cells"))


@pytest.fixture(scope="module")
def finished(tables, tmp_path_factory):
    """A finished campaign of the large cell by slabs and the small ones whole; tests work on copies."""
    folder = tmp_path_factory.mktemp("unharmed") / "c"
    campaign = PromisedCells(folder, tables.values(), LAYOUT, BY_SLABS)
    with pytest.MonkeyPatch.context() as patches:
        assert campaign.alone(patches) == 0
    return campaign


@pytest.mark.slow
def test_twenty_kills_across_all_stages_cost_only_the_units_in_flight(
    tables, finished, tmp_path, monkeypatch
):
    campaign = PromisedCells(tmp_path / "c", tables.values(), LAYOUT, BY_SLABS)
    killed = Counter()
    for moment in moments(SEED):
        campaign.rules(moment, SLOWLY)
        before = Counter((c["dataset"], c["stage"], c["unit"]) for c in campaign.calls())
        done = campaign.mpirun(RANKS)
        after = Counter((c["dataset"], c["stage"], c["unit"]) for c in campaign.calls())
        met = [event for event in campaign.calls("rule") if event["do"] != SLOWLY["do"]]
        if len(met) > sum(killed.values()):
            killed[met[-1]["at"]["stage"]] += 1
            assert done.returncode not in (0, 2, 3, 75), done.stderr
        else:
            assert done.returncode == 0, done.stderr
        assert max((after - before).values(), default=1) == 1, "a unit ran twice in one launch"
    campaign.rules()
    done = campaign.mpirun(RANKS)
    assert done.returncode == 0, done.stderr
    assert sum(killed.values()) >= KILLS - 2 and set(killed) == {*STAGES, "tables"}, killed
    assert differing(results(campaign.output), results(finished.output)) == []

    committed = campaign.done()
    assert [place for place, times in committed.items() if len(times) > 1] == []
    for call in campaign.calls():
        place = (call["dataset"], call["stage"], call["unit"])
        assert call["t"] <= committed[place][0] + 0.002, f"{place} ran after its commit"
    again = len(campaign.calls()) - len(committed)
    assert again <= sum(killed.values()) * RANKS, again
    assert [line for line in campaign.ledger_lines() if line["k"] == "failed"] == []

    campaign.forget()
    assert campaign.alone(monkeypatch) == 0
    assert [c for what in CALLED for c in campaign.calls(what)] == []


@pytest.mark.parametrize(
    "stage", ["planes", *(pytest.param(name, marks=pytest.mark.slow) for name in ("columns", "organelles"))]
)
def test_a_kill_costs_the_units_in_flight_only(stage, tables, finished, tmp_path, monkeypatch):
    campaign = PromisedCells(tmp_path / "c", tables.values(), LAYOUT, BY_SLABS)
    campaign.rules({"what": "process", "when": "after", "stage": stage, "first": 1, "do": "kill"})
    assert campaign.mpirun(RANKS).returncode not in (0, 2, 3, 75)
    campaign.rules()
    assert campaign.alone(monkeypatch) == 0
    times = Counter((c["dataset"], c["stage"], c["unit"]) for c in campaign.calls())
    again = [place for place, count in times.items() if count > 1]
    assert 1 <= len(again) <= RANKS and {of for _, of, _ in again} == {stage}
    assert differing(results(campaign.output), results(finished.output)) == []


def test_a_restart_keeps_the_units_and_the_way_of_cells_that_were_begun(
    tables, finished, tmp_path, monkeypatch
):
    """Another layout, and another limit of what is taken whole, after planes were computed."""
    campaign = PromisedCells(tmp_path / "c", tables.values(), LAYOUT, BY_SLABS)
    campaign.rules({"what": "process", "when": "before", "stage": "columns", "first": 1, "do": "kill"})
    assert campaign.mpirun(0).returncode not in (0, 2, 3, 75)
    opened = [line for line in campaign.ledger_lines() if line["k"] == "stage"]
    frozen = {(line["dataset"], line["stage"]): line["units"] for line in opened}
    campaign.rules()
    other = ("run.slices_per_unit=9", "run.block=[24,64,64]", "partitioning.largest_crop=99999999")
    assert campaign.alone(monkeypatch, *(word for text in other for word in ("--set", text))) == 0
    for line in campaign.ledger_lines():
        if line["k"] == "stage" and (line["dataset"], line["stage"]) in frozen:
            assert line["units"] == frozen[line["dataset"], line["stage"]]
    assert all(len(times) == 1 for times in campaign.done().values())
    assert differing(results(campaign.output), results(finished.output)) == []


@pytest.fixture
def campaign(finished, tmp_path):
    copy = finished.copy(tmp_path / "c")
    copy.forget()
    return copy


def test_a_finished_campaign_calls_no_kernel(campaign, monkeypatch):
    before = results(campaign.output)
    assert campaign.alone(monkeypatch) == 0
    assert [c for what in CALLED for c in campaign.calls(what)] == []
    assert differing(results(campaign.output), before) == []


PAINTED = {"shells", "xvg", "organelles", "places", "tables"}


@pytest.mark.parametrize(
    ("change", "stages"),
    [
        # Distances do not depend on the number of shells, nor do objects.
        ("n_shells=4", {"cells", "columns"} | PAINTED),
        ('field="laplace"', {"cells"} | PAINTED),
        ("zarr_chunks=[16, 32, 32]", {"cells", "columns", "components"} | PAINTED),
        ("min_object_size=30", {"components", "organelles", "places", "tables"}),
        ('objects="components"', {"contents", "components", "organelles", "places", "tables"}),
        ('condition="starved"', {"tables"}),
        ('replicate="2"', {"tables"}),
        ("seed=5", {"tables"}),
        ("bootstrap=30", {"tables"}),
    ],
)
def test_a_change_is_named_refused_and_redone_only_where_it_matters(
    change, stages, campaign, tables, tmp_path, monkeypatch, capfd
):
    name, _, value = change.partition("=")
    arguments = ("--set", f"partitioning.{change}")
    before = results(campaign.output)
    assert campaign.alone(monkeypatch, *arguments) == 2
    said = capfd.readouterr().err
    assert name in said and "--update" in said and "single" in said, said
    assert [c for what in CALLED for c in campaign.calls(what)] == []
    assert differing(results(campaign.output), before) == []

    assert campaign.alone(monkeypatch, *arguments, "--update") == 0
    called = set(campaign.stages_called()) | {c["stage"] for c in campaign.calls("reduce")}
    assert called - {"planes", "columns"} == stages - {"planes", "columns"}
    # Stages without units have a reduction only.
    # What planes left for columns was removed when the dataset was complete.
    assert set(campaign.stages_called()) <= (stages | {"planes"} if "columns" in stages else stages)

    fresh = PromisedCells(tmp_path / "fresh", tables.values(), LAYOUT, BY_SLABS)
    assert fresh.alone(monkeypatch, *arguments) == 0
    assert differing(results(campaign.output), results(fresh.output)) == []
    campaign.forget()
    assert campaign.alone(monkeypatch, *arguments) == 0
    assert campaign.calls() == [] and campaign.calls("reduce") == []


def test_only_the_dataset_that_changed_is_done_again(campaign, monkeypatch):
    change = ("--set", "dataset.tissue.partitioning.n_shells=3", "--update")
    assert campaign.alone(monkeypatch, *change) == 0
    assert {c["dataset"] for what in CALLED for c in campaign.calls(what)} == {"tissue"}
