"""Both pipelines in one campaign: the particles of a stack in the shells of its cells; and an image."""

import numpy as np
import pandas as pd
import pytest
import small_cells
from launching import run_ranks
from scipy import ndimage
from small_campaigns import run_waves
from small_cells import table_of, volume_of, write_campaign

from cytomill.campaign.config import load_campaign
from cytomill.campaign.status import read_status
from cytomill.campaign.verify import verify
from cytomill.nanoparticles.stages import PosteriorStage
from cytomill.phantoms.nanoparticles import make_volume
from cytomill.runtime.telemetry import read_events

SIZE_NM = (50.0, 10.0, 10.0)
SHAPE = (20, 160, 176)
CELL = small_cells.ball(SHAPE, (10, 76, 84), (8, 56, 64))
NUCLEUS = small_cells.ball(SHAPE, (10, 72, 84), (5, 26, 30))
ADSORBED_NM = 60.0
COMPARTMENTS = {"outside", "adsorbed", "cytoplasm", "nucleus"}
#: Without a nucleus in one of two cells.
PLANE_SIZE_NM = (100.0, 100.0, 80.0)


def stack():
    """A stack with particles all over the cell and around it."""
    image = make_volume(SHAPE, seed=6, load=0.0)[0]
    around = np.ones((CELL.shape[0], 128, 144), bool)
    places = small_cells.spots(np.pad(around, ((0, 0), (12, 20), (12, 20))), 130, (1.2, 3.5, 3.5))
    return np.where(places > 0, np.minimum(image.astype(int) + 110, 250), image).astype(np.uint8)


def wide_field():
    """An image of two cells, the second without its nucleus, and spots."""
    cells = np.zeros((90, 120), np.uint8)
    cells[small_cells.ball(cells[None].shape, (0, 45, 40), (1, 34, 34))[0]] = 1
    cells[small_cells.ball(cells[None].shape, (0, 45, 98), (1, 15, 15))[0]] = 2
    nuclei = np.where(small_cells.ball(cells[None].shape, (0, 45, 40), (1, 12, 12))[0], 1, 0).astype(np.uint8)
    return cells, nuclei, small_cells.spots((cells == 1)[None], 25)[0]


def stack_table(path) -> str:
    keys = f'name = "stack"\npipeline = "nanoparticles"\ninput = "{path}"'
    return f"[[dataset]]\n{keys}\nvoxel_size_nm = {list(SIZE_NM)}\n"


def particles_of(name, paths, options="", size=SIZE_NM) -> str:
    lines = f'nucleus = "{paths["nucleus"]}"\nadsorbed_nm = {ADSORBED_NM}\norganelles = ["particles=@stack"]'
    return small_cells.table(name, paths["cell"], f"{lines}\n{options}", size)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    cells, nuclei, organelle = wide_field()
    return {
        "stack": small_cells.save(folder, stack=stack())["stack"],
        "cell": small_cells.save(folder / "same", cell=CELL, nucleus=NUCLEUS),
        # The particles lie on a grid that is finer by whole factors.
        "coarse": small_cells.save(
            folder / "coarse", cell=CELL[:, ::2, ::2], nucleus=NUCLEUS[:, ::2, ::2].astype(np.uint8)
        ),
        "image": small_cells.save(folder / "image", cells=cells, nuclei=nuclei, organelle=organelle),
    }


@pytest.fixture(scope="module")
def mixed(inputs, tmp_path_factory):
    """Both pipelines in one campaign, by the command, with their real pages; cells come first in the file."""
    image = inputs["image"]
    text = particles_of("cell", inputs["cell"], 'condition = "fed"')
    text += particles_of("coarse", inputs["coarse"], 'condition = "starved"', (50.0, 20.0, 20.0))
    lines = f'nucleus = "{image["nuclei"]}"\norganelles = ["spots={image["organelle"]}"]\ncells = "many"'
    text += small_cells.table("image", image["cells"], lines, PLANE_SIZE_NM)
    path = write_campaign(tmp_path_factory.mktemp("mixed"), text + stack_table(inputs["stack"]))
    done = run_ranks(0, ["-m", "cytomill", "run", str(path)], timeout=300)
    assert done.returncode == 0, done.stderr
    return path.parent / "results"


def test_a_table_of_particles_gains_the_cell_and_distances(mixed):
    before, after = table_of(mixed, "stack", "particles"), table_of(mixed, "cell", "particles_particles")
    assert len(before) > 60
    pd.testing.assert_frame_equal(after[before.columns.tolist()], before)
    gained = set(after.columns) - set(before.columns)
    assert {"cell", "compartment", "t", "shell", "distance_ne_nm", "distance_pm_nm"} <= gained
    assert {"nearest_ne_nm", "nearest_pm_nm"} <= gained
    assert set(after["compartment"]) == COMPARTMENTS


def test_what_a_particle_gains_is_what_its_voxels_say(mixed):
    """Against whole-volume transforms of the masks, taken to the voxels' centres."""
    labels = volume_of(mixed, "stack", "labels/nps/masks")
    table = table_of(mixed, "cell", "particles_particles").set_index("label")
    ids = np.unique(labels[labels > 0])
    assert ids.tolist() == table.index.tolist()
    within = ndimage.mean(CELL, labels, ids)
    in_nucleus, in_cytoplasm = (ndimage.sum(mask, labels, ids) for mask in (NUCLEUS & CELL, CELL & ~NUCLEUS))
    to = {
        side: np.where(
            mask,
            ndimage.distance_transform_edt(mask, SIZE_NM),
            ndimage.distance_transform_edt(~mask, SIZE_NM),
        )
        for side, mask in (("ne", NUCLEUS), ("pm", CELL))
    }
    nearest = {side: ndimage.minimum(distance, labels, ids) for side, distance in to.items()}
    far = nearest["pm"] > ADSORBED_NM + max(SIZE_NM)
    near = nearest["pm"] < ADSORBED_NM
    kind = table["compartment"].to_numpy()
    assert ((within >= 0.5) == np.isin(kind, ["cytoplasm", "nucleus"])).all()
    inner = within >= 0.5
    assert ((kind[inner] == "nucleus") == (in_nucleus > in_cytoplasm)[inner]).all()
    assert (kind[~inner & far] == "outside").all() and (kind[~inner & near] == "adsorbed").all()
    assert (table["cell"].to_numpy()[inner] == 1).all()
    # Surfaces lie between voxel centres, and smooth over the steps of thick slices.
    for side in ("ne", "pm"):
        own = table[f"nearest_{side}_nm"].to_numpy()
        assert np.isfinite(own[inner]).all()
        known = inner & np.isfinite(own)
        apart = np.abs(own - nearest[side])[known]
        assert apart.max() <= max(SIZE_NM) and apart.mean() <= 0.4 * max(SIZE_NM)
        centre = table[f"distance_{side}_nm"].to_numpy()
        assert (centre[known] >= own[known] - 1e-6).mean() > 0.9
    of_cytoplasm = kind == "cytoplasm"
    t = table["t"].to_numpy()
    assert np.isnan(t[~of_cytoplasm]).all() and ((t >= 0) & (t <= 1))[of_cytoplasm].all()
    ratio = table["distance_ne_nm"] / (table["distance_ne_nm"] + table["distance_pm_nm"])
    assert np.abs(ratio.to_numpy() - t)[of_cytoplasm].mean() < 0.03


@pytest.mark.parametrize("dataset", ["cell", "coarse"])
def test_centroids_and_what_lies_there_are_those_of_the_volume(mixed, dataset):
    labels = volume_of(mixed, "stack", "labels/nps/masks")
    objects = table_of(mixed, dataset, "objects")
    centres = np.array(ndimage.center_of_mass(labels > 0, labels, objects["label"]))
    coarser = 2 if dataset == "coarse" else 1
    # Positions start at the centre of the first voxel of the cells' grid.
    nm = centres * SIZE_NM - np.array([0, coarser - 1, coarser - 1]) * 5.0
    np.testing.assert_allclose(objects[[f"centroid_{axis}_nm" for axis in "zyx"]], nm, atol=1e-6)
    spacing = "50-20-20" if coarser == 2 else "50-10-10"
    shells, position = (volume_of(mixed, dataset, g, spacing) for g in ("labels/shells", "images/position"))
    at = tuple((np.round(centres).astype(int) // [1, coarser, coarser]).T)
    own = (objects["compartment"] == "cytoplasm").to_numpy() & (shells[at] > 0)
    assert own.sum() > 8
    assert (objects["shell"].to_numpy() == shells[at])[own].mean() > 0.9
    assert (np.abs(objects["t"].to_numpy() - position[at] / 65535)[own] < 1e-4).mean() > 0.9


@pytest.mark.parametrize("dataset", ["cell", "coarse"])
def test_uptake_counts_every_particle_once(mixed, dataset):
    labels = volume_of(mixed, "stack", "labels/nps/masks")
    uptake = table_of(mixed, dataset, "uptake")
    assert uptake["objects"].sum() == labels.max() == len(table_of(mixed, "stack", "particles"))
    assert uptake["voxels"].sum() == (labels > 0).sum()
    assert set(uptake["compartment"]) == COMPARTMENTS
    objects = table_of(mixed, dataset, "objects")
    for kind, own in uptake.groupby("compartment"):
        assert own["objects"].sum() == (objects["compartment"] == kind).sum()
    size = np.prod(SIZE_NM) / 1e9
    np.testing.assert_allclose(uptake["volume_um3"], uptake["voxels"] * size)


def test_the_rdf_is_that_of_the_voxels(mixed):
    labels, shells = volume_of(mixed, "stack", "labels/nps/masks"), volume_of(mixed, "cell", "labels/shells")
    rdf = table_of(mixed, "cell", "rdf").sort_values("shell")
    o = np.bincount(shells[labels > 0], minlength=6)[1:]
    c = np.bincount(shells.ravel(), minlength=6)[1:]
    assert rdf["organelle_voxels"].tolist() == o.tolist() and rdf["cytoplasm_voxels"].tolist() == c.tolist()
    np.testing.assert_allclose(rdf["g"], (o / c) / (o.sum() / c.sum()))
    profile = table_of(mixed, "cell", "profiles")
    assert profile["organelle_voxels"].sum() == o.sum() and profile["cytoplasm_voxels"].sum() == c.sum()


def test_a_finer_grid_of_particles_finds_the_same_compartments(mixed):
    same, coarse = (
        table_of(mixed, name, "particles_particles").set_index("label") for name in ("cell", "coarse")
    )
    assert (same["compartment"] == coarse["compartment"]).mean() > 0.8
    both = (same["compartment"] == "cytoplasm") & (coarse["compartment"] == "cytoplasm")
    assert np.abs(same["t"] - coarse["t"])[both].mean() < 0.08
    fine = volume_of(mixed, "stack", "labels/nps/masks")
    shells = volume_of(mixed, "coarse", "labels/shells", "50-20-20").repeat(2, 1).repeat(2, 2)
    rdf = table_of(mixed, "coarse", "rdf").sort_values("shell")
    assert rdf["organelle_voxels"].tolist() == np.bincount(shells[fine > 0], minlength=6)[1:].tolist()


def test_shells_respect_the_voxel_size_of_the_dataset(mixed):
    shells, position = (volume_of(mixed, "cell", g) for g in ("labels/shells", "images/position"))
    cytoplasm = CELL & ~NUCLEUS
    np.testing.assert_array_equal(shells > 0, cytoplasm)
    d_ne = ndimage.distance_transform_edt(~NUCLEUS, SIZE_NM)
    d_pm = ndimage.distance_transform_edt(CELL, SIZE_NM)
    t = (d_ne / (d_ne + d_pm))[cytoplasm]
    stored = position[cytoplasm] / 65535
    assert np.abs(stored - t).mean() < 0.04
    isotropic = ndimage.distance_transform_edt(~NUCLEUS)
    wrong = (isotropic / (isotropic + ndimage.distance_transform_edt(CELL)))[cytoplasm]
    assert np.abs(stored - wrong).mean() > 2 * np.abs(stored - t).mean()
    own = np.minimum(5, (5 * stored).astype(int) + 1)
    assert (own == shells[cytoplasm]).mean() > 0.999


def test_an_image_is_measured_in_square_micrometres(mixed):
    cells, nuclei, organelle = wide_field()
    (row,) = table_of(mixed, "image", "cells").to_dict("records")
    assert not [name for name in row if "um3" in name]
    area = 0.1 * 0.08
    assert row["cell"] == 1 and row["cell_area_um2"] == pytest.approx((cells == 1).sum() * area)
    assert row["nucleus_area_um2"] == pytest.approx((nuclei == 1).sum() * area)
    assert row["cut_faces"] == "" and row["censored_fraction"] == 0
    shells = volume_of(mixed, "image", "labels/shells", "100-100-80")[0]
    np.testing.assert_array_equal(shells > 0, (cells == 1) & (nuclei == 0))
    table = table_of(mixed, "image", "shells")
    np.testing.assert_allclose(table["area_um2"], np.bincount(shells.ravel(), minlength=6)[1:] * area)
    # Circles about one centre: rings of equal width along Y and X alike.
    widths = [np.count_nonzero(shells[45, 40:] == k) for k in range(1, 6)]
    assert max(widths) - min(widths) <= 1 and sum(widths) == 22, widths
    objects = table_of(mixed, "image", "objects")
    assert "area_um2" in objects and len(objects) == len(np.unique(organelle)) - 1


def test_a_cell_that_cannot_be_used_costs_the_others_nothing_and_is_told(mixed):
    page = (mixed / "datasets/image/report.html").read_text()
    assert "the nucleus volume has no label 2" in page


def test_the_pages_and_the_comparison_of_conditions_are_written(mixed):
    for name in ("cell", "coarse", "image", "stack"):
        page = (mixed / "datasets" / name / "report.html").read_text()
        assert page.count("<") > 50 and ("data:image" in page or "<svg" in page or "<img" in page), name
    campaign = (mixed / "report.html").read_text()
    assert "fed" in campaign and "starved" in campaign
    by_condition = pd.read_parquet(mixed / "tables/rdf_by_condition.parquet")
    own = by_condition[by_condition["organelle"] == "particles"]
    assert {"fed", "starved"} <= set(own["condition"]) and set(own["shell"]) == set(range(1, 6))
    # One cell a condition: the mean is that cell's.
    fed = own[own["condition"] == "fed"].sort_values("shell")
    rdf = table_of(mixed, "cell", "rdf").sort_values("shell")
    np.testing.assert_allclose(fed["g"], rdf["g"])


def test_what_was_measured_is_about_within_what_was_predicted(mixed):
    stages = [event for event in read_events(mixed / "telemetry") if event["kind"] == "stage"]
    names = {name for event in stages for name in event["stages"]}
    assert {"survey", "cells", "shells", "organelles", "places"} <= names
    over = [
        (event["stages"], event["peak_bytes"], event["predicted_bytes"])
        for event in stages
        # Imports that come late are a few megabytes; no unit of so small a volume is.
        if event["peak_bytes"] > 1.02 * event["predicted_bytes"]
    ]
    assert over == []


def test_a_finished_campaign_has_no_problems_and_is_told_as_done(mixed):
    assert verify(mixed).problems == []
    status = read_status(mixed)
    assert status.state == "done"
    assert {row.dataset for row in status.stages} == {"cell", "coarse", "image", "stack"}
    assert all(row.done == row.units for row in status.stages)


def test_the_order_of_the_datasets_in_the_file_is_no_matter(mixed, inputs, tmp_path):
    text = stack_table(inputs["stack"]) + particles_of("cell", inputs["cell"], 'condition = "fed"')
    campaign = load_campaign(write_campaign(tmp_path, text))
    engine = run_waves(campaign)
    assert not engine.set_aside
    for name in ("cells", "shells", "rdf", "objects", "uptake", "particles_particles"):
        pd.testing.assert_frame_equal(table_of(campaign.output, "cell", name), table_of(mixed, "cell", name))


def test_cells_whose_particles_are_set_aside_are_set_aside_with_a_sentence(inputs, tmp_path, monkeypatch):
    text = particles_of("cell", inputs["cell"]) + stack_table(inputs["stack"])
    alone = small_cells.table(
        "alone", inputs["cell"]["cell"], f'nucleus = "{inputs["cell"]["nucleus"]}"', SIZE_NM
    )
    campaign = load_campaign(write_campaign(tmp_path, text + alone))
    process = PosteriorStage.process

    def fail(self, unit):
        if unit.index == 1:
            raise ValueError("a test made this slice bad")
        return process(self, unit)

    with monkeypatch.context() as patches:
        patches.setattr(PosteriorStage, "process", fail)
        engine = run_waves(campaign)
    assert set(engine.set_aside) == {"cell", "stack"}
    sentence = engine.set_aside["cell"]
    assert "dataset cell" in sentence and "stack" in sentence, sentence
    assert not (campaign.output / "datasets/cell/tables").exists()
    assert (campaign.output / "datasets/alone/tables/cells.parquet").exists()
    # What does not need the particles is kept; once they are there, the rest is made.
    kept = {(stage, unit) for dataset, stage, unit in engine.computed if dataset == "cell"}
    assert {"survey", "cells", "shells"} <= {stage for stage, _ in kept}
    status = read_status(campaign.output)
    states = {(row.dataset, row.stage): row.state for row in status.stages}
    assert states["stack", "posterior"] == states["cell", "contents"] == "set aside"
    assert status.state == "set aside"
    engine = run_waves(campaign, attempts=4)
    assert not engine.set_aside
    made = {(dataset, stage) for dataset, stage, _ in engine.computed}
    assert made == {
        *(("stack", name) for name in ("posterior", "components", "masks")),
        *(("cell", name) for name in ("contents", "organelles", "places")),
    }


def test_cells_whose_particles_cannot_be_opened_are_set_aside_with_a_sentence(inputs, tmp_path):
    torn = tmp_path / "torn.npy"
    torn.write_bytes(inputs["stack"].read_bytes()[:-5000])
    campaign = load_campaign(
        write_campaign(tmp_path, particles_of("cell", inputs["cell"]) + stack_table(torn))
    )
    engine = run_waves(campaign)
    assert set(engine.set_aside) == {"cell", "stack"} and engine.computed == []
    assert "@stack" in engine.set_aside["cell"]


def test_particles_made_again_are_counted_again(mixed, inputs, tmp_path):
    """A threshold of the first pipeline changes the second one's answer."""
    path = write_campaign(tmp_path, particles_of("cell", inputs["cell"]) + stack_table(inputs["stack"]))
    assert not run_waves(load_campaign(path)).set_aside
    changed = load_campaign(path, ["nanoparticles.min_particle_size=30"])
    from cytomill.runtime.failures import Refused

    with pytest.raises(Refused, match="min_particle_size"):
        run_waves(changed)
