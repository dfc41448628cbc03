"""Promise 8: a bad input gets a sentence; its dataset is set aside and the others finish."""

import numpy as np
import pytest
import tifffile
from promise_campaigns import Promised, differing, results, save
from small_campaigns import phantom

SHAPE = (8, 128, 128)


def truncated_tiff(folder):
    path = folder / "bad.tif"
    tifffile.imwrite(path, phantom(SHAPE, seed=4), photometric="minisblack")
    path.write_bytes(path.read_bytes()[: 5 * 128 * 128])
    return path, "bad.tif"


def truncated_npy(folder):
    path = save(folder, "bad.npy", phantom(SHAPE, seed=4))
    path.write_bytes(path.read_bytes()[:-4000])
    return path, "truncated"


def truncated_npz(folder):
    path = save(folder, "bad.npz", phantom(SHAPE, seed=4))
    path.write_bytes(path.read_bytes()[:-4000])
    return path, "bad.npz"


def of_floats(folder):
    values = phantom(SHAPE, seed=4).astype(np.float32)
    values[3, 5, 7], values[3, 5, 8] = np.nan, np.inf
    return save(folder, "bad.npy", values), "float32"


def signed(folder):
    return save(folder, "bad.npy", phantom(SHAPE, seed=4).astype(np.int16)), "int16"


def a_text(folder):
    path = folder / "bad.txt"
    path.write_text("slices: 12")
    return path, "bad.txt"


def an_empty_file(folder):
    path = folder / "bad.tif"
    path.write_bytes(b"")
    return path, "bad.tif"


def an_empty_folder(folder):
    path = folder / "bad"
    path.mkdir()
    return path, "bad"


def of_objects(folder):
    path = folder / "bad.npy"
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    return path, "bad.npy"


BAD = [
    truncated_tiff,
    truncated_npy,
    truncated_npz,
    of_floats,
    signed,
    a_text,
    an_empty_file,
    an_empty_folder,
    of_objects,
]


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """An input that is as it should be, and what comes of it."""
    folder = tmp_path_factory.mktemp("good")
    path = save(folder, "good.npy", phantom(SHAPE, seed=3))
    campaign = Promised(folder / "c", {"good": path})
    with pytest.MonkeyPatch.context() as patches:
        assert campaign.alone(patches) == 0
    return path, results(campaign.output)


@pytest.mark.parametrize("make", BAD)
def test_a_bad_input_is_set_aside_with_a_sentence(make, good, tmp_path, monkeypatch, capfd):
    path, sentence = make(tmp_path)
    campaign = Promised(tmp_path / "c", {"bad": path, "good": good[0]})
    code = campaign.alone(monkeypatch)
    said = capfd.readouterr().err
    assert code == 3, said
    assert "Traceback" not in said
    (line,) = {line for line in said.splitlines() if "set aside: " in line and "dataset bad" in line}
    assert sentence in line
    found = results(campaign.output)
    assert [name for name in differing(found, good[1]) if name.startswith("good")] == []
    assert not any("masks" in name for name in found if name.startswith("bad/"))
    # Said again, and nothing is computed again.
    campaign.forget()
    assert campaign.alone(monkeypatch) == 3
    assert [call for call in campaign.calls() if call["dataset"] == "good"] == []


@pytest.mark.parametrize("level", [0, 7, 255])
def test_a_stack_without_content_holds_no_particles(level, good, tmp_path, monkeypatch):
    path = save(tmp_path, "bad.npy", np.full(SHAPE, level, np.uint8))
    campaign = Promised(tmp_path / "c", {"bad": path, "good": good[0]})
    assert campaign.alone(monkeypatch) in (0, 3)
    found = results(campaign.output)
    assert [name for name in differing(found, good[1]) if name.startswith("good")] == []
    labels = [facts for name, facts in found.items() if name.startswith("bad/") and "masks" in name]
    assert all(facts[2] == 0 for facts in labels)


def test_a_missing_voxel_size_is_asked_for(good, tmp_path, monkeypatch, capfd):
    campaign = Promised(tmp_path / "c", {"good": good[0]}, sized=False)
    assert campaign.alone(monkeypatch) == 3
    assert "voxel_size_nm" in capfd.readouterr().err


def test_a_path_that_is_not_there_sets_its_dataset_aside_and_is_named(good, tmp_path, monkeypatch, capfd):
    campaign = Promised(tmp_path / "c", {"good": good[0], "bad": good[0].with_name("goof.npy")})
    assert campaign.alone(monkeypatch) == 3
    said = capfd.readouterr().err
    assert "goof.npy" in said and "did you mean 'good.npy'" in said
    found = results(campaign.output)
    assert [name for name in differing(found, good[1]) if name.startswith("good")] == []


def test_bad_inputs_are_set_aside_by_all_ranks_alike(good, tmp_path):
    path, _ = truncated_npy(tmp_path)
    campaign = Promised(tmp_path / "c", {"bad": path, "good": good[0]})
    done = campaign.mpirun(2)
    assert done.returncode == 3, done.stderr
    found = results(campaign.output)
    assert [name for name in differing(found, good[1]) if name.startswith("good")] == []
