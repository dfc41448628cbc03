"""Promises of the ranks: they agree, they wait politely, and none of them hangs when one fails."""

import json
import os
import signal
import time
from dataclasses import replace

import pytest
from launching import mpirun, wait_for

from cytomill.runtime import ranks
from cytomill.runtime.peers import Peer, Peers, process_start

PREAMBLE = """
from cytomill.runtime import startup
startup.prepare_process()
import json, os, sys, threading, time
import numpy as np
from cytomill.runtime import signals
from cytomill.runtime.ranks import connect, install_abort_hook
world = connect()
install_abort_hook(world)
"""


def test_ranks_exchange_objects_and_agree():
    script = (
        PREAMBLE
        + """
big = np.arange(3_000_000, dtype=np.float32) + world.rank
everyone = world.gather({"rank": world.rank, "big": big})
if world.rank == 0:
    assert [e["rank"] for e in everyone] == [0, 1, 2]
    assert all(np.array_equal(e["big"], big + e["rank"]) for e in everyone)
else:
    assert everyone is None
told = world.bcast(("from 1", big) if world.rank == 1 else None, root=1)
assert told[0] == "from 1" and told[1][0] == 1
assert world.gather(world.rank, root=2) == ([0, 1, 2] if world.rank == 2 else None)
assert not world.any(False) and world.any(world.rank == 2)
world.barrier(); world.node_barrier()
assert (world.local_rank, world.local_size) == (world.rank, world.size) and world.one_sided and world.host
assert world.any(np.bool_(world.rank == 1)) is True
left = []
world.before_finish(lambda: left.append("first"))
world.before_finish(lambda: left.append("last"))
world.finish()
assert left == ["last", "first"] and world.finished
print("done", flush=True)
"""
    )
    done = mpirun(3, script)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("done") == 3


def test_ranks_of_a_node_know_of_each_other_also_where_mpi_does_not():
    script = (
        PREAMBLE
        + """
import mpi4py.MPI as MPI
assert MPI.COMM_WORLD.Split_type(MPI.COMM_TYPE_SHARED).size == 1
os.write(1, f"{world.local_rank} {world.local_size}\\n".encode())
world.finish()
"""
    )
    done = mpirun(2, script, env={"MPIR_CVAR_NOLOCAL": "1"})  # as if no two ranks shared memory
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == ["0 2", "1 2"]


def test_ranks_of_other_nodes_are_not_local():
    script = """
        import os
        from cytomill.runtime import ranks
        ranks.node_identity = lambda: "n1" if os.environ["PMI_RANK"] in "02" else "n2"
        world = ranks.connect()
        os.write(1, f"{world.rank} {world.local_rank} {world.local_size}\\n".encode())
        world.finish()
    """
    done = mpirun(3, script)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == ["0 0 2", "1 0 1", "2 1 2"]


def test_without_a_launcher_one_rank_needs_no_mpi():
    script = (
        PREAMBLE
        + """
assert type(world).__name__ == "SoloWorld"
assert (world.rank, world.size, world.local_rank, world.local_size, world.one_sided) == (0, 1, 0, 1, False)
assert world.bcast(5) == 5 and world.gather(5) == [5] and world.any(True) and not world.any(False)
world.barrier(); world.node_barrier(); world.finish()
assert not any(name.startswith("mpi4py") for name in sys.modules)
"""
    )
    done = mpirun(0, script)
    assert done.returncode == 0, done.stderr


def test_waiting_ranks_leave_the_cores_to_others():
    script = (
        PREAMBLE
        + """
world.barrier()
used = time.process_time()
if world.rank == 0:
    time.sleep(2)
world.barrier()
used = world.gather(time.process_time() - used)
if world.rank == 0:
    print(json.dumps(used), flush=True)
world.finish()
"""
    )
    done = mpirun(3, script)
    assert done.returncode == 0, done.stderr
    used_s = json.loads(done.stdout)
    assert len(used_s) == 3 and max(used_s) < 0.3


def test_a_signal_is_handled_while_a_rank_waits(tmp_path):
    script = (
        PREAMBLE
        + """
from pathlib import Path
folder = Path(sys.argv[1])
(folder / f"ready-{world.rank}").touch()
if world.rank == 0:
    until = time.monotonic() + 20
    while not (folder / "handled").exists() and time.monotonic() < until:
        time.sleep(0.01)
else:
    seen = signals.request_stop
    def note(reason):
        seen(reason)
        (folder / "handled").touch()
    signals.request_stop = note
began = time.monotonic()
agreed = world.any(signals.stop_requested())
assert agreed and (folder / "handled").exists() and time.monotonic() - began < 15
world.finish()
sys.exit(75)
"""
    )

    def send(process):
        wait_for(lambda: len(list(tmp_path.glob("ready-*"))) == 2)
        process.send_signal(signal.SIGUSR1)

    done = mpirun(2, script, args=[str(tmp_path)], meanwhile=send)
    assert done.returncode == 75, done.stderr


FAILURES = {
    "raise ValueError('bad voxel')": "ValueError: bad voxel",
    "threading.Thread(target=lambda: [].pop(), name='writer').start(); world.barrier()": "thread writer",
    "error = OSError('disk'); error.add_note('dataset liver, unit 7'); raise error": "dataset liver, unit 7",
    "raise KeyboardInterrupt": ": interrupted; the job ends here",
    "raise OSError(28, 'No space left on device', 'a.zarr')": "No space left on device: 'a.zarr'; the job",
}


@pytest.mark.parametrize("culprit", [0, 2])
@pytest.mark.parametrize("failure", FAILURES)
def test_an_exception_on_one_rank_ends_the_job_and_names_it(failure, culprit):
    script = PREAMBLE + f"""
print("before", flush=True)
if world.rank == {culprit}:
    time.sleep(0.2)
    {failure}
world.barrier()
world.finish()
"""
    done = mpirun(3, script, timeout=30)
    assert done.returncode not in (0, 75)
    assert done.elapsed_s < 10
    assert f"rank {culprit} on " in done.stderr and FAILURES[failure] in done.stderr
    assert done.stdout.count("before") == 3
    assert ("Traceback" in done.stderr) == ("Keyboard" not in failure and "space" not in failure)
    if "Keyboard" in failure:
        assert done.returncode == 130


def test_a_rank_that_leaves_early_does_not_hang_the_others():
    script = PREAMBLE + """
from cytomill.runtime import ranks
ranks._EXIT_PATIENCE_S = 1
if world.rank == 1:
    sys.exit(3)
world.barrier()
world.finish()
"""
    done = mpirun(2, script, timeout=30)
    assert done.returncode != 0 and done.elapsed_s < 10
    assert "rank 1 on " in done.stderr


def test_ranks_that_all_leave_early_end_with_their_own_code():
    done = mpirun(2, PREAMBLE + "time.sleep(0.3 * world.rank)\nsys.exit(4)\n", timeout=30)
    assert done.returncode == 4 and "left while" not in done.stderr


def test_an_exception_alone_ends_with_a_traceback_and_in_a_thread_too():
    done = mpirun(0, PREAMBLE + "raise ValueError('bad voxel')")
    assert done.returncode == 1 and "ValueError: bad voxel" in done.stderr
    done = mpirun(0, PREAMBLE + "threading.Thread(target=lambda: 1 / 0).start()\ntime.sleep(20)")
    assert done.returncode == 1 and "ZeroDivisionError" in done.stderr and done.elapsed_s < 10


def test_a_launcher_without_an_mpi_library_gets_a_sentence():
    script = """
        import sys
        sys.modules["mpi4py"] = None
        from cytomill.runtime import ranks
        ranks.connect()
    """
    done = mpirun(0, script, env={"PMI_SIZE": "2", "PMI_RANK": "0"})
    assert done.returncode == 1
    assert "no MPI library could be loaded" in done.stderr and "cytomill[mpich]" in done.stderr


def test_patience_has_an_end():
    assert ranks.wait_politely(lambda: True)
    assert not ranks.wait_politely(lambda: False, patience_s=0.02)


@pytest.mark.parametrize("survivor", ["waits", "computes", "is inside MPI"])
def test_a_killed_rank_ends_the_job_where_the_launcher_does_not(tmp_path, survivor):
    # As srun does without --kill-on-bad-exit: mpirun is stopped while the rank is killed.
    script = (
        PREAMBLE
        + """
with open(os.path.join(sys.argv[1], str(world.rank)), "w") as file:
    file.write(f"{os.getpid()} {os.getppid()}")
# A stopped launcher forwards nothing.
sys.stderr = open(os.path.join(sys.argv[1], f"said by {world.rank}"), "w")
if world.rank == 0 or sys.argv[2] == "computes":
    time.sleep(60)
elif sys.argv[2] == "waits":
    world.barrier()
else:
    world.comm.recv(source=0)
"""
    )

    def kill_rank_0(process):
        files = [tmp_path / "0", tmp_path / "1"]
        wait_for(lambda: all(file.exists() and len(file.read_text().split()) == 2 for file in files))
        time.sleep(0.3)
        pid, proxy = map(int, files[0].read_text().split())
        os.kill(proxy, signal.SIGSTOP)
        os.kill(pid, signal.SIGKILL)
        other = int(files[1].read_text().split()[0])
        try:
            wait_for(lambda: process_start(other) is None, 10)
        finally:
            os.kill(proxy, signal.SIGCONT)

    done = mpirun(2, script, args=[str(tmp_path), survivor], meanwhile=kill_rank_0)
    assert done.returncode != 0
    said = (tmp_path / "said by 1").read_text()
    assert "cytomill: rank 0 on" in said and "was killed" in said, said


def test_a_number_given_to_another_process_is_no_peer():
    me = Peer.own()

    def gone(other):
        peers = Peers({0: me, 1: other}, lambda rank, pid: None)
        peers.end()
        return peers.gone()

    assert gone(me) is None
    assert gone(replace(me, started="1")) == (1, me.pid)
    assert gone(replace(me, started="1", namespace="pid:[1]")) is None
