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
    assert seen == [(4, 10), (8, 10), (10, 10)]
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
