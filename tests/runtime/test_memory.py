"""Promises of the memory model: the limit that binds is found, and a plan beyond it is refused."""

import os

import pytest

from cytomill.runtime import memory

GB = 10**9


@pytest.fixture
def node(tmp_path, monkeypatch):
    """Make a simulated /proc and /sys/fs/cgroup: the limits of folders, relative to the latter."""
    for name in list(os.environ):
        if name.startswith("SLURM_"):
            monkeypatch.delenv(name)

    def make(cgroup="", limits=None, total=64, available=48):
        proc, mount = tmp_path / "proc", tmp_path / "cgroup"
        (proc / "self").mkdir(parents=True)
        (proc / "self" / "cgroup").write_text(cgroup)
        (proc / "meminfo").write_text(
            f"MemTotal: {total * GB // 1024} kB\n"
            f"MemAvailable: {available * GB // 1024} kB\n"
            "HugePages_Total: 0\n"
        )
        for path, limit in (limits or {}).items():
            (mount / path).parent.mkdir(parents=True, exist_ok=True)
            (mount / path).write_text(f"{limit}\n")
        return {"proc": proc, "mount": mount}

    return make


def test_without_limits_the_free_memory_counts(node):
    limit = memory.memory_limit(**node())
    assert (limit.bytes // 10**8, limit.source) == (480, "the memory free on this node")


def test_version_2_limits_count_up_the_hierarchy(node):
    limits = {"a/b/memory.max": "max", "a/memory.max": 8 * GB, "memory.max": 20 * GB}
    limit = memory.memory_limit(**node("0::/a/b\n", limits))
    assert limit == memory.MemoryLimit(8 * GB, "the control group's limit")


def test_version_1_limits_count_and_the_largest_number_is_none(node):
    limits = {
        "memory/job/step/memory.limit_in_bytes": 9223372036854771712,
        "memory/job/memory.limit_in_bytes": 6 * GB,
    }
    assert memory.memory_limit(**node("5:cpu:/\n4:memory:/job/step\n0::/\n", limits)).bytes == 6 * GB


def test_a_limit_seen_only_at_the_mount_counts(node):
    limits = {"memory/memory.limit_in_bytes": 5 * GB}
    assert memory.memory_limit(**node("4:memory:/docker/0123\n", limits)).bytes == 5 * GB


def test_a_limit_above_the_nodes_memory_is_no_promise(node):
    limit = memory.memory_limit(**node("0::/\n", {"memory.max": 100 * GB}))
    assert limit.source == "this node's memory" and limit.bytes <= 64 * GB


@pytest.mark.parametrize(
    ("variables", "granted"),
    [
        ({"SLURM_MEM_PER_NODE": "4096"}, 4096 << 20),
        ({"SLURM_MEM_PER_CPU": "1024", "SLURM_CPUS_ON_NODE": "8"}, 8192 << 20),
        ({"SLURM_MEM_PER_NODE": "0"}, None),
    ],
)
def test_slurms_grant_counts(node, monkeypatch, variables, granted):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    limit = memory.memory_limit(**node())
    assert limit.source == ("Slurm's grant" if granted else "the memory free on this node")
    assert not granted or limit.bytes == granted


def test_this_machine_has_a_limit():
    assert 10**8 < memory.memory_limit_bytes() < 10**15


def test_a_plan_that_cannot_fit_is_refused_with_figures(monkeypatch):
    monkeypatch.setattr(memory, "_measured", None)
    assert memory.predicted_peak_bytes(540_000_000) == 10**9
    limit = memory.MemoryLimit(4 * GB, "Slurm's grant")
    memory.check_fits(memory.Demand(540_000_000), 4, limit)
    with pytest.raises(memory.PlanDoesNotFit) as refused:
        memory.check_fits(memory.Demand(1_540_000_000), 4, limit)
    sentence = str(refused.value)
    for figure in ("4 ranks need 8.00 GB", "460 MB", "1540 MB", "Slurm's grant is 4.00 GB"):
        assert figure in sentence
    assert "start at most 2 a node" in sentence and "at most 540 MB each" in sentence
    with pytest.raises(memory.PlanDoesNotFit, match="1 rank needs"):
        memory.check_fits(memory.Demand(8 * GB), 1, limit)


def test_what_rank_0_puts_together_counts_once_a_node(monkeypatch):
    monkeypatch.setattr(memory, "_measured", None)
    limit = memory.MemoryLimit(4 * GB, "Slurm's grant")
    memory.check_fits(memory.Demand(100_000_000, 2_000_000_000), 4, limit)
    with pytest.raises(memory.PlanDoesNotFit) as refused:
        memory.check_fits(memory.Demand(100_000_000, 2_500_000_000), 4, limit)
    for figure in ("rank 0 needs 2.50 GB", "4.34 GB", "4 x 460 MB", "Slurm's grant is 4.00 GB"):
        assert figure in str(refused.value)


def test_a_wave_holds_the_partial_results_of_all_its_stages():
    wave = [(300, 80, 500), (200, 40, 0)]
    assert memory.Demand.of_wave(wave, 4) == memory.Demand(300 + 30, 500 + 30)
    assert memory.Demand.of_wave([(300, 80, 0)], 1) == memory.Demand(380, 0)
    assert memory.Demand(5, 2) | memory.Demand(1, 9) == memory.Demand(5, 9)


def test_the_measured_baseline_replaces_the_planning_figure(monkeypatch):
    monkeypatch.setattr(memory, "_measured", None)
    measured = memory.measure_baseline()
    assert 10**7 < measured < 10**10
    assert memory.baseline_bytes() == measured
    assert memory.predicted_peak_bytes(5) == measured + 5
