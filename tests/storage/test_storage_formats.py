"""Every format gives the voxels that were written, by region, and refuses what is damaged in one sentence."""

import bz2
import gzip
import json
import os
import threading

import h5py
import mrcfile
import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from cytomill.storage.convert import sequential_slabs
from cytomill.storage.volumes import VolumeError, open_volume

SHAPE = (6, 37, 53)


def ramp(dtype, shape=SHAPE):
    return (np.arange(np.prod(shape)).reshape(shape) * 7 % 251).astype(dtype)


def write_mrc(path, data, compression=None, **header):
    with mrcfile.new(path, compression=compression, overwrite=True) as file:
        file.set_data(data)
        file.voxel_size = (40.0, 50.0, 60.0)  # x, y, z in angstrom
        for name, value in header.items():
            file.header[name] = value
    return path


def swapped_mrc(path, data):
    """An MRC file in the other byte order."""
    write_mrc(path, data)
    raw = path.read_bytes()
    header = np.frombuffer(raw[:1024], mrcfile.dtypes.HEADER_DTYPE)
    turned = header.byteswap().tobytes()
    # The machine stamp is four single bytes, so byteswap() leaves it alone.
    turned = turned[:212] + b"\x11\x11\0\0" + turned[216:]
    path.write_bytes(turned + np.frombuffer(raw[1024:], data.dtype).byteswap().tobytes())
    return path


def tiff(path, data, photometric="minisblack", **options):
    tifffile.imwrite(path, data, photometric=photometric, **options)
    return path


def files_of(folder, data):
    folder.mkdir()
    for number, plane in enumerate(data):
        tifffile.imwrite(folder / f"slice_{number + 8}.tif", plane)
    return folder


def hdf5(path, data, **options):
    with h5py.File(path, "w") as file:
        file.create_dataset("raw", data=data, **options)
    return path


def zarr_array(path, data, zarr_format, **options):
    array = zarr.create_array(path, shape=data.shape, dtype=data.dtype, zarr_format=zarr_format, **options)
    array[:] = data
    return path


def npy(path, data, version=None):
    with open(path, "wb") as file:
        np.lib.format.write_array(file, data, version=version)
    return path


def zipped_zarr(path, data):
    with zarr.storage.ZipStore(path, mode="w") as store:
        zarr.create_array(store, data=data, chunks=(2, 16, 16))
    return path


def npz(path, data, save=np.savez):
    save(path, volume=data)
    return path


#: Name to (writer, dtype): each writes the ramp of that type below a folder.
WRITERS = {
    "mrc_i1": (lambda p, d: write_mrc(p / "a.mrc", d), "i1"),
    "mrc_i2": (lambda p, d: write_mrc(p / "a.rec", d), "i2"),
    "mrc_f4": (lambda p, d: write_mrc(p / "a.map", d), "f4"),
    "mrc_u2": (lambda p, d: write_mrc(p / "a.st", d), "u2"),
    "mrc_f2": (lambda p, d: write_mrc(p / "a.mrc", d), "f2"),
    "mrc_c8": (lambda p, d: write_mrc(p / "a.mrc", d), "c8"),
    "mrc_swapped": (lambda p, d: swapped_mrc(p / "a.mrc", d), "i2"),
    "mrc_gz": (lambda p, d: write_mrc(p / "a.mrc.gz", d, "gzip"), "f4"),
    "mrc_bz2": (lambda p, d: write_mrc(p / "a.mrc.bz2", d, "bzip2"), "i2"),
    "tiff_plain": (lambda p, d: tiff(p / "a.tif", d), "u1"),
    "tiff_pages": (lambda p, d: tiff(p / "a.tif", d, rowsperstrip=5, metadata=None), "u2"),
    "tiff_swapped": (lambda p, d: tiff(p / "a.tif", d, byteorder=">"), "f4"),
    "tiff_big": (lambda p, d: tiff(p / "a.btf", d, bigtiff=True), "u2"),
    "tiff_deflate": (
        lambda p, d: tiff(p / "a.tif", d, compression="zlib", predictor=True, rowsperstrip=10),
        "u2",
    ),
    "tiff_lzw": (lambda p, d: tiff(p / "a.tif", d, compression="lzw", byteorder=">"), "u2"),
    "tiff_tiles": (
        lambda p, d: tiff(p / "a.tif", d, tile=(16, 32), compression="zstd"), "f4",
    ),
    "tiff_raw_tiles": (lambda p, d: tiff(p / "a.tif", d, tile=(16, 16)), "u1"),
    "tiff_volumetric": (
        lambda p, d: tiff(p / "a.tif", d, tile=(4, 16, 16), volumetric=True), "u1",
    ),
    "tiff_imagej": (lambda p, d: tiff(p / "a.tif", d, imagej=True, metadata={"axes": "ZYX"}), "u2"),
    "tiff_ome": (lambda p, d: tiff(p / "a.ome.tif", d, metadata={"axes": "ZYX"}), "f4"),
    "tiff_ome_lzw": (
        lambda p, d: tiff(p / "a.ome.tif", d, metadata={"axes": "ZYX"}, compression="lzw"),
        "i2",
    ),
    "tiff_folder": (lambda p, d: files_of(p / "stack", d), "u1"),
    "npy": (lambda p, d: npy(p / "a.npy", d), "f8"),
    "npy_fortran": (lambda p, d: npy(p / "a.npy", np.asfortranarray(d)), "u2"),
    "npy_v2": (lambda p, d: npy(p / "a.npy", d, (2, 0)), "?"),
    "npy_v3": (lambda p, d: npy(p / "a.npy", d.astype(">i4"), (3, 0)), "i4"),
    "npz": (lambda p, d: npz(p / "a.npz", d), "u1"),
    "npz_compressed": (lambda p, d: npz(p / "a.npz", d, np.savez_compressed), "f2"),
    "npz_fortran": (lambda p, d: npz(p / "a.npz", np.asfortranarray(d)), "u2"),
    "hdf5": (lambda p, d: hdf5(p / "a.h5", d), "u1"),
    "hdf5_chunked": (lambda p, d: hdf5(p / "a.h5", d, chunks=(2, 16, 16), compression="gzip"), "f4"),
    "hdf5_swapped": (lambda p, d: hdf5(p / "a.h5", d.astype(">u2")), "u2"),
    "zarr_v2": (lambda p, d: zarr_array(p / "a.zarr", d, 2, chunks=(2, 16, 16)), "u2"),
    "zarr_v2_swapped": (lambda p, d: zarr_array(p / "a.zarr", d.astype(">u2"), 2, chunks=(2, 16, 16)), "u2"),
    "zarr_v3": (lambda p, d: zarr_array(p / "a.zarr", d, 3, chunks=(1, 16, 16), shards=(2, 32, 32)), "f2"),
    "zarr_zip": (lambda p, d: zipped_zarr(p / "a.zarr.zip", d), "u1"),
}  # fmt: skip

STREAMED = {"mrc_gz", "mrc_bz2", "npz", "npz_compressed", "npz_fortran"}


@pytest.mark.parametrize("name", WRITERS)
def test_reads_any_region_of_what_was_written(tmp_path, name):
    write, dtype = WRITERS[name]
    data = ramp(dtype)
    path = write(tmp_path, data)
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")}
    with open_volume(path) as volume:
        assert volume.shape == SHAPE
        assert volume.dtype == np.dtype(dtype) and volume.dtype.isnative
        assert volume.region_readable == (name not in STREAMED)
        assert len(volume.chunks) == 3 and all(1 <= n for n in volume.chunks)

        def axis(extent):
            return st.tuples(st.integers(0, extent - 1), st.integers(1, extent)).filter(lambda r: r[0] < r[1])

        @settings(max_examples=12, deadline=None)
        @given(st.tuples(*map(axis, SHAPE)), st.integers(0, 3))
        def check_region(region, given_axes):
            region = region[:given_axes]
            result = volume.read(region)
            assert result.flags.c_contiguous and result.flags.writeable and result.dtype.isnative
            np.testing.assert_array_equal(result, data[tuple(slice(*ends) for ends in region)])

        check_region()
        identity = volume.identity()
        assert json.loads(json.dumps(identity)) == identity
        with pytest.raises(ValueError, match="not inside"):
            volume.read(((0, SHAPE[0] + 1),))
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")} == before


@pytest.mark.parametrize("name", ["mrc_gz", "mrc_bz2", "npz_compressed", "npz_fortran", "tiff_deflate"])
@pytest.mark.parametrize("depth", [1, 4, 100])
def test_slabs_come_in_order_and_make_the_whole(tmp_path, name, depth):
    write, dtype = WRITERS[name]
    data = ramp(dtype)
    slabs = list(sequential_slabs(write(tmp_path, data), depth))
    assert [start for start, _ in slabs] == list(range(0, SHAPE[0], depth))
    np.testing.assert_array_equal(np.concatenate([slab for _, slab in slabs]), data)


#: Formats whose voxels lie at the end of one file, so that what is missing shows in its size or its stream.
TRUNCATABLE = [
    name
    for name in WRITERS
    if name.startswith(("mrc", "tiff", "npy", "npz", "hdf5")) and name != "tiff_folder"
]


@pytest.mark.parametrize("name", TRUNCATABLE)
@pytest.mark.parametrize("part", [0.0, 0.1, 0.6, 0.99])
def test_a_truncated_file_is_refused_with_its_name(tmp_path, name, part):
    write, dtype = WRITERS[name]
    path = write(tmp_path, ramp(dtype))
    os.truncate(path, int(path.stat().st_size * part))
    with pytest.raises(VolumeError) as caught:
        with open_volume(path) as volume:
            assert name in STREAMED, "a truncated file must be noticed when it is opened"
            volume.read()
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["mrc_i2", "tiff_plain", "tiff_deflate", "npy"])
def test_a_file_cut_while_it_is_open_is_an_error_not_a_crash(tmp_path, name):
    write, dtype = WRITERS[name]
    path = write(tmp_path, ramp(dtype))
    with open_volume(path) as volume:
        os.truncate(path, path.stat().st_size // 2)
        with pytest.raises(VolumeError, match="ends at byte"):
            volume.read()


@pytest.mark.parametrize("name", ["mrc_f4", "tiff_deflate", "tiff_folder", "hdf5_chunked", "zarr_v3", "npz"])
def test_threads_may_read_at_once(tmp_path, name):
    write, dtype = WRITERS[name]
    data = ramp(dtype)
    wrong = []
    with open_volume(write(tmp_path, data)) as volume:

        def read_all(shift):
            for z in range(SHAPE[0]):
                z = (z + shift) % SHAPE[0]
                if not np.array_equal(volume.read(((z, z + 1),)), data[z : z + 1]):
                    wrong.append(z)

        threads = [threading.Thread(target=read_all, args=(shift,)) for shift in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong


@pytest.mark.parametrize("name", ["mrc_f4", "tiff_deflate", "tiff_folder", "npy", "npz", "hdf5", "zarr_v3"])
def test_identity_is_stable_and_tells_a_changed_file(tmp_path, name):
    write, dtype = WRITERS[name]
    path = write(tmp_path, ramp(dtype))
    with open_volume(path) as volume:
        first = volume.identity()
    with open_volume(path) as volume:
        assert volume.identity() == first
    file = next(entry for entry in sorted(tmp_path.rglob("*")) if entry.is_file())
    os.utime(file, ns=(1, file.stat().st_mtime_ns + 10**9))
    with open_volume(path) as volume:
        assert volume.identity() != first


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
    with pytest.raises(VolumeError, match="/group/label, /raw"):
        open_volume(path)
    np.testing.assert_array_equal(open_volume(f"{path}::/group/label").read(), ramp("u2"))
    with pytest.raises(VolumeError, match="no dataset /none"):
        open_volume(f"{path}::/none")


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
