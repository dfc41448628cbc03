"""The class API on masks of any kind: dtypes, labels, planes, cuts, files; sentences for what is no mask."""

import h5py
import mrcfile
import numpy as np
import pytest
import tifffile
from api_cases import balls, whole

from cytomill.partitioning import Partitioning, compute_partition_features


def test_masks_of_any_dtype_give_the_same(partitioning):
    ne, pm = balls((24, 26, 28), (4, 10))
    expected = whole(partitioning, ne, pm)
    for change in (
        lambda mask: mask.astype(np.uint8),
        lambda mask: mask.astype(np.uint8) * 255,
        lambda mask: mask.astype(np.int64) * 7,
        lambda mask: mask.astype(">u2"),
        lambda mask: mask.astype(np.float32) * 2,
    ):
        assert np.array_equal(whole(partitioning, change(ne), change(pm)), expected)


def test_labels_of_one_volume_make_the_masks(tmp_path):
    ne, pm = balls((24, 26, 28), (4, 10))
    labels = pm.astype(np.uint8) * 5
    labels[:12][pm[:12]] = 1
    labels[ne] = 2
    labels[0, 0, :5] = 9
    chosen = Partitioning(tmp_path, ne_labels=[2], pm_labels=[1, 2, 5])
    plain = Partitioning(tmp_path)
    assert np.array_equal(
        chosen.create_radial_partitions(labels, labels), plain.create_radial_partitions(pm, ne)
    )
    np.save(tmp_path / "labels.npy", labels)
    loaded = chosen.load_mask_data(tmp_path / "labels.npy", tmp_path / "labels.npy")
    assert np.array_equal(loaded[0], ne) and np.array_equal(loaded[1], pm)
    assert np.array_equal(
        chosen.create_radial_partitions(loaded[1], loaded[0]), plain.create_radial_partitions(pm, ne)
    )


def test_a_membrane_or_a_cell_without_nucleus_is_filled(partitioning):
    ne, pm = balls((24, 26, 28), (4, 10))
    inner = balls((24, 26, 28), (4, 8))[1]
    expected = partitioning.create_radial_partitions(pm, ne)
    assert np.array_equal(partitioning.create_radial_partitions(pm & ~inner, ne), expected)
    assert any("filled" in note for note in partitioning.notes)
    assert np.array_equal(partitioning.create_radial_partitions(pm & ~ne, ne), expected)


def test_planes_work_in_both_ways(partitioning):
    ne, pm = balls((60, 70), (10, 25))
    center, ne_edge, pm_edge = partitioning.extract_ne_pm_edges(pm, ne)
    assert center.shape == (2,) and ne_edge.shape[1] == pm_edge.shape[1] == 2
    assert partitioning.find_ne_pm_pairs(center, ne_edge, pm_edge).shape[1] == 4
    found = partitioning.create_nepm_radial_partitions(ne_edge, pm_edge, pm.shape, pm_mask=pm, ne_mask=ne)
    distances = partitioning.create_radial_partitions(pm, ne)
    cytoplasm = pm & ~ne
    for shells in (found, distances):
        assert shells.shape == pm.shape and np.array_equal(shells > 0, cytoplasm)
    assert (found[cytoplasm] == distances[cytoplasm]).mean() > 0.9
    table = compute_partition_features(distances, voxel_size_nm=(1000, 500, 500))
    assert np.allclose(table["zone_area_um2"], table["zone_volume"] * 0.25)
    assert partitioning.extract_partition_coordinates(distances, 1.0)[1].shape[1] == 2


def test_many_labelled_cells_are_partitioned_at_once(partitioning):
    ne, pm = balls((24, 26, 28), (4, 10))
    cells, nuclei = np.zeros((24, 26, 60), np.uint16), np.zeros((24, 26, 60), np.uint16)
    for label, first in ((3, 0), (7, 30)):
        cells[:, :, first : first + 28][pm] = label
        nuclei[:, :, first : first + 28][ne] = label
    found = partitioning.create_radial_partitions(cells, nuclei)
    alone = partitioning.create_radial_partitions(pm, ne)
    assert np.array_equal(found[:, :, :28], alone) and np.array_equal(found[:, :, 30:58], alone)


def test_a_face_of_the_volume_is_no_membrane(partitioning):
    ne, pm = balls((40, 44, 48), (8, 18))
    half_ne, half_pm = ne[20:], pm[20:]
    _, ne_edge, pm_edge = partitioning.extract_ne_pm_edges(half_pm, half_ne)
    assert ne_edge[:, 0].min() > -0.3 and pm_edge[:, 0].min() > -0.3
    cut = partitioning.create_radial_partitions(half_pm, half_ne)
    full = partitioning.create_radial_partitions(pm, ne)[20:]
    cytoplasm = half_pm & ~half_ne
    assert (cut[cytoplasm] == full[cytoplasm]).mean() > 0.97


def test_anisotropic_voxels_are_respected(tmp_path):
    shape, size = (20, 50, 50), np.array([300.0, 100, 100])
    places = np.indices(shape).reshape(3, -1).T * size
    distance = np.linalg.norm(places - (np.array(shape) - 1) / 2 * size, axis=1).reshape(shape)
    ne, pm = distance <= 900, distance <= 2300
    cytoplasm = pm & ~ne
    expected = np.clip(np.floor(4 * (distance - 900) / 1400) + 1, 1, 4)
    for partitioning in (
        Partitioning(tmp_path, 4, voxel_size_nm=size),
        Partitioning(tmp_path, 4, voxel_size_nm=size, method="pairs"),
    ):
        found = partitioning.create_radial_partitions(pm, ne)
        assert (found[cytoplasm] == expected[cytoplasm]).mean() > 0.9


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda ne, pm: (ne & False, pm), "nucleus mask is empty"),
        (lambda ne, pm: (ne, pm & False), "cell mask is empty"),
        (lambda ne, pm: (ne[1:], pm), "same voxels"),
        (lambda ne, pm: (np.where(ne, np.nan, 0.0), pm), "holds nan"),
        (lambda ne, pm: (ne * 0.5, pm), "whole numbers"),
        (lambda ne, pm: (pm, pm), "no cytoplasm"),
        (lambda ne, pm: (np.roll(ne, 14, axis=0) & ~pm, pm), "outside"),
        (lambda ne, pm: (-ne.astype(int), pm), "whole numbers from 0"),
        (lambda ne, pm: (ne.astype(complex), pm), "dtype complex128"),
    ],
)
def test_bad_masks_get_a_sentence(partitioning, damage, sentence):
    ne, pm = damage(*balls((30, 26, 28), (4, 9)))
    with pytest.raises(ValueError, match=sentence):
        partitioning.extract_ne_pm_edges(pm, ne)
    with pytest.raises(ValueError, match=sentence):
        partitioning.create_radial_partitions(pm, ne)


def test_what_has_no_answer_is_said(partitioning):
    ne, pm = balls((24, 26, 28), (1, 10))
    with pytest.raises(ValueError, match="smaller smooth_sigma"):
        partitioning.extract_ne_pm_edges(pm, ne, smooth_sigma=3)
    _, ne_edge, pm_edge = partitioning.extract_ne_pm_edges(pm, ne, smooth_sigma=0)
    with pytest.raises(ValueError, match="shape"):
        partitioning.create_nepm_radial_partitions(ne_edge, pm_edge, (3, 4, 5), pm_mask=pm, ne_mask=ne)
    with pytest.raises(ValueError, match="number of shells"):
        partitioning.create_nepm_radial_partitions(ne_edge, pm_edge, pm.shape, 0, pm, ne)


def test_two_nuclei_are_one_and_said(partitioning):
    one, pm = balls((40, 40, 60), (5, 18))
    ne = balls((40, 40, 60), (4, 18), (19.5, 19.5, 20))[0] | balls((40, 40, 60), (4, 18), (19.5, 19.5, 39))[0]
    found = partitioning.create_radial_partitions(pm, ne)
    assert np.array_equal(found > 0, pm & ~ne)
    assert any("2 nuclei" in note for note in partitioning.notes)


def write_masks(folder, ne, pm, suffix):
    paths = []
    for name, mask in (("ne", ne), ("pm", pm)):
        path = folder / f"{name}{suffix}"
        values = mask.astype(np.uint8)
        if suffix == ".npy":
            np.save(path, mask)
        elif suffix == ".npz":
            np.savez_compressed(path, values * 255)
        elif suffix == ".tif":
            tifffile.imwrite(path, values * 255, photometric="minisblack")
        elif suffix == ".mrc":
            with mrcfile.new(path) as file:
                file.set_data(mask.astype(np.float32))
        else:
            with h5py.File(path, "w") as file:
                file["mask"] = values
        paths.append(path)
    return paths


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".tif", ".mrc", ".h5"])
def test_masks_are_read_from_every_format(partitioning, tmp_path, suffix):
    ne, pm = balls((10, 12, 14), (2, 5))
    found = partitioning.load_mask_data(*write_masks(tmp_path, ne, pm, suffix))
    assert [mask.dtype for mask in found] == [bool, bool]
    assert np.array_equal(found[0], ne) and np.array_equal(found[1], pm)


def test_the_voxel_size_of_the_files_is_taken(tmp_path):
    ne, pm = balls((10, 12, 14), (2, 5))
    for name, mask in (("ne", ne), ("pm", pm)):
        tifffile.imwrite(
            tmp_path / f"{name}.ome.tif",
            mask.astype(np.uint8),
            metadata={
                "axes": "ZYX",
                "PhysicalSizeX": 0.1,
                "PhysicalSizeXUnit": "µm",
                "PhysicalSizeY": 0.1,
                "PhysicalSizeYUnit": "µm",
                "PhysicalSizeZ": 0.3,
                "PhysicalSizeZUnit": "µm",
            },
        )
    paths = tmp_path / "ne.ome.tif", tmp_path / "pm.ome.tif"
    read, stated = Partitioning(tmp_path), Partitioning(tmp_path, voxel_size_nm=(2, 1, 1))
    read.load_mask_data(*paths)
    stated.load_mask_data(*paths)
    assert np.allclose(read.voxel_size_nm, (300, 100, 100)) and stated.voxel_size_nm == (2, 1, 1)


def test_the_size_of_one_cell_is_not_kept_for_the_next(tmp_path):
    ne, pm = balls((10, 12, 14), (2, 5))
    for size in (2, 3):
        with mrcfile.new(tmp_path / f"{size}.mrc") as file:
            file.set_data(pm.astype(np.float32))
            file.voxel_size = 10 * size
    np.save(tmp_path / "ne.npy", ne)
    np.save(tmp_path / "pm.npy", pm)
    partitioning = Partitioning(tmp_path)
    for size in (2, 3):
        partitioning.load_mask_data(tmp_path / "ne.npy", tmp_path / f"{size}.mrc")
        assert np.allclose(partitioning.voxel_size_nm, size)
    with pytest.raises(ValueError, match="voxels of"):
        partitioning.load_mask_data(tmp_path / "2.mrc", tmp_path / "3.mrc")
    partitioning.load_mask_data(tmp_path / "ne.npy", tmp_path / "pm.npy")
    assert partitioning.voxel_size_nm == (1, 1, 1)


def test_files_that_are_no_masks_are_refused(partitioning, tmp_path):
    ne, pm = balls((10, 12, 14), (2, 5))
    ne_path, pm_path = write_masks(tmp_path, ne, pm, ".npy")
    with pytest.raises(FileNotFoundError, match=r"nowhere\.tif"):
        partitioning.load_mask_data(tmp_path / "nowhere.tif", pm_path)
    with pytest.raises(FileNotFoundError):
        partitioning.load_mask_data(ne_path, tmp_path / "nowhere.tif")
    (tmp_path / "text.tif").write_text("no image")
    with pytest.raises(ValueError, match="no volume that can be read"):
        partitioning.load_mask_data(tmp_path / "text.tif", pm_path)
    np.save(tmp_path / "other.npy", ne[:-1])
    with pytest.raises(ValueError, match="same voxels"):
        partitioning.load_mask_data(tmp_path / "other.npy", pm_path)
    np.save(tmp_path / "nan.npy", np.where(ne, np.nan, 0))
    with pytest.raises(ValueError, match="nan"):
        partitioning.load_mask_data(tmp_path / "nan.npy", pm_path)
