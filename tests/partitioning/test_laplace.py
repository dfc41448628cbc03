"""The Laplace field gives the radial position that streamlines have, to the sub-voxel surface."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from cytomill.kernels.distance import surface_distance
from cytomill.partitioning.distances import edt_field
from cytomill.partitioning.laplace import laplace_bytes, laplace_field
from cytomill.phantoms.partitioning import make_cell_phantom

ISOTROPIC = (108.0, 108.0, 108.0)
ANISOTROPIC = (290.0, 108.0, 108.0)


def ball(shape, centre, radius, voxel_size=(1.0, 1.0, 1.0)):
    """Voxels whose centres lie within a ball."""
    place = np.meshgrid(*[np.arange(n) * h for n, h in zip(shape, voxel_size, strict=True)], indexing="ij")
    return sum((axis - c) ** 2 for axis, c in zip(place, centre, strict=True)) <= radius**2


def shells(t, count=8):
    """Shell of each position."""
    return np.minimum(count, np.floor(count * t) + 1)


def check_accuracy(t, truth, voxel_of_thickness, right=0.985, error=0.0025):
    """Compare with the truth; `voxel_of_thickness`: a voxel as a share of the cytoplasm's thickness."""
    known = np.isfinite(truth)
    assert np.isfinite(t[known]).all()
    away = np.abs(t[known] - truth[known])
    assert (shells(t[known]) == shells(truth[known])).mean() >= right
    assert away.mean() <= error
    assert (away <= np.broadcast_to(voxel_of_thickness, t.shape)[known]).all()


@pytest.mark.parametrize("voxel_size_nm", [ISOTROPIC, ANISOTROPIC])
def test_spheres_have_the_analytic_position(voxel_size_nm):
    phantom = make_cell_phantom("spheres", voxel_size_nm)
    t, info = laplace_field(phantom.nucleus, phantom.cell, voxel_size_nm)
    check_accuracy(t, phantom.t_ray, max(voxel_size_nm) / (38 * 108))
    assert np.isnan(t[~phantom.cytoplasm]).all()
    assert t.dtype == np.float32
    assert info["residual"] <= 1e-6
    assert info["iterations"] <= 15
    assert info["flat_voxels"] == 0


def test_shells_of_the_spheres_are_equally_thick():
    phantom = make_cell_phantom("spheres")
    t, _ = laplace_field(phantom.nucleus, phantom.cell, ISOTROPIC)
    r = (20 + 38 * phantom.t_ray[phantom.cytoplasm].astype(float)) / 38
    shell = shells(t[phantom.cytoplasm])
    # The radius at which half of the voxels around a boundary lie beyond it.
    edges = [r.min()] + [(r[shell == k].max() + r[shell == k + 1].min()) / 2 for k in range(1, 8)] + [r.max()]
    assert np.abs(np.diff(edges) * 8 - 1).max() <= 0.05


@pytest.fixture(scope="module")
def fine_dent():
    """Field of the dent phantom on a grid twice as fine, and the place of its first voxel."""
    phantom = make_cell_phantom("dent", (54.0,) * 3)
    return laplace_field(phantom.nucleus, phantom.cell, (54.0,) * 3)[0], phantom.origin_nm


@pytest.mark.slow
@pytest.mark.parametrize("voxel_size_nm", [ISOTROPIC, ANISOTROPIC])
def test_dent_has_the_position_of_a_finer_grid(fine_dent, voxel_size_nm):
    fine, origin_nm = fine_dent
    phantom = make_cell_phantom("dent", voxel_size_nm)
    axes = [
        (start - first + np.arange(n) * h) / 54
        for start, first, n, h in zip(phantom.origin_nm, origin_nm, phantom.shape, voxel_size_nm, strict=True)
    ]
    y, x = (np.rint(axis).astype(int) for axis in axes[1:])
    assert np.allclose(y, axes[1]) and np.allclose(x, axes[2])
    below = np.clip(np.floor(axes[0] + 1e-6).astype(int), 0, fine.shape[0] - 2)
    share = np.maximum(axes[0] - below, 0)[:, None, None].astype(np.float32)
    planes = fine[:, y][:, :, x]
    # Where a coarse slice is a fine one, the next fine slice (perhaps without a value) does not count.
    truth = np.where(share < 1e-3, planes[below], planes[below] * (1 - share) + planes[below + 1] * share)
    truth[~phantom.cytoplasm] = np.nan
    assert np.isfinite(truth).sum() >= 0.98 * phantom.cytoplasm.sum()
    t, _ = laplace_field(phantom.nucleus, phantom.cell, voxel_size_nm)
    thickness_nm = sum(surface_distance(mask, voxel_size_nm) for mask in (phantom.nucleus, phantom.cell))
    check_accuracy(t, truth, max(voxel_size_nm) / thickness_nm)


def test_cut_face_is_no_membrane():
    whole = make_cell_phantom("spheres")
    middle = 64
    nucleus, cell = whole.nucleus[:, :middle], whole.cell[:, :middle]
    faces = np.zeros((3, 2), bool)
    faces[1, 1] = True
    # The sphere's equator is half a voxel from the face: what lies beyond is the mirror image.
    t, _ = laplace_field(nucleus, cell, ISOTROPIC, faces)
    check_accuracy(t, whole.t_ray[:, :middle], 1 / 38)
    uncut, _ = laplace_field(nucleus, cell, ISOTROPIC)
    inside = (cell & ~nucleus)[:, -1]
    assert uncut[:, -1][inside].mean() > t[:, -1][inside].mean() + 0.2


def test_image_of_one_slice_is_a_plane():
    shape, centre = (1, 120, 130), (0.0, 61.3, 63.8)
    nucleus, cell = ball(shape, centre, 20.0), ball(shape, centre, 54.0)
    place = np.sqrt(sum((axis - c) ** 2 for axis, c in zip(np.indices(shape), centre, strict=True)))
    truth = np.where(cell & ~nucleus, (place - 20) / 34, np.nan)
    t, _ = laplace_field(nucleus, cell, (999.0, 108.0, 108.0))
    check_accuracy(t, truth, 1 / 34, right=0.98)


def test_pocket_behind_the_nucleus_takes_the_position_of_its_distances():
    cell = np.zeros((24, 24, 40), bool)
    cell[4:20, 4:20, 4:36] = True
    nucleus = np.zeros_like(cell)
    nucleus[8:16, 8:16, 8:16] = True
    # A pocket in a wall of nucleus: cytoplasm that no streamline reaches from the membrane.
    nucleus[4:20, 4:20, 24:36] = True
    nucleus[10:14, 10:14, 28:32] = False
    t, info = laplace_field(nucleus, cell, (1.0, 1.0, 1.0))
    pocket = np.zeros_like(cell)
    pocket[10:14, 10:14, 28:32] = True
    assert info["flat_voxels"] >= pocket.sum()
    np.testing.assert_allclose(t[pocket], edt_field(nucleus, cell, (1.0, 1.0, 1.0))[pocket], atol=1e-6)
    assert ((t >= 0) & (t <= 1))[cell & ~nucleus].all()


def test_nucleus_that_touches_the_membrane_leaves_every_voxel_defined():
    shape = (40, 40, 40)
    cell = ball(shape, (20, 20, 20), 16)
    nucleus = ball(shape, (20, 20, 27), 9.4) & cell
    t, _ = laplace_field(nucleus, cell, (1.0, 1.0, 1.0))
    inside = cell & ~nucleus
    assert ((t >= 0) & (t <= 1))[inside].all()
    assert t[20, 20, 5] > 0.9


def test_cytoplasm_of_one_voxel_lies_between():
    cell = np.zeros((9, 9, 9), bool)
    cell[2:7, 2:7, 2:7] = True
    nucleus = np.zeros_like(cell)
    nucleus[3:6, 3:6, 3:6] = True
    t, _ = laplace_field(nucleus, cell, (1.0, 1.0, 1.0))
    assert ((t > 0) & (t < 1))[cell & ~nucleus].all()


@settings(max_examples=25, deadline=None)
@given(
    noise=arrays.arrays(np.int8, st.tuples(st.integers(1, 6), st.integers(3, 9), st.integers(3, 9))),
    voxel_size_nm=st.sampled_from([(1.0, 1.0, 1.0), (2.7, 1.0, 1.0), (50.0, 8.0, 8.0)]),
)
def test_any_masks_give_every_cytoplasm_voxel_a_position(noise, voxel_size_nm):
    cell = np.pad(noise > -60, 2 if noise.shape[0] > 1 else ((0, 0), (2, 2), (2, 2)))
    nucleus = np.pad(noise > 60, 2 if noise.shape[0] > 1 else ((0, 0), (2, 2), (2, 2)))
    middle = tuple(n // 2 for n in cell.shape)
    cell[middle] = nucleus[middle] = True
    t, info = laplace_field(nucleus, cell, voxel_size_nm)
    inside = cell & ~nucleus
    assert ((t[inside] >= 0) & (t[inside] <= 1)).all()
    assert np.isnan(t[~inside]).all()
    assert info["residual"] <= 1e-6


def test_result_is_the_same_every_time():
    phantom = make_cell_phantom("dent", (324.0,) * 3)
    first, _ = laplace_field(phantom.nucleus, phantom.cell, (324.0,) * 3)
    again, _ = laplace_field(phantom.nucleus, phantom.cell, (324.0,) * 3)
    np.testing.assert_array_equal(first, again)


def test_projected_memory_bounds_the_measured():
    phantom = make_cell_phantom("dent", (108.0,) * 3)
    nucleus, cell = phantom.nucleus, phantom.cell
    laplace_field(nucleus, cell, (108.0,) * 3)
    tracemalloc.start()
    _, info = laplace_field(nucleus, cell, (108.0,) * 3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 0.7 * info["bytes"] <= peak <= info["bytes"]
    assert laplace_bytes(cell.shape) > info["bytes"]


def test_bad_input_is_refused_in_a_sentence():
    cell = ball((16, 16, 16), (8, 8, 8), 5)
    with pytest.raises(ValueError, match="one shape"):
        laplace_field(cell[:8], cell, (1.0, 1.0, 1.0))
    with pytest.raises(ValueError, match="nucleus mask of this cell is empty"):
        laplace_field(np.zeros_like(cell), cell, (1.0, 1.0, 1.0))
    nucleus = ball((16, 16, 16), (8, 8, 8), 3)
    with pytest.raises(ValueError, match="no plasma membrane"):
        laplace_field(nucleus, np.ones_like(cell), (1.0, 1.0, 1.0), np.ones((3, 2), bool))


def test_cell_without_cytoplasm_has_no_position():
    cell = ball((16, 16, 16), (8, 8, 8), 5)
    t, info = laplace_field(cell, cell, (1.0, 1.0, 1.0))
    assert np.isnan(t).all()
    assert info["iterations"] == 0
