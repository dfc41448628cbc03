"""Every pair of masks gives a cleaned cell by stated rules, or a sentence that says why not."""

import numpy as np
import pytest
import scipy.ndimage as ndi
from hypothesis import given, settings
from hypothesis import strategies as st

from cytomill.kernels.mask_runs import encode_runs, join_slabs
from cytomill.partitioning.mask_rules import face_names
from cytomill.partitioning.mask_values import as_masks
from cytomill.partitioning.masks import clean_pair, find_cells

SHAPE = (24, 32, 40)
CORNERS = ndi.generate_binary_structure(3, 3)


def ball(radius, centre=(12, 16, 20), shape=SHAPE):
    grid = np.ogrid[tuple(slice(size) for size in shape)]
    return sum((g - c) ** 2 for g, c in zip(grid, centre, strict=True)) <= radius**2


def found(cell, nucleus=None, **rules):
    cells = encode_runs(cell)
    return find_cells(cells, cells if nucleus is None else encode_runs(nucleus), cell.shape, **rules)


def the_cell(cell, nucleus=None, **rules):
    result = found(cell, nucleus, **rules)
    assert not result.refused
    (mask,) = result.cells
    return mask


def painted(mask):
    return mask.paint(tuple((0, size) for size in mask.shape))


def refusal(cell, nucleus, **rules):
    result = found(cell, nucleus, **rules)
    assert not result.cells
    ((label, reason),) = result.refused
    assert label == 1
    return reason


def full_corner(cell):
    """Return a nucleus in the corner of the cell's bounding box that the cell leaves free."""
    nucleus = np.zeros_like(cell)
    (box,) = ndi.find_objects(cell.astype(np.uint8))
    distance = ndi.distance_transform_edt(~cell[box])
    nucleus[box][np.unravel_index(np.argmax(distance), distance.shape)] = True
    return nucleus


CELL, NUCLEUS = ball(10), ball(5)


@pytest.mark.parametrize(
    "given_as", ["whole", "without its nucleus", "membrane only", "labels of one volume"]
)
def test_a_cell_is_the_same_however_it_was_given(given_as):
    rules, nucleus = {}, NUCLEUS
    if given_as == "whole":
        cell = CELL
    elif given_as == "without its nucleus":
        cell = CELL & ~NUCLEUS
    elif given_as == "membrane only":
        cell = CELL & ~ndi.binary_erosion(CELL, CORNERS)
        nucleus = NUCLEUS & ~ndi.binary_erosion(NUCLEUS, CORNERS)
    else:
        cell = np.where(NUCLEUS, 2, np.where(CELL, 1, 0)) + 5 * ball(2, (12, 16, 28))
        nucleus, rules = None, {"pm_labels": (1, 2, 6), "ne_labels": (2,)}
    mask = the_cell(cell, nucleus, **rules)
    inner, outer = painted(mask)
    assert np.array_equal(outer, CELL)
    assert np.array_equal(inner, NUCLEUS)
    assert mask.label == 1
    assert mask.box == ((2, 23), (6, 27), (10, 31))
    assert (mask.cell_voxels, mask.nucleus_voxels) == (CELL.sum(), NUCLEUS.sum())
    assert mask.cytoplasm_voxels == (CELL & ~NUCLEUS).sum()
    assert mask.nuclei == 1
    assert not mask.cut_faces.any()
    assert mask.cut_fraction == 0


def test_a_clean_cell_needs_no_note():
    assert the_cell(CELL, NUCLEUS).notes == ()


def test_holes_and_specks_go_and_are_counted():
    cell, nucleus = CELL.copy(), NUCLEUS.copy()
    cell[12, 16, 28] = False
    nucleus[12, 16, 20] = False
    cell[0, 0, :3] = True
    nucleus[12, 16, 27] = True
    mask = the_cell(cell, nucleus)
    inner, outer = painted(mask)
    assert np.array_equal(outer, CELL)
    assert np.array_equal(inner, NUCLEUS)
    text = "; ".join(mask.notes)
    assert "holes of the cell filled (1 voxel)" in text
    assert "holes of the nucleus filled (1 voxel)" in text
    assert "1 other component of the cell mask (3 voxels) dropped" in text
    assert "1 speck of the nucleus mask (1 voxel) dropped" in text


def test_two_nuclei_are_united_and_said():
    nucleus = ball(3, (12, 12, 20)) | ball(2, (12, 21, 20))
    mask = the_cell(CELL, nucleus)
    assert mask.nuclei == 2
    assert np.array_equal(painted(mask)[0], nucleus)
    assert any("2 nuclei" in note for note in mask.notes)


def test_a_nucleus_partly_outside_is_clipped_and_said():
    nucleus = ball(5, (12, 16, 28))
    mask = the_cell(CELL, nucleus)
    assert np.array_equal(painted(mask)[0], nucleus & CELL)
    text = "; ".join(mask.notes)
    assert f"({(nucleus & ~CELL).sum()} voxels) outside the cell clipped" in text
    assert "the nucleus touches the outside at" in text


def test_a_cell_open_around_its_nucleus_gets_it_back():
    # The nucleus bulges through the cell's surface: no hole encloses it.
    nucleus = ball(5, (12, 16, 25))
    cell = ball(9) & ~nucleus
    mask = the_cell(cell, nucleus)
    inner, outer = painted(mask)
    assert np.array_equal(inner, nucleus)
    assert np.array_equal(outer, ball(9) | nucleus)
    assert any("came without its nucleus" in note for note in mask.notes)


def test_other_nuclei_of_the_field_are_left_out():
    far = ball(3, (3, 3, 36))
    mask = the_cell(CELL, NUCLEUS | far)
    assert np.array_equal(painted(mask)[0], NUCLEUS)
    assert any("outside the cell dropped" in note for note in mask.notes)


def test_the_component_with_the_nucleus_is_the_cell():
    cell = np.zeros((20, 20, 60), bool)
    cell[2:18, 2:18, 2:30] = True
    cell[5:15, 5:15, 40:50] = True
    nucleus = np.zeros_like(cell)
    nucleus[8:12, 8:12, 43:47] = True
    mask = the_cell(cell, nucleus)
    assert mask.cell_voxels == 1000
    assert any("larger" in note and "without a nucleus" in note for note in mask.notes)
    nucleus[8:12, 8:12, 10:14] = True
    mask = the_cell(cell, nucleus)
    assert mask.cell_voxels == 16 * 16 * 28
    assert any("1 of them with nucleus" in note for note in mask.notes)


@pytest.mark.parametrize(
    ("cell", "nucleus", "rules", "sentence"),
    [
        (CELL, np.zeros(SHAPE, bool), {}, "the nucleus mask is empty"),
        (np.zeros(SHAPE, bool), NUCLEUS, {}, "the cell mask is empty"),
        (CELL * np.uint8(255), NUCLEUS, {"pm_labels": (1,)}, r"none of pm_labels = \[1\].*labels 255"),
        (CELL, NUCLEUS, {"ne_labels": (7,)}, "none of ne_labels"),
        (CELL, ball(3, (3, 3, 36)), {}, "the nucleus lies outside the cell: 0 %"),
        (CELL, ball(6, (12, 16, 33)), {}, "the nucleus lies outside the cell"),
        (CELL, CELL, {}, "the nucleus fills the cell"),
        (CELL, ball(12), {}, "the nucleus fills the cell"),
    ],
)
def test_a_cell_that_cannot_be_partitioned_is_refused_with_a_sentence(cell, nucleus, rules, sentence):
    reason = refusal(cell, nucleus, **rules)
    with pytest.raises(ValueError, match=sentence):
        raise ValueError(reason)
    with pytest.raises(ValueError, match=sentence):
        clean_pair(nucleus, cell, **rules)


@pytest.mark.parametrize("given_as", ["whole", "membrane only", "with an organelle left out"])
def test_a_cell_cut_by_the_volume_is_closed_there_and_says_so(given_as):
    full, full_nucleus = ball(10, (4, 16, 20)), ball(5, (4, 16, 20))
    cell = full.copy()
    if given_as == "membrane only":
        continued = np.concatenate([np.repeat(full[:1], 3, 0), full])
        cell &= ~ndi.binary_erosion(continued, CORNERS)[3:]
    elif given_as == "with an organelle left out":
        cell &= ~ball(2, (0, 16, 26))
    mask = the_cell(cell, full_nucleus)
    inner, outer = painted(mask)
    assert np.array_equal(outer, full)
    assert np.array_equal(inner, full_nucleus)
    assert mask.cut_faces.tolist() == [[True, False], [False, False], [False, False]]
    assert face_names(mask.cut_faces, mask.shape) == "z0"
    # A spherical cap's cut: π (R² - d²) of that and 2 π R (R + d).
    exact = (100 - 16) / (100 - 16 + 2 * 10 * 14)
    assert mask.cut_fraction == pytest.approx(exact, abs=0.01)
    assert any("cut by the volume at z0" in note for note in mask.notes)


@pytest.mark.parametrize("centre", [(3, 4, 20), (3, 4, 4), (20, 16, 36)])
@pytest.mark.parametrize("image", [False, True])
def test_a_membrane_open_at_a_corner_is_filled_around_the_nucleus(centre, image):
    shape = tuple(size + 30 for size in SHAPE)
    full = ball(10, tuple(c + 15 for c in centre), shape)
    inner = slice(15, -15)
    membrane = (full & ~ndi.binary_erosion(full, CORNERS))[inner, inner, inner]
    full, nucleus = full[inner, inner, inner], ball(4, centre)
    if image:
        membrane, full, nucleus = (mask[centre[0] : centre[0] + 1] for mask in (membrane, full, nucleus))
    mask = the_cell(membrane, nucleus)
    assert np.array_equal(painted(mask)[1], full)
    assert np.array_equal(painted(mask)[0], nucleus)
    assert any("a membrane that the volume's faces cut open" in note for note in mask.notes)
    # The same hint closes nothing where the nucleus lies on the other side, or the cell is no membrane.
    assert "outside the cell" in refusal(membrane, np.roll(nucleus, 16, 1))
    assert "outside the cell" in refusal(full, full_corner(full))


def test_a_corner_beside_a_cell_that_fills_the_image_is_no_inside():
    # The disc touches all four borders, so that each corner is bounded by it and by the image alone.
    disc = ball(10, (0, 10, 10), (1, 21, 21))
    assert "outside the cell" in refusal(disc, ball(2, (0, 0, 0), disc.shape))
    # A straight wall across the image has no side that is more inside than the other.
    wall = np.zeros((1, 20, 20), bool)
    wall[:, 12] = True
    nucleus = ball(3, (0, 5, 5), wall.shape)
    assert "outside the cell" in refusal(wall, nucleus)
    # A thread from corner to corner divides nothing.
    thread = np.zeros((20, 20, 20), bool)
    thread[(np.arange(20),) * 3] = True
    assert "outside the cell" in refusal(thread, ball(2, (3, 15, 15), thread.shape))


def test_an_image_is_cleaned_in_its_plane():
    cell, nucleus = ball(10)[12:13].copy(), ball(5)[12:13]
    cell[0, 16, 28] = False
    mask = the_cell(cell, nucleus)
    inner, outer = painted(mask)
    assert np.array_equal(outer, ball(10)[12:13])
    assert np.array_equal(inner, nucleus)
    assert mask.cut_faces.tolist() == [[True, True], [False, False], [False, False]]
    assert face_names(mask.cut_faces, mask.shape) == ""
    assert mask.cut_fraction == 0
    plane = clean_pair(nucleus[0], cell[0])
    assert np.array_equal(plane[1], outer[0])


def test_labelled_cells_are_taken_with_their_nuclei():
    cell = np.zeros((16, 20, 60), np.uint16)
    nucleus = np.zeros_like(cell)
    for label, x in ((3, 2), (7, 22), (9, 42)):
        cell[2:14, 2:18, x : x + 16] = label
        nucleus[5:9, 5:9, x + 4 : x + 8] = label
    nucleus[nucleus == 9] = 0
    nucleus[0, 0, 0] = 11
    result = found(cell, nucleus, cells="many")
    assert [mask.label for mask in result.cells] == [3, 7]
    assert [mask.box[2] for mask in result.cells] == [(2, 18), (22, 38)]
    assert result.refused == [(9, "the nucleus volume has no label 9")]
    assert result.notes == ["nucleus labels without a cell of the same label: 11"]
    auto = found(cell, nucleus)
    assert [mask.label for mask in auto.cells] == [3, 7]
    assert "3 labels in the cell volume taken as one cell each" in auto.notes
    assert [mask.label for mask in found(cell, nucleus, cells="many", pm_labels=(7, 8)).cells] == [7]
    # One label needs no nucleus of the same label to be one cell.
    alone = found((cell == 7) * np.uint8(255), (nucleus == 7) * np.uint8(255))
    assert [mask.label for mask in alone.cells] == [1]
    together = found(cell, nucleus, cells="one")
    assert [mask.label for mask in together.cells] == [1]
    with pytest.raises(ValueError, match="cells must be one of"):
        found(cell, nucleus, cells="several")


def test_a_cell_enclosed_by_another_keeps_its_voxels():
    cell = np.zeros((20, 20, 20), np.uint8)
    cell[2:18, 2:18, 2:18] = 1
    cell[10:15, 10:15, 10:15] = 2
    nucleus = np.zeros_like(cell)
    nucleus[4:7, 4:7, 4:7] = 1
    nucleus[12, 12, 12] = 2
    outer, inner = found(cell, nucleus, cells="many").cells
    assert (outer.cell_voxels, inner.cell_voxels) == (16**3 - 125, 125)
    assert any("125 enclosed voxels of other cells left to them" in note for note in outer.notes)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    density=st.floats(0.4, 0.9),
    depth=st.sampled_from([1, 4, 7]),
    step=st.integers(1, 7),
)
def test_whatever_is_given_the_result_is_clean_and_the_same_for_all_slabs(seed, density, depth, step):
    rng = np.random.default_rng(seed)
    shape = (depth, 12, 14)
    cell, nucleus = rng.random(shape) < density, rng.random(shape) < density / 2
    result = found(cell, nucleus)
    slabs = [
        join_slabs([encode_runs(mask[z : z + step], z) for z in range(0, depth, step)])
        for mask in (cell, nucleus)
    ]
    again = find_cells(*slabs, shape)
    assert (again.refused, again.notes) == (result.refused, result.notes)
    for mask, other in zip(result.cells, again.cells, strict=True):
        inner, outer = painted(mask)
        assert all(map(np.array_equal, painted(other), (inner, outer)))
        assert mask.notes == other.notes
        assert not (inner & ~outer).any()
        assert ndi.label(outer, CORNERS)[1] == 1
        for filled in (inner, outer):
            holes = ndi.binary_fill_holes(filled[0])[None] if depth == 1 else ndi.binary_fill_holes(filled)
            assert np.array_equal(holes, filled)
        assert mask.cytoplasm_voxels == (outer & ~inner).sum() > 0
        once_more = the_cell(outer, inner, smallest_nucleus=0)
        assert all(map(np.array_equal, painted(once_more), (inner, outer)))


@pytest.mark.parametrize(
    "dtype", [bool, np.uint8, np.int16, ">u2", np.uint64, np.float16, np.float32, np.float64]
)
def test_masks_of_any_dtype_mean_the_same(dtype):
    nucleus, cell, _ = clean_pair(NUCLEUS.astype(dtype), (CELL * 255).astype(dtype))
    assert np.array_equal(nucleus, NUCLEUS)
    assert np.array_equal(cell, CELL)


def test_arrays_of_integers_are_taken_without_a_copy():
    labels = np.arange(24, dtype=np.int32).reshape(2, 3, 4)
    assert as_masks(labels) is labels or as_masks(labels).base is labels
    assert as_masks(labels.astype(np.float32)).dtype == np.uint8
    assert np.array_equal(as_masks(labels.astype(np.float32)), labels)
    assert as_masks(labels[0]).shape == (1, 3, 4)


@pytest.mark.parametrize(
    ("value", "dtype", "sentence"),
    [
        (np.nan, np.float32, r"the PM mask holds nan at \(z, y, x\) = \(6, 2, 3\).*without a value to 0"),
        (np.inf, np.float64, "holds inf at"),
        (0.5, np.float32, "holds 0.5 at.*threshold"),
        (-1, np.float32, "holds -1.0 at.*background to 0"),
        (-1, np.int16, r"holds -1 at \(z, y, x\) = \(6, 2, 3\)"),
        (1e20, np.float64, r"labels up to 1e\+20 in slice 6"),
        (2**63, np.uint64, "2\\^63"),
        (1j, np.complex64, "dtype complex64"),
    ],
)
def test_values_that_are_no_labels_are_refused_with_a_sentence(value, dtype, sentence):
    volume = np.zeros((2, 4, 5), dtype)
    volume[1, 2, 3] = value
    with pytest.raises(ValueError, match=sentence):
        as_masks(volume, "the PM mask", first_slice=5)


def test_volumes_that_do_not_lie_on_the_same_voxels_are_refused():
    with pytest.raises(ValueError, match=r"\(24, 32, 40\).*\(24, 32, 39\)"):
        clean_pair(NUCLEUS, CELL[:, :, :-1])
    with pytest.raises(ValueError, match=r"expected \(Z, Y, X\)"):
        as_masks(np.zeros((2, 3, 4, 5)))


def test_real_cells_are_cleaned_alike_with_and_without_their_nucleus(shared_dir):
    with np.load(shared_dir / "golden" / "partitioning" / "GIP_30_1535_f6_input.npz") as data:
        shape = tuple(int(size) for size in data["shape"])
        nucleus, cell = (
            np.unpackbits(data[name])[: np.prod(shape)].reshape(shape).astype(bool) for name in ("ne", "pm")
        )
    whole = clean_pair(nucleus, cell)
    without = clean_pair(nucleus, cell & ~nucleus)
    assert np.array_equal(whole[0], without[0])
    assert np.array_equal(whole[1], without[1])
    assert np.array_equal(whole[1], ndi.binary_fill_holes(cell))
    assert any("came without its nucleus" in note for note in without[2])
