"""Promises about launchers: the right variable is believed, and a mismatch is refused."""

import os

import pytest
from launching import LAUNCHER_PREFIXES, mpirun

from cytomill.runtime import launcher


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch):
    for name in list(os.environ):
        if name.startswith(LAUNCHER_PREFIXES):
            monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("variables", "size", "by_mpi"),
    [
        ({}, None, False),
        ({"PMI_SIZE": "2", "SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "4"}, 2, True),
        ({"OMPI_COMM_WORLD_SIZE": "3", "SLURM_STEP_NUM_TASKS": "1"}, 3, True),
        ({"SLURM_STEP_NUM_TASKS": "8"}, 8, True),
        ({"SLURM_STEP_NUM_TASKS": "1"}, 1, False),  # a shell inside salloc
        ({"SLURM_STEP_NUM_TASKS": "1", "PMIX_RANK": "0"}, 1, True),
        ({"SLURM_NTASKS": "4"}, None, False),  # a batch script that starts one process
        ({"PMI_SIZE": "many"}, None, True),
    ],
)
def test_the_launchers_own_variables_come_first(monkeypatch, variables, size, by_mpi):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert launcher.launched_size() == size
    assert launcher.launched_by_mpi() is by_mpi


@pytest.mark.parametrize(
    ("variables", "local_size"),
    [
        ({}, 1),
        ({"MPI_LOCALNRANKS": "3", "SLURM_STEP_TASKS_PER_NODE": "1"}, 3),
        ({"OMPI_COMM_WORLD_LOCAL_SIZE": "5"}, 5),
        ({"SLURM_STEP_TASKS_PER_NODE": "4(x2),1", "SLURM_NODEID": "1"}, 4),
        ({"SLURM_STEP_TASKS_PER_NODE": "4(x2),1", "SLURM_NODEID": "2"}, 1),
        ({"SLURM_STEP_TASKS_PER_NODE": "4(x2),1"}, 4),
        ({"SLURM_STEP_TASKS_PER_NODE": "nonsense"}, 1),
    ],
)
def test_ranks_of_this_node_are_counted(monkeypatch, variables, local_size):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert launcher.launched_local_size() == local_size


def test_a_world_smaller_than_the_launch_is_refused(monkeypatch):
    launcher.check_world(1)
    monkeypatch.setenv("PMI_SIZE", "4")
    launcher.check_world(4)
    with pytest.raises(RuntimeError, match=r"started 4 ranks \(PMI_SIZE\).* world of 1 rank:.*do not match"):
        launcher.check_world(1)
    with pytest.raises(RuntimeError, match=r"this process \(Some MPI 7\) sees a world of 3 ranks"):
        launcher.check_world(3, "Some MPI 7")


@pytest.mark.parametrize(
    ("variables", "first"),
    [
        ({}, True),
        ({"PMI_RANK": "0", "SLURM_PROCID": "1"}, True),  # mpirun on a node whose daemon srun started
        ({"PMIX_RANK": "3"}, False),
        ({"SLURM_PROCID": "1"}, False),  # srun without --mpi
        ({"SLURM_PROCID": "0"}, True),
    ],
)
def test_one_rank_speaks_for_all_where_mpi_cannot_tell_them_apart(monkeypatch, variables, first):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert launcher.launched_first() is first


def test_silent_worlds_of_one_rank_are_refused_on_every_rank():
    # What a launcher of another MPI gives: ranks that are told of two, and each find themselves alone.
    script = """
        import os
        for name in [n for n in os.environ if n.startswith("PMI_")]:
            os.environ.pop(name)
        os.environ["OMPI_COMM_WORLD_SIZE"] = "2"
        from cytomill.runtime import launcher, ranks
        world = ranks.connect()
        assert type(world).__name__ == "MpiWorld" and world.size == 1
        try:
            launcher.check_world(world.size, world.library)
        except RuntimeError as error:
            os.write(1, f"{error}\\n".encode())
    """
    done = mpirun(2, script)
    assert done.stdout.count("the launcher started 2 ranks") == 2, done.stderr
    assert done.stdout.count("of this process (MPICH Version: ") == 2
