"""Closing by a ball is that of the textbook, whole or by blocks, at the volume's faces too."""

import numpy as np
import pytest
import scipy.ndimage as ndi
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.morphology import ball as textbook_ball

from cytomill.kernels.blocks import grid, grow, region_slices
from cytomill.kernels.closing import BORDERS, ball, binary_closing, canvas_for, close_canvas


def textbook_closing(mask, footprint, border):
    if border == "zero":
        return ndi.binary_closing(mask, footprint)
    margin = [(size // 2, size // 2) for size in footprint.shape]
    padded = np.pad(mask, [(2 * before, 2 * after) for before, after in margin])
    closed = ndi.binary_closing(padded, footprint)
    return closed[tuple(slice(2 * m, closed.shape[i] - 2 * m) for i, (m, _) in enumerate(margin))]


@pytest.mark.parametrize("radius", range(6))
def test_a_radius_in_voxels_gives_the_usual_ball(radius):
    assert np.array_equal(ball(radius).footprint, textbook_ball(radius).astype(bool))


def test_a_radius_in_nm_gives_the_voxels_within_that_distance():
    element = ball(60.0, (50.0, 10.0, 20.0))
    assert element.reach == (1, 6, 3)
    assert element.halo == (2, 12, 6)
    z, y, x = np.mgrid[-1:2, -6:7, -3:4]
    assert np.array_equal(element.footprint, (50 * z) ** 2 + (10 * y) ** 2 + (20 * x) ** 2 <= 3600)
    # On the surface, where floating point alone would lose the voxel.
    assert ball(0.3, (0.1, 0.1, 0.1)).reach == (3, 3, 3)
    assert ball(30.0, (50.0, 10.0, 10.0)).reach == (0, 3, 3)


@pytest.mark.parametrize("radius, voxel_size", [(-1, (1, 1, 1)), (np.nan, (1, 1, 1)), (1, (1, 0, 1))])
def test_an_impossible_ball_is_refused(radius, voxel_size):
    with pytest.raises(ValueError, match="must be"):
        ball(radius, voxel_size)


def test_an_unknown_border_is_refused():
    with pytest.raises(ValueError, match="border must be one of pad, zero"):
        binary_closing(np.zeros((2, 2, 2), bool), ball(1), "reflect")


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(*[st.integers(1, 14)] * 3),
    block=st.tuples(*[st.integers(1, 14)] * 3),
    density=st.floats(0, 0.6),
    element=st.sampled_from([ball(r) for r in range(4)] + [ball(25, (20, 10, 6)), ball(3, (5, 1, 1))]),
    border=st.sampled_from(BORDERS),
)
def test_blocks_close_like_the_whole_volume_bit_for_bit(seed, shape, block, density, element, border):
    mask = np.random.default_rng(seed).random(shape) < density
    expected = textbook_closing(mask, element.footprint, border)
    assert np.array_equal(binary_closing(mask, element, border), expected)
    for region in grid(shape, block):
        read, _ = grow(region, element.halo, shape)
        canvas = canvas_for(region, element)
        within = tuple(
            slice(low - start + halo, high - start + halo)
            for (low, high), (start, _), halo in zip(read, region, element.halo, strict=True)
        )
        canvas[within] = mask[region_slices(read)]
        closed = close_canvas(canvas, region, shape, element, border)
        assert np.array_equal(closed, expected[region_slices(region)])


def test_a_particle_at_the_face_survives_padding_and_not_zeros():
    mask = np.zeros((5, 5, 5), bool)
    mask[0:2, 1:3, 3:5] = True
    assert binary_closing(mask, ball(1), "pad").sum() == mask.sum()
    assert not binary_closing(mask, ball(1), "zero")[0].any()
