"""The ray field gives the position along rays from the nucleus, to the sub-voxel surface."""

import numpy as np
import pytest

from cytomill.partitioning.ray import ray_positions
from cytomill.phantoms.partitioning import make_cell_phantom

ISOTROPIC = (108.0, 108.0, 108.0)
ANISOTROPIC = (290.0, 108.0, 108.0)


def ball(shape, centre, radius):
    """Voxels whose centres lie within a ball."""
    return distance(shape, centre) <= radius


def distance(shape, centre):
    """Distance of every voxel's centre from a point."""
    return np.sqrt(sum((axis - c) ** 2 for axis, c in zip(np.indices(shape), centre, strict=True)))


def shells(t, count=8):
    """Shell of each position."""
    return np.minimum(count, np.floor(count * t) + 1)


@pytest.mark.parametrize("kind", ["spheres", "dent"])
@pytest.mark.parametrize("voxel_size_nm", [ISOTROPIC, ANISOTROPIC])
def test_phantoms_have_their_analytic_position(kind, voxel_size_nm):
    phantom = make_cell_phantom(kind, voxel_size_nm)
    t, info = ray_positions(phantom.nucleus, phantom.cell, voxel_size_nm)
    inside = phantom.cytoplasm
    truth = phantom.t_ray[inside]
    assert np.isnan(t[~inside]).all()
    assert np.isfinite(t[inside]).all()
    assert (shells(t[inside]) == shells(truth)).mean() >= 0.985
    assert np.abs(t[inside] - truth).mean() <= 0.0025
    assert info["crossing_fraction"] == 0
    np.testing.assert_allclose(
        np.array(info["centre_nm"]) + phantom.origin_nm, phantom.recipe.centre * np.array(108.0), atol=30
    )


def test_position_does_not_depend_on_the_unit():
    phantom = make_cell_phantom("dent", (324.0,) * 3)
    np.testing.assert_allclose(
        ray_positions(phantom.nucleus, phantom.cell, (324.0,) * 3)[0],
        ray_positions(phantom.nucleus, phantom.cell, (1.0,) * 3)[0],
        atol=1e-4,
    )


def test_image_of_one_slice_is_a_plane():
    shape, centre = (1, 120, 130), (0.0, 61.3, 63.8)
    nucleus, cell = ball(shape, centre, 20.0), ball(shape, centre, 54.0)
    inside = cell & ~nucleus
    truth = (distance(shape, centre)[inside] - 20) / 34
    t = ray_positions(nucleus, cell, (999.0, 108.0, 108.0))[0][inside]
    assert (shells(t) == shells(truth)).mean() >= 0.98
    assert np.abs(t - truth).mean() <= 0.0025


def test_centre_outside_a_bent_nucleus_moves_into_it():
    shape = (20, 60, 60)
    nucleus = ball(shape, (10, 30, 12), 6) | ball(shape, (10, 30, 48), 6)
    cell = ball(shape, (10, 30, 30), 27)
    cell[[0, 1, -2, -1]] = False
    t, info = ray_positions(nucleus & cell, cell, (1.0, 1.0, 1.0))
    assert nucleus[tuple(np.rint(info["centre_nm"]).astype(int))]
    inside = cell & ~nucleus
    assert ((t >= 0) & (t <= 1))[inside].all()
    assert 0 < info["crossing_fraction"] < 1
    # Between the two lobes the ray has yet to leave the nucleus for the last time.
    assert t[10, 30, 30] == 0


def test_part_of_the_cell_behind_a_gap_is_at_the_membrane():
    shape = (40, 40, 90)
    nucleus, cell = ball(shape, (20, 20, 20), 8), ball(shape, (20, 20, 20), 16)
    # A second lobe, joined by an arm that leaves the straight way open.
    cell |= ball(shape, (20, 20, 70), 14)
    cell[18:23, 34:38, 20:70] = True
    t, info = ray_positions(nucleus, cell, (1.0, 1.0, 1.0))
    assert t[20, 20, 75] == 1
    assert info["crossing_fraction"] > 0.1
    assert np.isfinite(t[cell & ~nucleus]).all()


def test_ray_through_a_cut_face_meets_the_continued_membrane():
    whole = make_cell_phantom("spheres", (216.0,) * 3)
    stop = int(whole.centre[1]) + 16
    nucleus, cell = whole.nucleus[:, :stop], whole.cell[:, :stop]
    inside = cell & ~nucleus
    faces = np.zeros((3, 2), bool)
    faces[1, 1] = True
    t = ray_positions(nucleus, cell, (216.0,) * 3, faces)[0]
    assert ((t >= 0) & (t <= 1))[inside].all()
    truth = whole.t_ray[:, :stop]
    # Rays away from the face know nothing of it.
    away = inside & (np.indices(inside.shape)[1] < whole.centre[1] + 4)
    assert np.abs(t[away] - truth[away]).mean() <= 0.005
    # The face is no membrane: without the rule its voxels would be the outermost.
    through = inside[:, -1] & (truth[:, -1] < 0.5)
    assert t[:, -1][through].max() < 0.7


def test_cost_is_linear_however_long_the_cell():
    long = np.zeros((24, 24, 600), bool)
    long[4:20, 4:20, 4:596] = True
    nucleus = np.zeros_like(long)
    nucleus[8:16, 8:16, 290:310] = True
    _, info = ray_positions(nucleus, long, (1.0, 1.0, 1.0))
    assert info["rays"] * 300 <= 40 * long.sum()


def test_nucleus_that_touches_the_membrane_leaves_every_voxel_defined():
    shape = (40, 40, 40)
    cell = ball(shape, (20, 20, 20), 16)
    nucleus = ball(shape, (20, 20, 27), 9.4) & cell
    t = ray_positions(nucleus, cell, (1.0, 1.0, 1.0))[0]
    assert ((t >= 0) & (t <= 1))[cell & ~nucleus].all()


def test_nucleus_of_one_voxel_is_a_centre():
    shape = (40, 40, 40)
    cell = ball(shape, (20, 20, 20), 16)
    nucleus = np.zeros_like(cell)
    nucleus[20, 20, 20] = True
    t = ray_positions(nucleus, cell, (1.0, 1.0, 1.0))[0]
    inside = cell & ~nucleus
    truth = distance(shape, (20, 20, 20))[inside] / 16
    assert np.abs(t[inside] - truth).max() < 0.06


def test_bad_input_is_refused_in_a_sentence():
    cell = ball((16, 16, 16), (8, 8, 8), 5)
    with pytest.raises(ValueError, match="one shape"):
        ray_positions(cell[:8], cell, (1.0, 1.0, 1.0))
    with pytest.raises(ValueError, match="nucleus mask of this cell is empty"):
        ray_positions(np.zeros_like(cell), cell, (1.0, 1.0, 1.0))
