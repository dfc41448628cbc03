"""Writers of small volumes in every format, for the tests beside."""

import h5py
import mrcfile
import numpy as np
import tifffile
import zarr

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
