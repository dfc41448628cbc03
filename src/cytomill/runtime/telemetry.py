"""What happens in a run: an event stream a rank, peak memory, and progress for a person to watch."""

from __future__ import annotations

import json
import logging
import resource
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

log = logging.getLogger(__name__)

_FLUSH_S = 1.0
_LINE_S = 60.0


class Telemetry:
    """Event stream of one rank in one launch: JSON lines, each with wall and monotonic time.

    Parameters
    ----------
    folder : Path
        Where the streams lie; created where it is missing.
    launch : str
        Names the launch, so that a later one never appends to this stream.
    rank : int
        The rank that writes.
    """

    def __init__(self, folder: Path, launch: str, rank: int) -> None:
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"events-{launch}-{rank:05d}.jsonl"
        self._head = {"launch": str(launch), "rank": rank}
        self._file = open(self.path, "a", encoding="utf-8", buffering=1 << 16)
        self._lock = threading.Lock()
        self._flushed = 0.0
        self._timer: threading.Timer | None = None

    def event(self, kind: str, **fields: Any) -> None:
        """Append one event; it reaches the file within a second.

        Raises
        ------
        TypeError
            If a field is not JSON-able.
        """
        now = time.monotonic()
        record = {"t": round(time.time(), 6), "mono": round(now, 6), **self._head, "kind": kind, **fields}
        line = json.dumps(record, ensure_ascii=False) + "\n"
        with self._lock, self._while_writable():
            if self._file.closed:
                return
            self._file.write(line)
            if now - self._flushed >= _FLUSH_S:
                self._file.flush()
                self._flushed = now
            elif self._timer is None:
                self._timer = threading.Timer(_FLUSH_S, self._flush_late)
                self._timer.daemon = True
                self._timer.start()

    @contextmanager
    def measured(self, kind: str, predicted_bytes: int, **fields: Any) -> Iterator[None]:
        """Measure the block's time and peak memory, and append them as an event when it ends well."""
        reset_peak_memory()
        began = time.monotonic()
        yield
        seconds, peak = time.monotonic() - began, peak_memory_bytes()
        self.event(kind, seconds=seconds, peak_bytes=peak, predicted_bytes=predicted_bytes, **fields)

    def flush(self) -> None:
        """Bring every event so far to the file."""
        with self._lock, self._while_writable():
            if not self._file.closed:
                self._file.flush()

    def _flush_late(self) -> None:
        with self._lock, self._while_writable():
            self._timer = None
            if not self._file.closed:
                self._file.flush()
                self._flushed = time.monotonic()

    def close(self) -> None:
        """Flush and close the stream; later events are dropped."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            with self._while_writable():
                self._file.close()

    @contextmanager
    def _while_writable(self) -> Iterator[None]:
        """End the stream where it cannot be written: timings are no result, and hide no other error."""
        try:
            yield
        except OSError as error:
            log.warning("%s: no more timings of this rank (%s)", self.path, error.strerror)
            # What its buffer holds would be tried again by every flush: the file goes without it.
            with suppress(OSError):
                self._file.close()


def read_events(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the events of every stream in `folder`, stream by stream; a torn line is left out."""
    for path in sorted(Path(folder).glob("events-*.jsonl")):
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                try:
                    record = json.loads(line)
                except ValueError:  # torn: its writer was killed
                    continue
                if isinstance(record, dict):
                    yield record


def reset_peak_memory() -> bool:
    """Forget this process's peak memory; False where the kernel does not allow it."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _status_bytes(field: str) -> int | None:
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name == field:
                return int(value.split()[0]) * 1024
    except (OSError, ValueError, IndexError):
        return None
    return None


def resident_bytes() -> int:
    """Return this process's resident memory in bytes."""
    return _status_bytes("VmRSS") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def peak_memory_bytes() -> int:
    """Return this process's peak resident memory in bytes.

    Since the last :func:`reset_peak_memory` that returned True; since the process began elsewhere.
    """
    return _status_bytes("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"


class Progress:
    """Progress of one stage: a bar on a terminal; elsewhere one line a minute, and one at the end.

    Where nobody reads the stream any more (it is closed, or its pipe is broken) nothing more is written,
    and the work goes on.

    Parameters
    ----------
    total : int
        Units in all.
    describe : str
        What is being done, in a few words.
    stream : text file, optional
        Where to write; standard error by default.
    done : int
        Units that an earlier launch has done; they do not count for the rate.
    """

    def __init__(
        self, total: int, describe: str, stream: TextIO | None = None, done: int = 0
    ) -> None:
        self.total, self.describe = total, describe
        self._stream = sys.stderr if stream is None else stream
        self._done = self._before = min(done, total)
        self._began = self._last_line = time.monotonic()
        self._lock = threading.Lock()
        self._closed = False
        self._bar: Any = None
        with self._while_read():
            self._bar = self._make_bar() if self._stream.isatty() else None

    @contextmanager
    def _while_read(self) -> Iterator[None]:
        """End this progress where its stream cannot be written."""
        try:
            yield
        except (OSError, ValueError, AttributeError):  # broken, closed, or None: Python found none to open
            self._closed = True

    def _make_bar(self) -> Any:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as Bar

        bar = Bar(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[pace]}", markup=False),
            console=Console(file=self._stream, force_terminal=True),
            auto_refresh=False,
        )
        self._task = bar.add_task(self.describe, total=self.total, completed=self._done, pace="")
        bar.start()
        bar.refresh()
        return bar

    def _pace(self) -> str:
        elapsed = time.monotonic() - self._began
        fresh = self._done - self._before
        if fresh < 1 or elapsed <= 0:
            return ""
        rate = fresh / elapsed
        speed = f"{rate:.1f} units/s" if rate >= 1 else f"{60 * rate:.1f} units/min"
        if self._done >= self.total:
            took = f"{elapsed:.1f} s" if elapsed < 60 else _clock(elapsed)
            return f"{speed}, took {took}"
        return f"{speed}, {_clock((self.total - self._done) / rate)} left"

    def _line(self) -> None:
        share = 100 * self._done // self.total if self.total else 100
        pace = self._pace()
        ending = f", {pace}" if pace else ""
        self._stream.write(f"{self.describe}: {self._done} of {self.total} units ({share} %){ending}\n")
        self._stream.flush()

    def update(self, done: int) -> None:
        """Say that `done` units are done, those of earlier launches included (any thread)."""
        with self._lock:
            if self._closed:
                return
            self._done = max(self._done, min(done, self.total))
            with self._while_read():
                if self._bar is not None:
                    self._bar.update(self._task, completed=self._done, pace=self._pace(), refresh=True)
                elif time.monotonic() - self._last_line >= _LINE_S:
                    self._last_line = time.monotonic()
                    self._line()

    def close(self) -> None:
        """Write the last state, and give the terminal back."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            with self._while_read():
                if self._bar is not None:
                    self._bar.update(self._task, completed=self._done, pace=self._pace(), refresh=True)
                    self._bar.stop()
                else:
                    self._line()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
