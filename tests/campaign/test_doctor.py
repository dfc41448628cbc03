"""The doctor finds what would break a campaign, and says what to do about it."""

import io
import json
import os

import pytest
from launching import mpirun, run_ranks

from cytomill.campaign import doctor as examination
from cytomill.campaign.doctor import Check, doctor, exit_code, render_checks
from cytomill.reports.terminal import print_renderable
from cytomill.runtime.memory import MemoryLimit
from cytomill.runtime.ranks import SoloWorld

REPORT = """
    import json, sys
    from dataclasses import asdict
    from pathlib import Path
    from cytomill.campaign.doctor import doctor
    from cytomill.runtime.ranks import connect
    world = connect()
    checks = doctor(Path(sys.argv[1]), world)
    Path(sys.argv[1], f"checks-{world.rank}.json").write_text(json.dumps([asdict(c) for c in checks]))
    world.finish()
"""


def by_name(checks):
    return {check.name: check for check in checks}


def test_a_sound_machine_passes_and_nothing_is_left_behind(tmp_path):
    checks = doctor(tmp_path, SoloWorld())
    assert [check for check in checks if not check.ok] == []
    assert exit_code(checks) == 0
    found = by_name(checks)
    assert {"ranks", "MPI library", "devices", "sharing of units", "write test"} <= set(found)
    assert {"threads", "clocks", "cache of compiled kernels", "HDF5", "Zarr", "versions"} <= set(found)
    assert "B/s by 1 rank" in found["write test"].text and str(tmp_path) in found["write test"].text
    assert "serial" in found["HDF5"].text or "parallel" in found["HDF5"].text
    assert "zarrs" in found["Zarr"].text and "numpy" in found["versions"].text
    assert os.listdir(tmp_path) == []


def test_two_ranks_agree_on_what_they_found(tmp_path):
    result = mpirun(2, REPORT, args=[str(tmp_path)])
    assert result.returncode == 0, result.stderr
    first, second = (json.loads((tmp_path / f"checks-{rank}.json").read_text()) for rank in range(2))
    assert first == second
    found = {check["name"]: check for check in first}
    assert found["ranks"]["ok"] and found["ranks"]["text"].startswith("2 (")
    assert "THREAD_MULTIPLE" in found["MPI library"]["text"]
    assert found["sharing of units"]["text"].startswith("counter, each of 16 units handed out once")
    assert "by 2 ranks" in found["write test"]["text"]
    assert "ranks 0-1 on" in found["devices"]["text"]


def test_a_launcher_that_does_not_match_the_library_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("PMI_SIZE", "4")
    found = by_name(doctor(tmp_path, SoloWorld()))["ranks"]
    assert not found.ok and "the launcher started 4 ranks" in found.text and "do not match" in found.text


def test_a_launcher_without_an_mpi_library_is_found(tmp_path, monkeypatch):
    def refuse():
        raise RuntimeError("no MPI library could be loaded: pip install it")

    monkeypatch.setattr(examination, "connect", refuse)
    checks = doctor(tmp_path)
    assert checks[0] == Check("MPI library", False, "no MPI library could be loaded: pip install it")
    assert exit_code(checks) == 1


def test_a_folder_that_cannot_be_written_is_found(tmp_path):
    (tmp_path / "file").write_text("")
    found = by_name(doctor(tmp_path / "file" / "below", SoloWorld()))["write test"]
    assert not found.ok and "choose an output folder that every rank can write to" in found.text


def test_a_disk_too_slow_for_volumes_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(examination, "SLOW_BYTES_A_SECOND", 1e15)
    found = by_name(doctor(tmp_path, SoloWorld()))["write test"]
    assert not found.ok and "too slow for volumes" in found.text


def test_too_little_memory_is_found_with_the_ranks_that_fit(tmp_path, monkeypatch):
    monkeypatch.setattr(examination, "memory_limit", lambda: MemoryLimit(10**8, "Slurm's grant"))
    checks = doctor(tmp_path, SoloWorld())
    found = next(check for check in checks if check.name.startswith("memory of"))
    assert not found.ok and "Slurm's grant is 100 MB for 1 rank" in found.text
    assert "ask for more memory" in found.text


def test_more_threads_than_cores_are_found(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "4096")
    found = by_name(doctor(tmp_path, SoloWorld()))["threads"]
    assert not found.ok and "unset OMP_NUM_THREADS" in found.text


def test_clocks_that_differ_are_found(monkeypatch):
    class TwoNodes(SoloWorld):
        def gather(self, obj, root=0):
            return [obj, obj + 60] if isinstance(obj, float) else [obj]

    (found,) = examination._check_clocks(TwoNodes())
    assert not found.ok and "60.0 s" in found.text


def test_a_unit_handed_out_twice_is_found(monkeypatch):
    positions = iter([0, 1, 1, 2, 3, 4, 5, 6, None])
    sharing = type(
        "Broken",
        (),
        {
            "mode": "counter",
            "open": lambda self, n: None,
            "take": lambda self: next(positions),
            "close": lambda self: None,
            "shutdown": lambda self: None,
        },
    )()
    monkeypatch.setattr(examination, "make_sharing", lambda world, mode: sharing)
    (found,) = examination._check_counter(SoloWorld())
    assert not found.ok and 'sharing = "static"' in found.text


def test_what_failed_is_shown(tmp_path):
    stream = io.StringIO()
    print_renderable(render_checks([Check("ranks", True, "2"), Check("write [test]", False, "no")]), stream)
    assert "FAILED write [test]  no" in stream.getvalue()
    assert "1 of 2 checks failed" in stream.getvalue()


@pytest.mark.parametrize("environment, code", [({}, 0), ({"OMP_NUM_THREADS": "4096"}, 1)])
def test_the_command_prints_once_and_exits_by_what_it_found(tmp_path, environment, code):
    result = run_ranks(2, ["-m", "cytomill", "doctor", str(tmp_path)], env=environment)
    assert result.returncode == code, result.stderr
    assert result.stdout.count("write test") == 1
    assert os.listdir(tmp_path) == []


def test_folders_made_for_the_write_test_are_removed_again(tmp_path):
    assert by_name(doctor(tmp_path / "night" / "results", SoloWorld()))["write test"].ok
    assert os.listdir(tmp_path) == []
