"""The partitioning benchmark measures what it says, and its tables hold what was measured."""

import numpy as np
import partitioning as bench
import partitioning_accuracy as accuracy
import pytest

from cytomill.phantoms.partitioning import make_cell_phantom


@pytest.fixture(scope="module")
def phantom():
    return make_cell_phantom("spheres", scale=0.4)


@pytest.mark.parametrize("method", ["edt", "ray", "laplace"])
def test_methods_give_the_shells_that_they_are_named_for(phantom, method):
    cell = bench.Cell(phantom.nucleus, phantom.cell, phantom.voxel_size_nm)
    shells = bench.METHODS[method](cell)()
    truth = accuracy.shells_of_truth(phantom.t_ray)
    assert cell.cytoplasm_voxels == np.count_nonzero(truth)
    assert np.mean(shells[truth > 0] == truth[truth > 0]) > 0.9


def test_a_wrong_voxel_counts_as_far_only_beyond_its_neighbours():
    truth = np.zeros((1, 9, 9), np.uint8)
    truth[0] = np.repeat([1, 2, 3], 3)[:, None]
    near, far = truth.copy(), truth.copy()
    near[0, 2, 4] = 2
    far[0, 0, 4] = 2
    assert accuracy.far_from_boundary(near, truth) == 0
    assert accuracy.far_from_boundary(far, truth) == 1


def test_tables_compare_within_a_cell():
    found = [
        bench.Measured("GIP f3", "plain", 1000, 500, 10.0, 11.0, 8000),
        bench.Measured("GIP f3", "edt", 1000, 500, 0.2, 0.3, 4000),
        bench.Measured("GIP f6", "edt", 100, 50, 0.03, 0.3, 4000),
    ]
    speed = bench.speed_table(found)
    assert [line.split("|")[9].strip() for line in speed[2:]] == ["", "1.0", "50.0"]
    growth = bench.growth_table(found)
    assert growth[0].split("|")[2:4] == [" GIP f6 ", " GIP f3 "]
    assert growth[2].split("|")[1:4] == [" edt ", " 3e+05 ", " 2e+05 "]
