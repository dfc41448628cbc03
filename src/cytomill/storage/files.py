"""Reading ranges of bytes by position: never by memory map, as a truncated map kills the process."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Self

import google_crc32c
import numpy as np

from cytomill.storage.errors import VolumeError


class ByteFile:
    """A file that any number of threads may read from at once.

    Parameters
    ----------
    path : path-like
        File to open.

    Raises
    ------
    VolumeError
        If it cannot be opened.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path)
        self._descriptor = -1
        try:
            self._descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            status = os.fstat(self._descriptor)
        except OSError as error:
            raise VolumeError(f"{self.path} cannot be opened ({error.strerror}).") from error
        self.size = status.st_size
        self.mtime_ns = status.st_mtime_ns

    def read_into(self, offset: int, target: np.ndarray) -> None:
        """Fill a C-contiguous array with the bytes from `offset` on.

        Raises
        ------
        VolumeError
            If the file ends before, or cannot be read.
        """
        left = memoryview(target.reshape(-1).view(np.uint8))
        while left:
            try:
                count = os.preadv(self._descriptor, [left], offset)
            except OSError as error:
                raise VolumeError(
                    f"{self.path} cannot be read at byte {offset} ({error.strerror})."
                ) from error
            if count == 0:
                raise VolumeError(
                    f"{self.path} ends at byte {offset}, where {len(left)} more bytes were expected: it was "
                    "cut short or changed since it was opened."
                )
            left = left[count:]
            offset += count

    def read(self, offset: int, count: int) -> bytes:
        """Return exactly `count` bytes from `offset` on; raises as :meth:`read_into`."""
        target = np.empty(count, np.uint8)
        self.read_into(offset, target)
        return target.tobytes()

    def require(self, size: int, content: str) -> None:
        """Refuse a file shorter than `size` bytes.

        Raises
        ------
        VolumeError
            If the file is shorter.
        """
        if self.size < size:
            raise VolumeError(
                f"{self.path} holds {self.size} bytes but {content} needs {size}: it is truncated; "
                "copy it again."
            )

    def close(self) -> None:
        """Close the file; closing twice does no harm."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


def crc32c(content: bytes) -> int:
    """Return the CRC-32C of `content`."""
    return google_crc32c.value(content)
