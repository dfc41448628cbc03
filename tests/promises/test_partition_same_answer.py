"""Promise 1 for cells: shells, positions, distances and every table are those of one process."""

from collections import Counter

import pytest
from promise_campaigns import differing, results
from promise_cells import BY_SLABS, LOW, STAGES, PromisedCells
from small_cells import inputs

VOLUMES = {
    "labels/shells": "uint8",
    "labels/compartments": "uint8",
    "labels/territories": "int32",
    "images/position": "uint16",
    "distances/nucleus": "uint16",
    "distances/membrane": "uint16",
}
TABLES = ("cells", "shells", "rdf", "profiles", "objects", "uptake")
#: Shards that do not span a plane: blocks cut cells along every axis.
SMALL_SHARDS = {"cytomill.storage.stores.SHARD_BYTES": 4 * 8 * 32 * 32}


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    return inputs(tmp_path_factory.mktemp("cells"))


@pytest.fixture(scope="module")
def expected(tables, tmp_path_factory):
    """The results of one process with units as the plan chooses them, every cell whole."""
    campaign = PromisedCells(tmp_path_factory.mktemp("alone"), tables.values())
    campaign.lower({})
    with pytest.MonkeyPatch.context() as patches:
        assert campaign.alone(patches) == 0
    assert not {"planes", "columns"} & set(campaign.stages_called())
    found = results(campaign.output)
    for dataset in tables:
        for volume, dtype in VOLUMES.items():
            (facts,) = [f for name, f in found.items() if name.startswith(f"{dataset}/{volume}/")]
            assert facts[1] == dtype and facts[2] > 500, (dataset, volume, facts)
        for table in TABLES:
            kinds, rows = found[f"{dataset}/{table}.parquet"]
            assert rows.count("\n") > 1, (dataset, table)
    assert "single/single_partition_coords.xvg" in found
    assert found["results/rdf_by_condition.parquet"][1].count("\n") > 5
    return found


def check(campaign, expected):
    assert differing(results(campaign.output), expected) == []
    assert [place for place, times in campaign.done().items() if len(times) > 1] == []
    assert max(Counter((c["dataset"], c["stage"], c["unit"]) for c in campaign.calls()).values()) == 1


@pytest.mark.parametrize(
    ("layout", "options", "limits"),
    [
        ("slices_per_unit = 1\nblock = [8, 32, 32]", "", SMALL_SHARDS),
        ("slices_per_unit = 7\nblock = [16, 64, 64]", BY_SLABS, None),
        ("slices_per_unit = 999\nblock = [999, 999, 999]", "largest_crop = 1", None),
        ("slices_per_unit = 3\nblock = [8, 64, 32]", "largest_crop = 1", SMALL_SHARDS),
    ],
)
def test_same_values_for_any_unit_size_and_by_slabs_as_whole(
    layout, options, limits, tables, expected, tmp_path, monkeypatch
):
    campaign = PromisedCells(tmp_path / "c", tables.values(), layout, options)
    if limits:
        campaign.lower({**LOW, **limits})
    assert campaign.alone(monkeypatch) == 0
    check(campaign, expected)
    units = Counter((c["dataset"], c["stage"]) for c in campaign.calls())
    assert (units["single", "columns"] > 1) == bool(options), "the large cell went another way"
    assert (units["tissue", "planes"] > 0) == (options == "largest_crop = 1")
    if limits:
        assert units["single", "shells"] > 5, "the blocks still span a plane"


@pytest.mark.parametrize(
    ("ranks", "layout", "options"),
    [
        (1, "slices_per_unit = 3\nblock = [8, 64, 64]", ""),
        (2, 'sharing = "counter"\nslices_per_unit = 2\nblock = [16, 64, 64]', BY_SLABS),
        (3, 'sharing = "static"\nslices_per_unit = 4\nblock = [24, 64, 64]', "largest_crop = 1"),
        (4, 'sharing = "auto"', BY_SLABS),
    ],
)
def test_same_values_for_any_number_of_ranks(ranks, layout, options, tables, expected, tmp_path):
    campaign = PromisedCells(tmp_path / "c", tables.values(), layout, options)
    done = campaign.mpirun(ranks)
    assert done.returncode == 0, done.stderr
    check(campaign, expected)
    assert {call["rank"] for call in campaign.calls()} == set(range(ranks))
    left_out = {"": {"planes", "columns"}, BY_SLABS: set()}.get(options, {"cells"})
    assert set(campaign.stages_called()) == set(STAGES) - left_out


@pytest.mark.parametrize(
    "method", ['field = "laplace"', 'field = "ray"', 'method = "pairs"', 'method = "pairs_edt"']
)
def test_the_other_methods_do_not_depend_on_units_either(method, tables, tmp_path, monkeypatch):
    made = []
    for ranks, layout in enumerate(("", "slices_per_unit = 3\nblock = [16, 64, 64]")):
        options = f"{method}\nlargest_crop = 1"
        campaign = PromisedCells(tmp_path / f"{ranks}", [tables["tissue"]], layout, options)
        assert campaign.alone(monkeypatch) == 0
        assert campaign.stages_called()["planes"] == 0, "these know no slabs"
        made.append(results(campaign.output))
    assert differing(*made) == []
