"""Promises about stop signals: they are remembered, not fatal; a second interrupt ends at once."""

import signal
import subprocess
import sys
import time
from textwrap import dedent

import pytest

from cytomill.runtime import signals

SCRIPT = dedent("""
    from cytomill.runtime import signals
    signals.install()
    import time
    print("ready", flush=True)
    while not signals.stop_requested():
        time.sleep(0.01)
    print(signals.stop_reason(), flush=True)
    time.sleep(1)
    print(signals.stop_reason(), flush=True)
    """)


def send(*numbers):
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "ready\n"
        for number in numbers:
            process.send_signal(number)
            time.sleep(0.1)
        out, err = process.communicate(timeout=20)
        return process.returncode, out.split(), err


@pytest.mark.parametrize(
    ("numbers", "reason"),
    [
        ([signal.SIGUSR1], "SIGUSR1"),
        ([signal.SIGTERM, signal.SIGTERM], "SIGTERM"),
        ([signal.SIGUSR1, signal.SIGTERM], "SIGUSR1"),
        ([signal.SIGINT], "SIGINT"),
    ],
)
def test_a_stop_signal_is_a_flag(numbers, reason):
    assert send(*numbers)[:2] == (0, [reason, reason])


def test_a_second_interrupt_ends_at_once():
    code, out, err = send(signal.SIGINT, signal.SIGINT)
    assert code != 0 and out == ["SIGINT"] and "KeyboardInterrupt" in err


def test_the_first_reason_is_kept(monkeypatch):
    monkeypatch.setattr(signals, "_reason", "")
    assert not signals.stop_requested() and signals.stop_reason() == ""
    signals.request_stop("wall time")
    signals.request_stop("other")
    assert signals.stop_requested() and signals.stop_reason() == "wall time"
    with pytest.raises(ValueError, match="reason"):
        signals.request_stop("")


def test_a_stop_is_acknowledged_once(tmp_path):
    code, out, err = send(signal.SIGINT, signal.SIGUSR1)
    assert err.splitlines() == [
        "cytomill: stopping after the units in hand (SIGINT); Ctrl-C again ends at once"
    ]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("before", [True, False])
def test_what_is_not_cut_into_units_ends_at_the_first_signal(number, before):
    script = dedent(f"""
        import os
        from cytomill.runtime import signals
        signals.install()
        if {before}:
            os.kill(os.getpid(), {int(number)})
        signals.restore()
        os.kill(os.getpid(), {int(number)})
        print("still here")
        """)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=20)
    assert done.stdout == "" and done.returncode == -number
