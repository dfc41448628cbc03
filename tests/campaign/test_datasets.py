"""Inputs are found by path or pattern, and named so that each can be a folder."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cytomill.campaign.config import CampaignError, load_campaign
from cytomill.campaign.datasets import check_input_exists, check_name, natural_key, stem


@pytest.fixture
def campaign(tmp_path):
    """Load a campaign of the given [[dataset]] lines, beside files of the given names."""

    def campaign(*tables, files=(), overrides=(), head=""):
        for file in files:
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / file).touch()
        path = tmp_path / "night.toml"
        path.write_text(head + "".join(f"[[dataset]]\n{table}\n" for table in tables), encoding="utf-8")
        return load_campaign(path, overrides)

    return campaign


def test_a_pattern_gives_one_dataset_a_file_in_natural_order(campaign, tmp_path):
    files = [f"data/s{i}.tif" for i in (10, 9, 1)] + ["data/.hidden.tif", "data/s2.mrc"]
    found = campaign("input = 'data/*.tif'\nvoxel_size_nm = [1, 2, 3]", files=files).datasets
    assert [dataset.name for dataset in found] == ["s1", "s9", "s10"]
    assert [dataset.input for dataset in found] == [str(tmp_path / f"data/s{i}.tif") for i in (1, 9, 10)]
    assert {dataset.voxel_size_nm for dataset in found} == {(1.0, 2.0, 3.0)}


def test_a_pattern_reaches_into_folders_only_with_two_stars(campaign):
    files = ["data/a.tif", "data/deep/b.tif"]
    assert [d.name for d in campaign("input = 'data/*.tif'", files=files).datasets] == ["a"]
    assert [d.name for d in campaign("input = 'data/**/*.tif'", files=files).datasets] == ["a", "b"]


def test_a_selector_passes_through_a_path_and_a_pattern(campaign, tmp_path):
    files = ["a.h5", "b1.h5", "b2.h5"]
    tables = ("input = 'a.h5::/raw/*'", "input = 'b*.h5::/raw'")
    found = campaign(*tables, files=files).datasets
    assert [dataset.input for dataset in found] == [
        f"{tmp_path}/a.h5::/raw/*",
        f"{tmp_path}/b1.h5::/raw",
        f"{tmp_path}/b2.h5::/raw",
    ]
    assert [dataset.name for dataset in found] == ["a", "b1", "b2"]


def test_a_file_that_looks_like_a_pattern_is_taken_as_it_is(campaign):
    (dataset,) = campaign("input = 's[1].tif'\nname = 's1'", files=["s[1].tif", "s1.tif"]).datasets
    assert dataset.input.endswith("s[1].tif")


def test_brackets_in_the_campaigns_folder_are_no_pattern(tmp_path):
    folder = tmp_path / "night [3]"
    folder.mkdir()
    (folder / "a.tif").touch()
    (folder / "night.toml").write_text("[[dataset]]\ninput = '*.tif'\n")
    assert [d.input for d in load_campaign(folder / "night.toml").datasets] == [str(folder / "a.tif")]


def test_an_absolute_input_and_one_under_home_are_found(campaign, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    files = ["home/a.tif", "home/b1.tif", "c.tif"]
    tables = ("input = '~/a.tif'", "input = '~/b*.tif'", f"input = '{tmp_path}/sub/../c.tif'")
    found = campaign(*tables, files=files).datasets
    assert [d.input for d in found] == [str(tmp_path / file) for file in files]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/data/stack.mrc", "stack"),
        ("/data/stack.ome.tif", "stack"),
        ("/data/stack.OME.zarr", "stack"),
        ("/data/stack.mrc.gz", "stack"),
        ("/data/stack.v2.tif", "stack.v2"),
        ("/data/stack.h5::/a/b.c", "stack"),
        ("/data/stack", "stack"),
        ("/data/.ome.tif", ".ome"),
    ],
)
def test_a_dataset_is_named_by_its_files_stem(path, name):
    assert stem(path) == name


@pytest.mark.parametrize(
    "name",
    ["a/b", "..", ".a", "a\\b", "", " ", "a ", "a.", "-a", "a:b", "a*", "a\n", "x" * 201, "a\udc80", "a\0"],
)
def test_a_name_that_cannot_be_a_folder_is_refused(name):
    with pytest.raises(CampaignError, match="cannot name a folder"):
        check_name(name, "night.toml")


@given(st.text(max_size=40))
def test_a_name_that_is_accepted_is_one_folder_below_another(name):
    try:
        check_name(name, "night.toml")
    except CampaignError:
        return
    assert (Path("/results") / name).parts == ("/", "results", name)
    assert name not in (".", "..")
    assert "\0" not in name


@given(st.lists(st.integers(min_value=0, max_value=10**6), max_size=10))
def test_natural_order_is_the_order_of_the_numbers(numbers):
    names = [f"slice-{number}.tif" for number in numbers]
    assert sorted(names, key=natural_key) == [f"slice-{number}.tif" for number in sorted(numbers)]


@given(st.lists(st.text(max_size=8), max_size=6))
def test_natural_order_does_not_depend_on_the_order_found(names):
    assert sorted(reversed(names), key=natural_key) == sorted(names, key=natural_key)


@pytest.mark.parametrize(
    ("tables", "found"),
    [
        (["input = 'data/*.png'"], "data/*.png"),
        (["input = 'data/*.tif'\nname = 'all'"], "one name, 'all', for the 2 files"),
        (["input = 'data/a.tif'", "input = 'data/a.mrc'"], "two datasets are named 'a'"),
        (["input = 'data/a.*'"], "two datasets are named 'a'"),
        (["input = 'data/a.tif'\nname = '../a'"], "cannot name a folder"),
        (["input = 'data/b [x].tif::/v'\nname = 'a b'\nvoxel_size_nm = [1]"], "3 numbers"),
        (["voxel_size_nm = [1, 1, 1]"], "the key 'input' is needed"),
        (["name = 'a'"], "the key 'input' is needed"),
        (["input = ''"], "the key 'input' is needed"),
        (["input = ''\nname = 'a'"], "input is empty"),
        (["input = ['data/a.tif']"], "expected a text in quotes"),
    ],
)
def test_an_input_that_cannot_be_used_is_refused_in_a_sentence(campaign, tables, found):
    with pytest.raises(CampaignError) as caught:
        campaign(*tables, files=["data/a.tif", "data/a.mrc", "data/b.tif"])
    assert found in str(caught.value)
    assert "night.toml" in str(caught.value)


@pytest.mark.parametrize(
    ("given", "found"),
    [("data/a.tiff", "data/a.tiff (did you mean 'a.tif'?)"), ("none/a.tif", "there is no folder")],
)
def test_a_missing_input_is_named_when_its_dataset_is_opened(campaign, given, found):
    present, missing = campaign(
        "input = 'data/a.tif'", f"name = 'b'\ninput = '{given}'", files=["data/a.tif"]
    ).datasets
    check_input_exists(present)
    with pytest.raises(ValueError, match="no such input") as caught:
        check_input_exists(missing)
    assert found in str(caught.value)


def test_an_input_given_by_set_makes_up_for_an_absent_one(campaign):
    found = campaign("name = 'a'", files=["b.tif"], overrides=["dataset.a.input=b.tif"]).datasets
    assert [(d.name, Path(d.input).name) for d in found] == [("a", "b.tif")]


def test_a_dataset_can_be_renamed_by_set_but_not_to_anothers_name(campaign):
    tables = ("input = 'a.tif'", "input = 'b.tif'")
    found = campaign(*tables, files=["a.tif", "b.tif"], overrides=["dataset.a.name=c"]).datasets
    assert [d.name for d in found] == ["c", "b"]
    with pytest.raises(CampaignError, match="two datasets are named 'b'"):
        campaign(*tables, overrides=["dataset.a.name=b"])


@pytest.mark.parametrize("output", ["a.zarr", "a.zarr/results"])
def test_an_output_inside_an_input_is_refused(campaign, output):
    with pytest.raises(CampaignError, match="inputs are never written to"):
        campaign("input = 'a.zarr'", files=["a.zarr/zarr.json"], head=f"[campaign]\noutput = '{output}'\n")


def test_an_output_that_is_a_file_is_refused(campaign):
    with pytest.raises(CampaignError, match="is a file; choose a folder"):
        campaign("input = 'a.tif'", files=["a.tif", "out"], head="[campaign]\noutput = 'out'\n")
