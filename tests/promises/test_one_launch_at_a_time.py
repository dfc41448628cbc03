"""Promise 2: one launch works on a campaign; a dead one's lock is taken over, and said."""

import signal

from launching import started, wait_for
from promise_campaigns import DRIVER, FOLDER, one_dataset


def test_a_second_run_is_refused_and_a_dead_ones_lock_is_taken_over(tmp_path, monkeypatch, capfd):
    campaign = one_dataset(tmp_path / "c", (8, 128, 128))
    campaign.rules({"what": "process", "when": "before", "stage": "background", "do": "sleep", "seconds": 60})
    arguments = [str(DRIVER), "run", str(campaign.toml)]
    with started(2, arguments, {FOLDER: str(campaign.folder)}) as first:
        wait_for(lambda: len(campaign.calls(stage="background")) >= 2, 60)
        with started(2, arguments, {FOLDER: str(campaign.folder)}) as second:
            _, said = second.communicate(timeout=60)
        assert second.returncode == 5, said
        assert "another launch" in said and "pid" in said
        (journal,) = (campaign.output / "ledger").glob("*-r0.jsonl")
        assert f"launch {journal.name.removesuffix('-r0.jsonl')}," in said
        assert first.poll() is None
        assert len(campaign.calls(stage="background")) == 2
        first.send_signal(signal.SIGKILL)
        first.wait()
        wait_for(lambda: not campaign.processes(), 20)
    campaign.rules()
    assert campaign.alone(monkeypatch) == 0
    said = capfd.readouterr().err
    assert "took over the lock of a dead launch" in said
    assert not list(campaign.output.glob("campaign.lock*"))


def test_a_finished_or_refused_run_leaves_no_lock(tmp_path, monkeypatch):
    campaign = one_dataset(tmp_path / "c", (8, 128, 128))
    assert campaign.alone(monkeypatch) == 0
    assert not list(campaign.output.glob("campaign.lock*"))
    assert campaign.alone(monkeypatch, "--set", "nanoparticles.halo_pad=3") == 2
    assert not list(campaign.output.glob("campaign.lock*"))
