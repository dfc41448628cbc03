"""Campaigns on reference values and real stacks, by the command line, on several ranks."""

import json
import os

import numpy as np
import pandas as pd
import pytest
from launching import run_ranks

from cytomill.storage.stores import open_store

CYTOMILL = ["-m", "cytomill"]


def run_campaign(ranks, folder, text, *arguments):
    """Write a campaign file and run it; returns the finished process."""
    (folder / "campaign.toml").write_text(text)
    return run_ranks(ranks, [*CYTOMILL, "run", str(folder / "campaign.toml"), *arguments], timeout=300)


@pytest.mark.parametrize("ranks", [0, 2])
def test_reference_estimator_reproduces_the_golden_stack(shared_dir, tmp_path, ranks):
    golden = shared_dir / "golden" / "nanoparticles" / "main"
    np.save(tmp_path / "stack.npy", np.load(golden / "input.npz")["volume"])
    result = run_campaign(
        ranks,
        tmp_path,
        """
        [campaign]
        output = "results"
        [run]
        slices_per_unit = 4
        block = [8, 256, 256]
        [nanoparticles]
        estimator = "reference"
        pi_solver = "bounded"
        border = "zero"
        zarr_chunks = [1, 256, 256]
        shard_shape = [4, 256, 256]
        [[dataset]]
        input = "stack.npy"
        voxel_size_nm = [50, 10, 10]
        """,
    )
    assert result.returncode == 0, result.stderr
    folder = tmp_path / "results" / "datasets" / "stack"
    store = open_store(folder / "store.zarr")
    posterior = store.open("labels/nps/posterior/50-10-10").read()
    expected = np.load(golden / "posterior_f2_50-10-10.npz")
    np.testing.assert_array_equal(posterior, expected[expected.files[0]])
    masks = store.open("labels/nps/masks/50-10-10").read()
    np.testing.assert_array_equal(masks, np.load(golden / "labels.npz")["labels_50_10_10"])
    fit = json.loads((folder / "model" / "fit_results.json").read_text())
    wanted = json.loads((golden / "fit_results.json").read_text())
    assert fit["nit"] == wanted["nit"]
    assert abs(fit["w_bg"] - wanted["w_bg"]) <= 1e-12
    assert abs(fit["nll"] - wanted["nll"]) <= 1e-12
    particles = pd.read_parquet(folder / "tables" / "particles.parquet")
    np.testing.assert_array_equal(particles["voxel_count"], np.bincount(masks.ravel())[1:])


def test_real_stacks_without_particles_are_not_labelled(shared_dir, tmp_path):
    em = shared_dir / "data" / "em"
    result = run_campaign(
        2,
        tmp_path,
        f"""
        [campaign]
        output = "results"
        [[dataset]]
        name = "isbi"
        input = "{em / "isbi2012" / "train_raw_30x512x512.tif"}"
        voxel_size_nm = [50, 4, 4]
        [[dataset]]
        name = "sbem"
        input = "{em / "cdeep3m_sbem_mito" / "val_raw.tif"}"
        voxel_size_nm = [40, 5.9, 5.9]
        """,
    )
    assert result.returncode == 0, result.stderr
    for name in ("isbi", "sbem"):
        folder = tmp_path / "results" / "datasets" / name
        manifest = json.loads((folder / "model" / "training_manifest.json").read_text())
        assert manifest["mixture"]["verdict"] in ("no particles", "flagged: no separate mode")
        spacing = next(p.name for p in (folder / "store.zarr/labels/nps/masks").iterdir() if p.is_dir())
        masks = open_store(folder / "store.zarr").open(f"labels/nps/masks/{spacing}").read()
        assert np.count_nonzero(masks) < 1e-4 * masks.size
        assert "<html" in (folder / "report.html").read_text()


def test_input_that_cannot_be_read_by_region_is_converted_in_a_stage_of_its_own(shared_dir, tmp_path):
    volume = np.load(shared_dir / "golden" / "nanoparticles" / "main" / "input.npz")["volume"]
    np.savez_compressed(tmp_path / "packed.npz", volume=volume[:8])
    np.save(tmp_path / "plain.npy", volume[:8])
    result = run_campaign(
        2,
        tmp_path,
        """
        [campaign]
        output = "results"
        [[dataset]]
        input = "packed.npz"
        voxel_size_nm = [50, 10, 10]
        [[dataset]]
        input = "plain.npy"
        voxel_size_nm = [50, 10, 10]
        """,
    )
    assert result.returncode == 0, result.stderr
    packed, plain = (tmp_path / "results" / "datasets" / name for name in ("packed", "plain"))
    np.testing.assert_array_equal(
        open_store(packed / "store.zarr").open("images/50-10-10").read(), volume[:8]
    )
    assert not (plain / "store.zarr" / "images" / "50-10-10").exists()
    for table in ("particles.csv", "slices.csv"):
        assert (packed / "tables" / table).read_text() == (plain / "tables" / table).read_text()


def test_nanoparticles_command_runs_the_class_with_flags_of_its_dataclass(tmp_path):
    made = run_ranks(
        0,
        [*CYTOMILL, "phantom", "nanoparticles", str(tmp_path / "p"), "--shape", "8", "192", "192"],
        timeout=120,
    )
    assert made.returncode == 0, made.stderr
    store = tmp_path / "p" / "stack.zarr"
    flags = ["--root-path", str(store), "--spacing-dir", "50-10-10", "--posterior-th", "0.7", "--verbose"]
    result = run_ranks(0, [*CYTOMILL, "nanoparticles", *flags, "--model-name", "mine"], timeout=120)
    assert result.returncode == 0, result.stderr
    masks = open_store(store).open("labels/nps/masks/50-10-10")
    assert f"{int(masks.read().max())} clusters" in result.stdout
    assert masks.attributes["processing"][0]["threshold"] == 0.7
    assert sorted(os.listdir(tmp_path / "p" / "models" / "mine")) == [
        "fit_results.json",
        "model_params.npz",
        "training_manifest.json",
    ]


def test_preview_writes_a_contact_sheet_and_nothing_else(tmp_path):
    folder = tmp_path / "p"
    made = run_ranks(
        0, [*CYTOMILL, "phantom", "nanoparticles", str(folder), "--shape", "8", "192", "192"], timeout=120
    )
    assert made.returncode == 0, made.stderr
    result = run_ranks(0, [*CYTOMILL, "run", str(folder / "campaign.toml"), "--preview", "2"], timeout=120)
    assert result.returncode == 0, result.stderr
    assert os.listdir(folder / "results") == ["preview.html"]
    sheet = (folder / "results" / "preview.html").read_text()
    assert all(threshold in sheet for threshold in ("0.5", "0.95", "0.99"))
