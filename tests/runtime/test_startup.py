"""Promises of startup: threads from the cores there are, caches that can be written, nothing heavy."""

import json
import os
import shutil
import stat

import pytest
from launching import LAUNCHER_PREFIXES, mpirun

from cytomill.runtime import startup
from cytomill.runtime.numba_cache import warm
from cytomill.runtime.ranks import SoloWorld


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch):
    for name in list(os.environ):
        if name.startswith(LAUNCHER_PREFIXES):
            monkeypatch.delenv(name)


def test_as_many_files_as_the_system_allows_may_be_open():
    done = mpirun(
        0,
        """
        import resource
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(64, hard), hard))
        from cytomill.runtime import startup
        startup.prepare_process()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
        """,
    )
    assert done.returncode == 0, done.stderr


def test_a_character_that_the_output_cannot_hold_ends_nothing():
    script = """
        from cytomill.runtime import startup
        startup.prepare_process()
        print("2 × 3")
        """
    assert mpirun(0, script, env={"PYTHONIOENCODING": "ascii"}).stdout == "2 ? 3\n"


def cores(monkeypatch, mine, parents):
    affinity = {0: set(range(mine)), os.getppid(): set(range(parents))}
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: affinity[pid])


@pytest.mark.parametrize(
    ("mine", "parents", "variables", "threads"),
    [
        (16, 16, {}, 16),
        (16, 16, {"MPI_LOCALNRANKS": "4"}, 4),
        (16, 16, {"MPI_LOCALNRANKS": "64"}, 1),
        (4, 16, {"MPI_LOCALNRANKS": "4"}, 4),  # bound by the launcher: its own cores
        (16, 16, {"SLURM_STEP_TASKS_PER_NODE": "2(x3)", "SLURM_NODEID": "1"}, 8),
        # Open MPI binds more than two ranks to whole sockets, here to one of two, four ranks to each
        (16, 32, {"OMPI_COMM_WORLD_LOCAL_SIZE": "8"}, 4),
        # a control group confines the ranks of a step together: the node's other cores are not theirs
        (8, 64, {"SLURM_STEP_TASKS_PER_NODE": "4", "SLURM_CPUS_ON_NODE": "8"}, 2),
        # nothing confines them, but the job was granted a part of the node only
        (64, 64, {"SLURM_STEP_TASKS_PER_NODE": "4", "SLURM_CPUS_ON_NODE": "8"}, 2),
        # mpirun -n 1 in a job of four tasks a node with two cores each: nobody else uses the others
        (8, 8, {"SLURM_CPUS_PER_TASK": "2", "SLURM_CPUS_ON_NODE": "8"}, 8),
        # a wrapper that was bound itself hides the binding; Slurm's promise is kept
        (8, 8, {"SLURM_CPUS_PER_TASK": "8", "SLURM_CPUS_ON_NODE": "32", "MPI_LOCALNRANKS": "4"}, 8),
        # more ranks than the promise allows
        (16, 16, {"SLURM_CPUS_PER_TASK": "8", "SLURM_CPUS_ON_NODE": "16", "MPI_LOCALNRANKS": "16"}, 1),
    ],
)
def test_threads_are_the_cores_shared_by_the_ranks(monkeypatch, mine, parents, variables, threads):
    cores(monkeypatch, mine, parents)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert startup.threads_per_rank() == threads


SHOW = """
    from cytomill.runtime import startup
    startup.prepare_process()
    import json, os, sys, signal
    heavy = [m for m in ("numpy", "numba", "mpi4py", "zarr", "rich", "matplotlib") if m in sys.modules]
    names = [*startup.THREAD_VARIABLES, "NUMBA_CACHE_DIR", "MPLBACKEND"]
    handled = signal.getsignal(signal.SIGUSR1) is not signal.SIG_DFL
    print(json.dumps([{n: os.environ[n] for n in names}, heavy, handled]), flush=True)
"""


def shown(ranks=0, **env):
    done = mpirun(ranks, SHOW, env=env)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[0])


def test_preparing_imports_nothing_heavy_and_keeps_what_the_user_set(tmp_path):
    cache = tmp_path / "mine"
    variables, heavy, handled = shown(
        OMP_NUM_THREADS="3", NUMBA_CACHE_DIR=str(cache), MPLBACKEND="svg", RAYON_NUM_THREADS="5"
    )
    assert heavy == [] and handled
    assert (variables["OMP_NUM_THREADS"], variables["RAYON_NUM_THREADS"]) == ("3", "5")
    own = cache / startup.sources_digest()
    assert (variables["NUMBA_CACHE_DIR"], variables["MPLBACKEND"]) == (str(own), "svg")
    assert cache.is_dir()


def test_ranks_of_one_node_do_not_take_more_threads_than_cores():
    n_cores = len(os.sched_getaffinity(0))
    unset = dict.fromkeys(startup.THREAD_VARIABLES, "")
    script = "import os\nfor n in [n for n in os.environ if n.endswith('_NUM_THREADS')]: os.environ.pop(n)\n"
    done = mpirun(n_cores, script + "\n".join(line[4:] for line in SHOW.splitlines()), env=unset)
    assert done.returncode == 0, done.stderr
    assert '"RAYON_NUM_THREADS": "1"' in done.stdout and '"NUMBA_NUM_THREADS": "1"' in done.stdout


def test_the_cache_folder_falls_back_to_one_that_can_be_written(tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("a file where a folder is wanted")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(blocked / "a"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    own = startup.sources_digest()
    assert startup.numba_cache_folder() == tmp_path / "cache" / "cytomill" / "numba" / own
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked / "b"))
    monkeypatch.setattr(startup.tempfile, "gettempdir", lambda: str(tmp_path / "tmp"))
    assert startup.numba_cache_folder().is_relative_to(tmp_path / "tmp")
    monkeypatch.setattr(startup.tempfile, "gettempdir", lambda: str(blocked))
    with pytest.raises(RuntimeError, match="set NUMBA_CACHE_DIR"):
        startup.numba_cache_folder()


def test_one_rank_compiles_and_the_others_load(tmp_path):
    module = tmp_path / "site" / "cytomill_probe_kernel.py"
    module.parent.mkdir()
    module.write_text(
        "import numba\n@numba.njit(nogil=True, cache=True)\ndef double(x):\n    return 2 * x\n"
    )
    # An install that cannot be written: the cache must not be looked for beside the module.
    module.parent.chmod(stat.S_IRUSR | stat.S_IXUSR)
    script = """
        from cytomill.runtime import startup
        startup.prepare_process()
        import sys
        sys.path.insert(0, sys.argv[1])
        import cytomill_probe_kernel as probe
        from cytomill.runtime import ranks, numba_cache
        world = ranks.connect()
        assert numba_cache.warm(world, lambda: probe.double(3)) is None
        hits = world.gather(sum(probe.double.stats.cache_hits.values()))
        if world.rank == 0:
            print(hits, flush=True)
        world.finish()
    """
    done = mpirun(3, script, env={"NUMBA_CACHE_DIR": str(tmp_path / "cache")}, args=[str(module.parent)])
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[0, 1, 1]"
    assert list((tmp_path / "cache").rglob("*.nbc"))
    shutil.rmtree(module.parent)


def test_compiling_is_told_once_and_loading_not_at_all(tmp_path):
    (tmp_path / "probe_kernel.py").write_text(
        "import numba\n@numba.njit(cache=True)\ndef double(x):\n    return 2 * x\n"
    )
    script = """
        from cytomill.runtime import startup
        startup.prepare_process()
        import sys
        sys.path.insert(0, sys.argv[1])
        from cytomill.runtime.numba_cache import telling_of_compiling
        import probe_kernel
        with telling_of_compiling(print):
            probe_kernel.double(3), probe_kernel.double(0.5)
    """
    environment = {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    first, second = (mpirun(0, script, env=environment, args=[str(tmp_path)]) for _ in range(2))
    assert first.stdout.count("compiling kernels for this machine") == 1, first.stderr
    assert second.stdout == "" and second.returncode == 0


def test_a_cache_that_cannot_be_written_is_said_and_the_kernels_run_all_the_same():
    calls = []

    def compile_all():
        calls.append(1)
        if len(calls) == 1:
            raise OSError(30, "Read-only file system")

    sentence = warm(SoloWorld(), compile_all)
    assert len(calls) == 2 and "Read-only file system" in sentence


def test_another_version_of_the_sources_has_a_cache_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    first = startup.numba_cache_folder()
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(first))
    assert startup.numba_cache_folder() == first  # as a rank's child process finds it
    package = tmp_path / "package"
    (package / "runtime").mkdir(parents=True)
    source = package / "runtime" / "startup.py"
    source.write_text("a")
    monkeypatch.setattr(startup, "__file__", str(source))
    before = startup.sources_digest()
    source.write_text("ab")
    assert startup.sources_digest() != before
