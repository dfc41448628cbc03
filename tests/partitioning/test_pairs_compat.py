"""The compatibility mode gives the published reference's numbers, to the last voxel."""

import hashlib
import json
from dataclasses import dataclass

import numpy as np
import pytest
import scipy

from cytomill.partitioning import compat_assignment, pairs_compat

QUICK = ("GIP_30_1535_f6", "TAK_30_2213_f6")
LARGE = ("GIP_30_1535_f3", "TAK_30_2213_f3", "phantom_dent", "phantom_spheres")
CASES = [*QUICK, *(pytest.param(case, marks=pytest.mark.slow) for case in LARGE)]

needs_same_scipy = pytest.mark.skipif(
    scipy.__version__ != pairs_compat.SCIPY_VERSION,
    reason=f"golden values were made with SciPy {pairs_compat.SCIPY_VERSION}, found {scipy.__version__}",
)


@dataclass(frozen=True)
class Golden:
    nucleus: np.ndarray
    cell: np.ndarray
    numbers: dict
    arrays: dict


def load_golden(folder, case):
    packed = np.load(folder / f"{case}_input.npz")
    shape = tuple(packed["shape"])

    def unpack(name):
        return np.unpackbits(packed[name])[: np.prod(shape)].reshape(shape).astype(bool)

    numbers = json.loads((folder / f"{case}_golden.json").read_text())["new"]
    return Golden(unpack("ne"), unpack("pm"), numbers, dict(np.load(folder / f"{case}_golden.npz")))


def digest(points):
    return hashlib.sha256(np.ascontiguousarray(points.astype("<i4")).tobytes()).hexdigest()


def two_spheres(radius=9, nucleus=3, size=27):
    grid = np.indices((size,) * 3) - size // 2
    distance = np.sqrt((grid**2).sum(axis=0))
    return distance <= nucleus, distance <= radius


@needs_same_scipy
@pytest.mark.parametrize("case", CASES)
def test_golden_cases_are_reproduced_bit_for_bit(shared_dir, case):
    golden = load_golden(shared_dir / "golden" / "partitioning", case)
    center, ne_edge, pm_edge = pairs_compat.extract_ne_pm_edges(golden.cell, golden.nucleus)
    assert center.tolist() == golden.numbers["center"]
    assert digest(ne_edge) == golden.numbers["ne_edge_sha256_int32_zyx_rowmajor"]
    assert digest(pm_edge) == golden.numbers["pm_edge_sha256_int32_zyx_rowmajor"]
    pairs, shells = pairs_compat.build_shells(ne_edge, pm_edge, golden.cell, 8)
    assert len(pairs) == golden.numbers["n_pairs"]
    assert np.array_equal(pairs, golden.arrays["pairs"])
    assert [len(points) for points in shells] == golden.numbers["shell_sizes"]
    arguments = (ne_edge, pm_edge, golden.cell.shape, 8, golden.cell, golden.nucleus)
    unclosed = pairs_compat.partition_pure(*arguments, closing=False)
    assert unclosed.dtype == np.uint8
    assert np.array_equal(unclosed, golden.arrays["partition_pure_noclosing"])
    region = pairs_compat.cytoplasm_region(golden.cell, golden.nucleus, golden.cell.shape)
    closed = compat_assignment.close_in_order(unclosed, region, 8)
    assert np.array_equal(closed, golden.arrays["partition_pure"])
    assert np.array_equal(pairs_compat.partition_with_edt(*arguments), golden.arrays["partition_edt"])


def test_threads_do_not_change_the_partition():
    nucleus, cell = two_spheres(radius=24, nucleus=5, size=55)
    _, ne_edge, pm_edge = pairs_compat.extract_ne_pm_edges(cell, nucleus)
    arguments = (ne_edge, pm_edge, cell.shape, 5, cell, nucleus)
    alone = pairs_compat.partition_pure(*arguments)
    assert np.array_equal(alone, pairs_compat.partition_pure(*arguments, workers=3))
    assert set(np.unique(alone[cell & ~nucleus])) == {1, 2, 3, 4, 5}


def test_another_scipy_is_said(monkeypatch):
    monkeypatch.setattr(scipy, "__version__", "0.1")
    with pytest.warns(UserWarning, match=r"SciPy 1\.17\.1; found 0\.1"):
        pairs_compat.check_scipy()


def test_equal_distances_are_ordered_as_in_the_reference():
    # Rows where an ordinary stable sort would put the third column second.
    rows = np.array(
        [
            [7.5, 5.1, 1.8, 1.8, 1.7, 8.8, 12.0, 6.7],
            [17.2, 14.9, 12.6, 10.2, 6.5, 3.0, 3.1, 3.0],
        ]
    )
    assert (compat_assignment._sort_in_network(rows) + 1).tolist() == [[5, 4], [8, 6]]
    distances = np.random.default_rng(0).random((500, 8))
    assert np.array_equal(compat_assignment._sort_in_network(distances), np.argsort(distances, axis=1)[:, :2])


def test_smoothing_keeps_the_references_growth_of_bright_masks():
    nucleus, _ = two_spheres()
    ordinary = np.count_nonzero(pairs_compat.smooth_mask(nucleus))
    assert np.count_nonzero(pairs_compat.smooth_mask(np.where(nucleus, 255, 0))) > 1.5 * ordinary


def test_short_and_long_pairs_are_cut_into_fewer_and_more_parts():
    pairs = np.array([[0, 0, 0, 0, 0, length] for length in (20, 20, 20, 8, 50)])
    inside = np.ones((1, 1, 60), np.uint8)
    shells = pairs_compat.shell_partition(pairs, inside, 7)
    assert len(shells) == 8
    points = {tuple(point) for shell in shells for point in shell}
    assert {(0, 0, 8 * i / 3) for i in range(4)} <= points
    assert {(0, 0, 50 * i / 9) for i in range(10)} <= points
    assert (0, 0, 8 / 7) not in points


def test_cells_that_the_reference_cannot_cut_get_a_sentence():
    nucleus, cell = two_spheres()
    _, ne_edge, pm_edge = pairs_compat.extract_ne_pm_edges(cell, nucleus)
    with pytest.raises(ValueError, match="no NE-PM pair is 15 to 200 voxels long"):
        pairs_compat.partition_pure(ne_edge, pm_edge, cell.shape, 8, cell, nucleus)
    with pytest.raises(ValueError, match="at least 2 shells"):
        pairs_compat.partition_pure(ne_edge, pm_edge, cell.shape, 1, cell, nucleus)
    with pytest.raises(ValueError, match="NE edge voxels, found none"):
        pairs_compat.partition_pure(ne_edge[:0], pm_edge, cell.shape, 8, cell, nucleus)
    with pytest.raises(ValueError, match="the nucleus has no voxel after smoothing"):
        pairs_compat.extract_ne_pm_edges(cell, np.zeros_like(cell))
