"""Small files that carry their own checksum, so that a damaged one is an error and never a value."""

from __future__ import annotations

from pathlib import Path

import google_crc32c

from cytomill.storage.errors import DamagedShard

#: CRC-32C of the content, as eight hexadecimal digits at the file's end.
_TRAILER_BYTES = 8


def write_checked(path: Path, content: bytes) -> None:
    """Write `content` and its checksum; the caller makes the file durable (`durable.seal`)."""
    with open(path, "wb") as file:
        file.write(content)
        file.write(b"%08x" % google_crc32c.value(content))


def read_checked(path: Path) -> bytes:
    """Return the content that :func:`write_checked` wrote.

    Raises
    ------
    DamagedShard
        If the file is missing, truncated or changed; names it.
    """
    try:
        whole = path.read_bytes()
    except FileNotFoundError:
        raise DamagedShard(path, "it is missing") from None
    content, trailer = whole[:-_TRAILER_BYTES], whole[-_TRAILER_BYTES:]
    if trailer != b"%08x" % google_crc32c.value(content):
        raise DamagedShard(path, "its content does not match its checksum")
    return content
