"""Public files of every format open as their makers meant."""

import mrcfile
import numpy as np
import pytest
import tifffile

from cytomill.storage.convert import convert
from cytomill.storage.volumes import VolumeError, open_volume


@pytest.fixture(scope="module")
def formats(shared_dir):
    return shared_dir / "data" / "formats"


def test_emdb_map_plain_gz_and_bz2_are_the_same(formats):
    folder = formats / "mrc" / "mrcfile_tests"
    expected = mrcfile.read(folder / "EMD-3197.map")
    for name in ("EMD-3197.map", "emd_3197.map.gz", "EMD-3197.map.bz2"):
        with open_volume(folder / name) as volume:
            assert (volume.shape, volume.dtype) == ((20, 20, 20), np.float32)
            assert volume.voxel_size_nm == (1.14, 1.14, 1.14)
            np.testing.assert_array_equal(volume.read(), expected)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("isbi2012/train_raw_30x512x512.tif", (30, 512, 512)),
        ("isbi2012/train_membrane_30x512x512.tif", (30, 512, 512)),
        ("cdeep3m_sbem_mito/val_raw.tif", (10, 1024, 1024)),
        ("cdeep3m_sbem_mito/val_mito_binary.tif", (10, 1024, 1024)),
    ],
)
def test_em_stacks(shared_dir, name, shape):
    path = shared_dir / "data" / "em" / name
    expected = tifffile.imread(path)
    with open_volume(path) as volume:
        assert (volume.shape, volume.dtype) == (shape, np.uint8)
        np.testing.assert_array_equal(volume.read(), expected)
        np.testing.assert_array_equal(
            volume.read(((3, 5), (100, 301), (7, 500))), expected[3:5, 100:301, 7:500]
        )


@pytest.mark.parametrize(
    ("name", "axes", "voxel_size_nm"),
    [
        ("2d.tif", "yx", (7, 7, 2e7)),
        ("2d_stringified_tuple.tif", "yx", (6, 6, 5e7)),
        ("2d_zero_division.tif", "yx", None),
        ("2d_t.tif", "tyx", (0.003, 0.003, 5e4)),
        ("3d.tif", "zyx", (0.002, 6e6, 1.1e8)),
        ("3d_c.tif", "zcyx", (1.3e8, 11, 2000)),
        ("3d_t.tif", "tzyx", (7e6, 5e6, 3e6)),
        ("3d_t_no_meta.tif", "tzyx", None),
        ("3d_t_other_meta.tif", "tzyx", (2e7, 100, 3.14153)),
        ("5d.tif", "tzcyx", (8, 0.013, 1.7e8)),
    ],
)
def test_imagej_files_with_odd_units(formats, name, axes, voxel_size_nm):
    path = formats / "tiff" / "ilastik_pix_res" / name
    expected = tifffile.imread(path)
    assert expected.ndim == len(axes)
    chosen = {axis: 1 for axis in axes if axis in "tc"}
    if chosen:
        with pytest.raises(VolumeError, match="choose one by adding"):
            open_volume(path)
    selector = ",".join(f"{axis}={index}" for axis, index in chosen.items())
    with open_volume(f"{path}::{selector}" if chosen else path) as volume:
        if voxel_size_nm is None:
            assert volume.voxel_size_nm is None
        else:
            assert volume.voxel_size_nm == pytest.approx(voxel_size_nm, rel=2e-5)
        picked = expected[tuple(1 if axis in "tc" else slice(None) for axis in axes)]
        np.testing.assert_array_equal(volume.read(), picked.reshape(volume.shape))


def test_ome_set_is_found_from_its_companion_any_member_or_the_folder(formats):
    folder = formats / "tiff" / "ome_multifile_companion"
    members = [folder / f"multifile-Z{z}.ome.tiff" for z in range(1, 6)]
    expected = np.stack([tifffile.imread(member, is_ome=False) for member in members])
    for path in (folder, folder / "multifile.companion.ome", members[0], members[3]):
        with open_volume(path) as volume:
            np.testing.assert_array_equal(volume.read(), expected)
            assert volume.identity()["files"] == 5


@pytest.mark.parametrize("target", ["multifile.companion.ome", "multifile-Z2.ome.tiff"])
def test_ome_set_is_found_through_a_link(formats, tmp_path, target):
    folder = formats / "tiff" / "ome_multifile_companion"
    link = tmp_path / target.replace("multifile", "linked")
    link.symlink_to(folder / target)
    with open_volume(link) as linked, open_volume(folder) as volume:
        np.testing.assert_array_equal(linked.read(), volume.read())


def test_ome_set_with_a_missing_member_is_refused(formats, tmp_path):
    folder = formats / "tiff" / "ome_multifile_companion"
    for file in folder.iterdir():
        if "Z3" not in file.name:
            (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(VolumeError, match=r"multifile-Z3\.ome\.tiff, which is not beside it"):
        open_volume(tmp_path / "multifile-Z1.ome.tiff")
    (tmp_path / "multifile.companion.ome").unlink()
    with pytest.raises(VolumeError, match=r"multifile\.companion\.ome.*not beside it"):
        open_volume(tmp_path / "multifile-Z1.ome.tiff")


def test_ome_tiff_of_signed_big_endian_channels(formats):
    path = formats / "tiff" / "viv_multi-channel_int8_bigendian.ome.tif"
    expected = tifffile.imread(path)
    with pytest.raises(VolumeError, match="::c=0"):
        open_volume(path)
    with open_volume(f"{path}::c=2") as volume:
        assert volume.dtype == np.int8
        np.testing.assert_array_equal(volume.read()[0], expected[2])


def test_sem_ome_tiff(formats):
    path = formats / "tiff" / "FOV7_HV110_P0500510000.ome.tiff"
    with open_volume(path) as volume:
        assert (volume.shape, volume.voxel_size_nm) == ((1, 512, 512), None)
        np.testing.assert_array_equal(volume.read()[0], tifffile.imread(path))


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("2d.h5", (1, 1024, 1344)),
        ("3d1c.h5", (50, 60, 55)),
        ("2d_Probabilities.h5::c=1", (1, 1024, 1344)),
        ("3d1c_Probabilities.h5::/exported_data,c=0", (50, 60, 55)),
        ("3d2c.h5::axes=zyxc,c=1", (50, 60, 55)),
        ("5t3d2c.h5::axes=tzyxc,c=1,t=4", (33, 77, 45)),
        ("smallVideoBdv.h5::/t00003/s00/1/cells", (1, 204, 204)),
    ],
)
def test_ilastik_and_bigdataviewer_hdf5(formats, name, shape):
    with open_volume(f"{formats / 'hdf5_ilastik' / name}") as volume:
        assert volume.shape == shape
        assert volume.read().shape == shape


@pytest.mark.parametrize("name", ["2d_Probabilities.h5", "3d2c.h5", "smallVideoBdv.h5"])
def test_hdf5_that_is_not_one_volume_is_refused(formats, name):
    with pytest.raises(VolumeError, match="choose one|name them"):
        open_volume(formats / "hdf5_ilastik" / name)


def test_plantseg_hdf5_states_its_voxel_size(shared_dir):
    path = shared_dir / "data" / "masks3d" / "plantseg" / "sample_ovule.h5"
    with pytest.raises(VolumeError, match="/label, /raw"):
        open_volume(path)
    with open_volume(f"{path}::/raw") as volume:
        assert volume.shape == (32, 128, 128)
        assert volume.voxel_size_nm == pytest.approx((235, 150, 150))


@pytest.mark.parametrize(
    "store",
    [
        "neuroglancer_simple_0.4.ome.zarr",
        "neuroglancer_simple_0.5.ome.zarr",
        "neuroglancer_simple_0.5.ome.zarr.zip",
    ],
)
def test_ome_zarr_levels_have_their_own_voxel_size(formats, store):
    for level, extent in enumerate((10, 5, 2)):
        selector = f"::/scale{level}/image" if level else ""
        with open_volume(f"{formats / 'ome_zarr' / store}{selector}") as volume:
            assert volume.shape == (1, extent, extent)
            assert volume.voxel_size_nm[1:] == (4 * 2**level, 30 * 2**level)
            if level == 0:
                np.testing.assert_array_equal(volume.read().ravel(), np.arange(100))


def test_zarr_chunked_and_sharded(formats):
    with open_volume(formats / "ome_zarr" / "zarr_v3_3d.chunked.compressed.sharded.i2") as volume:
        np.testing.assert_array_equal(volume.read().ravel(), np.arange(64))
    with open_volume(formats / "ome_zarr" / "zarr_v3_3d.chunked.i2") as volume:
        np.testing.assert_array_equal(volume.read().ravel(), np.arange(27))


@pytest.mark.parametrize("version", ["v04", "v05"])
def test_ome_zarr_channels_must_be_chosen(formats, version):
    store = formats / "ome_zarr" / f"viv_blobs_image_{version}.ome.zarr"
    with pytest.raises(VolumeError, match="axes CYX"):
        open_volume(store)
    with open_volume(f"{store}::c=2") as volume:
        assert volume.shape == (1, 12, 12)
        assert volume.read().std() > 0


def test_a_real_stack_converts(shared_dir, tmp_path):
    path = shared_dir / "data" / "em" / "isbi2012" / "train_raw_30x512x512.tif"
    array = convert(path, tmp_path / "a.zarr", voxel_size_nm=(50, 4, 4))
    assert array.name == "images/50-4-4"
    np.testing.assert_array_equal(array.read(), tifffile.imread(path))
