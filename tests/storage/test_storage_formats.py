"""Every format gives the voxels that were written, by region, and refuses what is damaged in one sentence."""

import json
import os
import random
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from volume_writers import SHAPE, STREAMED, WRITERS, ramp

from cytomill.storage.convert import sequential_slabs
from cytomill.storage.volumes import VolumeError, open_volume


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


@pytest.mark.parametrize("name", WRITERS)
def test_a_damaged_header_is_refused_in_one_sentence_or_harmless(tmp_path, name):
    """Whatever a parser raises on nonsense, the user gets a sentence, and the process lives."""
    write, dtype = WRITERS[name]
    path = write(tmp_path, ramp(dtype))
    files = sorted(file for file in tmp_path.rglob("*") if file.is_file())
    choose = random.Random(name)
    for _ in range(8):
        file = choose.choice(files)
        original = file.read_bytes()
        damaged = bytearray(original)
        for _ in range(3):
            at = choose.randrange(min(len(damaged), 600))
            damaged[choose.choice((at, len(damaged) - 1 - at))] = choose.randrange(256)
        file.write_bytes(damaged)
        try:
            with open_volume(path) as volume:
                if np.prod(volume.shape, dtype=float) < 1e7:
                    volume.read()
        except VolumeError as error:
            assert "\n" not in str(error)
        file.write_bytes(original)
