"""The store: one writer a shard, a flipped bit is an error, and other programs read what is written."""

import json
import pickle
import random

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from cytomill.storage.durable import check, seal
from cytomill.storage.stores import (
    DamagedShard,
    VolumeError,
    default_shards,
    fit_chunks,
    open_store,
    parse_spacing,
    spacing_name,
)
from cytomill.storage.volumes import open_volume

POSTERIOR = "labels/nps/posterior/50-10-10"


def posterior_like(shape, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.random(shape) * (rng.random(shape) < 0.05)).astype(np.float16)


@pytest.fixture
def written(tmp_path):
    """A store with one posterior of 3 x 1 x 2 shards, cut by the array's edges, and its data."""
    data = posterior_like((5, 40, 50))
    store = open_store(tmp_path / "a.zarr")
    array = store.create(POSTERIOR, data.shape, data.dtype, (1, 16, 16), (2, 48, 32))
    array.write((), data)
    return store, array, data


def test_reads_back_what_was_written(written):
    store, array, data = written
    again = store.open(POSTERIOR)
    assert (again.shape, again.dtype, again.chunks, again.shards) == (
        (5, 40, 50), np.float16, (1, 16, 16), (2, 48, 32),
    )  # fmt: skip
    assert again.voxel_size_nm == (50, 10, 10)
    result = again.read()
    assert result.flags.c_contiguous and result.flags.writeable
    np.testing.assert_array_equal(result, data)


def test_reads_any_region(written):
    _, array, data = written

    def axis(extent):
        return st.tuples(st.integers(0, extent - 1), st.integers(1, extent)).filter(lambda r: r[0] < r[1])

    @settings(max_examples=40, deadline=None)
    @given(st.tuples(*map(axis, data.shape)), st.integers(0, 3))
    def check_region(region, given_axes):
        region = region[:given_axes]
        expected = data[tuple(slice(*ends) for ends in region)]
        np.testing.assert_array_equal(array.read(region), expected)

    check_region()


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "i8", "f4", "f8", "?"])
def test_keeps_every_type(tmp_path, dtype):
    data = (np.arange(2 * 9 * 7).reshape(2, 9, 7) % 3).astype(dtype)
    array = open_store(tmp_path).create("images/1-1-1", data.shape, dtype, (1, 4, 4))
    array.write((), data)
    assert array.read().dtype == data.dtype
    np.testing.assert_array_equal(array.read(), data)


@pytest.mark.parametrize(
    "region",
    [((1, 2),), ((0, 1),), ((0, 2), (0, 16)), ((0, 2), (0, 40), (16, 50)), ((2, 5), (0, 40), (0, 16))],
)
def test_a_write_that_is_not_whole_shards_is_refused(written, region):
    _, array, data = written
    part = data[tuple(slice(*ends) for ends in region)]
    with pytest.raises(ValueError, match="whole shards"):
        array.write(region, part)
    np.testing.assert_array_equal(array.read(), data)


def test_a_write_of_another_shape_or_type_is_refused(written):
    _, array, data = written
    with pytest.raises(ValueError, match="float32"):
        array.write((), data.astype(np.float32))
    with pytest.raises(ValueError, match="shape"):
        array.write(((0, 2),), data[:1])


def test_shard_paths_are_all_the_files_and_in_raster_order(written):
    _, array, _ = written
    paths = array.shard_paths()
    assert len(paths) == 6 and all(path.is_file() and path.is_absolute() for path in paths)
    assert paths == sorted(paths)
    on_disk = {path for path in (array.root / POSTERIOR / "c").rglob("*") if path.is_file()}
    assert set(paths) == on_disk
    assert array.shard_paths(((2, 3), (0, 1), (0, 33))) == paths[2:4]
    assert array.shard_paths(((2, 3), (0, 1), (0, 32))) == paths[2:3]


def test_a_shard_that_becomes_empty_leaves_no_file(written):
    _, array, data = written
    array.write(((2, 4),), np.zeros_like(data[2:4]))
    assert [path.exists() for path in array.shard_paths()] == [True, True, False, False, True, True]
    assert not array.read(((2, 4),)).any()


def test_a_write_over_a_damaged_shard_does_not_read_it(written):
    _, array, data = written
    for path in array.shard_paths():
        path.write_bytes(b"torn")
    array.write((), data)
    np.testing.assert_array_equal(array.read(), data)


def test_a_flipped_bit_is_an_error_that_names_the_shard_never_a_pixel(written):
    _, array, data = written
    choose = random.Random(7)
    paths = array.shard_paths()
    caught = 0
    for _ in range(60):
        path = choose.choice(paths)
        original = path.read_bytes()
        damaged = bytearray(original)
        damaged[choose.randrange(len(damaged))] ^= 1 << choose.randrange(8)
        path.write_bytes(damaged)
        try:
            np.testing.assert_array_equal(array.read(), data)
        except DamagedShard as error:
            caught += 1
            assert error.path == path and str(path) in str(error)
        path.write_bytes(original)
    assert caught > 50  # a few bits of a zstd frame mean nothing
    np.testing.assert_array_equal(array.read(), data)


@pytest.mark.parametrize("kept", [0, 1, 100])
def test_a_truncated_shard_is_named(written, kept):
    _, array, _ = written
    path = array.shard_paths()[3]
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DamagedShard) as caught:
        array.read()
    assert caught.value.path == path
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value)


def test_a_deleted_shard_reads_as_zeros_so_the_record_catches_it(written):
    store, array, _ = written
    records = seal(array.shard_paths(), store.root)
    array.shard_paths()[2].unlink()
    assert not array.read(((2, 3), (0, 40), (0, 32))).any()
    problems = [check(record, store.root, deep=False) for record in records]
    assert [problem is not None for problem in problems] == [False, False, True, False, False, False]
    assert "missing" in problems[2]


def test_plain_zarr_reads_it_with_its_own_codecs(written):
    store, _, data = written
    assert zarr.config.get("codec_pipeline.path") == "zarr.core.codec_pipeline.BatchedCodecPipeline"
    plain = zarr.open_group(store.root, mode="r")[POSTERIOR]
    np.testing.assert_array_equal(plain[:], data)
    codec = plain.metadata.to_dict()["codecs"][0]
    assert codec["name"] == "sharding_indexed"
    inner = {step["name"]: step.get("configuration") for step in codec["configuration"]["codecs"]}
    assert inner["zstd"] == {"level": 1, "checksum": True}
    assert codec["configuration"]["index_codecs"][-1]["name"] == "crc32c"


def full_store(root):
    """A store as the pipeline leaves it: an image at two spacings, posterior, masks."""
    store = open_store(root)
    image = np.arange(4 * 32 * 32, dtype=np.uint8).reshape(4, 32, 32)
    masks = (image > 100).astype(np.uint32)
    store.create("images/50-20-20", (4, 16, 16), "u1", (1, 16, 16)).write((), image[:, ::2, ::2].copy())
    store.create("images/50-10-10", image.shape, "u1", (1, 16, 16)).write((), image)
    store.create(POSTERIOR, image.shape, "f2", (1, 16, 16)).write((), posterior_like(image.shape))
    store.create("labels/nps/masks/50-10-10", image.shape, "u4", (1, 16, 16)).write((), masks)
    return store, image, masks


def test_spacings_of_a_group_are_one_multiscale_image_finest_first(tmp_path):
    store, _, _ = full_store(tmp_path / "a.zarr")
    for group, prefix in (("images", ""), ("", "images/")):
        attributes = json.loads((store.root / group / "zarr.json").read_text())["attributes"]["ome"]
        (image,) = attributes["multiscales"]
        assert attributes["version"] == "0.5"
        assert [axis["name"] + axis["unit"] for axis in image["axes"]] == [
            "znanometer",
            "ynanometer",
            "xnanometer",
        ]
        assert [(d["path"], d["coordinateTransformations"][0]["scale"]) for d in image["datasets"]] == [
            (f"{prefix}50-10-10", [50, 10, 10]),
            (f"{prefix}50-20-20", [50, 20, 20]),
        ]
    labels = json.loads((store.root / "labels/zarr.json").read_text())["attributes"]["ome"]
    assert labels["labels"] == ["nps/masks"]
    masks = json.loads((store.root / "labels/nps/masks/zarr.json").read_text())["attributes"]["ome"]
    assert masks["image-label"] == {"source": {"image": "../../../"}}
    posterior = json.loads((store.root / "labels/nps/posterior/zarr.json").read_text())["attributes"]["ome"]
    assert "image-label" not in posterior


def test_metadata_are_valid_ome_ngff(tmp_path):
    models = pytest.importorskip("ome_zarr_models.v05", reason="needs ome-zarr-models")
    image = models.image
    store, _, _ = full_store(tmp_path / "a.zarr")
    # The package's check of a whole image looks for labels one level down only, ours are nested.
    attributes = zarr.open_group(store.root, mode="r").attrs.asdict()["ome"]
    image.ImageAttrs.model_validate(attributes)
    models.Image.from_zarr(zarr.open_group(store.root / "images", mode="r"))
    models.ImageLabel.from_zarr(zarr.open_group(store.root / "labels/nps/masks", mode="r"))


def test_ome_zarr_finds_the_image_and_its_labels(tmp_path):
    reader = pytest.importorskip("ome_zarr.reader", reason="needs ome-zarr (the test extra)")
    from ome_zarr.io import parse_url

    store, image, masks = full_store(tmp_path / "a.zarr")
    nodes = {node.zarr.basename(): node for node in reader.Reader(parse_url(store.root))()}
    assert {"a.zarr", "masks"} <= set(nodes)
    np.testing.assert_array_equal(nodes["a.zarr"].data[0].compute(), image)
    np.testing.assert_array_equal(nodes["masks"].data[0].compute(), masks)


def test_open_volume_reads_the_store_by_every_path(tmp_path):
    store, image, _ = full_store(tmp_path / "a.zarr")
    for path in ("", "/images", "/images/50-10-10", "::/images/50-10-10", "::images"):
        with open_volume(f"{store.root}{path}") as volume:
            assert volume.voxel_size_nm == (50, 10, 10), path
            np.testing.assert_array_equal(volume.read(), image)


def test_creating_the_same_array_again_keeps_its_data(written):
    store, array, data = written
    again = store.create(
        POSTERIOR, data.shape, data.dtype, (1, 16, 16), (2, 48, 32), attributes={"processing": "second"}
    )
    np.testing.assert_array_equal(again.read(), data)
    assert again.attributes == {"spacing": [50, 10, 10], "processing": "second"}


def test_creating_another_array_in_its_place_needs_overwrite(written):
    store, array, data = written
    with pytest.raises(VolumeError, match="data_type"):
        store.create(POSTERIOR, data.shape, "u1", (1, 16, 16), (2, 48, 32))
    with pytest.raises(VolumeError, match="spacing"):
        store.create(POSTERIOR, data.shape, "f2", (1, 16, 16), (2, 48, 32), voxel_size_nm=(1, 1, 1))
    fresh = store.create(POSTERIOR, data.shape, "u1", (1, 16, 16), overwrite=True)
    assert fresh.dtype == np.uint8 and not fresh.read().any()


def test_attributes_are_kept_an_array(written):
    store, array, _ = written
    array.update_attributes({"inputs": ["a.mrc"]})
    assert store.open(POSTERIOR).attributes["inputs"] == ["a.mrc"]
    assert store.open(POSTERIOR).attributes["spacing"] == [50, 10, 10]


@pytest.mark.parametrize("name", ["images", "../images/1-1-1", "images//1-1-1", "images/.x", "/images/1-1-1"])
def test_names_that_leave_the_store_are_refused(tmp_path, name):
    with pytest.raises(VolumeError, match="does not name an array"):
        open_store(tmp_path).create(name, (1, 1, 1), "u1", (1, 1, 1), voxel_size_nm=(1, 1, 1))


def test_bad_layouts_get_a_sentence(tmp_path):
    store = open_store(tmp_path / "a.zarr")
    with pytest.raises(VolumeError, match="not multiples"):
        store.create("images/1-1-1", (4, 8, 8), "u1", (2, 8, 8), (3, 8, 8))
    with pytest.raises(VolumeError, match="three positive"):
        store.create("images/1-1-1", (4, 0, 8), "u1", (2, 8, 8))
    with pytest.raises(VolumeError, match="50-10-10"):
        store.create("images/fine", (4, 8, 8), "u1", (1, 8, 8))
    with pytest.raises(VolumeError, match="no array"):
        store.open("images/1-1-1")
    with pytest.raises(VolumeError, match="kind"):
        open_store(tmp_path, kind="n5")
    assert not store.exists("images/1-1-1")


def test_a_zarr_v2_store_is_not_written(tmp_path):
    zarr.create_group(tmp_path / "a.zarr", zarr_format=2)
    with pytest.raises(VolumeError, match="v2"):
        open_store(tmp_path / "a.zarr").create("images/1-1-1", (1, 1, 1), "u1", (1, 1, 1))


@given(
    st.tuples(*[st.integers(1, 5000)] * 3),
    st.tuples(st.integers(1, 16), st.integers(1, 2048), st.integers(1, 2048)),
    st.sampled_from(["u1", "f2", "f8"]),
)
def test_default_shards_are_whole_chunks_within_the_size(shape, chunks, dtype):
    shards = default_shards(shape, dtype, chunks)
    assert all(shard >= chunk and shard % chunk == 0 for shard, chunk in zip(shards, chunks))
    assert np.prod(shards) * np.dtype(dtype).itemsize <= max(
        64 * 2**20, np.prod(chunks) * np.dtype(dtype).itemsize
    )


def test_default_shards_prefer_whole_planes():
    assert default_shards((64, 2048, 2048), "f2", (1, 1024, 1024)) == (4, 2048, 2048)
    assert default_shards((2000, 2048, 2048), "f2", (1, 1024, 1024)) == (8, 2048, 2048)
    assert default_shards((30, 512, 512), "u1", fit_chunks((30, 512, 512), (1, 1024, 1024))) == (2, 512, 512)


def test_spacing_names():
    assert spacing_name((50, 10, 10.0)) == "50-10-10"
    assert spacing_name((50, 5.9, 0.00001)) == "50-5.9-0.00001"
    assert parse_spacing("50-10-2.5") == (50, 10, 2.5)
    for bad in ("50-10", "a-b-c", "50-10-0", "50-10-nan", ""):
        with pytest.raises(VolumeError):
            parse_spacing(bad)
    with pytest.raises(VolumeError):
        spacing_name((50, -1, 1))


@given(st.tuples(*[st.floats(1e-6, 1e6)] * 3))
def test_spacing_names_are_read_back_to_six_digits(size):
    np.testing.assert_allclose(parse_spacing(spacing_name(size)), size, rtol=5e-6)
