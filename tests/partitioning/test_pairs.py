"""Shells by NE–PM pairs: right on phantoms, exact by their rule, the same however they are computed."""

import types

import numpy as np
import pytest
from array_modules import needs_gpu
from hypothesis import given, settings
from hypothesis import strategies as st

from cytomill.partitioning.pairing import (
    every_nth_on_curve,
    find_pairs,
    nearest_directions,
    nucleus_center,
    surface_points,
)
from cytomill.partitioning.pairs import close_shells, pairs_shells
from cytomill.partitioning.shell_surfaces import shells_from_pairs

CENTRE = np.array([20.2, 21.1, 19.7])
RADII = (6.0, 18.0)


def spheres(shape=(41, 43, 40), centre=CENTRE, radii=RADII, voxel=(1.0, 1.0, 1.0)):
    """Concentric spheres in units of the smallest voxel, and the true position in between."""
    grid = np.stack(
        np.meshgrid(*(np.arange(n) * v for n, v in zip(shape, voxel, strict=True)), indexing="ij"), -1
    )
    distance = np.linalg.norm(grid - centre, axis=-1)
    inner, outer = radii
    return distance <= inner, distance <= outer, np.clip((distance - inner) / (outer - inner), 0, 1)


def right_fraction(shells, nucleus, cell, position, n):
    where = cell & ~nucleus
    return (shells[where] == np.minimum(n, np.floor(n * position[where]) + 1)).mean()


def other_numpy():
    """An array module that is not NumPy itself, so that all directions are compared with all."""
    module = types.ModuleType("arrays")
    for name in ("asarray", "where", "arange"):
        setattr(module, name, getattr(np, name))
    return module


def load_phantom(shared_dir, name):
    packed = np.load(shared_dir / "golden" / "partitioning" / f"{name}_input.npz")
    shape = tuple(packed["shape"])
    nucleus, cell = (
        np.unpackbits(packed[key])[: np.prod(shape)].reshape(shape).astype(bool) for key in ("ne", "pm")
    )
    positions = {}
    for key in ("t_ray", "t_edt"):
        positions[key] = np.zeros(shape)
        positions[key][cell & ~nucleus] = packed[key] / 65535
    return nucleus, cell, positions


@pytest.mark.parametrize(("name", "target"), [("phantom_spheres", 0.985), ("phantom_dent", 0.965)])
def test_shells_of_the_phantoms_are_right(shared_dir, name, target):
    nucleus, cell, position = load_phantom(shared_dir, name)
    shells, info = pairs_shells(nucleus, cell, 8)
    assert right_fraction(shells, nucleus, cell, position["t_ray"], 8) > target
    assert not shells[~cell | nucleus].any()
    assert shells[cell & ~nucleus].all()
    assert info.pairs > 5000
    assert info.dropped_pairs == 0


def test_shells_are_right_for_flat_voxels():
    voxel = (2.7, 1.0, 1.0)
    nucleus, cell, position = spheres((23, 63, 62), (29.7, 31.2, 30.4), (9.0, 27.0), voxel)
    shells, info = pairs_shells(nucleus, cell, 8, np.array(voxel) * 108)
    assert right_fraction(shells, nucleus, cell, position, 8) > 0.95
    assert info.median_length_nm == pytest.approx(18 * 108, rel=0.01)
    # Taken for cubes, the same masks have other shells.
    taken_for_cubes, _ = pairs_shells(nucleus, cell, 8)
    assert (taken_for_cubes != shells).any()


def test_every_shell_of_a_sphere_is_equally_thick():
    nucleus, cell, position = spheres()
    shells, _ = pairs_shells(nucleus, cell, 4)
    for shell in range(1, 5):
        low, high = (shell - 1) / 4, shell / 4
        found = position[shells == shell]
        expected = position[(position > low) & (position < high) & cell & ~nucleus]
        assert found.size == pytest.approx(expected.size, rel=0.05)
        assert found.min() > low - 0.06
        assert found.max() < high + 0.06


def test_a_single_slice_is_partitioned_in_its_plane():
    nucleus, cell, position = spheres((1, 61, 60), (0.0, 30.2, 29.1), (8.0, 26.0))
    shells, info = pairs_shells(nucleus, cell, 6)
    assert right_fraction(shells, nucleus, cell, position, 6) > 0.95
    points = surface_points(cell)
    assert (points[:, 0] == 0).all()
    # Every third point of a line stands for every eighth of a surface.
    assert len(points) / 3.5 < info.pairs < len(points) / 1.5


def test_a_face_that_cuts_the_cell_is_no_membrane():
    nucleus, cell, position = spheres()
    cut = int(CENTRE[0])
    cut_faces = np.zeros((3, 2), bool)
    cut_faces[0, 0] = True
    half = nucleus[cut:], cell[cut:], position[cut:]
    assert surface_points(half[1], cut_faces)[:, 0].min() > -0.5
    shells, _ = pairs_shells(half[0], half[1], 5, cut_faces=cut_faces)
    assert right_fraction(shells, *half, 5) > 0.95
    # Taken for a membrane, the face would draw the outer shells along the cut.
    closed, _ = pairs_shells(half[0], half[1], 5)
    assert right_fraction(closed, *half, 5) < 0.93


def test_surface_points_lie_on_the_surface():
    nucleus, cell, _ = spheres()
    for mask, radius in ((nucleus, RADII[0]), (cell, RADII[1])):
        away = np.linalg.norm(surface_points(mask) - CENTRE, axis=1) - radius
        assert abs(away.mean()) < 0.1
        assert away.std() < 0.15
    assert np.allclose(nucleus_center(nucleus), CENTRE, atol=0.1)


def brute_shells(pairs, mask, n, size):
    """The documented rule, written down voxel by voxel."""
    result = np.zeros(mask.shape, np.uint8)
    ne, vector = pairs[:, :3] * size, (pairs[:, 3:] - pairs[:, :3]) * size
    for voxel in np.argwhere(mask):
        at = voxel * size
        squares = np.stack([((ne + k / n * vector - at) ** 2).sum(axis=1) for k in range(n + 1)])
        distance = np.sqrt(squares.min(axis=1))
        k = int(distance.argmin())
        if k in (0, n):
            result[tuple(voxel)] = max(k, 1)
            continue
        ratio = distance[k + 1] / (distance[k - 1] + distance[k + 1])
        nearest = int(squares[k].argmin())
        t = (at - ne[nearest]) @ vector[nearest] / (vector[nearest] @ vector[nearest])
        inner = ratio > 0.6 or (ratio >= 0.4 and t < k / n)
        result[tuple(voxel)] = k if inner else k + 1
    return result


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(1, 60), st.booleans())
def test_shells_follow_the_60_40_rule_exactly(seed, n, count, flat):
    rng = np.random.default_rng(seed)
    shape = (1 if flat else 7, 9, 11)
    pairs = rng.random((count, 6)) * np.tile(shape, 2)
    mask = rng.random(shape) < 0.7
    size = rng.uniform(0.5, 3, 3)
    assert np.array_equal(shells_from_pairs(pairs, mask, n, size), brute_shells(pairs, mask, n, size))


def test_threads_do_not_change_the_shells():
    nucleus, cell, _ = spheres()
    alone, info = pairs_shells(nucleus, cell, 7)
    together, other_info = pairs_shells(nucleus, cell, 7, workers=3)
    assert np.array_equal(alone, together)
    assert info == other_info


def test_shells_do_not_depend_on_the_unit_or_on_the_crop():
    nucleus, cell, _ = spheres()
    shells, _ = pairs_shells(nucleus, cell, 6)
    assert np.array_equal(shells, pairs_shells(nucleus, cell, 6, (256, 256, 256))[0])
    wider = [np.pad(mask, ((3, 1), (2, 2), (1, 4))) for mask in (nucleus, cell)]
    inner = pairs_shells(*wider, 6)[0][3:-1, 2:-2, 1:-4]
    # The points' order along the curve depends on their box alone, and their places round differently.
    assert (inner == shells).mean() > 0.9999


def grid_points(radius):
    """Points of a lattice: many lie in exactly the same direction, or in mirrored ones."""
    grid = np.argwhere(np.ones((2 * radius + 1,) * 3)) - radius
    away = np.abs(grid).max(axis=1)
    return grid[away >= radius - 1]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 90), st.booleans())
def test_tree_and_comparison_of_all_find_the_same_directions(seed, count, lattice):
    rng = np.random.default_rng(seed)
    if lattice:
        points = [rng.integers(-3, 4, (n, 3)).astype(float) for n in (40, count)]
        queries, targets = (p[np.abs(p).any(axis=1)] for p in points)
        if not len(targets):
            return
    else:
        queries, targets = rng.normal(size=(40, 3)), rng.normal(size=(count, 3))
    queries, targets = (p / np.linalg.norm(p, axis=1)[:, None] for p in (queries, targets))
    by_tree = nearest_directions(queries, targets)
    assert np.array_equal(by_tree, nearest_directions(queries, targets, other_numpy()))
    dot = (queries[:, None, 0] * targets[None, :, 0] + queries[:, None, 1] * targets[None, :, 1]) + (
        queries[:, None, 2] * targets[None, :, 2]
    )
    assert np.array_equal(by_tree, dot.argmax(axis=1))


@pytest.mark.parametrize("step", [1, 8])
def test_pairs_are_identical_on_another_array_module(step):
    ne, pm = grid_points(3), grid_points(9)
    pairs = find_pairs(np.zeros(3), ne, pm, step, (3, 1, 1))
    assert pairs.dtype == ne.dtype
    assert np.array_equal(pairs, find_pairs(np.zeros(3), ne, pm, step, (3, 1, 1), xp=other_numpy()))


@pytest.mark.gpu
def test_pairs_are_identical_on_a_gpu():
    cupy = needs_gpu()
    nucleus, cell, _ = spheres()
    points = surface_points(nucleus), surface_points(cell)
    for ne, pm in (points, (grid_points(3), grid_points(9))):
        center = ne.mean(axis=0)
        pairs = find_pairs(center, ne, pm, 1, (2.7, 1, 1))
        assert np.array_equal(pairs, find_pairs(center, ne, pm, 1, (2.7, 1, 1), xp=cupy))


def test_partners_have_the_smallest_physical_angle():
    size = np.array([3.0, 1.0, 1.0])
    rng = np.random.default_rng(2)
    ne, pm = rng.normal(size=(50, 3)) * 3, rng.normal(size=(70, 3)) * 9
    pairs = find_pairs(np.zeros(3), ne, pm, 1, size)

    def angles(of, to):
        unit = [p * size / np.linalg.norm(p * size, axis=-1, keepdims=True) for p in (of, to)]
        return unit[0] @ unit[1].T

    table = angles(ne, pm)
    expected = {(i, int(table[i].argmax())) for i in range(50)} | {
        (int(table[:, j].argmax()), j) for j in range(70)
    }
    assert np.array_equal(pairs, [np.hstack([ne[i], pm[j]]) for i, j in sorted(expected)])


def test_directions_without_a_nuclear_point_are_covered():
    nucleus, cell, _ = spheres()
    ne, pm = surface_points(nucleus), surface_points(cell)
    cap = ne[ne[:, 0] > CENTRE[0] + 3]
    pairs = find_pairs(CENTRE, cap, pm, 8)
    below = pairs[pairs[:, 3] < CENTRE[0] - 12]
    assert len(below) > 0.5 * (pm[:, 0] < CENTRE[0] - 12).sum() / 8


def test_step_samples_evenly_over_the_surface():
    nucleus, cell, _ = spheres()
    ne, pm = surface_points(nucleus), surface_points(cell)
    counts = [len(find_pairs(CENTRE, ne, pm, step)) for step in (1, 4, 16)]
    assert counts[0] / counts[1] == pytest.approx(4, rel=0.15)
    assert counts[1] / counts[2] == pytest.approx(4, rel=0.15)
    chosen = pm[every_nth_on_curve(pm, 16)]
    gaps = np.sqrt(((pm[:, None] - chosen[None]) ** 2).sum(-1)).min(axis=1)
    # 16 points take 11 voxels² of the sphere: no gap is wider than a few of their patches.
    assert gaps.max() < 6
    with pytest.raises(ValueError, match="step must be a whole number from 1 on, got 0"):
        find_pairs(CENTRE, ne, pm, 0)


def test_limits_of_length_are_physical_and_optional():
    nucleus, cell, _ = spheres(centre=CENTRE + [3, 0, 0])
    shifted = np.roll(nucleus, -5, axis=0)
    ne, pm = surface_points(shifted), surface_points(cell)
    every = find_pairs(nucleus_center(shifted), ne, pm, 8, (100, 100, 100))
    kept = find_pairs(nucleus_center(shifted), ne, pm, 8, (100, 100, 100), 1000, 1500)
    length = 100 * np.linalg.norm(every[:, 3:] - every[:, :3], axis=1)
    assert length.min() < 1000 < 1500 < length.max()
    assert np.array_equal(kept, every[(length >= 1000) & (length <= 1500)])
    shells, info = pairs_shells(shifted, cell, 8, (100, 100, 100), min_length_nm=1000, max_length_nm=1500)
    assert (info.pairs, info.dropped_pairs) == (len(kept), len(every) - len(kept))
    assert shells[cell & ~shifted].all()
    with pytest.raises(ValueError, match="pairs is left: widen the limits of length"):
        pairs_shells(shifted, cell, 8, min_length_nm=1000)


def test_a_cytoplasm_thinner_than_its_shells_is_partitioned():
    nucleus, cell, _ = spheres(radii=(15.0, 17.2))
    shells, _ = pairs_shells(nucleus, cell, 8)
    where = cell & ~nucleus
    assert shells[where].all()
    radius = np.linalg.norm(np.argwhere(where) - CENTRE, axis=1)
    assert np.corrcoef(radius, shells[where])[0, 1] > 0.9


def test_a_nucleus_that_touches_the_membrane_leaves_nothing_unassigned():
    nucleus, cell, _ = spheres()
    moved = np.roll(nucleus, 12, axis=1) & cell
    shells, _ = pairs_shells(moved, cell, 8)
    assert shells[cell & ~moved].all()
    assert set(np.unique(shells)) == set(range(9))


def test_closing_fills_pits_without_favour():
    shells = np.zeros((7, 7, 8), np.uint8)
    shells[1:-1, 1:-1, 1:-1] = 1
    shells[1:-1, 1:-1, 4:-1] = 2
    plain, moved = close_shells(shells)
    assert moved == 0
    assert np.array_equal(plain, shells)
    pitted = shells.copy()
    pitted[3, 3, 2] = 2
    pitted[3, 3, 5] = 1
    closed, moved = close_shells(pitted)
    assert moved == 2
    assert np.array_equal(closed, shells)


def test_input_that_is_no_cell_gets_a_sentence():
    nucleus, cell, _ = spheres()
    empty = np.zeros_like(cell)
    for masks, words in (
        ((empty, cell), "the nucleus has no voxel"),
        ((cell, nucleus), "reaches outside of the cell"),
        ((cell, cell), "no cytoplasm"),
        ((nucleus[1:], cell), "same shape"),
        ((nucleus.astype(np.uint8), cell), "must be a bool"),
        ((nucleus[0], cell[0]), "must be a bool"),
    ):
        with pytest.raises(ValueError, match=words):
            pairs_shells(*masks, 8)
    for n in (0, 251, 2.5):
        with pytest.raises(ValueError, match="number of shells must be 1 to 250"):
            pairs_shells(nucleus, cell, n)
    with pytest.raises(ValueError, match="three positive numbers"):
        pairs_shells(nucleus, cell, 8, (0, 1, 1))
    with pytest.raises(ValueError, match=r"cut_faces needs the shape \(3, 2\)"):
        pairs_shells(nucleus, cell, 8, cut_faces=np.zeros(3, bool))
    with pytest.raises(ValueError, match="pairs need NE points"):
        find_pairs(CENTRE, np.empty((0, 3)), np.ones((4, 3)))
    with pytest.raises(ValueError, match="shells need NE-PM pairs"):
        shells_from_pairs(np.empty((0, 6)), cell, 8)
    with pytest.raises(ValueError, match="all points of the NE or the PM lie at the centre"):
        find_pairs(CENTRE, CENTRE[None], np.ones((4, 3)))
