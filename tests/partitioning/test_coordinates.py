"""Coordinates of the voxels of shells: the share asked for, the same ones for the same seed."""

import numpy as np
import pytest
from xvg_cases import shells

from cytomill.partitioning.coordinates import count_ids, sample_coordinates


def test_the_sample_has_the_share_asked_for_and_is_the_same_again():
    partition = shells((20, 30, 31))
    counts = count_ids(partition)
    sample = sample_coordinates(partition, 0.1, seed=5)
    again = sample_coordinates(partition, 0.1, seed=5)
    other = sample_coordinates(partition, 0.1, seed=6)
    assert list(sample) == [1, 2, 3, 4]
    for i, points in sample.items():
        assert len(points) == int(0.1 * counts[i]) == len(np.unique(points, axis=0))
        assert (partition[tuple(points.T)] == i).all()
        assert np.array_equal(points, again[i])
        assert not np.array_equal(points, other[i])


def test_every_voxel_is_as_likely_as_any_other():
    partition = np.ones((1, 1, 200), np.uint8)
    often = np.zeros(200)
    for seed in range(600):
        often[sample_coordinates(partition, 0.25, seed)[1][:, 2]] += 1
    # 600 draws of probability ¼: mean 150, standard deviation 10.6.
    assert often.sum() == 600 * 50 and abs(often - 150).max() < 5 * 10.6
    assert abs(often[:100].sum() - often[100:].sum()) < 1200


def test_at_least_one_voxel_of_each_shell_is_taken_and_all_at_density_one():
    partition = shells()
    partition[0, 0, 0] = 9
    assert len(sample_coordinates(partition, 0.001)[9]) == 1
    full = sample_coordinates(partition, 1.0)
    assert all(np.array_equal(full[i], np.argwhere(partition == i)) for i in full)


@pytest.mark.parametrize("density", [0, -1, 1.5, float("nan")])
def test_a_density_that_is_no_share_is_refused(density):
    with pytest.raises(ValueError, match="sampling density"):
        sample_coordinates(shells(), density)


@pytest.mark.parametrize(
    ("partition", "sentence"),
    [
        (np.full((2, 2, 2), -1), "between 0 and 65535"),
        (np.full((2, 2, 2), 0.5), "fractions"),
        (np.full((2, 2, 2), np.nan), "between 0"),
        (np.zeros(4), "1 axes"),
        (np.full((2, 2, 2), "a"), "whole numbers"),
    ],
)
def test_what_is_no_partition_is_refused(partition, sentence):
    with pytest.raises(ValueError, match=sentence):
        sample_coordinates(partition, 1.0)
