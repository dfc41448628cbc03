"""Stop signals: a request to stop is remembered, and looked at between units.

A scheduler sends SIGUSR1 some time before it ends a job, and SIGTERM before it kills one. Neither is
a failure: the unit in hand is finished, and every rank leaves with the same exit code. The handlers
are installed before anything heavy is imported, because SIGUSR1 kills a process that has none.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType

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
    request_stop(signal.Signals(number).name)


def _on_interrupt(number: int, frame: FrameType | None) -> None:
    if stop_requested():
        raise KeyboardInterrupt
    request_stop("SIGINT")


def install() -> None:
    """Install the handlers: SIGUSR1 and SIGTERM ask for a stop, SIGINT too and ends at once when repeated.

    Outside the main thread, where Python forbids it, nothing is installed.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    for number in (signal.SIGUSR1, signal.SIGTERM):
        signal.signal(number, _on_stop_signal)
    signal.signal(signal.SIGINT, _on_interrupt)
