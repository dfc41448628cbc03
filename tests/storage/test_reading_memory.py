"""Reading a region takes the memory that is predicted: shards cut by the region are read by chunks."""

import subprocess
import sys

import numpy as np
import pytest

from cytomill.storage.stores import open_store, region_buffer_bytes

SHAPE, SHARDS, CHUNKS = (32, 2048, 2048), (16, 2048, 2048), (8, 256, 256)

#: In a process of its own: the peak of this one is that of earlier tests.
READ = """
import os, sys
os.environ["RAYON_NUM_THREADS"] = "1"
from cytomill.runtime.telemetry import peak_memory_bytes, reset_peak_memory
from cytomill.storage.stores import open_store

array = open_store(sys.argv[1]).open("images/50-10-10")
region = eval(sys.argv[2])
array.read(((0, 1), (0, 8), (0, 8)))
if not reset_peak_memory():
    sys.exit(3)
before = peak_memory_bytes()
array.read(region)
print(peak_memory_bytes() - before, array.reading_bytes([stop - start for start, stop in region]))
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("reading") / "store.zarr"
    array = open_store(path).create("images/50-10-10", SHAPE, "uint8", CHUNKS, SHARDS)
    noise = np.random.default_rng(0).integers(0, 256, SHAPE, dtype=np.uint8)
    array.write(((0, SHAPE[0]),), noise)
    return path


@pytest.mark.parametrize(
    "region",
    [
        pytest.param(((0, 32), (0, 2048), (0, 2048)), id="whole array"),
        pytest.param(((0, 16), (0, 2048), (0, 2048)), id="whole shard"),
        pytest.param(((2, 16), (0, 2048), (0, 2048)), id="cut along Z"),
        pytest.param(((0, 16), (0, 2048), (0, 2040)), id="cut along X"),
    ],
)
def test_a_region_takes_what_is_predicted(store, region):
    found = subprocess.run(
        [sys.executable, "-c", READ, str(store), str(region)], capture_output=True, text=True
    )
    if found.returncode == 3:
        pytest.skip("needs a kernel that lets a process forget its peak memory")
    assert found.returncode == 0, found.stderr
    measured, predicted = map(int, found.stdout.split())
    assert measured <= predicted + 4e6
    assert predicted <= 1.25 * measured + 4e6


def test_a_last_shard_that_the_region_holds_is_read_whole():
    last = region_buffer_bytes((4, 2048, 2048), (20, 2048, 2048), SHARDS, CHUNKS, "uint8")
    assert last == 4 * 2048 * 2048
