"""Promise 1: the answer does not depend on how it was computed; ten datasets share one queue."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tifffile
from promise_campaigns import Promised, differing, results, save, several
from small_campaigns import phantom

from cytomill.runtime.telemetry import read_events

SHAPE = (24, 128, 128)
#: A dataset for each way through the pipeline: estimator, types of input and output, detours.
OWN = {
    "robust": "",
    "wide": 'posterior_dtype = "uint8"\ndownsample = [1, 2, 2]\nradius = 2',
    "packed": 'estimator = "reference"\nposterior_dtype = "uint8"\nborder = "zero"\nconnectivity = 1',
    "pages": 'posterior_dtype = "float16"\npolarity = "dark"\ndownsample = [2, 1, 1]\nsampling_step = 3',
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> dict[str, Path]:
    """An 8-bit, a 16-bit, a compressed and a paged stack."""
    folder = tmp_path_factory.mktemp("stacks")
    pages = folder / "pages.tif"
    tifffile.imwrite(pages, phantom((17, 130, 118), seed=9, polarity="dark"), photometric="minisblack")
    return {
        "robust": save(folder, "robust.npy", phantom(SHAPE, seed=5, without_particles=(0, 1), drift=8.0)),
        "wide": save(folder, "wide.npy", phantom((16, 128, 140), seed=7, dtype="uint16")),
        "packed": save(folder, "packed.npz", phantom((13, 128, 128), seed=8)),
        "pages": pages,
    }


def made(folder: Path, inputs: dict[str, Path], run: str) -> Promised:
    """The campaign of all of them."""
    return Promised(folder, inputs, run, own=OWN)


@pytest.fixture(scope="module")
def expected(inputs, tmp_path_factory) -> dict:
    """The results of one process with units as the plan chooses them."""
    campaign = made(tmp_path_factory.mktemp("alone"), inputs, "")
    done = campaign.mpirun(0)
    assert done.returncode == 0, done.stderr
    found = results(campaign.output)
    masks = {name: facts for name, facts in found.items() if "/masks/" in name}
    assert len(masks) == len(OWN) and all(facts[2] > 100 for facts in masks.values()), masks
    return found


@pytest.mark.parametrize(
    "layout",
    [
        "slices_per_unit = 1\nblock = [2, 64, 128]",
        "slices_per_unit = 7\nblock = [6, 128, 128]",
        "slices_per_unit = 999\nblock = [999, 999, 999]",
    ],
)
def test_same_values_for_any_unit_size(layout, inputs, expected, tmp_path, monkeypatch):
    campaign = made(tmp_path / "c", inputs, layout)
    assert campaign.alone(monkeypatch) == 0
    assert differing(results(campaign.output), expected) == []


@pytest.mark.parametrize(
    ("ranks", "layout"),
    [
        (1, "slices_per_unit = 3\nblock = [4, 64, 128]"),
        (2, 'sharing = "counter"\nslices_per_unit = 2\nblock = [2, 64, 128]'),
        (3, 'sharing = "static"\nslices_per_unit = 4\nblock = [4, 64, 128]'),
        (4, 'sharing = "counter"\nslices_per_unit = 1\nblock = [6, 64, 128]'),
        (7, 'sharing = "auto"\nslices_per_unit = 2\nblock = [4, 128, 128]'),
    ],
)
def test_same_values_for_any_number_of_ranks(ranks, layout, inputs, expected, tmp_path):
    campaign = made(tmp_path / "c", inputs, layout)
    done = campaign.mpirun(ranks)
    assert done.returncode == 0, done.stderr
    assert differing(results(campaign.output), expected) == []
    assert {call["rank"] for call in campaign.calls()} == set(range(ranks))
    again = [place for place, times in campaign.done().items() if len(times) > 1]
    assert again == []
    assert max(Counter((c["dataset"], c["stage"], c["unit"]) for c in campaign.calls()).values()) == 1


def test_ten_small_datasets_share_one_queue(tmp_path):
    names = [f"set-{n}" for n in range(10)]
    campaign = several(tmp_path / "c", names, (6, 64, 64), run="slices_per_unit = 2\nblock = [6, 64, 64]")
    place = {"what": "process", "when": "before", "stage": "background"}
    campaign.rules({**place, "do": "sleep", "seconds": 0.2})
    done = campaign.mpirun(4)
    assert done.returncode == 0, done.stderr
    units = [event for event in read_events(campaign.output / "telemetry") if event["kind"] == "unit"]
    background = [event for event in units if event["stage"] == "background"]
    assert len(background) == 30
    taken = Counter(event["rank"] for event in background)
    # 30 equal units on 4 ranks: 8 each at the most, were every dataset shared on its own it would be 10.
    assert set(taken) == {0, 1, 2, 3} and max(taken.values()) <= 9, taken
    span = max(e["t"] for e in background) - min(e["t"] - e["seconds"] for e in background)
    assert span < 0.2 * 30 / 4 + 1.5, span


def test_a_restart_on_other_ranks_and_units_keeps_the_table(inputs, expected, tmp_path, monkeypatch):
    campaign = made(tmp_path / "c", inputs, "slices_per_unit = 2\nblock = [2, 64, 128]")
    campaign.rules(
        {"what": "process", "when": "before", "stage": "posterior", "first": 5, "do": "kill"},
    )
    assert campaign.mpirun(2).returncode != 0
    opened = [line for line in campaign.ledger_lines() if line["k"] == "stage"]
    frozen = {(line["dataset"], line["stage"]): line["units"] for line in opened}
    assert ("robust", "posterior") in frozen
    campaign.rules()
    other = ("--set", "run.slices_per_unit=6", "--set", "run.block=[8,128,128]")
    assert campaign.alone(monkeypatch, *other) == 0
    for line in campaign.ledger_lines():
        if line["k"] == "stage" and (line["dataset"], line["stage"]) in frozen:
            assert line["units"] == frozen[line["dataset"], line["stage"]]
    kept = [place for place in campaign.done() if place[:2] == ("robust", "posterior")]
    assert len(kept) == len(frozen["robust", "posterior"])
    assert differing(results(campaign.output), expected) == []
    assert np.all([len(times) == 1 for times in campaign.done().values()])
