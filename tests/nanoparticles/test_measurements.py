"""The table of particles is the same whatever the blocks, and means what its columns say."""

import tracemalloc

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal
from skimage.measure import regionprops_table

from cytomill.kernels.blocks import grid, region_slices, scale
from cytomill.kernels.labelling import label_volume
from cytomill.nanoparticles.measurements import (
    COLUMN_METADATA,
    ROW_BYTES,
    measure_unit,
    merge_measurements,
    merging_bytes,
    particle_table,
    particle_tables,
)

VOXEL_SIZE_NM = (50.0, 10.0, 12.0)


def blobs(seed, shape=(10, 24, 30)):
    """Labels of smooth noise, its posterior and an image."""
    rng = np.random.default_rng(seed)
    posterior = rng.random(shape).astype(np.float16)
    labels = label_volume(posterior, 0.75, 0, 1, 2)
    return labels, posterior, rng.integers(0, 2**16, shape, dtype=np.uint16)


def table_by_blocks(labels, posterior, image, block, factors=(1, 1, 1)):
    rows = []
    for region in grid(labels.shape, block):
        own, raw = region_slices(region), region_slices(scale(region, factors))
        rows.append(measure_unit(labels[own], region, posterior[own], image[raw], factors)["particles"])
    return particle_table(merge_measurements({"particles": np.concatenate(rows)}), VOXEL_SIZE_NM)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), block=st.tuples(*[st.integers(2, 30)] * 3))
def test_the_table_is_identical_under_any_blocks(seed, block):
    labels, posterior, image = blobs(seed)
    whole = table_by_blocks(labels, posterior, image, labels.shape)
    assert len(whole) == labels.max()
    assert_frame_equal(table_by_blocks(labels, posterior, image, block), whole, check_exact=True)


def test_the_table_agrees_with_scikit_image():
    labels, posterior, image = blobs(3)
    table = table_by_blocks(labels, posterior, image, (4, 9, 11))
    names = ("label", "bbox", "centroid", "area", "intensity_mean", "intensity_max")
    expected = regionprops_table(labels, image, properties=names)
    weights = regionprops_table(labels, posterior.astype(float), properties=("intensity_mean",))
    assert np.array_equal(table["label"], expected["label"])
    assert np.array_equal(table["voxel_count"], expected["area"])
    for index, axis in enumerate("zyx"):
        assert np.array_equal(table[f"bbox_{axis}0_voxel"], expected[f"bbox-{index}"])
        assert np.array_equal(table[f"bbox_{axis}1_voxel"], expected[f"bbox-{index + 3}"])
        centroid = expected[f"centroid-{index}"]
        assert np.allclose(table[f"centroid_{axis}_voxel"], centroid, rtol=1e-13)
        assert np.allclose(table[f"centroid_{axis}_nm"], centroid * VOXEL_SIZE_NM[index], rtol=1e-13)
    assert np.allclose(table["mean_intensity"], expected["intensity_mean"], rtol=1e-13)
    assert np.array_equal(table["max_intensity"], expected["intensity_max"])
    assert np.allclose(table["mean_posterior"], weights["intensity_mean"], rtol=1e-13)
    volume = table["voxel_count"] * 50 * 10 * 12e-9
    assert np.allclose(table["volume_um3"], volume, rtol=1e-13)
    assert np.allclose(table["posterior_volume_um3"], table["mean_posterior"] * volume, rtol=1e-13)
    assert np.allclose(np.pi / 6 * table["equivalent_diameter_um"] ** 3, volume, rtol=1e-13)


def test_axes_of_a_tilted_ellipsoid_are_its_own_in_physical_units():
    semi_axes_nm, size = np.array([900.0, 500.0, 300.0]), np.array([50.0, 20.0, 20.0])
    centre = np.array([22, 50, 50])
    position = (np.moveaxis(np.indices((45, 101, 101)), 0, -1) - centre) * size
    turn = np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))[0]
    labels = ((((position @ turn) / semi_axes_nm) ** 2).sum(axis=-1) <= 1).astype(np.int32)
    region = tuple((0, length) for length in labels.shape)
    table = particle_table(merge_measurements(measure_unit(labels, region)), size)
    axes = table[["axis_major_um", "axis_middle_um", "axis_minor_um"]].to_numpy()[0]
    assert np.allclose(axes, 2 * semi_axes_nm / 1000, rtol=0.01)


def test_a_single_voxel_has_the_axes_of_its_own_box():
    labels = np.ones((1, 1, 1), np.int32)
    table = particle_table(merge_measurements(measure_unit(labels, ((0, 1),) * 3)), VOXEL_SIZE_NM)
    axes = table[["axis_major_um", "axis_middle_um", "axis_minor_um"]].to_numpy()[0]
    assert np.allclose(axes, 2 * np.sqrt(5 / 12) * np.array([50, 12, 10]) / 1000)


def test_intensities_of_a_block_mean_are_those_of_the_voxels_behind_it():
    rng = np.random.default_rng(8)
    labels = np.zeros((2, 4, 4), np.int32)
    labels[0, 1, 2:] = 1
    image = rng.integers(0, 256, (2, 12, 20), dtype=np.uint8)
    posterior = np.full(labels.shape, 51, np.uint8)
    table = table_by_blocks(labels, posterior, image, (1, 2, 3), (1, 3, 5))
    behind = image[0, 3:6, 10:20]
    assert table["mean_intensity"][0] == behind.sum() / behind.size
    assert table["max_intensity"][0] == behind.max()
    assert table["mean_posterior"][0] == 0.2


def test_the_table_says_that_a_label_is_a_cluster():
    labels, posterior, image = blobs(1)
    table = table_by_blocks(labels, posterior, image, labels.shape)
    assert list(table.columns) == list(COLUMN_METADATA)
    assert "cluster" in table.attrs["columns"]["label"]


def test_what_was_not_measured_is_empty_and_no_particles_give_an_empty_table():
    labels = np.zeros((2, 2, 2), np.int32)
    region = ((0, 2),) * 3
    empty = particle_table(merge_measurements(measure_unit(labels, region)), VOXEL_SIZE_NM)
    assert list(empty.columns) == list(COLUMN_METADATA)
    assert len(empty) == 0
    labels[0, 0, 0] = 1
    bare = particle_table(merge_measurements(measure_unit(labels, region)), VOXEL_SIZE_NM)
    unmeasured = ["mean_intensity", "max_intensity", "mean_posterior", "posterior_volume_um3"]
    assert bare[unmeasured].isna().all(axis=None)
    assert bare.drop(columns=unmeasured).notna().all(axis=None)


@pytest.mark.parametrize("voxel_size_nm", [(50, 10), (50, 0, 10), (50, np.nan, 10)])
def test_a_voxel_size_that_is_none_is_refused(voxel_size_nm):
    sums = merge_measurements(measure_unit(np.zeros((1, 1, 1), np.int32), ((0, 1),) * 3))
    with pytest.raises(ValueError, match="three positive numbers"):
        particle_table(sums, voxel_size_nm)


def many_rows(labels, blocks=1):
    """Sums of labels of one voxel, each seen by several blocks."""
    one = measure_unit(np.ones((1, 1, 1), np.int32), ((5, 6), (6, 7), (7, 8)))["particles"]
    rows = np.repeat(one, labels * blocks, axis=0)
    rows[:, 0] = np.tile(np.arange(1, labels + 1), blocks)
    return rows


def test_a_table_in_parts_is_the_whole_table(monkeypatch):
    sums = merge_measurements({"particles": many_rows(10, blocks=2)})
    whole = particle_table(sums, VOXEL_SIZE_NM)
    monkeypatch.setattr("cytomill.nanoparticles.measurements.PART_ROWS", 4)
    parts = list(particle_tables(sums, VOXEL_SIZE_NM))
    assert [len(part) for part in parts] == [4, 4, 2]
    assert_frame_equal(pd.concat(parts, ignore_index=True), whole)
    assert [len(part) for part in particle_tables(sums[:0], VOXEL_SIZE_NM)] == [0]


def test_many_rows_take_the_memory_that_was_predicted():
    labels, blocks = 200_000, 2
    merge_measurements({"particles": many_rows(10)})  # compiled before anything is measured
    rows = many_rows(labels, blocks)
    tracemalloc.start()
    partials = {"particles": rows}
    sums = merge_measurements(partials)
    merging = tracemalloc.get_traced_memory()[1] + ROW_BYTES * len(rows)
    tracemalloc.reset_peak()
    for part in particle_tables(sums, VOXEL_SIZE_NM):
        assert len(part)
    table = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert max(merging, table) <= merging_bytes(len(rows), labels) <= 1.25 * (merging + table)
