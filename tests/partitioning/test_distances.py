"""Radial position from distances: right on analytic cells, steady under resampling, cut faces by rule."""

from functools import cache

import numpy as np
import pytest
from scipy import ndimage

from cytomill.kernels.distance import column_distances, plane_distances, surface_distance
from cytomill.kernels.surface import surface_halo
from cytomill.partitioning.distances import (
    censored,
    edt_field,
    edt_position,
    quantize_position,
    shells_of,
)
from cytomill.phantoms.partitioning import make_cell_phantom

ISOTROPIC, ANISOTROPIC = (108.0,) * 3, (290.0, 108.0, 108.0)
CELLS = [(kind, size) for kind in ("spheres", "dent") for size in (ISOTROPIC, ANISOTROPIC)]


@cache
def measured(kind, size):
    """Phantom, its truth and the field."""
    phantom = make_cell_phantom(kind, size)
    return phantom, phantom.t_edt, edt_field(phantom.nucleus, phantom.cell, size)


@cache
def no_cut():
    return np.zeros((3, 2), bool)


@pytest.mark.parametrize(("kind", "size"), CELLS)
def test_shells_are_right_for_at_least_985_voxels_in_a_thousand(kind, size):
    phantom, truth, t = measured(kind, size)
    cytoplasm = phantom.cytoplasm
    right = shells_of(t, 8)[cytoplasm] == shells_of(truth, 8)[cytoplasm]
    assert right.mean() >= 0.985
    assert np.abs(t - truth)[cytoplasm].mean() <= 0.0025


@pytest.mark.parametrize(("kind", "size"), CELLS)
def test_every_cytoplasm_voxel_and_no_other_has_a_shell(kind, size):
    phantom, _, t = measured(kind, size)
    assert t.dtype == np.float32
    np.testing.assert_array_equal(np.isfinite(t), phantom.cytoplasm)
    inside = t[phantom.cytoplasm]
    assert inside.min() >= 0
    assert inside.max() <= 1
    np.testing.assert_array_equal(shells_of(t, 8) > 0, phantom.cytoplasm)


@pytest.mark.parametrize(("kind", "size"), CELLS)
def test_a_wrong_voxel_is_within_one_voxel_of_a_boundary(kind, size):
    phantom, truth, t = measured(kind, size)
    shell, right = shells_of(t, 8), shells_of(truth, 8)
    # Among the voxel and its neighbours, the true shells span the one that was assigned.
    highest = ndimage.maximum_filter(right, 3)
    lowest = ndimage.minimum_filter(np.where(right == 0, 255, right), 3)
    wrong = shell != right
    assert wrong.any()
    assert ((lowest <= shell) & (shell <= highest))[wrong].all()


@pytest.mark.parametrize("size", [ISOTROPIC, ANISOTROPIC])
def test_shells_of_concentric_spheres_are_equally_thick(size):
    phantom, _, t = measured("spheres", size)
    voxels = np.bincount(shells_of(t, 8)[phantom.cytoplasm], minlength=9)[1:]
    enclosed = np.cumsum([phantom.nucleus.sum(), *voxels]) * np.prod(size) / 108.0**3
    thickness = np.diff(np.cbrt(enclosed * 3 / (4 * np.pi)))
    np.testing.assert_allclose(thickness, 38 / 8, rtol=0.05)


def test_the_shared_phantoms_are_right_too(shared_dir):
    for name in ("phantom_spheres", "phantom_dent"):
        with np.load(shared_dir / "golden" / "partitioning" / f"{name}_input.npz") as file:
            shape, truth = tuple(file["shape"]), file["t_edt"] / 65535
            count = int(np.prod(shape))
            ne, pm = (np.unpackbits(file[k])[:count].reshape(shape).astype(bool) for k in ("ne", "pm"))
        t = edt_field(ne, pm, (1, 1, 1))[pm & ~ne]
        assert np.mean(shells_of(t, 8) == np.minimum(8, np.floor(8 * truth) + 1)) >= 0.985
        assert np.abs(t - truth).mean() <= 0.0025


@pytest.mark.parametrize(
    ("name", "fine_start", "coarse_start", "same"),
    [
        ("GIP_30_1535", (16, 5, 24), (7, 2, 11), 0.78),
        ("TAK_30_2213", (18, 4, 17), (8, 1, 8), 0.86),
    ],
)
def test_a_real_cell_gets_the_same_shells_at_half_the_resolution(
    shared_dir, name, fine_start, coarse_start, same
):
    fields = []
    for factor in (3, 6):
        path = shared_dir / "golden" / "partitioning" / f"{name}_f{factor}_input.npz"
        with np.load(path) as file:
            shape = tuple(file["shape"])
            count = int(np.prod(shape))
            ne, pm = (np.unpackbits(file[k])[:count].reshape(shape).astype(bool) for k in ("ne", "pm"))
        cell = ndimage.binary_fill_holes(pm | ne)
        fields.append(edt_field(ndimage.binary_fill_holes(ne), cell, (factor,) * 3))
    fine, coarse = fields
    voxels = np.argwhere(np.isfinite(fine))
    place = ((voxels + fine_start + 0.5) / 2 - 0.5 - coarse_start).T
    known = np.isfinite(coarse)
    total = ndimage.map_coordinates(np.where(known, coarse, 0), place, order=1)
    weight = ndimage.map_coordinates(known.astype(np.float32), place, order=1)
    common = ndimage.map_coordinates(known.astype(np.uint8), place, order=0) > 0
    expected = shells_of(fine[tuple(voxels[common].T)], 8).astype(int)
    found = shells_of((total[common] / weight[common]).astype(np.float32), 8).astype(int)
    assert common.mean() > 0.9
    assert np.mean(found == expected) >= same
    assert np.mean(np.abs(found - expected) <= 1) >= 0.98


def test_a_cell_in_slabs_and_bands_has_the_same_bits():
    phantom, _, whole = measured("dent", ANISOTROPIC)
    depth, height, _ = phantom.shape
    halo = surface_halo(ANISOTROPIC)
    stored = []
    for mask in (phantom.nucleus, phantom.cell):
        parts = []
        for start in range(0, depth, 11):
            stop, low = min(start + 11, depth), max(start - halo, 0)
            parts.append(plane_distances(mask[low : stop + halo], start - low, stop - low, ANISOTROPIC))
        stored.append([np.concatenate(kind) for kind in zip(*parts, strict=True)])
    for first in range(0, height, 50):
        band = slice(first, first + 50)
        inner, outer = (column_distances(*(part[:, band] for part in kind), ANISOTROPIC) for kind in stored)
        t = edt_position(inner, outer, phantom.cytoplasm[:, band])
        np.testing.assert_array_equal(t.view(np.uint32), whole[:, band].view(np.uint32))


def test_positions_where_both_surfaces_meet_are_half_way():
    cytoplasm = np.array([[[True, True, True, False]]])
    inner = np.array([[[0, 0, 3, 1]]], np.float32)
    outer = np.array([[[0, 2, 1, 1]]], np.float32)
    np.testing.assert_array_equal(edt_position(inner, outer, cytoplasm), [[[0.5, 0, 0.75, np.nan]]])


def test_a_nucleus_that_touches_the_membrane_leaves_no_voxel_without_a_position():
    z, y, x = np.indices((30, 32, 34)) - np.array([15, 16, 17])[:, None, None, None]
    cell = z**2 + y**2 + x**2 <= 12**2
    nucleus = (z**2 + y**2 + (x - 5) ** 2 <= 7**2) & cell
    t = edt_field(nucleus, cell, (1, 1, 1))
    np.testing.assert_array_equal(np.isfinite(t), cell & ~nucleus)


def test_a_cut_face_is_no_membrane():
    phantom, _, whole = measured("spheres", ISOTROPIC)
    cut = no_cut().copy()
    cut[0, 0] = True
    # Through the centre, the nearest points of both spheres are on the same side of the cut.
    t = edt_field(phantom.nucleus[66:], phantom.cell[66:], ISOTROPIC, cut)
    cytoplasm = phantom.cytoplasm[66:]
    assert np.abs(t - whole[66:])[cytoplasm].mean() < 0.001
    assert np.abs(t - whole[66:])[cytoplasm].max() < 0.03
    sealed_off = edt_field(phantom.nucleus[66:], phantom.cell[66:], ISOTROPIC)
    assert np.abs(sealed_off - whole[66:])[cytoplasm].mean() > 0.05


def test_one_slice_is_a_wide_field_cell():
    radius = np.hypot(*(np.indices((120, 120)) - 59.7))[None]
    nucleus, cell = radius <= 15, radius <= 55
    cut = np.array([[True, True], [False, False], [False, False]])
    t = edt_field(nucleus, cell, (500.0, 100.0, 100.0), cut)
    cytoplasm = cell & ~nucleus
    assert np.abs(t - (radius - 15) / 40)[cytoplasm].mean() < 0.004
    outer = surface_distance(cell, (500.0, 100.0, 100.0), cut)
    assert not censored(outer, cytoplasm, (500.0, 100.0, 100.0), cut).any()


def test_a_missing_surface_is_refused():
    cell = np.zeros((12, 12, 12), bool)
    cell[3:9, 3:9, 3:9] = True
    with pytest.raises(ValueError, match="no nuclear envelope"):
        edt_field(np.zeros_like(cell), cell, (1, 1, 1))
    nucleus = np.zeros_like(cell)
    nucleus[5:7, 5:7, 5:7] = True
    with pytest.raises(ValueError, match="no plasma membrane"):
        edt_field(nucleus, np.ones_like(cell), (1, 1, 1), np.ones((3, 2), bool))
    with pytest.raises(ValueError, match="one shape"):
        edt_field(nucleus[1:], cell, (1, 1, 1))


def test_voxels_nearer_to_a_cut_face_than_to_the_membrane_are_censored():
    distance = np.full((4, 5, 6), 25.0, np.float32)
    cytoplasm = np.ones(distance.shape, bool)
    cytoplasm[:, 0, 0] = False
    cut = no_cut().copy()
    cut[1, 0] = cut[2, 1] = True
    marked = censored(distance, cytoplasm, (50.0, 10.0, 20.0), cut)
    y, x = np.indices((5, 6))
    expected = ((y + 0.5) * 10 < 25) | ((5.5 - x) * 20 < 25)
    np.testing.assert_array_equal(marked, expected[None] & cytoplasm)
    band = censored(distance[:, 2:4], cytoplasm[:, 2:4], (50.0, 10.0, 20.0), cut, first_row=2, rows=5)
    np.testing.assert_array_equal(band, marked[:, 2:4])
    assert not censored(distance, cytoplasm, (50.0, 10.0, 20.0), None).any()


def test_shells_and_stored_positions_follow_their_formulas():
    t = np.array([0, 0.124999, 0.125, 0.5, 0.999, 1, np.nan], np.float32)
    np.testing.assert_array_equal(shells_of(t, 8), [1, 1, 2, 5, 8, 8, 0])
    np.testing.assert_array_equal(shells_of(t, 250)[[0, 5, 6]], [1, 250, 0])
    np.testing.assert_array_equal(quantize_position(t), [0, 8192, 8192, 32768, 65469, 65535, 0])
    assert shells_of(t, 8).dtype == np.uint8
    assert quantize_position(t).dtype == np.uint16
    for count in (0, 251):
        with pytest.raises(ValueError, match="1 to 250"):
            shells_of(t, count)
