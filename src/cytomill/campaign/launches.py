"""Names of launches: one for each time that a campaign is started."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime


def new_launch_id() -> str:
    """Return a new launch's name, such as ``20250131T134502.123456Z-9f86d081``.

    Names sort by time (UTC) as text, are safe as file names, and differ between launches of the
    same microsecond by 32 random bits. Rank 0 makes it and broadcasts it.
    """
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}-{secrets.token_hex(4)}"
