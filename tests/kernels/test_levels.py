"""The 0.5 level is the surface of a mask, and never on the wrong side of a voxel centre."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from cytomill.kernels.levels import surface_level


def distance(shape, centre, voxel_size):
    """Distance of every voxel's centre from a point, all in units of length."""
    place = np.meshgrid(*[np.arange(n) * h for n, h in zip(shape, voxel_size, strict=True)], indexing="ij")
    return np.sqrt(sum((axis - c) ** 2 for axis, c in zip(place, centre, strict=True)))


def crossings(level, axis, voxel_size, centre):
    """Distance from the centre of all places where edges along an axis cross the level."""
    below, above = (np.take(level, range(a, level.shape[axis] - 1 + a), axis) for a in (0, 1))
    edge = np.argwhere((below > 0.5) != (above > 0.5)).astype(float)
    here, there = (side[tuple(edge.astype(int).T)] for side in (below, above))
    edge[:, axis] += (here - 0.5) / (here - there)
    return np.sqrt((((edge * voxel_size) - centre) ** 2).sum(1))


@settings(max_examples=40, deadline=None)
@given(mask=arrays.arrays(bool, st.tuples(st.integers(1, 7), st.integers(2, 9), st.integers(2, 9))))
def test_level_never_contradicts_the_mask(mask):
    for voxel_size in ((1.0, 1.0, 1.0), (3.0, 1.0, 1.0)):
        level = surface_level(mask, voxel_size)
        np.testing.assert_array_equal(level > 0.5, mask)
        assert level.dtype == np.float32


@pytest.mark.parametrize("radius", [8.0, 16.0])
def test_curved_surface_keeps_its_place_in_every_direction(radius):
    shape, centre = (44, 44, 44), (21.3, 21.8, 22.1)
    level = surface_level(distance(shape, centre, (1, 1, 1)) <= radius, (108.0,) * 3)
    for axis in range(3):
        assert abs(crossings(level, axis, (1, 1, 1), centre).mean() - radius) < 0.03
    found = np.concatenate([crossings(level, axis, (1, 1, 1), centre) for axis in range(3)])
    assert np.abs(found - radius).mean() < 0.1


def test_anisotropic_voxels_give_the_same_surface():
    voxel_size = (2.7, 1.0, 1.0)
    shape, centre, radius = (20, 50, 50), (26.1, 24.3, 24.8), 18.0
    level = surface_level(distance(shape, centre, voxel_size) <= radius, voxel_size)
    found = np.concatenate([crossings(level, axis, voxel_size, centre) for axis in range(3)])
    assert abs(found.mean() - radius) < 0.05
    assert np.abs(found - radius).mean() < 0.2


def test_cut_face_carries_no_surface_and_other_faces_do():
    mask = np.zeros((12, 12, 12), bool)
    mask[:, 3:9, 3:9] = True
    faces = np.zeros((3, 2), bool)
    faces[0] = True
    cut = surface_level(mask, (1.0, 1.0, 1.0), faces)
    np.testing.assert_allclose(cut, np.broadcast_to(cut[:1], cut.shape), atol=1e-6)
    open_ends = surface_level(mask, (1.0, 1.0, 1.0))
    assert open_ends[0, 6, 6] < cut[0, 6, 6]


def test_level_of_a_part_does_not_depend_on_the_empty_space_around():
    mask = np.zeros((60, 60, 60), bool)
    mask[25:35, 22:40, 28:33] = True
    inner = (slice(15, 45), slice(12, 50), slice(18, 43))
    whole = surface_level(mask, (1.0, 1.0, 1.0))
    part = surface_level(mask[inner], (1.0, 1.0, 1.0))
    near = np.abs(whole[inner] - 0.5) < 0.49
    np.testing.assert_allclose(part[near], whole[inner][near], atol=1e-5)
    assert whole[0, 0, 0] == 0


def test_empty_mask_has_no_surface():
    assert not surface_level(np.zeros((4, 4, 4), bool), (1.0, 1.0, 1.0)).any()
