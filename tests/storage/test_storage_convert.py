"""Any readable volume becomes an image of the store, in memory for one layer of shards."""

import subprocess
import sys

import mrcfile
import numpy as np
import pytest

from cytomill.storage.convert import convert
from cytomill.storage.stores import open_store
from cytomill.storage.volumes import VolumeError, open_volume


def stack(path, shape=(10, 20, 30), compression=None):
    data = (np.arange(np.prod(shape)).reshape(shape) % 251).astype(np.int16)
    with mrcfile.new(path, compression=compression) as file:
        file.set_data(data)
        file.voxel_size = (100.0, 100.0, 500.0)
    return data


@pytest.mark.parametrize(
    ("name", "compression"), [("a.mrc", None), ("a.mrc.gz", "gzip"), ("a.mrc.bz2", "bzip2")]
)
def test_a_volume_is_copied_with_its_voxel_size_and_origin(tmp_path, name, compression):
    data = stack(tmp_path / name, compression=compression)
    seen = []
    array = convert(
        tmp_path / name, tmp_path / "a.zarr", chunks=(1, 16, 16), shards=(4, 32, 32),
        progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    assert (array.name, array.voxel_size_nm, array.dtype) == ("images/50-10-10", (50, 10, 10), np.int16)
    assert seen == [(0, 10), (4, 10), (8, 10), (10, 10)]
    assert array.attributes["processing"] == {"step": "convert", "complete": True}
    assert array.attributes["inputs"][0]["name"] == name
    with open_volume(tmp_path / "a.zarr") as volume:
        np.testing.assert_array_equal(volume.read(), data)


def test_a_missing_voxel_size_is_asked_for(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((2, 3, 4), np.uint8))
    with pytest.raises(VolumeError, match="does not state its voxel size"):
        convert(tmp_path / "a.npy", tmp_path / "a.zarr")
    assert not (tmp_path / "a.zarr").exists()
    array = convert(tmp_path / "a.npy", tmp_path / "a.zarr", name="images/raw", voxel_size_nm=(5, 1, 1))
    assert array.voxel_size_nm == (5, 1, 1) and array.read().all()


def test_a_copy_replaces_that_of_the_same_source_and_nothing_else(tmp_path):
    size = {"voxel_size_nm": (50, 10, 10)}
    for value, name in enumerate(("a.npy", "b.npy")):
        np.save(tmp_path / name, np.full((2, 3, 4), value, np.uint8))
    convert(tmp_path / "a.npy", tmp_path / "s.zarr", **size)
    with pytest.raises(VolumeError, match=r"holds images/50-10-10 already, made from a\.npy"):
        convert(tmp_path / "b.npy", tmp_path / "s.zarr", **size)
    np.save(tmp_path / "a.npy", np.full((2, 3, 4), 7, np.uint8))
    assert (convert(tmp_path / "a.npy", tmp_path / "s.zarr", **size).read() == 7).all()


def test_a_store_is_not_copied_into_itself(tmp_path):
    (tmp_path / "old").mkdir()
    np.save(tmp_path / "old" / "s.zarr.npy", np.ones((2, 3, 4), np.uint8))
    (tmp_path / "old" / "s.zarr.npy").rename(tmp_path / "old" / "s.zarr")
    convert(tmp_path / "old" / "s.zarr", tmp_path / "s.zarr", voxel_size_nm=(50, 10, 10))
    for source in ("s.zarr", "s.zarr::/images/50-10-10"):
        with pytest.raises(VolumeError, match="remove it, or choose another store"):
            convert(tmp_path / source, tmp_path / "s.zarr")
    assert open_store(tmp_path / "s.zarr").open("images/50-10-10").read().all()


def test_a_copy_that_breaks_off_says_so_and_is_finished_by_the_next(tmp_path):
    data = stack(tmp_path / "a.mrc.gz", compression="gzip")
    whole = (tmp_path / "a.mrc.gz").read_bytes()
    (tmp_path / "a.mrc.gz").write_bytes(whole[: len(whole) * 3 // 4])
    options = {"chunks": (1, 16, 16), "shards": (1, 32, 32)}
    with pytest.raises(VolumeError, match="truncated"):
        convert(tmp_path / "a.mrc.gz", tmp_path / "a.zarr", **options)
    half = open_store(tmp_path / "a.zarr").open("images/50-10-10")
    assert half.attributes["processing"]["complete"] is False
    (tmp_path / "a.mrc.gz").write_bytes(whole)
    array = convert(tmp_path / "a.mrc.gz", tmp_path / "a.zarr", **options)
    assert array.attributes["processing"]["complete"] is True
    np.testing.assert_array_equal(array.read(), data)


def test_memory_is_bounded_by_a_slab_not_the_volume(tmp_path):
    """Converting 256 MiB out of a gzip stream takes a small part of that."""
    depth, plane = 64, (1024, 2048)
    with mrcfile.new(tmp_path / "small.mrc") as file:
        file.set_data(np.zeros((1, *plane), np.int16))
        file.header.nz = file.header.mz = depth
    header = (tmp_path / "small.mrc").read_bytes()[:1024]
    script = f"""
import gzip, resource, sys
import numpy as np
from cytomill.storage.convert import convert
with gzip.open({str(tmp_path / "big.mrc.gz")!r}, "wb", compresslevel=1) as file:
    file.write({header!r})
    for z in range({depth}):
        file.write(np.full({plane}, z + 1, np.int16).tobytes())
import cytomill.storage.mrc_volume, cytomill.storage.ome_zarr
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
array = convert({str(tmp_path / "big.mrc.gz")!r}, {str(tmp_path / "a.zarr")!r}, voxel_size_nm=(1, 1, 1),
                shards=(4, 1024, 2048))
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert array.read(((63, 64),)).min() == 64
print((after - before) / 1024)
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert float(result.stdout) < 120, f"{result.stdout} MiB more than before"


def test_an_int16_stack_is_moved_to_uint16_without_loss(tmp_path):
    data = stack(tmp_path / "a.mrc") - 300
    np.save(tmp_path / "a.npy", data)
    array = convert(tmp_path / "a.npy", tmp_path / "a.zarr", voxel_size_nm=(50, 10, 10), dtype="uint16")
    np.testing.assert_array_equal(array.read().astype(int) - 32768, data)
    assert array.attributes["processing"] == {
        "step": "convert",
        "complete": True,
        "from": "int16",
        "grey_levels": [-32768, 32767],
    }


def test_a_float_stack_is_scaled_by_its_finite_range_or_the_one_given(tmp_path):
    data = np.random.default_rng(0).normal(0, 1, (5, 20, 30)).astype(np.float32)
    data[2, 3, 4], data[0, 0, 0] = np.nan, 7.0
    np.save(tmp_path / "a.npy", data)
    size = {"voxel_size_nm": (50, 10, 10)}
    whole = convert(tmp_path / "a.npy", tmp_path / "a.zarr", dtype="uint8", **size)
    low, high = whole.attributes["processing"]["grey_levels"]
    assert (low, high) == (np.nanmin(data), 7.0)
    stored = whole.read()
    assert stored[2, 3, 4] == 0 and stored[0, 0, 0] == 255 and stored.dtype == np.uint8
    cut = convert(tmp_path / "a.npy", tmp_path / "b.zarr", dtype="uint8", grey_levels=(-1, 1), **size).read()
    expected = np.clip(np.rint((np.nan_to_num(data, nan=-9) + 1) * 127.5), 0, 255)
    assert np.abs(cut - expected).max() <= 1 and (cut == 0).mean() > 0.1


@pytest.mark.parametrize(
    ("data", "options", "sentence"),
    [
        (np.full((2, 3, 4), 5, np.float32), {"dtype": "uint8"}, "5 in every pixel: there are no grey levels"),
        (np.full((2, 3, 4), np.nan, np.float32), {"dtype": "uint8"}, "no finite pixel"),
        (np.zeros((2, 3, 4), np.complex64), {"dtype": "uint8"}, "only integers and real numbers"),
        (np.zeros((2, 3, 4), np.int16), {"dtype": "uint8", "grey_levels": (3, 3)}, "from a low to a higher"),
        (np.zeros((2, 3, 4), np.int16), {"grey_levels": (0, 3)}, "say which, uint8 or uint16"),
    ],
)
def test_grey_levels_that_cannot_be_scaled_are_refused_in_a_sentence(tmp_path, data, options, sentence):
    np.save(tmp_path / "a.npy", data)
    with pytest.raises(VolumeError, match=sentence):
        convert(tmp_path / "a.npy", tmp_path / "a.zarr", voxel_size_nm=(50, 10, 10), **options)
    assert not (tmp_path / "a.zarr" / "images").exists()
