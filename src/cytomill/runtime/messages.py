"""Lines for the person who watches."""

from __future__ import annotations

import sys
from contextlib import suppress


def say(text: str) -> None:
    """Write one line to standard error, in the program's name."""
    # Nobody may read it any more: that is no reason to end anything.
    with suppress(OSError, ValueError):
        print(f"cytomill: {text}", file=sys.stderr, flush=True)
