"""What each format says about axes, voxel sizes and types is understood, or refused in a sentence."""

import bz2
import gzip
import os

import h5py
import mrcfile
import numpy as np
import pytest
import tifffile
import zarr
from volume_writers import SHAPE, files_of, hdf5, ramp, tiff, write_mrc, zarr_array

from cytomill.storage.volumes import VolumeError, open_volume

# MRC


def test_mrc_voxel_size_comes_from_the_cell_in_angstrom(tmp_path):
    with open_volume(write_mrc(tmp_path / "a.mrc", ramp("i2"))) as volume:
        assert volume.voxel_size_nm == (6.0, 5.0, 4.0)


def test_mrc_without_a_cell_has_no_voxel_size(tmp_path):
    path = write_mrc(tmp_path / "a.mrc", ramp("i2"), mx=0)
    assert open_volume(path).voxel_size_nm is None


def test_mrc_extended_header_is_skipped(tmp_path):
    path = tmp_path / "a.mrc"
    with mrcfile.new(path) as file:
        file.set_data(ramp("f4"))
        file.set_extended_header(np.arange(1000, dtype=np.uint8))
    with open_volume(path) as volume:
        np.testing.assert_array_equal(volume.read(), ramp("f4"))


@pytest.mark.parametrize(("flags", "dtype"), [(1, "i1"), (0, "u1")])
def test_mrc_bytes_are_signed_as_imod_says(tmp_path, flags, dtype):
    path = write_mrc(tmp_path / "a.mrc", ramp("i1"))
    raw = bytearray(path.read_bytes())
    raw[152:160] = np.array([1146047817, flags], "<i4").tobytes()
    path.write_bytes(raw)
    assert open_volume(path).dtype == np.dtype(dtype)


def test_mrc_bytes_beyond_127_are_unsigned(tmp_path):
    path = write_mrc(tmp_path / "a.mrc", ramp("i1"), dmin=0, dmax=250)
    assert open_volume(path).dtype == np.uint8


def test_mrc_axes_that_are_turned_come_out_as_zyx(tmp_path):
    stored = ramp("i2")  # sections along X, rows along Z, columns along Y
    path = write_mrc(tmp_path / "a.map", stored, mapc=2, mapr=3, maps=1)
    with open_volume(path) as volume:
        np.testing.assert_array_equal(volume.read(), stored.transpose(1, 2, 0))
        np.testing.assert_array_equal(
            volume.read(((3, 9), (1, 40), (2, 4))), stored.transpose(1, 2, 0)[3:9, 1:40, 2:4]
        )


@pytest.mark.parametrize(("compress", "suffix"), [(gzip.compress, "gz"), (bz2.compress, "bz2")])
def test_a_compressed_file_that_is_no_mrc_is_refused(tmp_path, compress, suffix):
    path = tmp_path / f"a.mrc.{suffix}"
    path.write_bytes(compress(b"\xff" * 4000))
    with pytest.raises(VolumeError, match="no MRC header"):
        open_volume(path)


# TIFF


@pytest.mark.parametrize(
    ("options", "axes"), [({"imagej": True, "metadata": {"axes": "TYX"}}, "ztcyxs"), ({}, "zyx")]
)
def test_slices_that_were_written_as_times_or_samples_can_be_named(tmp_path, options, axes):
    data = ramp("u1", (4, 37, 53))
    if not options:  # four planes are taken for the samples of a colour image
        options = {"photometric": "rgb", "planarconfig": "separate"}
    path = tiff(tmp_path / "a.tif", data, **options)
    with pytest.raises(VolumeError, match=f"or '::axes={axes}' where they are its slices"):
        open_volume(path)
    with open_volume(f"{path}::axes={axes}") as volume:
        np.testing.assert_array_equal(volume.read(), data)


def test_ome_tiff_states_its_voxel_size(tmp_path):
    path = tiff(
        tmp_path / "a.ome.tif", ramp("u1"), photometric="minisblack",
        metadata={
            "axes": "ZYX", "PhysicalSizeX": 4, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.005,
            "PhysicalSizeZ": 500, "PhysicalSizeZUnit": "Å",
        },
    )  # fmt: skip
    assert open_volume(path).voxel_size_nm == pytest.approx((50, 5, 4))


def test_imagej_tiff_states_its_voxel_size(tmp_path):
    path = tiff(
        tmp_path / "a.tif", ramp("u1"), imagej=True, resolution=(100, 50),
        metadata={"axes": "ZYX", "spacing": 0.05, "unit": "um"},
    )  # fmt: skip
    assert open_volume(path).voxel_size_nm == (50, 20, 10)


@pytest.mark.parametrize(
    ("axes", "selector", "index"),
    [("ZYX", "", ()), ("ZCYX", "::c=1", (slice(None), 1)), ("TZCYX", "::c=2,t=1", (1, slice(None), 2))],
)
def test_an_imagej_stack_of_one_page_directory_is_read_whole(tmp_path, axes, selector, index):
    """ImageJ stacks beyond 4 GiB have one directory and all planes after each other."""
    data = ramp("u2", (2, 6, 3, 20, 30)[5 - len(axes) :] if "C" in axes else SHAPE)
    path = tiff(tmp_path / "a.tif", data, imagej=True, metadata={"axes": axes})
    with tifffile.TiffFile(path) as tif:
        end = tif.pages[0].offset + 2 + 12 * len(tif.pages[0].tags)
    raw = bytearray(path.read_bytes())
    raw[end : end + 4] = bytes(4)  # no next directory
    path.write_bytes(raw)
    with tifffile.TiffFile(path) as tif:
        assert len(tif.pages) == 1
    with open_volume(f"{path}{selector}") as volume:
        np.testing.assert_array_equal(volume.read(), data[index])
    os.truncate(path, path.stat().st_size - 10_000)
    with pytest.raises(VolumeError, match="truncated"):
        open_volume(f"{path}{selector}")


@pytest.mark.parametrize("options", [{"imagej": True}, {"ome": True}, {"compression": "zlib", "ome": True}])
def test_channels_and_times_must_be_chosen(tmp_path, options):
    data = ramp("u1", (2, 3, 4, 20, 30))
    axes = "TZCYX" if "imagej" in options else "TCZYX"
    path = tiff(tmp_path / "a.tif", data, metadata={"axes": axes}, photometric="minisblack", **options)
    with pytest.raises(VolumeError, match=r"axes T\w+ of .*::t=0,c=0"):
        open_volume(path)
    expected = data[1, :, 2] if axes == "TZCYX" else data[1, 2]
    with open_volume(f"{path}::c=2,t=1") as volume:
        np.testing.assert_array_equal(volume.read(), expected)
        np.testing.assert_array_equal(volume.read(((1, 3), (5, 9), (7, 8))), expected[1:3, 5:9, 7:8])
    with pytest.raises(VolumeError, match="no c=4"):
        open_volume(f"{path}::c=4,t=1")
    with pytest.raises(VolumeError, match="'q' is no axis"):
        open_volume(f"{path}::q=4")
    with pytest.raises(VolumeError, match="axis=index"):
        open_volume(f"{path}::c=two")


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_sample_of_colour_pixels_can_be_chosen(tmp_path, planar, compression):
    data = ramp("u1", (20, 30, 3))
    stored = data if planar == "contig" else np.moveaxis(data, -1, 0).copy()
    path = tiff(tmp_path / "a.tif", stored, photometric="rgb", planarconfig=planar, compression=compression)
    with pytest.raises(VolumeError, match="::s=0"):
        open_volume(path)
    with open_volume(f"{path}::s=2") as volume:
        np.testing.assert_array_equal(volume.read(), data[np.newaxis, :, :, 2])


def test_several_images_in_one_tiff_must_be_chosen(tmp_path):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(ramp("u1"), photometric="minisblack")
        file.write(ramp("u2", (2, 5, 5)), photometric="minisblack")
    with pytest.raises(VolumeError, match="2 images.*::series=0"):
        open_volume(path)
    with open_volume(f"{path}::series=1") as volume:
        np.testing.assert_array_equal(volume.read(), ramp("u2", (2, 5, 5)))


def test_a_single_plane_has_one_slice(tmp_path):
    with open_volume(tiff(tmp_path / "a.tif", ramp("u1")[0])) as volume:
        assert volume.shape == (1, *SHAPE[1:])


def test_a_folder_is_a_stack_in_natural_order_and_a_pattern_picks_from_it(tmp_path):
    folder = files_of(tmp_path / "stack", ramp("u1"))  # slice_8.tif ... slice_13.tif
    (folder / "notes.txt").write_text("not an image")
    with open_volume(folder) as volume:
        np.testing.assert_array_equal(volume.read(), ramp("u1"))
    with open_volume(folder / "slice_1*.tif") as volume:
        np.testing.assert_array_equal(volume.read(), ramp("u1")[2:])
    with pytest.raises(VolumeError, match="No file matches"):
        open_volume(folder / "*.png")


def test_a_stack_of_unlike_or_missing_planes_is_refused(tmp_path):
    folder = files_of(tmp_path / "stack", ramp("u1"))
    tifffile.imwrite(folder / "slice_99.tif", ramp("u2")[0])
    with pytest.raises(VolumeError, match=r"slice_99.*must be alike"):
        open_volume(folder)
    tifffile.imwrite(folder / "slice_99.tif", ramp("u1")[:2], photometric="minisblack")
    with pytest.raises(VolumeError, match=r"slice_99.*one each"):
        open_volume(folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(VolumeError, match="holds no TIFF"):
        open_volume(tmp_path / "empty")


def ome_set(folder, data):
    """An OME set of one plane a file, each with the metadata of all."""
    folder.mkdir()
    names = {(c, z): f"f{z}c{c}.ome.tif" for c in range(data.shape[0]) for z in range(data.shape[1])}
    for own, name in names.items():
        parts = "".join(
            f'<TiffData FirstZ="{z}" FirstC="{c}" FirstT="0" IFD="0" PlaneCount="1">'
            f'<UUID FileName="{other}">urn:uuid:{other}</UUID></TiffData>'
            for (c, z), other in names.items()
        )
        xml = (
            '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
            f'UUID="urn:uuid:{name}"><Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" '
            f'Type="uint8" SizeX="{data.shape[3]}" SizeY="{data.shape[2]}" SizeZ="{data.shape[1]}" '
            f'SizeC="{data.shape[0]}" SizeT="1" PhysicalSizeX="0.01" PhysicalSizeY="0.01" '
            f'PhysicalSizeZ="0.05">'
            f"{parts}</Pixels></Image></OME>"
        )
        tifffile.imwrite(folder / name, data[own], description=xml.encode(), metadata=None)
    return folder


def test_an_ome_set_of_files_is_opened_by_its_metadata_not_its_names(tmp_path):
    data = ramp("u1", (2, 3, 20, 30))
    folder = ome_set(tmp_path / "set", data)
    with pytest.raises(VolumeError, match="::c=0"):
        open_volume(folder)
    for path in (folder, folder / "f2c0.ome.tif"):
        with open_volume(f"{path}::c=1") as volume:
            assert volume.voxel_size_nm == pytest.approx((50, 10, 10))
            np.testing.assert_array_equal(volume.read(), data[1])
    (folder / "f1c1.ome.tif").unlink()
    with pytest.raises(VolumeError, match=r"lacks page .* missing"):
        open_volume(f"{folder}::c=1")


def test_a_damaged_strip_is_an_error(tmp_path):
    path = tiff(tmp_path / "a.tif", ramp("u1"), compression="zlib", photometric="minisblack")
    with tifffile.TiffFile(path) as tif:
        offset = tif.pages[3].dataoffsets[0]
    raw = bytearray(path.read_bytes())
    raw[offset : offset + 8] = b"\xff" * 8
    path.write_bytes(raw)
    with open_volume(path) as volume:
        volume.read(((0, 3),))
        with pytest.raises(VolumeError, match="cannot be decoded"):
            volume.read()


# NPY, NPZ


@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_objects_are_refused_unread(tmp_path, name):
    class Bomb:
        def __reduce__(self):
            return os._exit, (1,)

    objects = np.array([[Bomb()]], dtype=object)
    (np.save if name == "a.npy" else np.savez)(tmp_path / name, objects)
    with pytest.raises(VolumeError, match="no number"):
        open_volume(tmp_path / name)


def test_npz_arrays_are_chosen_by_key(tmp_path):
    np.savez(tmp_path / "a.npz", first=ramp("u1"), second=ramp("u2"))
    with pytest.raises(VolumeError, match="first, second"):
        open_volume(tmp_path / "a.npz")
    np.testing.assert_array_equal(open_volume(f"{tmp_path}/a.npz::second").read(), ramp("u2"))


def test_axes_can_be_named_where_the_file_does_not(tmp_path):
    data = ramp("u1", (2, 3, 4, 5))
    np.save(tmp_path / "a.npy", data)
    with pytest.raises(VolumeError, match="without names"):
        open_volume(tmp_path / "a.npy")
    np.testing.assert_array_equal(open_volume(f"{tmp_path}/a.npy::axes=czyx,c=1").read(), data[1])
    np.testing.assert_array_equal(open_volume(f"{tmp_path}/a.npy::axes=zcyx,c=2").read(), data[:, 2])
    with pytest.raises(VolumeError, match="interleaved"):
        open_volume(f"{tmp_path}/a.npy::axes=zyxc,c=2")
    np.save(tmp_path / "b.npy", data[:1])
    np.testing.assert_array_equal(open_volume(tmp_path / "b.npy").read(), data[0])


# HDF5


def test_hdf5_element_size_is_read(tmp_path):
    path = hdf5(tmp_path / "a.h5", ramp("u1"))
    with h5py.File(path, "r+") as file:
        file["raw"].attrs["element_size_um"] = np.array([0.05, 0.01, 0.02])
    assert open_volume(path).voxel_size_nm == pytest.approx((50, 10, 20))


def test_hdf5_dataset_must_be_clear_and_exist(tmp_path):
    path = hdf5(tmp_path / "a.h5", ramp("u1"))
    with h5py.File(path, "r+") as file:
        file["group/label"] = ramp("u2")
        file["text"] = "no image"
        file["points"] = np.zeros(3)
    with pytest.raises(VolumeError, match=r"/group/label, /raw.*as in a\.h5::/group/label\."):
        open_volume(path)
    np.testing.assert_array_equal(open_volume(f"{path}::/group/label").read(), ramp("u2"))
    with pytest.raises(VolumeError, match="no dataset /none"):
        open_volume(f"{path}::/none")


def test_hdf5_without_an_image_is_refused(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["points"] = np.zeros(3)
    with pytest.raises(VolumeError, match="holds no image"):
        open_volume(tmp_path / "a.h5")


def test_hdf5_virtual_dataset_with_a_missing_part_is_refused(tmp_path):
    part = hdf5(tmp_path / "part.h5", ramp("u1"))
    layout = h5py.VirtualLayout(SHAPE, "u1")
    layout[:] = h5py.VirtualSource("part.h5", "raw", SHAPE)
    with h5py.File(tmp_path / "all.h5", "w") as file:
        file.create_virtual_dataset("raw", layout)
    np.testing.assert_array_equal(open_volume(tmp_path / "all.h5").read(), ramp("u1"))
    part.unlink()
    with pytest.raises(VolumeError, match=r"part\.h5 is missing"):
        open_volume(tmp_path / "all.h5")


# OME-Zarr


def ome_group(root, version, data, units=("micrometer",) * 3):
    axes = [{"name": "c", "type": "channel"}] + [
        {"name": name, "type": "space", "unit": unit} for name, unit in zip("zyx", units)
    ]
    image = {
        "axes": axes,
        "datasets": [
            {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1, 0.1, 0.02, 0.01]}]}
        ],
        "coordinateTransformations": [{"type": "scale", "scale": [1, 0.5, 1, 1]}],
    }
    group = zarr.create_group(root, zarr_format=2 if version == "0.4" else 3)
    if version == "0.4":
        group.attrs["multiscales"] = [{"version": "0.4", **image}]
    else:
        group.attrs["ome"] = {"version": "0.5", "multiscales": [image]}
    array = group.create_array("0", shape=data.shape, dtype=data.dtype, chunks=(1, 2, 16, 16))
    array[:] = data
    return root


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_ome_zarr_channels_and_voxel_sizes(tmp_path, version):
    data = ramp("u2", (2, *SHAPE))
    root = ome_group(tmp_path / "a.zarr", version, data)
    with pytest.raises(VolumeError, match="axes CZYX"):
        open_volume(root)
    for path in (f"{root}::c=1", f"{root}::/0,c=1", f"{root}/0::c=1"):
        with open_volume(path) as volume:
            assert volume.voxel_size_nm == pytest.approx((50, 20, 10))
            assert volume.chunks == (2, 16, 16)
            np.testing.assert_array_equal(volume.read(((1, 5), (3, 30))), data[1, 1:5, 3:30])
    root = ome_group(tmp_path / "b.zarr", version, data[:1], units=("micrometer", None, "parsec"))
    with open_volume(root) as volume:  # one channel: nothing to choose
        assert volume.voxel_size_nm is None
        np.testing.assert_array_equal(volume.read(), data[0])


def test_a_damaged_zarr_chunk_is_an_error(tmp_path):
    root = zarr_array(tmp_path / "a.zarr", ramp("u2"), 3, chunks=(2, 16, 16))
    (root / "c/1/0/0").write_bytes(b"garbage")
    with open_volume(root) as volume:
        with pytest.raises(VolumeError, match="is damaged"):
            volume.read()


# anything else


def test_other_files_and_missing_files_get_a_sentence(tmp_path):
    (tmp_path / "a.txt").write_text("hello")
    with pytest.raises(VolumeError, match=r"a\.txt is no volume.*expected MRC"):
        open_volume(tmp_path / "a.txt")
    with pytest.raises(VolumeError, match=r"b\.mrc cannot be opened"):
        open_volume(tmp_path / "b.mrc")
    (tmp_path / "c.mrc").write_bytes(b"\xff" * 5000)
    with pytest.raises(VolumeError, match="no MRC header"):
        open_volume(tmp_path / "c.mrc")
