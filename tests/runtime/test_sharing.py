"""Promises of work sharing: each unit once, no rank waits for a busy owner, a stop reaches every rank."""

import json
import signal

import pytest
from launching import mpirun, wait_for

from cytomill.runtime.ranks import SoloWorld
from cytomill.runtime.sharing import StaticSharing, make_sharing

PREAMBLE = """
from cytomill.runtime import startup
startup.prepare_process()
import json, sys, time
import numpy as np
from cytomill.runtime import signals
from cytomill.runtime.ranks import connect, install_abort_hook
from cytomill.runtime.sharing import make_sharing
world = connect()
install_abort_hook(world)

def tell(what):
    everyone = world.gather(what)
    if world.rank == 0:
        print(json.dumps(everyone), flush=True)
"""


def told(done):
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


TAKE_ALL = (
    PREAMBLE
    + """
sharing = make_sharing(world, sys.argv[1])
for n_units in (40, 3, 0, 41):
    sharing.open(n_units)
    mine = []
    while (position := sharing.take()) is not None:
        sharing.prefetch()
        mine.append(position)
        time.sleep(0.0005 * (1 + world.rank))
    sharing.close()
    tell(mine)
tell(sharing.mode)
sharing.shutdown()
world.finish()
"""
)


@pytest.mark.parametrize("mode", ["counter", "static"])
@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_each_unit_is_handed_out_once(ranks, mode):
    *queues, modes = told(mpirun(ranks, TAKE_ALL, args=[mode]))
    assert modes == [mode] * ranks
    for n_units, taken in zip((40, 3, 0, 41), queues, strict=True):
        assert sorted(sum(taken, [])) == list(range(n_units))
        assert all(mine == sorted(mine) for mine in taken)


def test_without_threads_in_mpi_the_queue_is_static():
    script = "import mpi4py\nmpi4py.rc.thread_level = 'funneled'\n" + TAKE_ALL.lstrip()
    *queues, modes = told(mpirun(2, script, args=["auto"]))
    assert modes == ["static", "static"]
    assert queues[1] == [[0, 2], [1]]


def test_a_counter_that_cannot_be_kept_is_refused():
    with pytest.raises(RuntimeError, match="'auto' or 'static'"):
        make_sharing(SoloWorld(), "counter")
    with pytest.raises(ValueError, match="'turbo'"):
        make_sharing(SoloWorld(), "turbo")


@pytest.mark.parametrize(
    ("work", "network"),
    [("kernel", False), ("kernel", True), ("sleep", True), ("numpy", True)],
    ids=["kernel", "kernel-as-if-two-nodes", "sleep-as-if-two-nodes", "numpy-as-if-two-nodes"],
)
def test_no_rank_waits_for_a_busy_owner(work, network):
    # Without an early take, which would hide the wait: every take is a round trip to the owner.
    script = (
        PREAMBLE
        + """
work = sys.argv[1]
if work == "kernel":
    import numba

    @numba.njit(nogil=True)
    def spin(rounds):
        x = 0.0
        for i in range(rounds):
            x += np.sqrt(x + i)
        return x

    spin(10)
    t = time.perf_counter(); spin(10_000_000); rounds = int(10_000_000 * 0.5 / (time.perf_counter() - t))
data = np.arange(200_000, dtype=np.float64)

def busy(seconds):
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        if work == "kernel":
            spin(rounds)
        elif work == "sleep":
            time.sleep(seconds)
        else:
            np.sqrt(data)[::7].tolist()

sharing = make_sharing(world, "counter")
sharing.open(110)
if sys.argv[2:] == ["no-thread"]:
    sharing._end_thread()
waits = []
while True:
    began = time.perf_counter()
    position = sharing.take()
    if world.rank == 0 or position is not None:
        waits.append(time.perf_counter() - began)
    if position is None:
        break
    if world.rank == 0 and len(waits) == 1:
        busy(3.0)
    else:
        time.sleep(0.02)
sharing.close()
tell({"units": len(waits), "worst_ms": 1e3 * max(waits), "mean_ms": 1e3 * sum(waits) / len(waits)})
sharing.shutdown()
world.finish()
"""
    )
    env = {"MPIR_CVAR_NOLOCAL": "1"} if network else {}
    ((owner, other),) = told(mpirun(2, script, env=env, args=[work], timeout=120))
    print(f"{work}, network={network}: {other}")
    assert other["units"] > 90
    assert other["worst_ms"] < 50


def test_costly_units_begin_apart_and_are_not_taken_early():
    script = (
        PREAMBLE
        + """
costs = [10, 9, 1, 1, 1, 1, 1, 1]
sharing = make_sharing(world, "counter")
sharing.open(len(costs))
began = time.perf_counter()
mine = []
while (position := sharing.take()) is not None:
    sharing.prefetch()
    mine.append(costs[position])
    time.sleep(0.05 * costs[position])
took = time.perf_counter() - began
sharing.close()
tell([mine, took / 0.05])
sharing.shutdown()
world.finish()
"""
    )
    (ranks,) = told(mpirun(2, script))
    assert sorted(max(mine) for mine, _ in ranks) == [9, 10]
    assert sorted(sum(mine) for mine, _ in ranks) == [12, 13]
    assert max(took for _, took in ranks) < 14


STOPPABLE = (
    PREAMBLE
    + """
from pathlib import Path
folder = Path(sys.argv[1])
sharing = make_sharing(world, sys.argv[2])
sharing.open(100_000)
after = 0
(folder / f"ready-{world.rank}").touch()
while (position := sharing.take()) is not None:
    sharing.prefetch()
    time.sleep(0.2)
    after += (folder / "sent").exists()
sharing.close()
agreed = world.any(sharing.stopped())
tell([after, agreed, sharing.stopped(), signals.stop_reason()])
sharing.open(5)
tell([agreed, sharing.take()])
sharing.close()
sharing.shutdown()
world.finish()
sys.exit(75 if agreed else 0)
"""
)


@pytest.mark.parametrize("mode", ["counter", "static"])
def test_a_stop_signal_to_mpirun_stops_every_rank_within_one_unit(tmp_path, mode):
    def send(process):
        wait_for(lambda: len(list(tmp_path.glob("ready-*"))) == 3)
        process.send_signal(signal.SIGUSR1)
        (tmp_path / "sent").touch()

    done = mpirun(3, STOPPABLE, args=[str(tmp_path), mode], meanwhile=send)
    assert done.returncode == 75, done.stderr
    stops, later = [json.loads(line) for line in done.stdout.splitlines()]
    for after, agreed, stopped, reason in stops:
        assert after <= 1
        assert agreed and stopped
        assert reason == "SIGUSR1"
    assert later == [[True, None]] * 3


def test_a_stop_seen_by_one_rank_reaches_the_others_through_the_window():
    script = (
        PREAMBLE
        + """
sharing = make_sharing(world, "counter")
sharing.open(1000)
count = 0
while (position := sharing.take()) is not None:
    sharing.prefetch()
    count += 1
    if world.rank == 2 and count == 3:
        signals.request_stop("test")
    time.sleep(0.02)
sharing.close()
tell([count, signals.stop_reason(), sharing.stopped()])
sharing.shutdown()
world.finish()
"""
    )
    (ranks,) = told(mpirun(3, script))
    assert ranks[2] == [3, "test", True]
    for count, reason, stopped in ranks[:2]:
        assert count < 20 and reason == "" and stopped


def test_a_stop_between_queues_is_seen_in_the_next_one_by_every_rank():
    script = (
        PREAMBLE
        + """
sharing = make_sharing(world, "counter")
sharing.open(0)
sharing.close()
if world.rank == 1:
    sharing.stop()
sharing.open(1000)
count = 0
while sharing.take() is not None:
    count += 1
    time.sleep(0.01)
sharing.close()
tell(count)
sharing.shutdown()
world.finish()
"""
    )
    (counts,) = told(mpirun(2, script))
    assert counts[1] == 0 and counts[0] <= 3


def test_progress_is_told_while_the_owner_computes_and_the_thread_ends_before_finalize():
    script = (
        PREAMBLE
        + """
import threading
ticks = []
sharing = make_sharing(world, "counter", on_tick=ticks.append)
sharing.open(60)
while sharing.take() is not None:
    time.sleep(1.6 if world.rank == 0 else 0.025)
sharing.close()
sharing.shutdown()
alive = [t.name for t in threading.enumerate() if t.name == "sharing progress"]
tell([ticks, alive])
world.finish()
"""
    )
    ((owner, other),) = told(mpirun(2, script))
    ticks, alive = owner
    assert alive == [] and other == [[], []]
    assert 3 <= len(ticks) <= 7
    assert ticks == sorted(ticks) and ticks[-1] > ticks[0]


def test_finish_ends_a_progress_thread_that_was_left_running():
    script = PREAMBLE + "make_sharing(world, 'counter').open(5)\nworld.finish()\n"
    script += "print('left-the-world', flush=True)\n"
    done = mpirun(2, script, timeout=20)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("left-the-world") == 2


def test_one_rank_takes_every_unit_in_order_and_says_so():
    ticks = []
    sharing = make_sharing(SoloWorld(), on_tick=ticks.append)
    assert isinstance(sharing, StaticSharing)
    sharing.open(3)
    assert [sharing.take() for _ in range(4)] == [0, 1, 2, None]
    assert sharing.taken() == 3 and ticks == [0]
    sharing.close()
    sharing.open(1)
    assert not sharing.stopped()
    sharing.stop()
    assert sharing.stopped() and sharing.take() is None
    sharing.shutdown()
