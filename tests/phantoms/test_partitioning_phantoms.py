"""Cells and tissues with known radial position: exact, streamable, the same on every sampling."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from cytomill.phantoms.cell_files import write_cell_phantom
from cytomill.phantoms.partitioning import make_cell_phantom
from cytomill.phantoms.star_surface import StarSurface, turn
from cytomill.phantoms.tissue import TissuePhantom
from cytomill.storage.volumes import open_volume

ANISOTROPIC_NM = (290.0, 108.0, 108.0)


@pytest.fixture(scope="module")
def dent():
    return make_cell_phantom("dent", scale=0.4)


@pytest.mark.parametrize("kind", ["spheres", "dent"])
def test_masks_and_ray_positions_are_those_of_the_reference_phantoms(shared_dir, kind):
    stored = np.load(shared_dir / "golden" / "partitioning" / f"phantom_{kind}_input.npz")
    shape = tuple(stored["shape"])
    ne, pm = (
        np.unpackbits(stored[name])[: np.prod(shape)].reshape(shape).astype(bool) for name in ("ne", "pm")
    )
    phantom = make_cell_phantom(kind)
    assert phantom.shape == shape
    assert np.array_equal(phantom.nucleus, ne)
    assert np.array_equal(phantom.cell, pm)
    t = phantom.t_ray[phantom.cytoplasm]
    assert np.abs(t * 65535 - stored["t_ray"]).max() <= 0.51
    assert np.isnan(phantom.t_ray[~phantom.cytoplasm]).all()


@pytest.mark.slow
def test_distance_positions_are_those_of_the_reference_phantom(shared_dir):
    stored = np.load(shared_dir / "golden" / "partitioning" / "phantom_dent_input.npz")
    phantom = make_cell_phantom("dent")
    wrong = np.abs(phantom.t_edt[phantom.cytoplasm] - stored["t_edt"] / 65535.0)
    # The stored one takes the nearest of many samples: next to a surface it is the coarser of the two.
    assert wrong.mean() < 5e-4
    assert wrong.max() < 0.04


def test_distance_to_an_ellipsoid_is_the_perpendicular():
    surface = StarSurface((3.0, 5.0, 4.0), turn(0, 30) @ turn(2, 20))
    feet = surface.points(400)
    # The gradient of the quadric is the normal; a point along it has its foot where it started.
    quadric = surface.turned @ np.diag(1 / np.array(surface.axes) ** 2) @ surface.turned.T
    normals = feet @ quadric
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    for away in (-1.0, 0.5, 4.0):
        assert surface.distance(feet + away * normals, 20_000) == pytest.approx(abs(away), abs=5e-4)


@pytest.mark.parametrize(
    ("kind", "voxel_size_nm", "scale"),
    [
        ("spheres", None, 0.5),
        ("spheres", ANISOTROPIC_NM, 1.0),
        ("dent", None, 0.5),
        ("dent", ANISOTROPIC_NM, 1.0),
        ("hela", None, 0.1),
        ("hela", (20.0, 20.0, 20.0), 0.2),
    ],
)
def test_cells_have_a_nucleus_inside_and_a_margin_outside(kind, voxel_size_nm, scale):
    phantom = make_cell_phantom(kind, voxel_size_nm, scale)
    labels = phantom.labels()
    assert labels.shape == phantom.shape
    assert ndimage.label(labels > 0)[1] == ndimage.label(labels == 2)[1] == 1
    grown = ndimage.binary_dilation(labels == 2)
    assert not (grown & (labels == 0)).any()
    for axis in range(3):
        occupied = np.flatnonzero((labels > 0).any(axis=tuple(a for a in range(3) if a != axis)))
        assert occupied[0] >= 2 and occupied[-1] < phantom.shape[axis] - 2


@pytest.mark.parametrize("kind", ["spheres", "dent"])
def test_the_shape_does_not_depend_on_the_sampling(kind):
    # Every third plane of a fine sampling is the coarse sampling.
    fine = make_cell_phantom(kind, (36.0, 108.0, 108.0), scale=0.5)
    coarse = make_cell_phantom(kind, scale=0.5)
    shift = np.rint((coarse.origin_nm - fine.origin_nm) / fine.voxel_size_nm).astype(int)
    depths = np.array(coarse.shape) * (3, 1, 1) - (2, 0, 0)
    aligned = fine.labels(tuple((int(s), int(s + n)) for s, n in zip(shift, depths)))[::3]
    assert np.array_equal(aligned, coarse.labels())
    volumes = [np.prod(p.voxel_size_nm) * np.count_nonzero(p.labels()) for p in (fine, coarse)]
    assert volumes[0] == pytest.approx(volumes[1], rel=0.01)


def test_scale_enlarges_the_cell(dent):
    larger = make_cell_phantom("dent", scale=0.8)
    assert larger.cytoplasm.sum() == pytest.approx(8 * dent.cytoplasm.sum(), rel=0.02)
    assert larger.thinnest_nm == pytest.approx(2 * dent.thinnest_nm)


def test_a_region_is_the_same_as_in_the_whole(dent):
    region = ((11, 19), (5, 33), (20, 41))
    slices = tuple(slice(*band) for band in region)
    labels, t = dent.ray_position(region)
    assert np.array_equal(labels, dent.labels()[slices])
    assert np.array_equal(dent.labels(region), labels)
    assert np.array_equal(t, dent.t_ray[slices], equal_nan=True)


def test_granules_lie_in_the_cytoplasm_apart_and_denser_outside():
    dent = make_cell_phantom("dent")
    granules = dent.granules(step_t=0.5, enrichment=4.0)
    drawn = granules.draw(tuple((0, n) for n in dent.shape))
    assert len(granules) > 20
    assert not drawn[~dent.cytoplasm].any()
    present = np.unique(drawn[drawn > 0])
    assert ndimage.label(drawn > 0, structure=np.ones((3, 3, 3)))[1] == len(present)
    outer, inner = ((granules.t >= 0.5) == side for side in (True, False))
    room = np.mean(dent.t_ray[dent.cytoplasm] < 0.5)
    assert inner.sum() / max(outer.sum(), 1) < room / (1 - room)


def test_bad_requests_are_refused_with_a_sentence(tmp_path):
    with pytest.raises(ValueError, match="no cell phantom 'cube'"):
        make_cell_phantom("cube")
    with pytest.raises(ValueError, match="three positive voxel sizes"):
        make_cell_phantom("dent", (0.0, 1.0, 1.0))
    with pytest.raises(ValueError, match="zarr or tiff"):
        write_cell_phantom(tmp_path, volume_format="png")
    with pytest.raises(ValueError, match="positive numbers of cells"):
        TissuePhantom((0, 1, 1))


@pytest.mark.parametrize("volume_format", ["zarr", "tiff"])
def test_a_written_cell_holds_its_truth(tmp_path, volume_format):
    write_cell_phantom(tmp_path, "dent", ANISOTROPIC_NM, scale=0.5, seed=3, volume_format=volume_format)
    facts = json.loads((tmp_path / "phantom.json").read_text())
    phantom = make_cell_phantom("dent", ANISOTROPIC_NM, scale=0.5, seed=3)
    with open_volume(str(tmp_path / facts["files"]["cell"])) as volume:
        assert volume.voxel_size_nm == ANISOTROPIC_NM
        labels = volume.read()
    with open_volume(str(tmp_path / facts["files"]["organelle"])) as volume:
        organelle = volume.read() > 0
    assert np.array_equal(labels, phantom.labels())
    t = phantom.t_ray
    shell = np.minimum((8 * t[phantom.cytoplasm]).astype(int), 7)
    all_voxels = np.bincount(shell, minlength=8)
    hit = np.bincount(shell[organelle[phantom.cytoplasm]], minlength=8)
    expected = hit / all_voxels / (hit.sum() / all_voxels.sum())
    assert facts["rdf_8_shells"] == pytest.approx(expected, abs=1e-9)
    assert facts["cytoplasm_voxels"] == phantom.cytoplasm.sum()


def test_a_tissue_numbers_cells_and_nuclei_alike_and_tells_what_is_cut(tmp_path):
    facts = write_cell_phantom(tmp_path, "tissue", cells=(2, 3, 3), seed=5)
    cells, nuclei = (open_volume(str(tmp_path / facts["files"][name])).read() for name in ("cells", "nuclei"))
    truth = pd.read_csv(tmp_path / "truth.csv", keep_default_na=False)
    assert np.array_equal(np.bincount(cells.ravel(), minlength=19)[1:], truth.cell_voxels)
    assert np.array_equal(np.bincount(nuclei.ravel(), minlength=19)[1:], truth.nucleus_voxels)
    assert (truth.nucleus_voxels > 0).all()
    assert np.array_equal(cells[nuclei > 0], nuclei[nuclei > 0])
    for number, row in zip(truth.cell, truth.itertuples()):
        mask = cells == number
        cut = [f"{name}{s}" for a, name in enumerate("zyx") for s in (0, 1) if mask.take(-s, axis=a).any()]
        assert row.cut_faces == ",".join(sorted(cut))
    assert 0 < (truth.cut_faces != "").sum() < len(truth)


def test_some_cells_of_a_tissue_touch():
    phantom = TissuePhantom((3, 3, 3), seed=2)
    cells = phantom.draw()[0]
    meet = (cells[1:] != cells[:-1]) & (cells[1:] > 0) & (cells[:-1] > 0)
    assert meet.any()


def test_a_tissue_does_not_depend_on_the_slabs():
    phantom = TissuePhantom((2, 2, 2), seed=1)
    whole = phantom.draw()
    depth = phantom.shape[0]
    parts = [phantom.draw(((z, min(z + 11, depth)),)) for z in range(0, depth, 11)]
    for image, pieces in zip(whole, zip(*parts)):
        assert np.array_equal(image, np.concatenate(pieces), equal_nan=image.dtype.kind == "f")
