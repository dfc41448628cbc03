"""Every output can say where it comes from, and says no secret."""

import json
import os
import subprocess
from datetime import datetime

import pytest

import cytomill
from cytomill.campaign import provenance
from cytomill.campaign.launches import new_launch_id


def test_provenance_is_json_and_complete():
    found = provenance.collect({"size": 2, "ranks": [{"rank": 0, "gpu": None}]})
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["version"] == cytomill.__version__
    assert found["world"] == {"size": 2, "ranks": [{"rank": 0, "gpu": None}]}
    assert found["libraries"]["numpy"] == __import__("numpy").__version__
    assert {"mpi4py", "zarr", "numba"} <= set(found["libraries"])
    assert "pytest" not in found["libraries"]
    assert found["host"] and found["platform"] and found["python"] and found["command"]
    assert found["cpu"]["usable"] >= 1


def test_the_start_is_a_time_with_its_zone():
    started = datetime.fromisoformat(provenance.collect({})["started"])
    assert started.utcoffset() is not None
    assert abs((datetime.now().astimezone() - started).total_seconds()) < 60


def test_no_secret_of_the_environment_is_kept(monkeypatch):
    monkeypatch.setenv("MY_API_TOKEN", "hunter2-token")
    monkeypatch.setenv("SLURM_JWT", "hunter2-jwt")
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    found = provenance.collect({})
    assert "hunter2" not in json.dumps(found)
    assert found["job"] == {**found["job"], "SLURM_JOB_ID": "4711"}


def test_the_container_is_named(monkeypatch):
    named = provenance.container_info(
        {"APPTAINER_CONTAINER": "/images/mill.sif", "APPTAINER_NAME": "mill.sif"}
    )
    assert named == {"apptainer_container": "/images/mill.sif", "apptainer_name": "mill.sif"}
    monkeypatch.setattr(os.path, "exists", lambda path: False)
    assert provenance.container_info({"APPTAINER_CONTAINER": ""}) is None


def git(folder, *words):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    done = subprocess.run(
        ["git", "-C", folder, *identity, *words], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path):
    """A checkout with a tracked package in it."""
    try:
        git(tmp_path, "init", "-q")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs git")
    package = tmp_path / "src" / "package"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first")
    return package


def test_a_checkouts_commit_is_named_and_whether_files_differ_from_it(checkout):
    commit = git(checkout, "rev-parse", "HEAD")
    assert provenance.commit_of_checkout(checkout) == {"hash": commit, "modified": False}
    (checkout / "__init__.py").write_text("changed = 1\n")
    assert provenance.commit_of_checkout(checkout) == {"hash": commit, "modified": True}


def test_git_variables_of_a_hook_do_not_name_another_repository(checkout, monkeypatch):
    monkeypatch.setenv("GIT_DIR", "/nonexistent")
    assert provenance.commit_of_checkout(checkout)["modified"] is False


def test_an_environment_inside_somebody_elses_checkout_has_no_commit(checkout):
    installed = checkout / "venv" / "cytomill"
    installed.mkdir(parents=True)
    (installed / "__init__.py").touch()
    assert provenance.commit_of_checkout(installed) is None


def test_without_git_or_package_metadata_nothing_fails(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(
        provenance.metadata,
        "requires",
        lambda name: (_ for _ in ()).throw(provenance.metadata.PackageNotFoundError),
    )
    found = provenance.collect({})
    assert found["commit"] is None
    assert found["libraries"] == {}


def test_cpu_features_make_one_digest_whatever_their_order(tmp_path):
    def digest(text):
        file = tmp_path / "cpuinfo"
        file.write_text(text)
        return provenance.cpu_info(file)

    one = digest("model name : Alpha\nflags : sse avx avx2\n\nmodel name : Alpha\nflags : none\n")
    two = digest("Features : avx2 sse avx\n")
    other = digest("flags : sse avx\n")
    assert one["model"] == "Alpha"
    assert one["features_sha256"] == two["features_sha256"] != other["features_sha256"]
    assert provenance.cpu_info(tmp_path / "none")["features_sha256"] is None


def test_launch_names_sort_by_time_and_never_repeat():
    names = [new_launch_id() for _ in range(2000)]
    assert len(set(names)) == len(names)
    times = [name.partition("-")[0] for name in names]
    assert times == sorted(times)
    assert all(
        len(name) == len(names[0]) and name.replace("-", "").replace(".", "").isalnum() for name in names
    )
