"""The multigrid solver answers as a direct solver does, in a number of iterations that does not grow."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import sparse
from scipy.sparse.linalg import spsolve

from cytomill.kernels.multigrid import (
    Multigrid,
    empty_level,
    find_neighbours,
    invert_diagonal,
    number_voxels,
)


def network(mask, spacing, wall=None):
    """Level of a mask whose missing neighbours are walls half a voxel away, or as `wall` gives them."""
    level = empty_level(int(mask.sum()), mask.shape)
    number = np.zeros(mask.size, np.int32)
    number_voxels(mask.reshape(-1), number, level.position)
    find_neighbours(level.position, number, mask.shape, level.minus, level.plus)
    strength = (min(spacing) / np.array(spacing)) ** 2
    inner = slice(1, -1)
    for k in range(3):
        level.coupling[k, inner] = np.where(level.plus[k, inner] > 0, strength[k], 0)
        if wall is None:
            missing = (level.plus[k, inner] == 0).astype(int) + (level.minus[k, inner] == 0)
            level.wall[inner] += 2 * strength[k] * missing
    if wall is not None:
        level.wall[inner] = wall
    invert_diagonal(level.minus, level.coupling, level.wall, level.inverse_diagonal)
    return level


def matrix(level):
    """The same network as a sparse matrix in float64."""
    count = level.size
    here = np.arange(count)
    total = level.wall[1:-1].astype(float)
    off = sparse.csr_matrix((count, count))
    for k in range(3):
        linked = level.plus[k, 1:-1] > 0
        i, j = here[linked], level.plus[k, 1:-1][linked] - 1
        value = level.coupling[k, 1:-1][linked].astype(float)
        off = off + sparse.coo_matrix((value, (i, j)), (count, count)).tocsr()
        total += np.bincount(i, value, count) + np.bincount(j, value, count)
    return sparse.diags(total) - off - off.T


def shell(size, spacing, inner=0.2, outer=0.45):
    """Voxels between two spheres."""
    extent = [max(4, round(size * min(spacing) / step)) for step in spacing]
    axes = [(np.arange(n) - (n - 1) / 2) * step for n, step in zip(extent, spacing, strict=True)]
    r = np.sqrt(sum(axis**2 for axis in np.meshgrid(*axes, indexing="ij"))) / (size * min(spacing))
    return (r > inner) & (r < outer)


@settings(max_examples=40, deadline=None)
@given(
    mask=arrays.arrays(bool, st.tuples(*[st.integers(1, 9)] * 3)),
    spacing=st.sampled_from([(1.0, 1.0, 1.0), (2.7, 1.0, 1.0), (1.0, 4.0, 0.5)]),
    seed=st.integers(0, 99),
)
def test_any_mask_is_solved_as_by_a_direct_solver(mask, spacing, seed):
    mask[0, 0, 0] = True
    level = network(mask, spacing)
    rhs = np.zeros(level.size + 2, np.float32)
    rhs[1:-1] = np.random.default_rng(seed).random(level.size)
    expected = spsolve(matrix(level).tocsc(), rhs[1:-1].astype(float))
    u, _, residual = Multigrid(level, spacing).solve(rhs, 1e-6, 200)
    assert residual <= 1e-6
    assert u[0] == u[-1] == 0
    np.testing.assert_allclose(u[1:-1], expected, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (290.0, 108.0, 108.0)])
def test_iterations_do_not_grow_with_size(spacing):
    counts = []
    for size in (24, 96):
        level = network(shell(size, spacing), spacing)
        rhs = np.zeros(level.size + 2, np.float32)
        rhs[1:-1] = level.wall[1:-1] * (np.arange(level.size) % 2)
        counts.append(Multigrid(level, spacing).solve(rhs, 1e-6, 200)[1])
    assert max(counts) <= 14
    assert counts[1] <= counts[0] + 4


def test_stated_residual_is_that_of_the_answer():
    level = network(shell(48, (1.0, 1.0, 1.0)), (1.0, 1.0, 1.0))
    rhs = np.zeros(level.size + 2, np.float32)
    rhs[1:-1] = level.wall[1:-1]
    before = rhs[1:-1].astype(float)
    u, _, residual = Multigrid(level, (1.0, 1.0, 1.0)).solve(rhs, 1e-6, 200)
    actual = np.linalg.norm(before - matrix(level) @ u[1:-1]) / np.linalg.norm(before)
    assert residual <= 1e-6
    assert actual <= 2e-6


def test_cycle_is_symmetric_and_positive():
    level = network(shell(24, (1.0, 1.0, 1.0)), (1.0, 1.0, 1.0))
    grid = Multigrid(level, (1.0, 1.0, 1.0))
    generator = np.random.default_rng(3)
    a, b, ma, mb = (np.zeros(level.size + 2, np.float32) for _ in range(4))
    a[1:-1], b[1:-1] = generator.standard_normal((2, level.size))
    grid.cycle(ma, a)
    grid.cycle(mb, b)
    assert float(ma @ b) == pytest.approx(float(a @ mb), rel=1e-3, abs=1e-3)
    assert ma @ a > 0


def test_voxels_without_walls_or_neighbours_stay_at_zero():
    mask = np.zeros((3, 3, 3), bool)
    mask[0, 0, 0] = mask[2, 2, 2] = True
    level = network(mask, (1.0, 1.0, 1.0), wall=np.array([0.0, 2.0]))
    rhs = np.array([0, 0, 2, 0], np.float32)
    u, _, residual = Multigrid(level, (1.0, 1.0, 1.0)).solve(rhs, 1e-6, 50)
    np.testing.assert_array_equal(u, [0, 0, 1, 0])
    assert residual <= 1e-6
