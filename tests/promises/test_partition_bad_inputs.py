"""Promise 8 for cells: masks of every kind have a defined result or one clear sentence, and others finish."""

import shutil

import numpy as np
import pandas as pd
import pytest
from promise_campaigns import flip
from promise_cells import PromisedCells
from small_cells import ball, save_tiff, table

from cytomill.storage.convert import convert
from cytomill.storage.stores import open_store

SHAPE = (20, 36, 36)
CENTRE = (10, 18, 18)
CELL = ball(SHAPE, CENTRE, (7, 14, 14))
NUCLEUS = ball(SHAPE, CENTRE, (3, 6, 6))
LABELS = CELL.astype(np.uint8) + NUCLEUS
SPOTS = ball(SHAPE, (10, 8, 18), 2)


class Folder:
    """Datasets in the making."""

    def __init__(self, path):
        self.path = path
        self.tables = {}

    def write(self, file, array):
        path = self.path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, array)
        return path

    def add(self, name, cell, nucleus=None, options="", organelle=None):
        """A dataset of these masks; arrays are saved, paths taken as they are."""
        cell, nucleus, organelle = (
            self.write(f"{name}/{what}.npy", given) if isinstance(given, np.ndarray) else given
            for what, given in (("cell", cell), ("nucleus", nucleus), ("organelle", organelle))
        )
        lines = [options]
        if nucleus is not None:
            lines.append(f'nucleus = "{nucleus}"')
        if organelle is not None:
            lines.append(f'organelles = ["spots={organelle}"]')
        self.tables[name] = table(name, cell, "\n".join(lines))


#: Words that the sentence about each dataset must hold.
REFUSED = {
    "outside": ("nucleus lies outside the cell", "masks belong"),
    "no nucleus": ("nucleus mask is empty",),
    "no cell": ("cell mask is empty",),
    "no such label": ("none of ne_labels = [9]", "labels 1, 2"),
    "swapped": ("swapped",),
    "other shape": ("(20, 36, 35)", "(20, 36, 36)", "same shape"),
    "not a number": ("nan", "(4, 5, 6)", "set voxels without a value to 0"),
    "fraction": ("0.25", "(4, 5, 6)", "whole numbers"),
    "negative": ("-3", "(4, 5, 6)"),
    "nucleus not named": ("no nucleus is named", "ne_labels"),
    "nucleus not there": ("nowhere.npy",),
    "organelle of other shape": ("organelle spots", "(20, 36, 30)", "(20, 36, 36)"),
    "organelle not there": ("nothing.npy",),
    "organelle not a number": ("organelle.npy", "nan", "(4, 5, 6)"),
    "organelle truncated": ("organelle.npy", "truncated"),
    "organelle torn": ("torn.tif",),
    "organelle flipped": ("flipped.zarr",),
    "organelle of nobody": ("@nobody", "nanoparticle dataset"),
    "two of one name": ("two organelles are named 'spots'",),
}
#: Cells that are defined, each by its rule.
DEFINED = ("plain", "two nuclei", "holes", "cut", "touching", "membrane only", "without nucleus", "beside")
#: The same cell in other types.
ALIKE = ("bool", "of 255", "labels", "label lists", "floats", "int64", "big-endian", "pages")


def bad(folder):
    """Everything that is refused."""
    far = np.zeros(SHAPE, bool)
    far[1:3, 1:4, 1:4] = True
    folder.add("outside", CELL, far)
    folder.add("no nucleus", CELL, np.zeros(SHAPE, bool))
    folder.add("no cell", np.zeros(SHAPE, bool), NUCLEUS)
    folder.add("no such label", LABELS, options="ne_labels = [9]")
    folder.add("swapped", NUCLEUS, CELL)
    folder.add("other shape", CELL, NUCLEUS[:, :, :-1])
    for name, value in (("not a number", np.nan), ("fraction", 0.25), ("negative", -3)):
        values = LABELS.astype(np.float32 if value != -3 else np.int16)
        values[4, 5, 6] = value
        folder.add(name, values, options="ne_labels = [2]")
    folder.add("nucleus not named", LABELS)
    folder.add("nucleus not there", CELL, folder.path / "nowhere.npy")
    folder.add("organelle of other shape", CELL, NUCLEUS, organelle=SPOTS[:, :, :30])
    folder.add("organelle not there", CELL, NUCLEUS, organelle=folder.path / "nothing.npy")
    values = SPOTS.astype(np.float32)
    values[4, 5, 6] = np.nan
    folder.add("organelle not a number", CELL, NUCLEUS, organelle=values)
    folder.add("organelle truncated", CELL, NUCLEUS, organelle=SPOTS)
    path = folder.path / "organelle truncated" / "organelle.npy"
    path.write_bytes(path.read_bytes()[:-3000])
    torn = save_tiff(folder.path / "torn.tif", SPOTS.astype(np.uint8))
    torn.write_bytes(torn.read_bytes()[: 12 * 36 * 36])
    folder.add("organelle torn", CELL, NUCLEUS, organelle=torn)
    store = folder.path / "flipped.zarr"
    convert(
        str(folder.write("spots.npy", SPOTS.astype(np.uint8))), store, voxel_size_nm=(150.0, 100.0, 100.0)
    )
    chunk = max((p for p in store.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    flip(chunk)
    folder.add("organelle flipped", CELL, NUCLEUS, organelle=store)
    folder.add("organelle of nobody", CELL, NUCLEUS, options='organelles = ["particles=@nobody"]')
    twice = folder.path / "spots.npy"
    folder.add("two of one name", CELL, NUCLEUS, options=f'organelles = ["spots={twice}", "spots={twice}"]')


def defined(folder):
    """Everything that a rule settles."""
    folder.add("plain", LABELS, options="ne_labels = [2]", organelle=SPOTS)
    second = ball(SHAPE, (10, 18, 28), (3, 4, 2))
    folder.add("two nuclei", CELL, NUCLEUS | second)
    holes = ball(SHAPE, (10, 9, 18), 2)
    folder.add("holes", CELL & ~holes, NUCLEUS & ~ball(SHAPE, CENTRE, 1.5))
    folder.add("cut", LABELS[9:, :, :26], options="ne_labels = [2]", organelle=SPOTS[9:, :, :26])
    folder.add("touching", CELL, ball(SHAPE, (10, 18, 25), (3, 6, 7)))
    thin = CELL & ~ball(SHAPE, CENTRE, (5.5, 12, 12))
    folder.add("membrane only", thin, NUCLEUS)
    folder.add("without nucleus", CELL & ~NUCLEUS, NUCLEUS)
    speck = np.zeros(SHAPE, bool)
    speck[1, 1:3, 1:3] = True
    folder.add("beside", CELL | speck, NUCLEUS)


def alike(folder):
    """The plain cell again."""
    folder.add("bool", CELL, NUCLEUS, organelle=SPOTS)
    folder.add("of 255", CELL * np.uint8(255), NUCLEUS * np.uint8(255), organelle=SPOTS * np.uint8(255))
    folder.add(
        "labels", LABELS.astype(np.uint16), options="ne_labels = [2]", organelle=SPOTS.astype(np.int32)
    )
    many = np.where(NUCLEUS, np.where(np.arange(36) < 18, 1, 2), CELL * 5).astype(np.int16)
    folder.add("label lists", many, options="ne_labels = [1, 2]\npm_labels = [1, 2, 5]", organelle=SPOTS)
    folder.add(
        "floats", CELL.astype(np.float32), NUCLEUS.astype(np.float64), organelle=SPOTS.astype(np.float16)
    )
    folder.add("int64", CELL.astype(np.int64), NUCLEUS.astype(np.uint64), organelle=SPOTS.astype(np.int64))
    folder.add("big-endian", LABELS.astype(">u2"), options="ne_labels = [2]", organelle=SPOTS.astype(">i4"))
    cell = save_tiff(folder.path / "pages.tif", CELL.astype(np.uint8))
    folder.add("pages", cell, NUCLEUS, organelle=SPOTS)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """One campaign of all of them, and what the command said."""
    path = tmp_path_factory.mktemp("masks")
    folder = Folder(path)
    for add in (bad, defined, alike):
        add(folder)
    assert set(folder.tables) == {*REFUSED, *DEFINED, *ALIKE}
    campaign = PromisedCells(path / "c", folder.tables.values(), options="adsorbed_nm = 300")
    campaign.process = campaign.mpirun(0)
    return campaign


def cells(done, name):
    """The one row of a dataset's table of cells."""
    (row,) = pd.read_parquet(done.output / "datasets" / name / "tables/cells.parquet").to_dict("records")
    return row


def volume(done, name, group):
    store = open_store(done.output / "datasets" / name / "store.zarr")
    return store.open(f"{group}/150-100-100").read()


def test_bad_datasets_are_set_aside_and_the_others_finish(done):
    assert done.process.returncode == 3, done.process.stderr
    assert "Traceback" not in done.process.stderr
    assert f"{len(DEFINED) + len(ALIKE)} datasets finished, {len(REFUSED)} set aside" in done.process.stderr
    for name in (*DEFINED, *ALIKE):
        assert (done.output / "datasets" / name / "tables/cells.parquet").exists(), name


@pytest.mark.parametrize("name", REFUSED)
def test_each_bad_dataset_gets_one_sentence(name, done):
    lines = done.process.stderr.splitlines()
    said = {line for line in lines if f"dataset {name}:" in line or f"dataset {name}," in line}
    (sentence,) = {line for line in said if "set aside: " in line}
    for word in REFUSED[name]:
        assert word in sentence, sentence
    assert len(sentence) < 600 and "Error" not in sentence, sentence
    assert not (done.output / "datasets" / name / "tables/cells.parquet").exists()


@pytest.mark.parametrize("name", DEFINED)
def test_no_voxel_of_a_cytoplasm_is_without_a_shell(name, done):
    row = cells(done, name)
    shell, compartment = (volume(done, name, f"labels/{what}") for what in ("shells", "compartments"))
    cytoplasm = shell > 0
    # Cytoplasm is censored or not; both kinds have shells, and nothing else has.
    kinds = set(np.unique(compartment[cytoplasm]))
    assert kinds and not kinds & set(np.unique(compartment[~cytoplasm])), kinds
    assert row["cytoplasm_voxels"] == cytoplasm.sum() == row["cell_voxels"] - row["nucleus_voxels"]
    shells = pd.read_parquet(done.output / "datasets" / name / "tables/shells.parquet")
    counts = np.bincount(shell[cytoplasm], minlength=6)[1:]
    assert shells["voxel_count"].tolist() == counts.tolist()
    assert np.allclose(shells["volume_um3"], counts * 0.0015)


def test_two_nuclei_are_united_and_it_is_said(done):
    row = cells(done, "two nuclei")
    both = NUCLEUS | ball(SHAPE, (10, 18, 28), (3, 4, 2))
    assert row["nuclei"] == 2 and "union" in row["note"]
    assert row["nucleus_voxels"] == both.sum()


def test_holes_are_filled_and_it_is_said(done):
    row = cells(done, "holes")
    assert (row["cell_voxels"], row["nucleus_voxels"]) == (CELL.sum(), NUCLEUS.sum())
    assert "holes of the cell filled" in row["note"] and "holes of the nucleus filled" in row["note"]


def test_faces_of_the_volume_are_no_membrane(done):
    row, plain = cells(done, "cut"), cells(done, "plain")
    assert set(row["cut_faces"].split(",")) == {"z0", "x1"} and plain["cut_faces"] == ""
    assert 0 < row["censored_fraction"] < 1 and plain["censored_fraction"] == 0
    shells = pd.read_parquet(done.output / "datasets/cut/tables/shells.parquet")
    assert shells["censored_voxels"].sum() == pytest.approx(
        row["censored_fraction"] * row["cytoplasm_voxels"]
    )
    # The cut halves a symmetric cell: at the cut, shells are those of the whole cell.
    cut, whole = (volume(done, name, "labels/shells") for name in ("cut", "plain"))
    middle = whole[9:, :, :26]
    assert np.mean(cut[1] == middle[1]) > 0.97
    assert cut[:2].max() == 5, "the last shell reaches the membrane at the cut"
    assert (cut[0, 18, -4:] == 0).sum() < 4 and 5 not in cut[0, 18, -6:-3], "the face is taken for a membrane"


def test_a_nucleus_that_touches_the_membrane_is_defined(done):
    row = cells(done, "touching")
    assert "touches" in row["note"] and row["cytoplasm_voxels"] > 0
    shells = pd.read_parquet(done.output / "datasets/touching/tables/shells.parquet")
    assert (shells["voxel_count"] > 0).all()


@pytest.mark.parametrize("name", ["membrane only", "without nucleus", "beside"])
def test_a_cell_is_completed_to_the_plain_one(name, done):
    row, plain = cells(done, name), cells(done, "plain")
    for column in ("cell_voxels", "nucleus_voxels", "cytoplasm_voxels", "cell_volume_um3"):
        assert row[column] == plain[column], column
    assert row["note"] and not plain["note"]
    np.testing.assert_array_equal(volume(done, name, "labels/shells"), volume(done, "plain", "labels/shells"))


@pytest.mark.parametrize("name", ALIKE)
def test_masks_of_any_dtype_give_identical_results(name, done):
    for group in ("labels/shells", "labels/compartments", "images/position", "distances/membrane"):
        np.testing.assert_array_equal(volume(done, name, group), volume(done, "plain", group))
    for what in ("cells", "shells", "rdf", "profiles", "objects", "uptake"):
        own, plain = (
            pd.read_parquet(done.output / "datasets" / of / f"tables/{what}.parquet")
            for of in (name, "plain")
        )
        if what == "cells":
            own, plain = own.drop(columns="note"), plain.drop(columns="note")
        pd.testing.assert_frame_equal(own, plain, check_exact=True)


def test_the_second_run_says_it_again_and_computes_nothing(done, monkeypatch, capfd):
    done.forget()
    assert done.alone(monkeypatch) == 3
    assert [c for what in ("process", "reduce") for c in done.calls(what)] == []
    said = capfd.readouterr().err
    for name, words in REFUSED.items():
        assert any(f"dataset {name}" in line and words[0] in line for line in said.splitlines()), name


def test_bad_masks_are_set_aside_by_all_ranks_alike(done, tmp_path):
    folder = Folder(tmp_path)
    folder.add("outside", CELL, np.roll(NUCLEUS, 14, 1))
    folder.add("plain", LABELS, options="ne_labels = [2]")
    campaign = PromisedCells(tmp_path / "c", folder.tables.values(), options="adsorbed_nm = 300")
    process = campaign.mpirun(3)
    assert process.returncode == 3, process.stderr
    np.testing.assert_array_equal(
        volume(campaign, "plain", "labels/shells"), volume(done, "plain", "labels/shells")
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("n_shells = 0", ("n_shells", "at least 1", "found 0")),
        ("n_shells = 300", ("n_shells", "250")),
        ('field = "edt2"', ("field", "laplace", "edt2")),
        ("ne_labels = [0]", ("ne_labels", "above 0")),
        ("shells = 8", ("shells", "n_shells")),
        ("compat = true", ("compat", "pairs")),
        ('organelles = "mito.npy"', ("organelles",)),
        ("adsorbed_nm = nan", ("adsorbed_nm", "nan")),
    ],
)
def test_an_option_that_makes_no_sense_is_refused_before_anything_runs(
    options, words, tmp_path, monkeypatch, capfd
):
    folder = Folder(tmp_path)
    folder.add(
        "plain", LABELS, options=f"ne_labels = [2]\n{options}" if "ne_labels" not in options else options
    )
    campaign = PromisedCells(tmp_path / "c", folder.tables.values())
    assert campaign.alone(monkeypatch) == 2
    said = [line for line in capfd.readouterr().err.splitlines() if line.startswith("cytomill: ")]
    assert len(said) == 1 and all(word in said[0] for word in words), said
    assert not campaign.output.exists()


def test_a_store_whose_table_is_gone_is_no_finished_dataset(done, tmp_path, monkeypatch):
    """What is lost after the end is seen by the next run, or by verify; never read as zeros."""
    from cytomill.cli import main

    copy = tmp_path / "results"
    shutil.copytree(done.output, copy)
    shard = max(
        (p for p in (copy / "datasets/plain/store.zarr/labels/shells").rglob("*") if p.is_file()),
        key=lambda p: p.stat().st_size,
    )
    shard.unlink()
    assert main(["verify", str(copy)]) == 4
