"""Loading by one call, and log files that are closed."""

import gzip
import json
import logging
import re

import numpy as np
import pytest
import tifffile

from cytomill.partitioning import QuickLogger, UniversalDataLoader, log_analysis
from cytomill.partitioning.loader import VENDOR_PLUGINS

load_data = UniversalDataLoader.load_data


@pytest.fixture
def volume():
    return np.random.default_rng(0).integers(0, 1000, (5, 7, 9)).astype(np.uint16)


def test_volumes_of_every_format_are_loaded_as_they_are(tmp_path, volume):
    np.save(tmp_path / "a.npy", volume)
    tifffile.imwrite(tmp_path / "a.tif", volume, photometric="minisblack")
    for name in ("a.npy", "a.tif"):
        found, metadata = load_data(tmp_path / name, return_metadata=True)
        assert np.array_equal(found, volume) and found.dtype == volume.dtype
        assert metadata["shape"] == (5, 7, 9) and metadata["dtype"] == "uint16"
        assert (
            metadata == UniversalDataLoader.get_last_metadata() == UniversalDataLoader().get_last_metadata()
        )
    assert metadata["format"] == "TIFF" and metadata["voxel_size_nm"] is None


def test_a_compressed_mrc_is_recognised_by_its_content(tmp_path, volume):
    import mrcfile

    with mrcfile.new(tmp_path / "a.mrc") as file:
        file.set_data(volume.astype(np.float32))
    (tmp_path / "b.mrc").write_bytes(gzip.compress((tmp_path / "a.mrc").read_bytes()))
    assert np.array_equal(load_data(tmp_path / "b.mrc"), volume)


def test_the_first_array_of_an_npz_is_taken_and_the_others_named(tmp_path, volume):
    np.savez(tmp_path / "a.npz", second=volume, first=volume + 1)
    found, metadata = load_data(tmp_path / "a.npz", return_metadata=True)
    assert np.array_equal(found, volume) and metadata["files"] == ["second", "first"]
    assert np.array_equal(load_data(f"{tmp_path / 'a.npz'}::first"), volume + 1)
    np.savez(tmp_path / "empty.npz")
    with pytest.raises(ValueError, match="holds no array"):
        load_data(tmp_path / "empty.npz")


def test_objects_are_not_unpickled(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="no number"):
        load_data(tmp_path / "a.npy")


def test_json_gives_its_content(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"a": [1, 2]}))
    assert load_data(tmp_path / "a.json") == {"a": [1, 2]}
    (tmp_path / "b.json").write_text("{")
    with pytest.raises(ValueError, match="no JSON"):
        load_data(tmp_path / "b.json")


def test_a_channel_is_chosen_where_the_file_has_channels(tmp_path, volume):
    channels = np.stack([volume, volume + 1], axis=1)
    tifffile.imwrite(tmp_path / "a.tif", channels, imagej=True, metadata={"axes": "ZCYX"})
    assert np.array_equal(load_data(tmp_path / "a.tif", channel=1), volume + 1)
    with pytest.raises(ValueError):
        load_data(tmp_path / "a.tif")
    with pytest.raises(ValueError):
        load_data(tmp_path / "a.tif", channel=2)
    with pytest.raises(ValueError, match="count from 0"):
        load_data(tmp_path / "a.tif", channel=-1)


def test_a_stack_is_never_taken_for_channels(tmp_path, volume):
    np.save(tmp_path / "a.npy", volume)
    assert np.array_equal(load_data(tmp_path / "a.npy", channel=0), volume)
    with pytest.raises(ValueError, match=r"one channel.*axes=cyx"):
        load_data(tmp_path / "a.npy", channel=1)
    assert np.array_equal(load_data(f"{tmp_path / 'a.npy'}::axes=cyx,c=1"), volume[1:2])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float64, bool])
def test_values_are_brought_to_one_by_their_ends(tmp_path, volume, dtype):
    values = (volume % 200).astype(dtype)
    np.save(tmp_path / "a.npy", values)
    found, metadata = load_data(tmp_path / "a.npy", normalize=True, return_metadata=True)
    assert found.dtype == np.float32 and metadata["dtype"] == "float32"
    assert found.min() == 0 and found.max() == 1
    low, high = float(values.min()), float(values.max())
    assert np.allclose(found, (values.astype(float) - low) / (high - low), atol=1e-6)


def test_a_constant_image_becomes_zero_and_nan_stays(tmp_path):
    np.save(tmp_path / "a.npy", np.full((2, 3, 4), 7.0))
    assert not load_data(tmp_path / "a.npy", normalize=True).any()
    np.save(tmp_path / "b.npy", np.array([[[np.nan, 1.0, 3.0]]]))
    assert np.array_equal(load_data(tmp_path / "b.npy", normalize=True), [[[np.nan, 0, 1]]], equal_nan=True)
    np.save(tmp_path / "c.npy", np.full((1, 2, 2), np.nan))
    assert not load_data(tmp_path / "c.npy", normalize=True).any()


def test_a_missing_or_unknown_file_gets_a_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file"):
        load_data(tmp_path / "none.mrc")
    (tmp_path / "a.xyz").write_bytes(b"12345678")
    with pytest.raises(ValueError, match="no volume that can be read"):
        load_data(tmp_path / "a.xyz")


@pytest.mark.parametrize("suffix", VENDOR_PLUGINS)
def test_a_vendors_format_names_the_package_to_install(tmp_path, monkeypatch, suffix):
    (tmp_path / f"a{suffix}").write_bytes(b"vendor")
    monkeypatch.setattr("cytomill.partitioning.loader.importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=f"pip install bioio {VENDOR_PLUGINS[suffix]}"):
        load_data(tmp_path / f"a{suffix}")


def test_a_batch_goes_on_after_a_file_that_fails(tmp_path, volume):
    np.save(tmp_path / "a.npy", volume)
    files = [str(tmp_path / name) for name in ("none.npy", "a.npy")]
    found = UniversalDataLoader.batch_load(files)
    assert list(found) == files and found[files[0]] is None and np.array_equal(found[files[1]], volume)
    assert list(UniversalDataLoader.get_last_metadata()["errors"]) == files[:1]


# -- log files


def test_steps_are_written_with_their_time(tmp_path, capsys):
    with QuickLogger("cell 1/2", tmp_path / "new" / "logs") as logger:
        logger.step("Zellkern 核")
        logger.file_in(tmp_path / "in.tif")
        logger.file_out("out.xvg")
        logger.error("100 % wrong")
    assert re.fullmatch(r"cell 1_2_\d{8}_\d{6}\.log", logger.path.name)
    lines = logger.path.read_text(encoding="utf-8").splitlines()
    messages = ["Zellkern 核", f"Input file: {tmp_path / 'in.tif'}", "Output file: out.xvg", "100 % wrong"]
    levels = ["INFO", "INFO", "INFO", "ERROR"]
    for line, message, level in zip(lines, messages, levels, strict=True):
        assert re.fullmatch(
            rf"\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d,\d{{3}} - {level} - {re.escape(message)}", line
        )
    printed = [f"{level}: {message}" for level, message in zip(levels, messages, strict=True)]
    assert capsys.readouterr().out.splitlines() == printed


def test_the_console_stays_silent_on_request(tmp_path, capsys):
    with QuickLogger(log_dir=tmp_path, console_output=False) as logger:
        logger.step("quiet")
    assert capsys.readouterr().out == "" and "quiet" in logger.path.read_text()


def test_files_are_closed_and_loggers_are_not_kept(tmp_path):
    logger = QuickLogger("a", tmp_path, console_output=False)
    (handler,) = logger.logger.handlers
    logger.close()
    logger.close()
    assert handler.stream is None and not logger.logger.handlers
    before = set(logging.root.manager.loggerDict)
    other = QuickLogger("b", tmp_path, console_output=False)
    (handler,) = other.logger.handlers
    del other
    assert handler.stream is None
    assert set(logging.root.manager.loggerDict) == before


def test_two_loggers_of_one_name_and_second_do_not_share_a_file(tmp_path):
    loggers = [QuickLogger("a", tmp_path, console_output=False) for _ in range(3)]
    for i, logger in enumerate(loggers):
        logger.step(f"from {i}")
        logger.close()
    assert len({logger.path for logger in loggers}) == 3
    assert all(f"from {i}" in logger.path.read_text() for i, logger in enumerate(loggers))


def test_a_decorated_function_logs_its_paths_and_its_end(tmp_path):
    @log_analysis(log_dir=tmp_path / "logs")
    def analyse(mask_file, output_dir, threshold=0.5, image_dir=None):
        """Doc."""
        return [tmp_path / "one.csv", "two.csv"]

    assert analyse("ne.tif", output_dir="results", image_dir="images") == [tmp_path / "one.csv", "two.csv"]
    assert analyse.__name__ == "analyse" and analyse.__doc__ == "Doc."
    (file,) = (tmp_path / "logs").iterdir()
    messages = [line.split(" - ", 2)[2] for line in file.read_text().splitlines()]
    assert messages == [
        "Starting execution: analyse",
        "Input path: ne.tif",
        "Output path: results",
        "Input path: images",
        "Completed execution: analyse",
        f"Generated file: {tmp_path / 'one.csv'}",
        "Generated file: two.csv",
    ]


def test_a_decorated_function_logs_and_raises_its_exception(tmp_path):
    @log_analysis(tmp_path)
    def fail(path):
        raise KeyError("lost")

    with pytest.raises(KeyError, match="lost"):
        fail("a")
    (file,) = tmp_path.iterdir()
    assert "ERROR - Execution failed: fail - 'lost'" in file.read_text()
