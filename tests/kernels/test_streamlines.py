"""Streamlines have the length that geometry gives them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from cytomill.kernels.multigrid import empty_level, find_neighbours, number_voxels
from cytomill.kernels.streamlines import WALL_STEPS, rank_by_value, streamline_lengths


def no_fallback(flat):
    raise AssertionError("the field is nowhere flat")


def radial(spacing, inner, outer, half):
    """Voxels between two spheres, the harmonic field there, and the walls where edges meet the spheres."""
    extent = [int(2 * half / step) + 1 for step in spacing]
    axes = [(np.arange(n) - (n - 1) / 2 + 0.13) * step for n, step in zip(extent, spacing, strict=True)]
    place = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
    r = np.sqrt((place**2).sum(-1))
    mask = (r > inner) & (r < outer)
    level = empty_level(int(mask.sum()), mask.shape)
    number = np.zeros(mask.size, np.int32)
    number_voxels(mask.reshape(-1), number, level.position)
    find_neighbours(level.position, number, mask.shape, level.minus, level.plus)
    walls = np.zeros((level.size + 2, 6), np.int8)
    r, place = r[mask], place[mask]
    for k in range(3):
        rest = r**2 - place[:, k] ** 2
        for side, neighbour in enumerate((level.minus[k, 1:-1], level.plus[k, 1:-1])):
            beyond = np.sqrt(rest + (place[:, k] + (side * 2 - 1) * spacing[k]) ** 2)
            for radius, sign, at_wall in ((inner, -1, beyond <= inner), (outer, 1, beyond >= outer)):
                crossing = np.sqrt(np.maximum(radius**2 - rest, 0))
                step = np.abs(crossing - np.abs(place[:, k])) / spacing[k]
                steps = np.clip(np.rint(step * WALL_STEPS), 6, WALL_STEPS)
                chosen = at_wall & (neighbour == 0)
                walls[1:-1][chosen, 2 * k + side] = sign * steps[chosen]
    u = np.zeros(level.size + 2, np.float32)
    u[1:-1] = (1 / inner - 1 / r) / (1 / inner - 1 / outer)
    return r, u, level, walls


@settings(max_examples=30, deadline=None)
@given(values=arrays.arrays(np.float32, st.integers(2, 60), elements=st.floats(0, 1, width=32)))
def test_ranks_are_those_of_a_stable_sort(values):
    rank = rank_by_value(values)
    expected = np.zeros(values.size, np.int32)
    expected[1 + np.argsort(values[1:-1], kind="stable")] = np.arange(1, values.size - 1)
    np.testing.assert_array_equal(rank, expected)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.7, 1.0, 1.0)])
def test_lengths_between_spheres_are_distances(spacing):
    r, u, level, walls = radial(spacing, 8.0, 24.0, 27.0)
    inner, outer, flat = streamline_lengths(
        u, level.minus, level.plus, walls, np.array(spacing), 0.0, no_fallback
    )
    assert flat == 0
    assert np.abs(inner - (r - 8)).mean() < 0.03 * spacing[0]
    assert np.abs(outer - (24 - r)).mean() < 0.03 * spacing[0]


def test_lengths_gain_a_second_order_on_a_finer_grid():
    errors = []
    for step in (1.0, 0.5):
        r, u, level, walls = radial((step,) * 3, 8.0, 24.0, 27.0)
        inner, _, _ = streamline_lengths(
            u, level.minus, level.plus, walls, np.full(3, step), 0.0, no_fallback
        )
        errors.append(np.abs(inner - (r - 8)).mean())
    assert errors[1] < 0.4 * errors[0]


def test_flat_voxels_take_the_lengths_given_for_them():
    level = empty_level(4, (1, 1, 4))
    level.minus[2, 2:5], level.plus[2, 1:4] = [1, 2, 3], [2, 3, 4]
    walls = np.zeros((6, 6), np.int8)
    walls[4, 5] = WALL_STEPS
    u = np.array([0, 1, 1, 1, 1, 0], np.float32)
    given_lengths = np.array([9, 8, 7, 6], np.float32), np.array([4, 3, 2, 1], np.float32)
    inner, outer, flat = streamline_lengths(
        u, level.minus, level.plus, walls, np.ones(3), 1e-5, lambda flat: given_lengths
    )
    assert flat == 4
    np.testing.assert_array_equal(inner, given_lengths[0])
    np.testing.assert_array_equal(outer, given_lengths[1])
