"""Files survive a crash, and a shard that changed is noticed."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import google_crc32c
import pytest

from cytomill.storage import durable
from cytomill.storage.durable import ShardRecord, check, make_directories, seal, write_atomic


def test_atomic_write_replaces_whole_and_leaves_nothing_behind(tmp_path):
    target = tmp_path / "a.json"
    write_atomic(target, b"old")
    write_atomic(target, b"new")
    assert target.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["a.json"]


def test_atomic_write_keeps_the_old_file_when_it_fails(tmp_path, monkeypatch):
    target = tmp_path / "a.json"
    write_atomic(target, b"old")

    def refuse(*_):
        raise OSError("no rename today")

    monkeypatch.setattr(durable.os, "replace", refuse)
    with pytest.raises(OSError, match="no rename"):
        write_atomic(target, b"new")
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.json"]


def test_atomic_write_uses_the_umask_not_a_private_mode(tmp_path):
    before = os.umask(0o022)
    try:
        write_atomic(tmp_path / "a", b"")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o644


def test_atomic_write_survives_kill_at_any_moment(tmp_path):
    """A file rewritten in a loop by a process that is killed is always one of the whole versions."""
    target = tmp_path / "a.bin"
    script = (
        "import sys; from cytomill.storage.durable import write_atomic\n"
        "i = 0\n"
        "while True:\n"
        "    i = (i + 1) % 256\n"
        f"    write_atomic({str(target)!r}, bytes([i]) * 300_000)\n"
    )
    for wait in (0.0, 0.003, 0.011, 0.017, 0.029):
        target.unlink(missing_ok=True)
        process = subprocess.Popen([sys.executable, "-c", script])
        while not target.exists():
            assert process.poll() is None
            time.sleep(0.001)
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        process.wait()
        content = target.read_bytes()
        assert len(content) == 300_000 and len(set(content)) == 1


def test_seal_lists_every_shard_and_check_accepts_them(tmp_path):
    make_directories(tmp_path / "a" / "c" / "0")
    present, absent = tmp_path / "a/c/0/0", tmp_path / "a/c/0/1"
    present.write_bytes(b"shard" * 1000)
    records = seal([present, absent], tmp_path)
    assert records == [
        ShardRecord("a/c/0/0", 5000, google_crc32c.value(b"shard" * 1000)),
        ShardRecord("a/c/0/1", None, None),
    ]
    assert [check(record, tmp_path, deep=True) for record in records] == [None, None]


def test_seal_syncs_files_before_the_folders_that_lead_to_them(tmp_path, monkeypatch):
    make_directories(tmp_path / "a" / "c")
    (tmp_path / "a/c/0").write_bytes(b"1")
    synced = []
    real = os.fsync

    def record(descriptor):
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        real(descriptor)

    monkeypatch.setattr(durable.os, "fsync", record)
    seal([tmp_path / "a/c/0"], tmp_path)
    assert synced == [str(tmp_path / "a/c/0"), str(tmp_path / "a/c"), str(tmp_path / "a"), str(tmp_path)]


def test_folders_that_are_durable_already_are_not_synced_again(tmp_path, monkeypatch):
    root = tmp_path / "store"
    synced = []
    real = os.fsync

    def record(descriptor):
        synced.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).relative_to(root).as_posix())
        real(descriptor)

    def shard(name):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"shard")
        synced.clear()
        seal([path], root)
        return sorted(synced)

    monkeypatch.setattr(durable.os, "fsync", record)
    assert shard("a/c/0/0") == [".", "a", "a/c", "a/c/0", "a/c/0/0"]
    assert shard("a/c/0/1") == ["a/c/0", "a/c/0/1"]
    assert shard("a/c/1/0") == ["a/c", "a/c/1", "a/c/1/0"], "the new folder is an entry of its parent"
    shutil.rmtree(root / "a/c/1")
    (root / "a/c/other").mkdir()  # takes the inode that is free now, on some file systems
    assert shard("a/c/1/0") == ["a/c", "a/c/1", "a/c/1/0"], "a folder made again is a new entry"


def test_check_names_missing_truncated_changed_and_unexpected_shards(tmp_path):
    shard = tmp_path / "0"
    shard.write_bytes(b"0123456789")
    (record,) = seal([shard], tmp_path)
    shard.write_bytes(b"0123456788")
    assert check(record, tmp_path, deep=False) is None
    assert "checksum" in check(record, tmp_path, deep=True)
    shard.write_bytes(b"012345678")
    assert "9 bytes; 10 were written" in check(record, tmp_path, deep=False)
    shard.unlink()
    assert f"{shard} is missing" in check(record, tmp_path, deep=False)
    shard.write_bytes(b"x")
    assert "recorded as empty" in check(ShardRecord("0", None, None), tmp_path, deep=False)


def test_seal_refuses_a_shard_outside_its_root(tmp_path):
    with pytest.raises(ValueError):
        seal([tmp_path / "a"], tmp_path / "b")
