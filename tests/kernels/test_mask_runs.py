"""Masks as runs are the same masks: encoding, set operations, counts, holes and components."""

import numpy as np
import pytest
import scipy.ndimage as ndi
from hypothesis import given, settings
from hypothesis import strategies as st

from cytomill.kernels.mask_runs import (
    MaskRuns,
    bounding_box,
    complement_of,
    crop_runs,
    difference_of,
    empty_runs,
    encode_runs,
    intersection_of,
    join_slabs,
    merge_touching,
    paint_mask,
    place_runs,
    restrict_labels,
    select_labels,
    union_of,
)
from cytomill.kernels.run_tables import split_labels, tabulate
from cytomill.kernels.run_topology import (
    contact_fraction,
    count_overlap,
    exposed_faces,
    fill_holes,
    find_holes,
    label_components,
    shift_runs,
)

SHAPES = st.tuples(st.integers(1, 7), st.integers(1, 9), st.integers(1, 24))
SEEDS = st.integers(0, 2**32 - 1)


def whole(shape):
    return tuple((0, size) for size in shape)


def runs_of(mask):
    return merge_touching(encode_runs(mask))


def dense(runs, shape):
    return paint_mask(runs, whole(shape), shape[1])


def same(first, second):
    return all(
        np.array_equal(getattr(first, name), getattr(second, name))
        and getattr(first, name).dtype == getattr(second, name).dtype
        for name in ("row", "start", "stop")
    )


@settings(max_examples=50, deadline=None)
@given(
    seed=SEEDS,
    shape=SHAPES,
    density=st.floats(0, 1),
    dtype=st.sampled_from([bool, np.uint8, np.int16, np.uint32, np.int64]),
    step=st.integers(1, 8),
)
def test_slabs_of_any_size_give_the_volumes_runs(seed, shape, density, dtype, step):
    rng = np.random.default_rng(seed)
    labels = ((rng.random(shape) < density) * rng.integers(1, 4, shape)).astype(dtype)
    runs = encode_runs(labels)
    slabs = [encode_runs(labels[z : z + step], z) for z in range(0, shape[0], step)]
    joined = join_slabs(slabs)
    assert same(joined, runs)
    assert np.array_equal(joined.value, runs.value)
    assert (runs.row.dtype, runs.start.dtype, runs.value.dtype) == (np.int64, np.int32, np.int64)
    back = np.zeros(shape, np.int64).reshape(-1, shape[2])
    for row, start, stop, value in zip(runs.row, runs.start, runs.stop, runs.value, strict=True):
        back[row, start:stop] = value
    assert np.array_equal(back.reshape(shape), labels.astype(np.int64))


def test_no_slab_at_all_is_an_empty_volume():
    assert join_slabs([]).count == 0
    assert empty_runs().voxel_count == 0
    assert tabulate(join_slabs([]), (2, 3, 4)).value.size == 0
    with pytest.raises(ValueError, match="empty mask"):
        bounding_box(empty_runs(), 3)
    with pytest.raises(ValueError, match="faces must be one of"):
        find_holes(empty_runs(), (2, 3, 4), "ajar")


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, shape=SHAPES, densities=st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_set_operations_are_those_of_arrays_and_keep_runs_merged(seed, shape, densities):
    rng = np.random.default_rng(seed)
    first, second = (rng.random(shape) < density for density in densities)
    labels = first * rng.integers(1, 4, shape)
    # Unmerged runs on purpose: touching labels must not show in the result.
    a, b = encode_runs(labels), runs_of(second)
    for operation, expected in (
        (union_of, first | second),
        (intersection_of, first & second),
        (difference_of, first & ~second),
    ):
        result = operation(a, b)
        assert same(result, runs_of(expected))
        assert result.voxel_count == expected.sum()
    assert same(difference_of(b, a), runs_of(second & ~first))
    assert same(complement_of(a, shape), runs_of(~first))
    assert same(select_labels(a, [1, 3]), runs_of(np.isin(labels, [1, 3])))
    assert same(select_labels(a), runs_of(first))


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, shape=SHAPES, density=st.floats(0, 1), scale=st.sampled_from([1, 10**9]))
def test_one_pass_counts_what_arrays_count(seed, shape, density, scale):
    rng = np.random.default_rng(seed)
    labels = (rng.random(shape) < density) * rng.integers(1, 4, shape) * scale
    runs = encode_runs(labels)
    table = tabulate(runs, shape)
    masks = split_labels(runs, table)
    assert table.value.tolist() == [value for value in np.unique(labels) if value]
    for index, value in enumerate(table.value):
        mask = labels == value
        where = np.argwhere(mask)
        assert table.voxel_count[index] == mask.sum()
        assert np.array_equal(table.box[index], np.stack([where.min(0), where.max(0) + 1], 1))
        assert bounding_box(masks[index], shape[1]) == tuple(map(tuple, table.box[index].tolist()))
        faces = [[mask.take(end, axis).sum() for end in (0, -1)] for axis in range(3)]
        assert table.face_voxels[index].tolist() == faces
        assert same(masks[index], runs_of(mask))


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, shape=SHAPES, density=st.floats(0, 1), data=st.data())
def test_a_box_is_cut_painted_and_put_back(seed, shape, density, data):
    mask = np.random.default_rng(seed).random(shape) < density
    runs = runs_of(mask)
    # Boxes may reach beyond the volume, which is background there.
    region = []
    for size in shape:
        low = data.draw(st.integers(-3, size + 1))
        region.append((low, data.draw(st.integers(low + 1, size + 4))))
    region = tuple(region)
    padded = np.pad(mask, 8)
    expected = padded[tuple(slice(low + 8, high + 8) for low, high in region)]
    assert np.array_equal(paint_mask(runs, region, shape[1]), expected)
    cut = crop_runs(runs, region, shape[1])
    assert same(cut, runs_of(np.ascontiguousarray(expected)))
    inside = np.zeros_like(padded)
    inside[tuple(slice(low + 8, high + 8) for low, high in region)] = expected
    assert same(place_runs(cut, region, shape[1]), runs_of(inside[8:-8, 8:-8, 8:-8].copy()))


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, shape=SHAPES, density=st.floats(0.3, 1), connectivity=st.integers(1, 3))
def test_components_and_holes_are_scipys(seed, shape, density, connectivity):
    mask = np.random.default_rng(seed).random(shape) < density
    runs = runs_of(mask)
    label, voxel_count = label_components(runs, shape, connectivity)
    expected, count = ndi.label(mask, ndi.generate_binary_structure(3, connectivity))
    assert voxel_count.size == count
    for component in range(1, count + 1):
        part = dense(runs.take(label == component), shape)
        assert np.unique(expected[part]).size == 1
        assert part.sum() == voxel_count[component - 1] == (expected == expected[part][0]).sum()
    other = np.random.default_rng(seed + 1).random(shape) < 0.5
    shared = count_overlap(runs, label, count, runs_of(other))
    assert shared.tolist() == [
        int((dense(runs.take(label == component), shape) & other).sum()) for component in range(1, count + 1)
    ]
    # In an image the two Z borders are no border: SciPy is asked about the plane alone.
    filled = ndi.binary_fill_holes(mask[0])[None] if shape[0] == 1 else ndi.binary_fill_holes(mask)
    assert same(fill_holes(runs, shape), runs_of(filled))
    assert same(find_holes(runs, shape), runs_of(filled & ~mask))


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, shape=SHAPES, density=st.floats(0.5, 1))
def test_filling_cut_faces_fills_only_what_every_face_surrounds(seed, shape, density):
    mask = np.random.default_rng(seed).random(shape) < density
    label, count = ndi.label(~mask)
    expected = mask.copy()
    for component in range(1, count + 1):
        part = label == component
        inside = shape[0] > 1 or None
        for axis in range(3):
            for end in (0, -1):
                plane = part.take(end, axis)
                if shape[0] > 1:
                    surrounded = ndi.binary_fill_holes(mask.take(end, axis))
                    inside = inside and bool(surrounded[plane].all())
        if shape[0] > 1 and inside:
            expected |= part
    if shape[0] == 1:
        expected = ndi.binary_fill_holes(mask[0])[None]
    assert same(fill_holes(runs_of(mask), shape, "surrounded"), runs_of(expected))


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, shape=SHAPES, density=st.floats(0.5, 1))
def test_closed_faces_leave_only_what_opens_elsewhere(seed, shape, density):
    mask = np.random.default_rng(seed).random(shape) < density
    box = ndi.find_objects(mask.astype(np.uint8))
    expected = np.zeros_like(mask)
    if mask.any():
        label, count = ndi.label(~mask[box[0]])
        for component in range(1, count + 1):
            part = label == component
            leaves = any(
                part.take(end, axis).any()
                for axis in range(3)
                for end, at_face in ((0, box[0][axis].start == 0), (-1, box[0][axis].stop == shape[axis]))
                if not at_face
            )
            expected[box[0]] |= part & (not leaves)
    assert same(find_holes(runs_of(mask), shape, "closed"), runs_of(expected))


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS, shape=SHAPES, density=st.floats(0, 1))
def test_labels_are_restricted_to_a_mask(seed, shape, density):
    rng = np.random.default_rng(seed)
    labels, mask = rng.integers(0, 4, shape), rng.random(shape) < density
    part = restrict_labels(encode_runs(labels), runs_of(mask))
    expected = encode_runs(labels * mask)
    assert same(part, expected)
    assert np.array_equal(part.value, expected.value)


def test_a_closed_membrane_of_one_voxel_is_filled():
    z, y, x = np.ogrid[:21, :21, :21]
    ball = (z - 10) ** 2 + (y - 10) ** 2 + (x - 10) ** 2 <= 64
    membrane = ball & ~ndi.binary_erosion(ball, ndi.generate_binary_structure(3, 3))
    assert same(fill_holes(runs_of(membrane), ball.shape), runs_of(ball))


def test_a_membrane_cut_by_a_face_is_filled_only_on_request():
    z, y, x = np.ogrid[:21, :21, :21]
    ball = z**2 + (y - 10) ** 2 + (x - 10) ** 2 <= 64
    mirrored = np.concatenate([ball[::-1], ball[1:]])
    inner = ndi.binary_erosion(mirrored, ndi.generate_binary_structure(3, 3))[20:]
    membrane = runs_of(ball & ~inner)
    assert same(fill_holes(membrane, ball.shape), membrane)
    assert same(fill_holes(membrane, ball.shape, "surrounded"), runs_of(ball))


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS, shape=SHAPES, density=st.floats(0, 1), step=st.integers(-3, 3))
def test_shifts_and_exposed_faces_are_those_of_arrays(seed, shape, density, step):
    mask = np.random.default_rng(seed).random(shape) < density
    runs = runs_of(mask)
    for axis in range(3):
        moved = ndi.shift(mask.astype(np.uint8), [step * (a == axis) for a in range(3)], order=0) > 0
        assert same(shift_runs(runs, shape, axis, step), runs_of(moved))
    padded = np.pad(mask, 1).astype(np.int8)
    faces = [np.abs(np.diff(padded, axis=axis)).sum() if shape[axis] > 1 else 0 for axis in range(3)]
    assert exposed_faces(runs, shape).tolist() == faces


def test_contact_is_the_share_of_faces_that_meet_the_other_mask():
    shape = (9, 9, 9)
    cube = np.zeros(shape, bool)
    cube[3:6, 3:6, 3:6] = True
    around = ndi.binary_dilation(cube, ndi.generate_binary_structure(3, 3), iterations=3) & ~cube
    assert contact_fraction(runs_of(cube), runs_of(around), shape) == 1
    beside = np.zeros(shape, bool)
    beside[:, :, 7:] = True
    assert contact_fraction(runs_of(cube), runs_of(beside), shape) == 0
    assert contact_fraction(runs_of(cube), runs_of(beside), shape, gap=1) == pytest.approx(1 / 6)
    assert contact_fraction(empty_runs(), runs_of(beside), shape) == 0
    assert isinstance(runs_of(cube), MaskRuns)
