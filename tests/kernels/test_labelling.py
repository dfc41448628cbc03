"""Labels do not depend on how the volume was cut into blocks."""

import tracemalloc
from itertools import permutations

import numpy as np
import pytest
import scipy.ndimage as ndi
from hypothesis import given, settings
from hypothesis import strategies as st

from cytomill.kernels.blocks import grid, grow, region_shape, region_slices
from cytomill.kernels.closing import BORDERS, ball
from cytomill.kernels.components import label_runs
from cytomill.kernels.labelling import (
    LabelMap,
    label_unit,
    label_volume,
    masks_unit_bytes,
    merge_blocks,
    paint_unit,
    threshold_mask,
    unit_bytes,
)
from cytomill.nanoparticles.measurements import measure_unit


def plain_labels(posterior, threshold, radius, connectivity, min_size, border):
    """Label with SciPy, all at once."""
    mask = posterior >= np.float16(threshold)
    if radius:
        margin = 2 * radius if border == "pad" else 0
        closed = ndi.binary_closing(np.pad(mask, margin), ball(radius).footprint)
        mask = closed[tuple(slice(margin, size + margin) for size in mask.shape)]
    labels, _ = ndi.label(mask, ndi.generate_binary_structure(3, connectivity))
    labels[(np.bincount(labels.ravel()) < min_size)[labels]] = 0
    ids, first = np.unique(labels, return_index=True)
    table = np.zeros(labels.max() + 1, np.int32)
    order = ids[np.argsort(first)]
    order = order[order > 0]
    table[order] = np.arange(1, order.size + 1)
    return table[labels]


@settings(max_examples=120, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(*[st.integers(1, 16)] * 3),
    block=st.tuples(*[st.integers(1, 16)] * 3),
    threshold=st.floats(0.3, 0.99),
    radius=st.integers(0, 3),
    connectivity=st.sampled_from([1, 2, 3]),
    min_size=st.integers(0, 12),
    border=st.sampled_from(BORDERS),
)
def test_any_blocks_give_the_labels_of_the_whole_volume(
    seed, shape, block, threshold, radius, connectivity, min_size, border
):
    posterior = np.random.default_rng(seed).random(shape).astype(np.float16)
    expected = plain_labels(posterior, threshold, radius, connectivity, min_size, border)
    settings_ = (threshold, radius, connectivity, min_size, border)
    assert np.array_equal(label_volume(posterior, *settings_), expected)
    assert np.array_equal(label_volume(posterior, *settings_, block=block), expected)


@pytest.mark.parametrize("connectivity", [1, 2, 3])
@pytest.mark.parametrize(
    "step", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 0, -1), (0, 1, -1), (1, -1, 1), (1, 1, 1)]
)
def test_voxels_meet_over_faces_edges_and_corners_of_blocks(connectivity, step):
    posterior = np.zeros((8, 8, 8), np.float16)
    # Both voxels touch the grid's central corner, from opposite sides along each axis of the step.
    here = np.array([4 if direction < 0 else 3 for direction in step])
    for voxel in (here, here + step):
        posterior[tuple(voxel)] = 1
    labels = label_volume(posterior, 0.5, 0, connectivity, 1, block=(4, 4, 4))
    assert labels.max() == (1 if np.abs(step).sum() <= connectivity else 2)


@pytest.mark.parametrize("axis, along", list(permutations(range(3), 2)))
def test_a_hook_on_a_face_does_not_catch_what_lies_in_its_mouth(axis, along):
    # A U whose ends lie on the face of one block, at 1 and 3; a voxel of the next block faces 2.
    plane = np.zeros((8, 8), np.float16)
    plane[1:4, 2] = 1
    plane[1, 3] = plane[3, 3] = 1
    plane[2, 4] = 1
    third = ({0, 1, 2} - {axis, along}).pop()
    posterior = np.zeros((8, 8, 8), np.float16)
    np.moveaxis(posterior, (along, axis, third), (0, 1, 2))[:, :, 5] = plane
    labels = label_volume(posterior, 0.5, 0, 1, 1, block=(4, 4, 4))
    assert labels.max() == 2
    assert label_volume(posterior, 0.5, 0, 2, 1, block=(4, 4, 4)).max() == 1


def test_a_thread_through_every_block_is_one_label():
    posterior = np.zeros((6, 6, 64), np.float16)
    posterior[3, 2, :] = 1
    posterior[:, 2, 40] = 1
    labels = label_volume(posterior, 0.5, 0, 1, 1, block=(1, 1, 1))
    assert labels.max() == 1
    assert (labels > 0).sum() == 64 + 5


def test_the_block_map_survives_being_sent_as_arrays():
    posterior = (np.random.default_rng(1).random((5, 9, 9)) > 0.8).astype(np.float16)
    element, shape = ball(1), posterior.shape
    partials, pieces, regions = [], [], grid(shape, (2, 9, 5))
    for region in regions:
        read, _ = grow(region, element.halo, shape)
        runs, partial = label_unit(posterior[region_slices(read)], region, shape, 0.5, element, 2, "pad")
        for array in partial.values():
            assert array.dtype in (np.int32, np.int64)
        pieces.append(runs)
        partials.append(partial)
    joined = {name: np.concatenate([partial[name] for partial in partials]) for name in partials[0]}
    label_map = LabelMap(**merge_blocks(joined, 2, 3).as_arrays())
    expected = label_volume(posterior, 0.5, 1, 2, 3, "pad")
    assert label_map.count == expected.max()
    assert np.array_equal(label_map.voxel_count, np.bincount(expected.ravel())[1:])
    ids, first = np.unique(expected, return_index=True)
    assert np.array_equal(label_map.first_voxel, first[ids > 0])
    for index, region in enumerate(regions):
        final = paint_unit(pieces[index], region_shape(region), label_map.of_block(index))
        assert final.dtype == np.int32
        assert np.array_equal(final, expected[region_slices(region)])


def test_float16_is_compared_with_the_threshold_as_float16():
    values = np.arange(2**16, dtype=np.uint32).astype(np.uint16).view(np.float16).reshape(1, 256, 256)
    for threshold in (0.5, 0.9, 0.95, 1.0, 1e-3):
        assert np.array_equal(threshold_mask(values, threshold), values >= np.float16(threshold))


@pytest.mark.parametrize(
    "threshold, lowest", [(0.2, 51), (0.5, 128), (0.6, 153), (0.95, 243), (1.0, 255), (0.001, 1)]
)
def test_uint8_is_compared_with_255_times_the_threshold_rounded_up(threshold, lowest):
    values = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    assert np.flatnonzero(threshold_mask(values, threshold))[0] == lowest


@pytest.mark.parametrize("threshold", [0.0, -0.1, 1.01, np.nan])
def test_a_threshold_out_of_range_is_refused(threshold):
    with pytest.raises(ValueError, match="must lie in"):
        threshold_mask(np.zeros((1, 1, 1), np.float16), threshold)


def test_bad_input_is_refused_with_a_sentence():
    with pytest.raises(ValueError, match="float16, or uint8"):
        label_volume(np.zeros((2, 2, 2), np.float32))
    with pytest.raises(ValueError, match=r"is \(Z, Y, X\)"):
        label_volume(np.zeros((2, 2), np.float16))
    with pytest.raises(ValueError, match="posterior read has"):
        label_unit(np.zeros((2, 2, 2), np.float16), ((0, 2), (0, 2), (0, 2)), (9, 9, 9), 0.5, ball(1))
    with pytest.raises(ValueError, match="run the components stage again"):
        paint_unit(label_runs(np.ones((1, 1, 1), bool), 1), (1, 1, 1), np.zeros(1, np.int32))


def test_a_volume_without_particles_has_no_labels():
    labels = label_volume(np.zeros((4, 5, 6), np.float16), block=(2, 2, 2))
    assert labels.dtype == np.int32
    assert not labels.any()
    assert label_volume(np.zeros((0, 5, 6), np.float16)).shape == (0, 5, 6)


def peak_bytes(call):
    """Peak of what NumPy allocates during a call, less a page for Python's own objects."""
    # What is compiled on the first call is no part of a unit.
    call()
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1] - 4096
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("radius", [0, 1, 3])
@pytest.mark.parametrize("dtype", [np.float16, np.uint8])
def test_memory_of_labelling_a_block_is_as_predicted(radius, dtype):
    shape, element = (40, 160, 160), ball(radius)
    region, block = ((10, 30), (20, 140), (20, 140)), (20, 120, 120)
    read, _ = grow(region, element.halo, shape)
    whole = np.zeros(shape, dtype)
    whole[12:20:4, 30:50, 30:50] = 1
    measured = peak_bytes(lambda: label_unit(whole[region_slices(read)].copy(), region, shape, 0.5, element))
    assert measured <= unit_bytes(block, element, dtype, fill=0.01) <= 1.1 * measured


def test_a_block_where_the_volume_ends_reads_less():
    shape, element, region = (20, 160, 160), ball(3), ((0, 20), (20, 140), (20, 140))
    read = region_shape(grow(region, element.halo, shape)[0])
    block = region_shape(region)
    measured = peak_bytes(lambda: label_unit(np.zeros(read, np.float16), region, shape, 0.5, element))
    predicted = unit_bytes(block, element, fill=0.01, read=read)
    assert measured <= predicted <= 1.1 * measured
    assert predicted < unit_bytes(block, element, fill=0.01)


@pytest.mark.parametrize("factors", [(1, 1, 1), (1, 2, 2)])
def test_memory_of_measuring_a_block_is_as_predicted(factors):
    block = (20, 120, 120)
    whole = np.zeros(block, bool)
    whole[12:20:4, 30:50, 30:50] = 1
    runs = label_runs(whole, 2)
    block_map = np.arange(runs.voxel_count.size + 1, dtype=np.int32)
    region = tuple((0, size) for size in block)

    def measure():
        labels = paint_unit(runs, block, block_map)
        image = np.zeros(np.multiply(block, factors), np.uint8)
        return measure_unit(labels, region, np.zeros(block, np.float16), image, factors)

    measured = peak_bytes(measure)
    assert measured <= masks_unit_bytes(block, factors=factors, fill=0.01) <= 1.1 * measured
