"""The RDF is an exact enrichment over uniform density: nothing is invented where nothing is known."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cytomill.kernels.tally import tally_cells, tally_organelle
from cytomill.partitioning.rdf import (
    PROFILES_METADATA,
    RDF_METADATA,
    SHELLS_METADATA,
    profile_table,
    radial_rdf,
    rdf,
    rdf_table,
    shell_table,
    similarity,
)


def test_a_known_case_by_hand():
    # Four of ten voxels are organelle: densities 1/2, 0 and 1 over 0.4.
    assert np.allclose(rdf([1, 0, 3], [2, 5, 3]), [1.25, 0, 2.5])


def test_an_empty_shell_is_not_a_number_and_never_zero():
    g = rdf([2, 0, 0], [4, 0, 4])
    assert g[0] == 2 and np.isnan(g[1]) and g[2] == 0
    assert np.isnan(rdf([0, 0], [3, 4])).all()
    assert np.isnan(rdf([0, 0], [0, 0])).all()
    assert np.isnan(rdf([1, 1], [0, 2])[0])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 10**6)), min_size=1, max_size=12))
def test_the_mean_over_cytoplasm_is_one(pairs):
    o, extra = np.array(pairs).T
    c = o + extra
    g = rdf(o, c)
    assert np.array_equal(np.isnan(g), (c == 0) | (o.sum() == 0))
    if o.sum():
        assert np.isclose(np.nansum(g * c) / c.sum(), 1)


def test_rdfs_of_many_cells_are_those_of_each():
    rng = np.random.default_rng(0)
    o, c = rng.integers(0, 9, (4, 8)), rng.integers(9, 20, (4, 8))
    assert np.array_equal(rdf(o, c), np.array([rdf(*pair) for pair in zip(o, c)]))


def random_cell(shape=(6, 7, 8), n=4, seed=0):
    rng = np.random.default_rng(seed)
    t = np.where(rng.random(shape) < 0.6, rng.random(shape), np.nan).astype(np.float32)
    shells = np.where(np.isfinite(t), np.minimum(n, np.floor(n * np.nan_to_num(t)) + 1), 0).astype(np.uint8)
    return t, shells, rng.random(shape) < 0.4, rng.random(shape) < 0.2


def test_the_exact_rdf_has_the_documented_keys_and_counts():
    t, shells, organelle, censored = random_cell()
    result = radial_rdf(organelle, shells, 4, t, censored)
    o, c = (np.bincount(shells[where], minlength=5)[1:] for where in (organelle, shells > 0))
    keep = ~censored
    o_kept, c_kept = (np.bincount(shells[where & keep], minlength=5)[1:] for where in (organelle, shells > 0))
    assert np.array_equal(result["radii"], [0.125, 0.375, 0.625, 0.875])
    assert np.array_equal(result["counts"], o) and np.array_equal(result["shell_volumes"], c)
    assert np.allclose(result["densities"], o / c) and np.allclose(result["rdf"], rdf(o, c))
    assert np.allclose(result["rdf_uncensored"], rdf(o_kept, c_kept))
    assert result["outside"] == np.count_nonzero(organelle & (shells == 0))
    assert (result["organelle_volume"], result["cyto_volume"]) == (o.sum(), c.sum())
    assert result["average_density"] == o.sum() / c.sum()
    assert result["censored_fraction"] == np.count_nonzero(censored & (shells > 0)) / c.sum()
    along = result["profile"]
    assert np.array_equal(along["counts"], np.histogram(t[organelle & (shells > 0)], 200, (0, 1))[0])
    assert np.array_equal(along["volumes"], np.histogram(t[shells > 0], 200, (0, 1))[0])


@pytest.mark.parametrize("case", ["phantom_spheres", "phantom_dent"])
def test_the_true_rdf_of_the_phantoms_is_found_from_their_true_positions(shared_dir, case):
    folder = shared_dir / "golden" / "partitioning"
    with np.load(folder / f"{case}_input.npz") as stored, np.load(folder / f"{case}_golden.npz") as golden:
        shape = tuple(int(size) for size in stored["shape"])

        def mask(packed):
            return np.unpackbits(packed)[: np.prod(shape)].reshape(shape).astype(bool)

        cytoplasm = mask(stored["pm"]) & ~mask(stored["ne"])
        t = np.full(shape, np.nan, np.float32)
        t[cytoplasm] = stored["t_edt"] / np.float32(65535)
        organelle = mask(golden["organelle"])
    truth = json.loads((folder / f"{case}_golden.json").read_text())
    shells = np.where(cytoplasm, np.minimum(8, np.floor(8 * np.nan_to_num(t)) + 1), 0).astype(np.uint8)
    result = radial_rdf(organelle, shells, 8, t)
    # Positions are stored with 16 bits: of voxels on a boundary a few go to the other side.
    assert np.allclose(result["shell_volumes"], truth["truth_counts_edt"], rtol=2e-4, atol=0)
    assert np.abs(result["rdf"] - truth["truth_rdf_edt"]).max() < 2e-4
    assert result["outside"] == 0 and result["organelle_volume"] == organelle.sum()


def test_an_organelle_in_the_nucleus_is_not_counted_into_a_shell():
    shells = np.zeros((5, 5, 5), np.uint8)
    shells[3:] = 1
    nucleus = np.zeros(shells.shape, bool)
    nucleus[1] = True
    result = radial_rdf(nucleus, shells, 8)
    assert result["outside"] == 25 and not result["counts"].any() and np.isnan(result["rdf"]).all()


def test_labels_of_any_integer_dtype_give_the_rdf_of_their_mask():
    _, shells, organelle, _ = random_cell()
    expected = radial_rdf(organelle, shells)["rdf"]
    for dtype in (np.uint8, np.int32, np.uint16, np.int64):
        labels = organelle.astype(dtype) * 77
        assert np.array_equal(radial_rdf(labels, shells.astype(np.int64))["rdf"], expected)


def test_shells_and_masks_that_do_not_fit_are_refused():
    _, shells, organelle, _ = random_cell()
    with pytest.raises(ValueError, match="go up to 4"):
        radial_rdf(organelle, shells, 3)
    with pytest.raises(ValueError, match="mask or labels"):
        radial_rdf(organelle.astype(float), shells)
    with pytest.raises(ValueError, match="cut both alike"):
        radial_rdf(organelle[1:], shells)
    with pytest.raises(ValueError, match="between 0 and 250"):
        radial_rdf(organelle, shells.astype(np.int64) * 100)
    with pytest.raises(ValueError, match="between 0 and 1"):
        radial_rdf(organelle, shells, t=np.full(shells.shape, np.nan, np.float32))


def test_similarity_is_pearsons_r_over_common_shells():
    rng = np.random.default_rng(4)
    a, b = rng.random((2, 8))
    assert np.isclose(similarity(a, b)["pearson_r"], np.corrcoef(a, b)[0, 1])
    a[3] = np.nan
    keep = np.arange(8) != 3
    assert similarity(a, b) == {
        "pearson_r": pytest.approx(np.corrcoef(a[keep], b[keep])[0, 1]),
        "shells": 7,
    }
    assert np.isnan(similarity(a, np.ones(8))["pearson_r"])
    assert np.isnan(similarity([1, 2], [3, 4])["pearson_r"])
    with pytest.raises(ValueError, match="shell by shell"):
        similarity([1, 2, 3], [1, 2])


def test_tables_hold_every_cell_and_shell_with_the_stated_columns():
    n, shape = 4, (6, 7, 8)
    t, shells, organelle, censored = random_cell(shape, n)
    compartment = np.where(shells > 0, np.where(censored, 3, 2), 0).astype(np.uint8)
    territory = np.where(shells > 0, np.where(np.arange(8) < 4, 5, 9), 0).astype(np.int32)
    position = np.rint(65535 * np.nan_to_num(t)).astype(np.uint16)
    fields = (territory, compartment, shells, n, position)
    cells, _ = tally_cells(*fields)
    # The organelle is in cell 9 alone; cell 5 keeps its rows, without an RDF.
    rows = tally_organelle(organelle & (territory != 5), *fields)
    table = rdf_table("mitochondria", cells, rows, n)
    assert list(table) == list(RDF_METADATA) == list(table.attrs["columns"])
    assert table["cell"].tolist() == [5] * 4 + [9] * 4 and table["shell"].tolist() == [1, 2, 3, 4] * 2
    assert table["g"][:4].isna().all() and (table["organelle_voxels"][:4] == 0).all()
    own = territory == 9
    expected = radial_rdf(organelle & own, np.where(own, shells, 0).astype(np.uint8), n, None, censored & own)
    assert np.allclose(table["g"][4:], expected["rdf"])
    assert np.allclose(table["g_uncensored"][4:], expected["rdf_uncensored"])
    along = profile_table("mitochondria", cells, rows, n)
    assert list(along) == list(PROFILES_METADATA) and len(along) == 400
    assert along["cytoplasm_voxels"].sum() == (shells > 0).sum()
    assert along["organelle_voxels"].sum() == table["organelle_voxels"].sum()
    sizes = shell_table(cells, n, (50, 10, 10))
    assert list(sizes) == list(SHELLS_METADATA)
    assert np.allclose(sizes["volume_um3"], sizes["voxel_count"] * 5e-6)
    assert sizes["censored_voxels"].sum() == (censored & (shells > 0)).sum()
    flat = shell_table(cells, n, (1, 200, 100), two_dimensional=True)
    assert "volume_um3" not in flat and np.allclose(flat["area_um2"], flat["voxel_count"] * 0.02)
