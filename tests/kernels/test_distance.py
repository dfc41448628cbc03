"""Distances to the sub-voxel surface: right, and the same however the volume is cut."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import cdist

from cytomill.kernels.distance import (
    column_distances,
    layers_per_slice,
    plane_distances,
    surface_distance,
)
from cytomill.kernels.surface import surface_halo, surface_sites

MASKS = arrays(bool, st.tuples(st.integers(1, 14), st.integers(1, 9), st.integers(1, 11)))
SIZES = st.sampled_from([(1.0, 1.0, 1.0), (2.0, 1.0, 1.0), (2.685, 1.0, 1.0), (0.4, 1.0, 1.3)])
ALL_CUT = np.ones((3, 2), bool)


def centres_of(shape, size):
    return np.stack(np.indices(shape), -1).reshape(-1, 3) * np.array(size)


@settings(max_examples=60, deadline=None)
@given(mask=MASKS, size=SIZES, cuts=st.lists(st.integers(0, 14), max_size=4), rows=st.integers(1, 9))
def test_the_bits_do_not_depend_on_slabs_and_bands(mask, size, cuts, rows):
    depth, height, _ = mask.shape
    whole = surface_distance(mask, size, ALL_CUT)
    halo = surface_halo(size)
    bounds = sorted({0, depth, *(c for c in cuts if c < depth)})
    parts = []
    for start, stop in zip(bounds, bounds[1:], strict=False):
        low, high = max(start - halo, 0), min(stop + halo, depth)
        parts.append(plane_distances(mask[low:high], start - low, stop - low, size))
    squared, offset_z = (np.concatenate(stored) for stored in zip(*parts, strict=True))
    for first in range(0, height, rows):
        band = slice(first, first + rows)
        distance = column_distances(squared[:, band], offset_z[:, band], size)
        np.testing.assert_array_equal(distance.view(np.uint32), whole[:, band].view(np.uint32))


@settings(max_examples=60, deadline=None)
@given(mask=MASKS, size=SIZES)
def test_distances_are_those_to_the_nearest_site_within_a_part_of_a_voxel(mask, size):
    distance = surface_distance(mask, size, ALL_CUT)
    sites = surface_sites(mask, size)
    if not len(sites):
        assert np.isinf(distance).all()
        return
    nearest = cdist(centres_of(mask.shape, size), sites).min(axis=1).reshape(mask.shape)
    # The stored offset along Z is rounded to 1/254 slice.
    assert (distance >= nearest - size[0] / 250).all()
    assert (distance <= nearest + 0.35 * np.linalg.norm(size)).all()


@settings(max_examples=60, deadline=None)
@given(data=st.data(), size=SIZES)
def test_columns_get_the_minimum_over_all_stored_sites(data, size):
    depth = data.draw(st.integers(1, 12))
    layers = layers_per_slice(size)
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    squared = rng.uniform(0, 30, (depth * layers, 3, 4)).astype(np.float32)
    squared[rng.random(squared.shape) < 0.3] = np.inf
    offset_z = rng.integers(-127, 128, squared.shape).astype(np.int8)
    # Layers of a slice hold rising offsets.
    offset_z = np.sort(offset_z.reshape(depth, layers, 3, 4), axis=1).reshape(squared.shape)
    vertex = (np.arange(depth * layers) // layers)[:, None, None] + offset_z / 254
    z = np.arange(depth)[:, None, None, None]
    expected = np.sqrt((((z - vertex) * size[0]) ** 2 + squared).min(axis=1))
    np.testing.assert_allclose(column_distances(squared, offset_z, size), expected, rtol=1e-6)
    # In place, where there is room for it.
    kept = squared.copy()
    column_distances(kept, offset_z, size, out=kept[:depth])
    np.testing.assert_allclose(kept[:depth], expected, rtol=1e-6)


@pytest.mark.parametrize(("size", "expected"), [((1.0, 1.0, 1.0), 0.10), ((290.0, 108.0, 108.0), 0.14)])
def test_distances_to_a_ball_are_wrong_by_about_a_tenth_of_a_voxel(size, expected):
    # Taken to the faces halfway between voxel centres, they would be wrong by 0.28 and 0.23 voxel.
    rng = np.random.default_rng(0)
    radius = 15.0 * size[1]
    shape = tuple(int(3 * radius / s) for s in size)
    errors = []
    for _ in range(6):
        centre = ((np.array(shape) - 1) / 2 + rng.uniform(-0.5, 0.5, 3)) * size
        away = np.linalg.norm(centres_of(shape, size) - centre, axis=1).reshape(shape) - radius
        errors.append(np.abs(surface_distance(away <= 0, size) - np.abs(away)))
    assert np.mean(errors) < expected * size[1]
    assert np.max(errors) < 0.9 * size[1]


@pytest.mark.parametrize("size", [(1.0, 1.0, 1.0), (50.0, 10.0, 20.0)])
def test_distances_before_a_flat_face_are_exact(size):
    for axis in range(3):
        mask = np.zeros((20, 21, 22), bool)
        mask[(slice(None),) * axis + (slice(9, None),)] = True
        depth = np.abs(np.arange(mask.shape[axis]) - 8.5) * size[axis]
        expected = np.broadcast_to(np.expand_dims(depth, [k for k in range(3) if k != axis]), mask.shape)
        np.testing.assert_allclose(surface_distance(mask, size, ALL_CUT), expected, atol=0.005 * size[axis])


def test_a_face_has_a_surface_unless_the_mask_is_cut_there():
    mask = np.zeros((30, 9, 9), bool)
    mask[:20] = True
    cut = np.ones((3, 2), bool)
    np.testing.assert_allclose(surface_distance(mask, (1, 1, 1), cut)[0], 19.5, atol=0.01)
    cut[0, 0] = False
    np.testing.assert_allclose(surface_distance(mask, (1, 1, 1), cut)[0, 4, 4], 0.5, atol=0.01)
    assert surface_distance(mask, (1, 1, 1)).shape == mask.shape


def test_one_slice_is_measured_within_its_plane():
    rng = np.random.default_rng(1)
    errors = []
    for _ in range(10):
        away = np.hypot(*(np.indices((40, 41)) - rng.uniform(19, 21, 2)[:, None, None])) - 12
        distance = [surface_distance((away <= 0)[None], (z, 10.0, 10.0)) for z in (10.0, 400.0)]
        np.testing.assert_array_equal(*distance)
        errors.append(np.abs(distance[0][0] - 10 * np.abs(away)).mean())
    # Halfway between pixel centres, it would be 2.4.
    assert np.mean(errors) < 1.5


def test_without_a_surface_distances_are_infinite():
    for mask in (np.zeros((4, 5, 6), bool), np.ones((4, 5, 6), bool)):
        distance = surface_distance(mask, (2.7, 1.0, 1.0), ALL_CUT)
        assert distance.dtype == np.float32
        assert np.isinf(distance).all()


def test_columns_that_are_not_wanted_are_left_out():
    rng = np.random.default_rng(2)
    mask = rng.random((9, 8, 7)) < 0.3
    wanted = np.zeros(mask.shape, bool)
    wanted[3, 2:4, 5] = True
    columns = wanted.any(axis=0)
    part = surface_distance(mask, (1, 1, 1), where=wanted)
    np.testing.assert_array_equal(part[:, columns], surface_distance(mask, (1, 1, 1))[:, columns])
    assert (part[:, ~columns] == 0).all()
