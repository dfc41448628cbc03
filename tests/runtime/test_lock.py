"""Promises of the campaign lock: one launch at a time, a dead owner's lock is taken over, once."""

import errno
import json
import os
import subprocess
import sys
import threading
import time
from textwrap import dedent

import pytest
from launching import wait_for

from cytomill.runtime.lock import CampaignLock, CampaignLocked

HOLD = dedent("""
    import sys, time
    from cytomill.runtime.lock import CampaignLock
    lock = CampaignLock(sys.argv[1], "first", period_s=float(sys.argv[2]))
    lock.acquire()
    print("held", flush=True)
    time.sleep(60)
    """)


@pytest.fixture
def holder(tmp_path, request):
    # Its heart does not beat while a test edits the lock, but where the test asks for it.
    period_s = getattr(request, "param", 30)
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path), str(period_s)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.fixture
def take():
    """Acquire a lock that is released after the test; returns the sentence of a takeover."""
    locks = []

    def acquire(folder, launch="second", **options):
        locks.append(CampaignLock(folder, launch, **options))
        return locks[-1].acquire()

    yield acquire
    for lock in locks:
        lock.release()


def edit(folder, **changes):
    path = folder / "campaign.lock"
    head, beat = path.read_text().splitlines()
    path.write_text(json.dumps({**json.loads(head), **changes}) + "\n" + beat + "\n")


def test_a_second_launch_is_refused_and_told_by_whom(tmp_path, holder):
    with pytest.raises(CampaignLocked) as refused:
        CampaignLock(tmp_path, "second").acquire()
    sentence = str(refused.value)
    for fact in (os.uname().nodename, f"pid {holder.pid}", "launch first", "since 20"):
        assert fact in sentence
    assert os.listdir(tmp_path) == ["campaign.lock"]


def test_a_released_lock_is_free(tmp_path):
    lock = CampaignLock(tmp_path / "new", "1")
    assert lock.acquire() is None
    lock.release()
    lock.release()
    assert os.listdir(tmp_path / "new") == []
    assert lock.acquire() is None
    lock.release()


def test_the_lock_of_a_killed_process_is_taken_over_with_a_sentence(tmp_path, holder):
    holder.kill()
    wait_for(lambda: holder.poll() is not None)
    lock = CampaignLock(tmp_path, "second")
    sentence = lock.acquire()
    assert "took over" in sentence and f"pid {holder.pid}" in sentence and "process is gone" in sentence
    with pytest.raises(CampaignLocked, match="launch second"):
        CampaignLock(tmp_path, "third").acquire()
    lock.release()
    assert os.listdir(tmp_path) == []


def test_an_owner_that_is_just_dying_is_waited_for(tmp_path, holder, take):
    killer = threading.Timer(0.2, lambda: (holder.kill(), holder.wait()))
    killer.start()
    assert "process is gone" in take(tmp_path)
    killer.join()


def test_a_process_number_used_again_is_not_the_owner(tmp_path, holder, take):
    edit(tmp_path, started="1")
    assert "process is gone" in take(tmp_path)


def test_a_requeued_job_takes_over_from_itself(tmp_path, holder, take, monkeypatch):
    edit(tmp_path, slurm_job="77", slurm_restarts=0, host="elsewhere")
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert "job 77 was requeued" in take(tmp_path)


@pytest.mark.parametrize("holder", [0.1], indirect=True)
def test_on_another_host_the_heartbeat_decides(tmp_path, holder):
    # A name of the same length: the beat's place in the file stays where it is.
    other = "z" * len(os.uname().nodename)
    edit(tmp_path, host=other)
    said = []
    with pytest.raises(CampaignLocked, match=f"host {other}"):
        CampaignLock(tmp_path, "second", period_s=0.3, notify=said.append).acquire()
    assert "watching its heartbeat" in said[0]
    holder.kill()
    holder.wait()
    began = time.monotonic()
    lock = CampaignLock(tmp_path, "second", period_s=0.2)
    assert "heartbeat stood still" in lock.acquire()
    assert time.monotonic() - began >= 0.6
    lock.release()


def test_an_unreadable_lock_is_judged_by_its_heartbeat(tmp_path, take):
    (tmp_path / "campaign.lock").write_bytes(b"\xff torn")
    assert "heartbeat stood still" in take(tmp_path, period_s=0.05)


def test_of_many_launches_that_find_a_dead_owner_one_takes_over(tmp_path, holder):
    holder.kill()
    holder.wait()
    script = dedent("""
        import sys, time
        from cytomill.runtime.lock import CampaignLock, CampaignLocked
        lock = CampaignLock(sys.argv[1], sys.argv[2], period_s=5)
        time.sleep(max(0, float(sys.argv[3]) - time.time()))
        try:
            lock.acquire()
            print("won", flush=True)
            time.sleep(2)
            lock.release()
        except CampaignLocked:
            print("refused", flush=True)
        """)
    start = str(time.time() + 1.5)
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path), str(i), start], stdout=subprocess.PIPE, text=True
        )
        for i in range(8)
    ]
    results = [racer.communicate(timeout=30)[0].strip() for racer in racers]
    assert sorted(results) == ["refused"] * 7 + ["won"]
    assert os.listdir(tmp_path) == []


def test_a_claim_left_by_a_dead_launch_does_not_block_for_ever(tmp_path, holder):
    holder.kill()
    holder.wait()
    (tmp_path / "campaign.lock.claim").write_text("left over")
    lock = CampaignLock(tmp_path, "second", period_s=0.1)
    assert "took over" in lock.acquire()
    lock.release()
    assert os.listdir(tmp_path) == []


def test_a_launch_that_lost_its_lock_must_not_go_on(tmp_path):
    lock = CampaignLock(tmp_path, "1", period_s=30)
    lock.acquire()
    lock.beat()
    edit(tmp_path, token="of another", launch="2")
    lock.period_s = 0
    with pytest.raises(CampaignLocked, match=r"lost the lock.*launch 2"):
        lock.beat()
    (tmp_path / "campaign.lock").unlink()
    with pytest.raises(CampaignLocked, match="was removed"):
        lock.beat()
    lock.release()


def test_the_heart_beats_by_itself_and_stops_with_the_release(tmp_path):
    lock = CampaignLock(tmp_path, "1", period_s=0.05)
    lock.acquire()
    path = tmp_path / "campaign.lock"
    before = path.read_text()
    wait_for(lambda: path.read_text() != before, timeout=5)
    assert path.read_text().splitlines()[0] == before.splitlines()[0]
    lock.release()
    assert not any(thread.name == "campaign lock" for thread in threading.enumerate())


@pytest.fixture
def failing_disk(monkeypatch):
    """A list; while it holds anything, no heartbeat reaches the file."""
    failing, pwrite = [], os.pwrite

    def write(*arguments):
        if failing:
            raise OSError(errno.EIO, "Input/output error")
        return pwrite(*arguments)

    monkeypatch.setattr(os, "pwrite", write)
    return failing


def test_a_heartbeat_that_fails_now_and_then_ends_nothing(tmp_path, failing_disk, monkeypatch, caplog):
    ended = []
    monkeypatch.setattr(threading, "excepthook", lambda arguments: ended.append(arguments.exc_type))
    lock = CampaignLock(tmp_path, "1", period_s=0.2)
    lock.acquire()
    failing_disk.append(True)
    wait_for(lambda: "Input/output error" in caplog.text, timeout=5)
    failing_disk.clear()
    before = (tmp_path / "campaign.lock").read_text()
    wait_for(lambda: (tmp_path / "campaign.lock").read_text() != before, timeout=5)
    lock.release()
    assert ended == []


def test_without_any_heartbeat_the_job_ends_before_its_lock_is_taken(tmp_path, failing_disk, monkeypatch):
    ended = []
    monkeypatch.setattr(threading, "excepthook", lambda arguments: ended.append(arguments.exc_type))
    lock = CampaignLock(tmp_path, "1", period_s=0.05)
    lock.acquire()
    failing_disk.append(True)
    wait_for(lambda: ended, timeout=5)
    assert ended == [OSError]
    lock.release()


def test_a_disk_that_refuses_the_lock_is_left_as_it_was(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        CampaignLock(tmp_path, "1").acquire()
    assert os.listdir(tmp_path) == []


def test_a_launch_that_fails_to_name_itself_gives_the_lock_back(tmp_path):
    def fail():
        raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(OSError, match="Input/output"):
        CampaignLock(tmp_path, "1").acquire(fail)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["00002-later", "00001-first", "100000-longer"])
def test_the_lock_names_the_launch_by_its_final_number(tmp_path, name):
    lock = CampaignLock(tmp_path, "00001-later", period_s=0)
    lock.acquire(lambda: name)
    lock.beat()
    with pytest.raises(CampaignLocked, match=f"launch {name},"):
        CampaignLock(tmp_path, "second").acquire()
    head, beat, rest = (tmp_path / "campaign.lock").read_text().split("\n")
    assert json.loads(head)["launch"] == lock.launch == name and int(beat) >= 1 and rest == ""
    lock.release()


@pytest.mark.parametrize("dead", [False, True])
def test_a_link_whose_reply_was_lost_is_ones_own(tmp_path, holder, monkeypatch, dead):
    if dead:
        holder.kill()
        holder.wait()
    else:
        (tmp_path / "campaign.lock").unlink()
    link, replace, asked = os.link, os.replace, []

    def made_but_refused(source, target):
        asked.append(target)
        link(source, target)
        raise FileExistsError(errno.EEXIST, "File exists")

    def moved_but_refused(source, target):
        replace(source, target)
        raise FileNotFoundError(errno.ENOENT, "No such file or directory")

    monkeypatch.setattr(os, "link", made_but_refused)
    monkeypatch.setattr(os, "replace", moved_but_refused)
    lock = CampaignLock(tmp_path, "second", period_s=0.2)
    sentence = lock.acquire()
    assert asked and ("took over" in sentence if dead else sentence is None)
    monkeypatch.undo()
    lock.release()
    assert os.listdir(tmp_path) == []


def test_folders_made_for_the_lock_are_durable(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda opened: synced.append(os.readlink(f"/proc/self/fd/{opened}")))
    lock = CampaignLock(tmp_path / "night" / "results", "1")
    lock.acquire()
    lock.release()
    assert {str(tmp_path), str(tmp_path / "night")} <= set(synced)


def test_without_hard_links_the_lock_is_still_exclusive(tmp_path, monkeypatch):
    def refuse(*arguments):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    lock = CampaignLock(tmp_path, "1")
    assert lock.acquire() is None
    with pytest.raises(CampaignLocked):
        CampaignLock(tmp_path, "2").acquire()
    lock.release()
    assert os.listdir(tmp_path) == []
