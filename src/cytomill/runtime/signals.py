"""Stop signals: a request to stop is remembered, and looked at between units.

A scheduler sends SIGUSR1 some time before it ends a job, and SIGTERM before it kills one. Neither is
a failure: the unit in hand is finished, and every rank leaves with the same exit code. The handlers
are installed before anything heavy is imported, because SIGUSR1 kills a process that has none.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import suppress
from types import FrameType

from cytomill.runtime.launcher import launched_first

_reason = ""


def stop_requested() -> bool:
    """Whether this process was asked to stop."""
    return bool(_reason)


def stop_reason() -> str:
    """Why this process was asked to stop, in a few words; empty where it was not."""
    return _reason


def request_stop(reason: str) -> None:
    """Ask this process to stop after the unit in hand; the first reason is the one kept.

    Parameters
    ----------
    reason : str
        Not empty: what asked for the stop.
    """
    global _reason
    if not reason:
        raise ValueError("a stop needs a reason")
    if not _reason:
        _reason = reason


def _on_stop_signal(number: int, frame: FrameType | None) -> None:
    _tell(f"stopping after the units in hand ({signal.Signals(number).name})")
    request_stop(signal.Signals(number).name)


def _on_interrupt(number: int, frame: FrameType | None) -> None:
    if stop_requested():
        raise KeyboardInterrupt
    _tell("stopping after the units in hand (SIGINT); Ctrl-C again ends at once")
    request_stop("SIGINT")


def _tell(text: str) -> None:
    """One line, of one rank, for who waits; not by print, which a signal may find at work already."""
    if launched_first() and not stop_requested():
        with suppress(OSError, ValueError, AttributeError):
            os.write(sys.stderr.fileno(), f"cytomill: {text}\n".encode())


def install() -> None:
    """Install the handlers: SIGUSR1 and SIGTERM ask for a stop, SIGINT too and ends at once when repeated.

    Outside the main thread, where Python forbids it, nothing is installed.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    for number in (signal.SIGUSR1, signal.SIGTERM):
        signal.signal(number, _on_stop_signal)
    signal.signal(signal.SIGINT, _on_interrupt)


def restore() -> None:
    """Give the signals their usual effect again, for work that is not cut into units.

    A stop that was asked for since :func:`install` takes effect now.
    """
    global _reason
    if threading.current_thread() is not threading.main_thread():
        return
    for number in (signal.SIGUSR1, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    asked, _reason = _reason, ""
    if asked in signal.Signals.__members__:
        signal.raise_signal(signal.Signals[asked])
