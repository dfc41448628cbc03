"""Pairs along the distance transforms: admissible, closer to the true distances, and for irregular cells."""

from functools import partial

import numpy as np
import pytest
from scipy import ndimage

from cytomill.kernels.components import label_block
from cytomill.partitioning.pairs import pairs_shells
from cytomill.partitioning.pairs_edt import INSIDE_FRACTION, find_pairs_edt

pairs_edt_shells = partial(pairs_shells, find=find_pairs_edt)


def read_case(shared_dir, name):
    """Nucleus and cell, holes filled and largest components, and t_edt of the cytoplasm where it is known."""
    packed = np.load(shared_dir / "golden" / "partitioning" / f"{name}_input.npz")
    shape = tuple(packed["shape"])

    def unpack(key):
        mask = np.unpackbits(packed[key])[: np.prod(shape)].reshape(shape).astype(bool)
        return largest(ndimage.binary_fill_holes(mask))

    nucleus = unpack("ne")
    cell = unpack("pm") | nucleus
    return nucleus, cell, packed["t_edt"] / 65535 if "t_edt" in packed else None


def largest(mask):
    labels, _ = label_block(mask, 1)
    return labels == np.bincount(labels[labels > 0]).argmax()


def right_fraction(shells, where, position, n=8):
    return (shells[where] == np.minimum(n, np.floor(n * position) + 1)).mean()


def stray_voxels(shells):
    """Voxels outside of the largest component of their shell."""
    strays = 0
    for shell in range(1, int(shells.max()) + 1):
        labels, _ = label_block(shells == shell, 1)
        sizes = np.bincount(labels.ravel())[1:]
        strays += int(sizes.sum() - sizes.max(initial=0))
    return strays


def horseshoe():
    """A C-shaped nucleus in a round cell: its centre is not in the nucleus."""
    z, y, x = np.indices((25, 61, 61)) - np.array([12, 30, 30])[:, None, None, None]
    ring = np.hypot(y, x)
    nucleus = (abs(ring - 14) <= 4) & (abs(z) <= 4) & ~((x > 0) & (abs(y) < 9))
    cell = (z / 10) ** 2 + (ring / 27) ** 2 <= 1
    return nucleus & cell, cell


def test_the_dented_phantom_is_nearer_to_the_truth_than_by_plain_pairs(shared_dir):
    nucleus, cell, position = read_case(shared_dir, "phantom_dent")
    where = cell & ~nucleus
    guided, info = pairs_edt_shells(nucleus, cell, 8)
    plain, _ = pairs_shells(nucleus, cell, 8)
    assert guided[where].all()
    assert not guided[~where].any()
    assert right_fraction(guided, where, position) > 0.92
    assert right_fraction(guided, where, position) > right_fraction(plain, where, position) + 0.05
    # Wrong voxels are in the shell next to the right one.
    expected = np.minimum(8, np.floor(8 * position) + 1)
    assert (np.abs(guided[where] - expected) > 1).mean() < 1e-4
    assert info.dropped_pairs < 0.01 * info.pairs


def test_the_spheres_are_right(shared_dir):
    nucleus, cell, position = read_case(shared_dir, "phantom_spheres")
    shells, _ = pairs_edt_shells(nucleus, cell, 8)
    assert right_fraction(shells, cell & ~nucleus, position) > 0.985


@pytest.mark.parametrize("name", ["GIP_30_1535_f6", "TAK_30_2213_f6"])
def test_real_cells_have_no_unassigned_voxel_and_fewer_strays(shared_dir, name):
    nucleus, cell, _ = read_case(shared_dir, name)
    guided, _ = pairs_edt_shells(nucleus, cell, 8)
    plain, _ = pairs_shells(nucleus, cell, 8)
    assert guided[cell & ~nucleus].all()
    assert stray_voxels(guided) < stray_voxels(plain)


@pytest.mark.parametrize("size", [(1.0, 1.0, 1.0), (2.5, 1.0, 1.0)])
def test_segments_lie_in_the_cytoplasm(size):
    nucleus, cell = horseshoe()
    pairs, count = find_pairs_edt(nucleus, cell, size, step=4)
    assert 0 < len(pairs) <= count
    cytoplasm = cell & ~nucleus
    parts = []
    for pair in pairs:
        # Ends lie between a voxel inside and one outside: three quarters of a voxel are left out there.
        length = np.abs(pair[3:] - pair[:3]).max()
        if length <= 1.5:
            continue
        along = np.linspace(0.75 / length, 1 - 0.75 / length, 400)[:, None]
        voxels = np.rint(pair[:3] + along * (pair[3:] - pair[:3])).astype(int)
        parts.append(cytoplasm[tuple(voxels.T)].mean())
    assert len(parts) > 500
    # The program looks at two points a voxel.
    assert min(parts) >= INSIDE_FRACTION - 0.03


def test_a_lobed_nucleus_has_its_shells_around_the_lobes():
    nucleus, cell = horseshoe()
    shells, _ = pairs_edt_shells(nucleus, cell, 4)
    cytoplasm = cell & ~nucleus
    assert shells[cytoplasm].all()
    next_to_nucleus = ndimage.binary_dilation(nucleus) & cytoplasm
    next_to_membrane = (
        ndimage.binary_dilation(~cell) & cytoplasm & ~ndimage.binary_dilation(nucleus, iterations=3)
    )
    assert (shells[next_to_nucleus] <= 2).mean() > 0.95
    assert (shells[next_to_membrane] == 4).mean() > 0.9
    assert stray_voxels(shells) < stray_voxels(pairs_shells(nucleus, cell, 4)[0])


def test_threads_do_not_change_the_shells():
    nucleus, cell = horseshoe()
    alone, info = pairs_edt_shells(nucleus, cell, 5)
    together, other_info = pairs_edt_shells(nucleus, cell, 5, workers=3)
    assert np.array_equal(alone, together)
    assert info == other_info


def test_a_border_that_is_no_cut_is_background():
    nucleus, cell = horseshoe()
    low, high = (np.argwhere(cell).min(axis=0), np.argwhere(cell).max(axis=0) + 1)
    tight = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    inside, _ = pairs_edt_shells(nucleus[tight], cell[tight], 4)
    whole, _ = pairs_edt_shells(nucleus, cell, 4)
    assert (inside == whole[tight]).mean() > 0.99


def test_a_face_that_cuts_the_cell_is_no_membrane():
    nucleus, cell = horseshoe()
    cut_faces = np.zeros((3, 2), bool)
    cut_faces[0, 0] = True
    whole, _ = pairs_edt_shells(nucleus, cell, 4)
    where = (cell & ~nucleus)[12:]
    half, _ = pairs_edt_shells(nucleus[12:], cell[12:], 4, cut_faces=cut_faces)
    assert half[where].all()
    # The cell is symmetric about the cut.
    assert (half == whole[12:])[where].mean() > 0.9
    closed, _ = pairs_edt_shells(nucleus[12:], cell[12:], 4)
    assert (closed == whole[12:])[where].mean() < 0.8
    pairs, _ = find_pairs_edt(nucleus[12:], cell[12:], cut_faces=cut_faces)
    assert pairs[:, [0, 3]].min() > -0.5


def test_a_single_slice_is_partitioned_in_its_plane():
    nucleus, cell = (mask[12:13] for mask in horseshoe())
    shells, info = pairs_edt_shells(nucleus, cell, 4)
    assert shells[cell & ~nucleus].all()
    pairs, _ = find_pairs_edt(nucleus, cell)
    assert len(pairs) == info.pairs
    assert (pairs[:, [0, 3]] == 0).all()


def test_a_nucleus_at_the_membrane_leaves_nothing_unassigned():
    nucleus, cell = horseshoe()
    moved = np.roll(nucleus, -14, axis=2) & cell
    shells, info = pairs_edt_shells(moved, cell, 8)
    assert shells[cell & ~moved].all()
    assert info.dropped_pairs > 0


def test_limits_and_bad_input_get_a_sentence():
    nucleus, cell = horseshoe()
    pairs, starts = find_pairs_edt(nucleus, cell, (100, 100, 100))
    length = 100 * np.linalg.norm(pairs[:, 3:] - pairs[:, :3], axis=1)
    assert length.min() < 500 < 900 < length.max()
    limits = {"min_length_nm": 500, "max_length_nm": 900}
    _, info = pairs_edt_shells(nucleus, cell, 4, (100, 100, 100), **limits)
    kept = length[(length >= 500) & (length <= 900)]
    assert (info.pairs, info.dropped_pairs) == (len(kept), starts - len(kept))
    assert info.median_length_nm == pytest.approx(np.median(kept))
    with pytest.raises(ValueError, match="pairs is left: widen the limits"):
        pairs_edt_shells(nucleus, cell, 4, min_length_nm=1000)
    with pytest.raises(ValueError, match="step must be a whole number from 1 on, got 0"):
        pairs_edt_shells(nucleus, cell, 4, step=0)
    with pytest.raises(ValueError, match="the crop has no PM surface"):
        pairs_edt_shells(nucleus, np.ones_like(cell), 4, cut_faces=np.ones((3, 2), bool))
    with pytest.raises(ValueError, match="the nucleus has no voxel"):
        pairs_edt_shells(np.zeros_like(cell), cell, 4)
