"""Blocks cover a volume once, in raster order, and halos stop at its faces."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cytomill.kernels.blocks import align, grid, grow, region_slices, round_up, scale

sizes = st.tuples(*[st.integers(1, 9)] * 3)


@settings(max_examples=50, deadline=None)
@given(shape=sizes, block=sizes, halo=st.tuples(*[st.integers(0, 3)] * 3))
def test_blocks_cover_every_voxel_once_in_raster_order(shape, block, halo):
    volume = np.arange(np.prod(shape)).reshape(shape)
    seen = np.zeros(shape, int)
    firsts = []
    for region in grid(shape, block):
        seen[region_slices(region)] += 1
        firsts.append(tuple(start for start, _ in region))
        read, inner = grow(region, halo, shape)
        assert np.array_equal(volume[region_slices(read)][inner], volume[region_slices(region)])
        for (low, high), (start, stop), margin, length in zip(read, region, halo, shape, strict=True):
            assert (low, high) == (max(start - margin, 0), min(stop + margin, length))
    assert (seen == 1).all()
    assert firsts == sorted(firsts)


def test_alignment_is_to_whole_multiples_within_the_volume():
    assert round_up(65, 64) == 128
    assert round_up(64, 64) == 64
    assert align((10, 1000, 5000), (8, 1024, 1024), (100, 2000, 3000)) == (16, 1024, 3000)
    assert scale(((1, 3), (0, 2), (4, 5)), (1, 5, 5)) == ((1, 3), (0, 10), (20, 25))


def test_an_empty_block_is_refused():
    with pytest.raises(ValueError, match="at least 1 voxel"):
        grid((4, 4, 4), (4, 0, 4))
