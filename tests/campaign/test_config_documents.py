"""The example and the documentation say what the program does."""

import re
import tomllib
from dataclasses import MISSING, fields
from pathlib import Path

import pytest

from cytomill.campaign.config import (
    FILLED_BY_THE_RUN,
    CampaignKeys,
    DatasetKeys,
    load_campaign,
)
from cytomill.campaign.settings import DEVICES, RunSettings, kinds_of
from cytomill.nanoparticles.config import NanoparticleSegConfig
from cytomill.partitioning.config import PartitioningConfig
from cytomill.runtime.devices import POLICIES

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "nanoparticles.toml"
DOCUMENT = ROOT / "docs" / "configuration.md"
SECTIONS = {
    "[campaign]": CampaignKeys,
    "[[dataset]]": DatasetKeys,
    "[nanoparticles]": NanoparticleSegConfig,
    "[run]": RunSettings,
}
#: The example of the other pipeline shows its own section.
DOCUMENTED = {**SECTIONS, "[partitioning]": PartitioningConfig}
PARTITIONING_EXAMPLE = ROOT / "examples" / "partitioning.toml"
INPUTS = (
    "fibroblast-control.mrc",
    "fibroblast-gold-24h.h5",
    "series/plate-2.tif",
    "series/plate-10.tif",
)


@pytest.fixture
def beside_inputs(tmp_path):
    """Load the text of a campaign in a folder that has the example's inputs."""
    (tmp_path / "data" / "series").mkdir(parents=True)
    for name in INPUTS:
        (tmp_path / "data" / name).touch()

    def load(text):
        (tmp_path / EXAMPLE.name).write_text(text, encoding="utf-8")
        return load_campaign(tmp_path / EXAMPLE.name)

    return load


def table(section):
    """Rows (key, type, default, meaning) of a section of the document."""
    text = DOCUMENT.read_text(encoding="utf-8").partition(f"\n## `{section}`\n")[2].partition("\n## ")[0]
    rows = [
        [cell.strip() for cell in row.strip("|").split(" | ")]
        for row in text.splitlines()
        if row[:3] == "| `"
    ]
    return {cells[0].strip("| `"): cells[1:] for cells in rows}


def keys_of(schema):
    return [name for name in kinds_of(schema) if name not in FILLED_BY_THE_RUN]


def test_the_example_loads_and_uses_every_section(beside_inputs):
    text = EXAMPLE.read_text(encoding="utf-8")
    campaign = beside_inputs(text)
    assert [dataset.name for dataset in campaign.datasets] == ["control", "gold-24h", "plate-2", "plate-10"]
    assert [dataset.options.estimator for dataset in campaign.datasets] == [
        "robust",
        "reference",
        "robust",
        "robust",
    ]
    assert set(tomllib.loads(text)) == {"campaign", "run", "nanoparticles", "dataset"}
    assert campaign.warnings == ()


def test_the_example_names_every_key(beside_inputs):
    text = EXAMPLE.read_text(encoding="utf-8")
    for schema in SECTIONS.values():
        for key in keys_of(schema):
            assert re.search(rf"\b{key}\b", text), key


def test_the_defaults_that_the_example_shows_are_the_defaults(beside_inputs):
    text = EXAMPLE.read_text(encoding="utf-8")
    shown = re.sub(r"^#(?=\w+ = )", "", text, flags=re.MULTILINE)
    assert shown.count("\n#") < text.count("\n#") - 20
    with_defaults, without = beside_inputs(shown), beside_inputs(text)
    assert with_defaults.run == without.run
    for one, other in zip(with_defaults.datasets, without.datasets, strict=True):
        # The threshold shown is the robust estimator's.
        names = [name for name in keys_of(type(one.options)) if name not in ("model_name", "posterior_th")]
        assert {name: getattr(one.options, name) for name in names} == {
            name: getattr(other.options, name) for name in names
        }
    assert with_defaults.datasets[0].options.posterior_th == without.datasets[0].options.posterior_th


@pytest.mark.parametrize("section", DOCUMENTED)
def test_the_document_has_exactly_the_keys_of_each_section(section):
    assert sorted(table(section)) == sorted(keys_of(DOCUMENTED[section]))
    for key, cells in table(section).items():
        assert len(cells) == 3, key
        assert len(cells[2].strip(" |")) > 10, f"{key} is not explained"


@pytest.mark.parametrize("section", DOCUMENTED)
def test_the_document_states_each_keys_default_and_choices(section):
    rows = table(section)
    defaults = {f.name: f.default for f in fields(DOCUMENTED[section])}
    for key, kind in kinds_of(DOCUMENTED[section]).items():
        default = defaults[key]
        if key in FILLED_BY_THE_RUN or default is None or default is MISSING:
            continue
        stated = tomllib.loads(f"value = {rows[key][1].strip('`')}")["value"]
        assert (tuple(stated) if isinstance(stated, list) else stated) == default, key
        for choice in kind.choices:
            assert str(choice) in rows[key][0], f"{key}: {choice}"


def test_devices_are_those_that_ranks_can_be_bound_to():
    assert DEVICES == POLICIES


def test_the_example_of_partitioning_shows_every_option_with_its_default(tmp_path):
    text = PARTITIONING_EXAMPLE.read_text(encoding="utf-8")
    (tmp_path / "cells.tif").touch()
    (tmp_path / "campaign.toml").write_text(text, encoding="utf-8")
    (dataset,) = load_campaign(tmp_path / "campaign.toml").datasets
    assert dataset.options.nucleus == str(tmp_path / "nuclei.tif")
    assert dataset.options.organelles == (f"mitochondria={tmp_path / 'mitochondria.tif'}",)
    shown = tomllib.loads(text)["partitioning"]
    for f in fields(PartitioningConfig):
        assert re.search(rf"^(# )?{f.name} = ", text, flags=re.MULTILINE), f.name
        if f.name in shown:
            value = shown[f.name]
            assert (tuple(value) if isinstance(value, list) else value) == f.default, f.name
