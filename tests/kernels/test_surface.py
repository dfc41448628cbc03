"""Sites of a mask's surface: where they lie, that none is missing, that cutting does not matter."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cytomill.kernels.contours import axis_kernels, smoothing_kernel
from cytomill.kernels.surface import iterate_sites, surface_halo, surface_sites
from cytomill.kernels.terraces import bend_of_ring, height_of_cap, height_of_run

MASKS = arrays(bool, st.tuples(st.integers(1, 14), st.integers(1, 9), st.integers(1, 11)))
SIZES = st.sampled_from([(1.0, 1.0, 1.0), (2.685, 1.0, 1.0), (0.4, 1.0, 1.3), (290.0, 108.0, 108.0)])


def ball(radius, size, shape):
    """Mask of a ball about the middle of a box, and its centre (nm)."""
    centre = (np.array(shape) - 1) / 2 * size + 0.3
    offsets = np.stack(np.indices(shape), -1) * np.array(size) - centre
    return np.linalg.norm(offsets, axis=-1) <= radius, centre


@pytest.mark.parametrize("sigma", [0.5, 0.7, 1.0])
def test_the_smoothing_kernel_has_no_second_moment(sigma):
    weights = smoothing_kernel(sigma)
    place = np.arange(weights.size) - weights.size // 2
    assert weights.sum() == pytest.approx(1)
    assert (weights * place**2).sum() == pytest.approx(0, abs=1e-12)


def test_smoothing_is_equally_wide_in_nanometres_along_all_axes():
    along_z, along_y, along_x = axis_kernels((216.0, 108.0, 108.0), 9)
    np.testing.assert_array_equal(along_z, smoothing_kernel(0.5))
    np.testing.assert_array_equal(along_y, smoothing_kernel(1.0))
    np.testing.assert_array_equal(along_x, smoothing_kernel(1.0))
    # Where a slice is too thick, and where there is one slice only, nothing is smoothed along Z.
    assert axis_kernels((290.0, 108.0, 108.0), 9)[0].size == 1
    assert axis_kernels((108.0, 108.0, 108.0), 1)[0].size == 1


def test_flat_faces_lie_halfway_between_voxel_centres():
    mask = np.zeros((12, 20, 30), bool)
    mask[3:9, 5:15, 6:24] = True
    sites = surface_sites(mask, (50.0, 10.0, 10.0))
    middle = sites[(np.abs(sites[:, 1] - 95) < 25) & (np.abs(sites[:, 2] - 145) < 45)]
    np.testing.assert_allclose(np.unique(middle[:, 0]), [125, 425], atol=1e-3)
    wall = sites[(np.abs(sites[:, 0] - 275) < 60) & (np.abs(sites[:, 2] - 145) < 45)]
    np.testing.assert_allclose(np.unique(wall[:, 1]), [45, 145], atol=1e-3)


@pytest.mark.parametrize("size", [(0.4, 1.0, 1.3), (12.6, 8.1, 8.1), (0.7, 0.7, 0.7), (1e4, 9.9e3, 1.1e4)])
def test_flat_faces_keep_their_sites_whatever_the_voxel_size(size):
    # Half of such a size is no float32: the face must not be a rounding error away from both its voxels.
    mask = np.zeros((12, 12, 12), bool)
    mask[3:9, 3:9, 3:9] = True
    sites = surface_sites(mask, size) / size
    for axis in range(3):
        others = np.abs(sites[:, [k for k in range(3) if k != axis]] - 5.5).max(axis=1) < 1.5
        for face in (2.5, 8.5):
            assert (others & (np.abs(sites[:, axis] - face) < 0.1)).any(), (axis, face)


@pytest.mark.parametrize("size", [(1.0, 1.0, 1.0), (2.685, 1.0, 1.0)])
@pytest.mark.parametrize("radius", [12.0, 25.0])
def test_sites_of_a_ball_lie_on_its_sphere_without_bias(size, radius):
    shape = tuple(int(2 * radius / s) + 8 for s in size)
    mask, centre = ball(radius, size, shape)
    away = np.linalg.norm(surface_sites(mask, size) - centre, axis=1) - radius
    assert abs(away.mean()) < 0.05
    assert away.std() < 0.16
    assert np.abs(away).max() < 0.7


@settings(max_examples=60, deadline=None)
@given(mask=MASKS, size=SIZES)
def test_no_step_of_a_mask_is_without_a_site(mask, size):
    has = np.stack([offsets[2] < 1 for offsets in iterate_sites(mask, 0, mask.shape[0], size)])
    for axis in range(3):
        low = [slice(None)] * 3
        high = [slice(None)] * 3
        low[axis], high[axis] = slice(None, -1), slice(1, None)
        low, high = tuple(low), tuple(high)
        steps = mask[low] != mask[high]
        assert (has[low] | has[high])[steps].all()
    if mask.all() or not mask.any():
        assert not has.any()


@settings(max_examples=60, deadline=None)
@given(mask=MASKS, size=SIZES)
def test_every_site_lies_in_its_own_voxel_beside_a_step(mask, size):
    for z, offsets in enumerate(iterate_sites(mask, 0, mask.shape[0], size)):
        has = offsets[2] < 1
        assert (np.abs(offsets[:, has]) <= 0.5).all()
        around = mask[max(z - 1, 0) : z + 2]
        for y, x in np.argwhere(has):
            cross = np.concatenate(
                [around[:, y, x], mask[z, max(y - 1, 0) : y + 2, x], mask[z, y, max(x - 1, 0) : x + 2]]
            )
            assert cross.any() and not cross.all()


@settings(max_examples=40, deadline=None)
@given(mask=MASKS, size=SIZES, cuts=st.lists(st.integers(0, 14), max_size=4))
def test_sites_do_not_depend_on_slabs(mask, size, cuts):
    depth = mask.shape[0]
    halo = surface_halo(size)
    whole = [offsets.copy() for offsets in iterate_sites(mask, 0, depth, size)]
    bounds = sorted({0, depth, *(c for c in cuts if c < depth)})
    for start, stop in zip(bounds, bounds[1:], strict=False):
        low, high = max(start - halo, 0), min(stop + halo, depth)
        for z, offsets in enumerate(iterate_sites(mask[low:high], start - low, stop - low, size), start):
            has = whole[z][2] < 1
            np.testing.assert_array_equal(has, offsets[2] < 1)
            np.testing.assert_array_equal(whole[z][:, has], offsets[:, has])


def test_a_single_voxel_keeps_its_six_faces():
    mask = np.zeros((5, 5, 5), bool)
    mask[2, 2, 2] = True
    away = surface_sites(mask, (3.0, 1.0, 1.0)) - np.array([6.0, 2.0, 2.0])
    for axis, half in enumerate((1.5, 0.5, 0.5)):
        for side in (-1, 1):
            face = np.zeros(3)
            face[axis] = side * half
            assert np.linalg.norm(away - face, axis=1).min() < 1e-3


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_sheet_one_voxel_thin_keeps_both_faces(axis):
    mask = np.zeros((9, 9, 9), bool)
    mask[(slice(None),) * axis + (4,)] = True
    np.testing.assert_allclose(np.unique(surface_sites(mask, (1, 1, 1))[:, axis]), [3.5, 4.5], atol=1e-3)


def test_the_faces_of_the_volume_carry_no_surface():
    mask = np.zeros((8, 9, 10), bool)
    mask[:, :5, :] = True
    sites = surface_sites(mask, (1, 1, 1))
    np.testing.assert_allclose(np.unique(sites[:, 1]), [4.5], atol=1e-3)
    assert surface_sites(np.ones((8, 9, 10), bool), (1, 1, 1)).size == 0


def test_one_slice_has_a_contour_in_its_plane():
    mask, centre = ball(9.0, (1.0, 1.0, 1.0), (1, 26, 26))
    sites = surface_sites(mask, (50.0, 1.0, 1.0))
    assert (sites[:, 0] == 0).all()
    radius = np.sqrt(81 - centre[0] ** 2)
    assert abs(np.hypot(*(sites[:, 1:] - centre[1:]).T) - radius).mean() < 0.12


def test_heights_over_terraces_of_a_parabola_are_exact():
    # z = z0 - u²/2R: contours at u² = 2R (z0 - z), 0.5 and 1.5 and 2.5 slices below the pole.
    first, second, third = np.sqrt([0.5, 1.5, 2.5])
    assert height_of_cap(first, second - first) == pytest.approx(0.5)
    ring, inner = second - first, third - second
    part = 0.4
    u = second - part * ring
    bend = bend_of_ring(ring, inner, -1.0)
    assert part + bend * part * (1 - part) == pytest.approx(1.5 - u**2)


def test_a_run_without_two_known_ends_has_no_height():
    mask = np.zeros((6, 30), np.uint8)
    mask[:3] = 1
    heights = np.empty(30)
    assert not height_of_run(mask, 2, 0, 30, heights)
    mask[3, :10] = 1
    # From the step at 10 on, the contour comes from row 3; it never reaches row 2.
    assert not height_of_run(mask, 2, 10, 30, heights)
    mask[2, 22:] = 0
    assert height_of_run(mask, 2, 10, 22, heights)
    assert (np.diff(heights[:12]) < 0).all()


@pytest.mark.parametrize("size", [(100.0, 100.0, 100.0), (290.0, 108.0, 108.0)])
def test_a_surface_does_not_depend_on_how_much_background_lies_around(size):
    # A dented ellipsoid: some of its terraces look out over a row of background to the array's border.
    z, y, x = np.ogrid[-2000.0 : 2000.0 : size[0], -2300.0 : 2300.0 : size[1], -2700.0 : 2700.0 : size[2]]
    mask = (z / 1500) ** 2 + ((y - 20) / 1800) ** 2 + ((x + 31) / 2100) ** 2 <= 1
    mask &= (z - 1500) ** 2 + (y - 900) ** 2 + (x - 200) ** 2 > 700**2
    spans = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {k}))) for k in range(3)]
    tight = mask[tuple(slice(span[0], span[-1] + 1) for span in spans)]
    expected = surface_sites(np.pad(tight, 12), size) - 12 * np.array(size)
    for margin in (2, 4, 8):
        found = surface_sites(np.pad(tight, margin), size) - margin * np.array(size)
        assert np.allclose(found, expected, atol=1e-3), f"margin of {margin} voxels"
