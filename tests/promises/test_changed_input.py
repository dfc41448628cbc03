"""Promise 3: results are of one input; what changed while it was read is found, whatever its time says."""

import os

import numpy as np
from promise_campaigns import Promised, differing, one_dataset, results, save, touch
from small_campaigns import phantom

from cytomill.nanoparticles.posterior_stages import PosteriorStage
from cytomill.storage.convert import convert
from cytomill.storage.stores import open_store


def change_in_place(path, z):
    """Other pixels in one slice of an NPY file; size and time of modification stay."""
    before = os.stat(path)
    volume = np.load(path)
    changed = volume.copy()
    changed[z] = changed[z, ::-1, ::-1]  # the same histogram
    np.save(path, changed)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    return volume


def test_a_slice_that_changed_after_its_histogram_is_named(tmp_path, monkeypatch, capfd):
    campaign = one_dataset(tmp_path / "c", shape=(8, 64, 64))
    path = campaign.folder / "inputs" / "alpha.npy"
    campaign.rules({"what": "prepare", "when": "before", "stage": "posterior", "do": "stop"})
    assert campaign.alone(monkeypatch) == 75
    campaign.rules()
    original = change_in_place(path, 5)
    assert campaign.alone(monkeypatch) == 3
    assert "alpha.npy: slice 5 has other pixels" in capfd.readouterr().err
    # Restored, and tried again, nothing of it is left.
    time = os.stat(path).st_mtime_ns
    np.save(path, original)
    os.utime(path, ns=(time, time))
    assert campaign.alone(monkeypatch, "--retry") == 0
    fresh = one_dataset(tmp_path / "fresh", shape=(8, 64, 64))
    assert fresh.alone(monkeypatch) == 0
    assert differing(results(campaign.output), results(fresh.output)) == []


def test_slices_read_in_bands_are_compared_whole(tmp_path, monkeypatch, capfd):
    volume = phantom((4, 256, 128), seed=3)
    source = save(tmp_path / "inputs", "alpha.npy", volume)
    store = tmp_path / "inputs" / "alpha.zarr"
    convert(source, store, voxel_size_nm=(50, 10, 10), chunks=(1, 64, 128), shards=(1, 128, 128))
    campaign = Promised(tmp_path / "c", {"alpha": store})
    assert campaign.alone(monkeypatch) == 0
    campaign = Promised(tmp_path / "d", {"alpha": store})
    campaign.rules({"what": "prepare", "when": "before", "stage": "posterior", "do": "stop"})
    assert campaign.alone(monkeypatch) == 75
    campaign.rules()
    array = open_store(store).open("images/50-10-10")
    shard = array.shard_paths(((2, 3),))[1]  # the lower half of a slice
    times = os.stat(shard).st_mtime_ns
    half = array.read(((2, 3), (128, 256)))
    array.write(((2, 3), (128, 256)), np.ascontiguousarray(half[:, :, ::-1]))
    os.utime(shard, ns=(times, times))
    assert campaign.alone(monkeypatch) == 3
    assert "slice 2 has other pixels" in capfd.readouterr().err


def test_an_input_touched_during_a_run_is_told_at_its_end(tmp_path, monkeypatch, capfd):
    campaign = one_dataset(tmp_path / "c", shape=(8, 64, 64))
    prepare = PosteriorStage.prepare

    def touching(self, rank):
        touch(campaign.folder / "inputs" / "alpha.npy")
        prepare(self, rank)

    with monkeypatch.context() as patches:
        patches.setattr(PosteriorStage, "prepare", touching)
        assert campaign.alone(patches) == 3
    assert "alpha: its input was changed while it was worked on" in capfd.readouterr().err
    assert campaign.alone(monkeypatch) == 2
    assert campaign.alone(monkeypatch, "--update") == 0
