"""Promises of telemetry: events survive a kill, progress speaks in its way, peaks are measured."""

import io
import json
import threading
import time

import numpy as np
import pytest

from cytomill.runtime import telemetry
from cytomill.runtime.telemetry import Progress, Telemetry, read_events


def test_events_come_back_in_order_with_both_clocks(tmp_path):
    for rank in (1, 0):
        stream = Telemetry(tmp_path / "events", "0001", rank)
        stream.event("unit", dataset="Leber µ", seconds=0.25)
        stream.event("stop")
        stream.close()
        stream.event("late")
        stream.close()
    events = list(read_events(tmp_path / "events"))
    assert [(e["rank"], e["kind"]) for e in events] == [(0, "unit"), (0, "stop"), (1, "unit"), (1, "stop")]
    assert events[0]["dataset"] == "Leber µ" and events[0]["launch"] == "0001"
    assert abs(events[0]["t"] - time.time()) < 60 and events[1]["mono"] >= events[0]["mono"]


def test_a_torn_line_is_left_out(tmp_path):
    stream = Telemetry(tmp_path, "1", 0)
    stream.event("whole")
    stream.close()
    with open(stream.path, "ab") as file:
        file.write(b'{"kind": "torn \xc3')
    assert [e["kind"] for e in read_events(tmp_path)] == ["whole"]
    assert list(read_events(tmp_path / "absent")) == []


def test_an_event_reaches_the_file_within_a_second_though_none_follows(tmp_path):
    stream = Telemetry(tmp_path, "1", 0)
    for kind in ("first", "second", "third"):
        stream.event(kind)
    assert len(stream.path.read_text().splitlines()) < 3
    time.sleep(1.3)
    assert len(stream.path.read_text().splitlines()) == 3
    stream.close()


def test_an_event_costs_microseconds(tmp_path):
    stream = Telemetry(tmp_path, "1", 0)
    began = time.perf_counter()
    for index in range(2000):
        stream.event("unit", index=index, seconds=1.5)
    each_s = (time.perf_counter() - began) / 2000
    stream.close()
    # A unit of 5 s with four events: 0.1 % of it is 5 ms.
    assert each_s < 0.001


def test_the_peak_is_measured_from_the_reset():
    if not telemetry.reset_peak_memory():
        pytest.skip("this kernel does not let a process reset its peak memory")
    before = telemetry.peak_memory_bytes()
    block = np.ones(60_000_000, np.uint8)
    held = telemetry.peak_memory_bytes()
    assert 55e6 < held - before < 80e6
    del block
    assert telemetry.peak_memory_bytes() >= held - 1e6
    telemetry.reset_peak_memory()
    assert telemetry.peak_memory_bytes() < held - 50e6
    assert telemetry.resident_bytes() <= telemetry.peak_memory_bytes() + 1e6


def test_where_the_kernel_refuses_the_peak_is_the_processs(monkeypatch, tmp_path):
    monkeypatch.setattr(telemetry, "Path", lambda name: tmp_path / "absent" / "file")
    assert telemetry.reset_peak_memory() is False
    assert telemetry.peak_memory_bytes() > 10e6


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_on_a_terminal_there_is_a_bar_with_rate_and_time_left():
    stream = Terminal()
    with Progress(40, "posterior [liver]", stream, done=10) as progress:
        time.sleep(0.05)
        threads = [threading.Thread(target=progress.update, args=(n,)) for n in (15, 20, 30)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    text = stream.getvalue()
    assert "posterior [liver]" in text and "30/40" in text and "units/" in text and "left" in text


def test_without_a_terminal_there_is_a_line_a_minute_and_one_at_the_end(monkeypatch):
    stream, clock = io.StringIO(), [1000.0]
    monkeypatch.setattr(telemetry.time, "monotonic", lambda: clock[0])
    progress = Progress(100, "labels", stream)
    for second in range(180):
        clock[0] += 1
        progress.update(second // 2)
    assert stream.getvalue().splitlines() == [
        "labels: 29 of 100 units (29 %), 29.0 units/min, 0:02:27 left",
        "labels: 59 of 100 units (59 %), 29.5 units/min, 0:01:23 left",
        "labels: 89 of 100 units (89 %), 29.7 units/min, 0:00:22 left",
    ]
    progress.update(100)
    progress.close()
    progress.update(100)
    progress.close()
    last = "labels: 100 of 100 units (100 %), 33.3 units/min, took 0:03:00"
    assert stream.getvalue().splitlines()[3:] == [last]


def test_what_took_less_than_a_minute_is_said_in_seconds(monkeypatch):
    stream, clock = io.StringIO(), [0.0]
    monkeypatch.setattr(telemetry.time, "monotonic", lambda: clock[0])
    with Progress(2, "masks", stream) as progress:
        clock[0] = 0.4
        progress.update(2)
    assert stream.getvalue() == "masks: 2 of 2 units (100 %), 5.0 units/s, took 0.4 s\n"


class Broken(io.StringIO):
    """A stream whose reader has gone; `writes` counts the attempts."""

    def __init__(self, error, terminal):
        super().__init__()
        self.error, self.terminal, self.writes = error, terminal, 0

    def isatty(self):
        return self.terminal

    def write(self, text):
        self.writes += 1
        raise self.error


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), ValueError("closed file")])
def test_a_stream_that_nobody_reads_ends_no_work(error, terminal):
    stream = Broken(error, terminal)
    progress = Progress(4, "labels", stream)
    progress.close()
    tried = stream.writes
    progress.update(2)
    progress.close()
    assert tried >= 1 and stream.writes == tried
    closed = io.StringIO()
    closed.close()
    for nowhere in (closed, None):
        with pytest.MonkeyPatch.context() as patches:
            patches.setattr("sys.stderr", None)
            Progress(4, "labels", nowhere).close()


def test_a_stage_that_was_done_before_says_so():
    stream = io.StringIO()
    Progress(7, "labels", stream, done=7).close()
    Progress(0, "report", stream).close()
    assert stream.getvalue() == "labels: 7 of 7 units (100 %)\nreport: 0 of 0 units (100 %)\n"


def test_a_line_of_events_is_plain_json(tmp_path):
    stream = Telemetry(tmp_path, "1", 3)
    with pytest.raises(TypeError):
        stream.event("bad", value=object())
    stream.event("good")
    stream.close()
    assert [json.loads(line)["kind"] for line in stream.path.read_text().splitlines()] == ["good"]


def test_a_full_disk_ends_the_stream_and_hides_no_other_error(tmp_path, caplog):
    stream = Telemetry(tmp_path, "1", 0)
    stream._file.close()
    stream._file = open("/dev/full", "w", encoding="utf-8")
    stream.event("unit", text="x" * 100_000)
    stream.event("unit")
    stream.flush()
    stream.close()
    assert "no more timings of this rank (No space left on device)" in caplog.text
    assert len(caplog.records) == 1
