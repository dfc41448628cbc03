"""Files that survive a crash: atomic replacement, and shards made durable and checkable.

Neither zarr nor its codec pipelines call fsync, so what a unit wrote may be lost with the machine
although its ledger line is not. :func:`seal` closes that gap before the line is written.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import google_crc32c

#: Files are hashed in pieces of this size, so that sealing a shard costs no memory to speak of.
PIECE_BYTES = 4 * 2**20


@dataclass(frozen=True)
class ShardRecord:
    """What the ledger keeps of one shard file.

    Parameters
    ----------
    path : str
        Relative to the root given to :func:`seal`, with forward slashes.
    size : int or None
        Bytes; None where the shard holds fill values only and so has no file.
    crc32c : int or None
        CRC-32C of the whole file; None where there is no file.
    """

    path: str
    size: int | None
    crc32c: int | None


def fsync_directory(path: str | os.PathLike) -> None:
    """Make the entries of a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directories(path: str | os.PathLike) -> None:
    """Create `path` and its missing parents so that a crash cannot lose the new entries."""
    path = Path(path)
    missing = []
    while not path.is_dir():
        missing.append(path)
        path = path.parent
    for folder in reversed(missing):
        folder.mkdir(exist_ok=True)
        fsync_directory(folder.parent)


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """Give a file to write a stream to, which replaces `path` at the end of the block, whole or not at all.

    Parameters
    ----------
    path : path-like
        File to write; its folder must exist.

    Raises
    ------
    OSError
        If the folder does not exist or cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    # Not tempfile: its files have mode 0600, and a campaign's outputs are for the whole group.
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        with open(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_directory(path.parent)


def write_atomic(path: str | os.PathLike, content: bytes) -> None:
    """Replace a file by `content`, whole or not at all, and make it durable.

    A reader, or a later run after a crash at any moment, finds either the old file or the new one.

    Parameters
    ----------
    path : path-like
        File to write; its folder must exist.
    content : bytes
        The whole new content.

    Raises
    ------
    OSError
        If the folder does not exist or cannot be written.
    """
    with replacing(path) as file:
        file.write(content)


def _crc32c_of(descriptor: int) -> int:
    checksum = google_crc32c.Checksum()
    while piece := os.read(descriptor, PIECE_BYTES):
        checksum.update(piece)
    return int.from_bytes(checksum.digest(), "big")


#: Folders, by path and inode, whose entries in the folders above them this process has made durable.
_met: set[tuple[Path, int]] = set()


def _fsync_above(folder: Path, root: Path) -> None:
    """Make the entry of `folder`, and of each folder between it and `root`, durable; each only once."""
    while folder != root:
        entry = (folder, folder.stat().st_ino)
        if entry not in _met:
            fsync_directory(folder.parent)
            _met.add(entry)
        folder = folder.parent


def seal(paths: Iterable[Path], root: Path) -> list[ShardRecord]:
    """Make shard files and the folders that lead to them durable; return what the ledger keeps.

    Parameters
    ----------
    paths : iterable of Path
        Shard files below `root`, whether or not they exist.
    root : Path
        Folder that the records are relative to.

    Returns
    -------
    list of ShardRecord
        In the order of `paths`; a file that does not exist is recorded as empty.

    Raises
    ------
    ValueError
        If a path is not below `root`.
    """
    root = Path(root)
    records = []
    folders: dict[Path, None] = {}
    for path in map(Path, paths):
        relative = path.relative_to(root)
        folders[path.parent] = None
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            records.append(ShardRecord(relative.as_posix(), None, None))
            continue
        try:
            os.fsync(descriptor)
            size = os.fstat(descriptor).st_size
            records.append(ShardRecord(relative.as_posix(), size, _crc32c_of(descriptor)))
        finally:
            os.close(descriptor)
    for folder in folders:
        if folder.is_dir():
            fsync_directory(folder)
            _fsync_above(folder, root)
    return records


def check(record: ShardRecord, root: Path, deep: bool) -> str | None:
    """Compare a shard file with its record.

    Parameters
    ----------
    record : ShardRecord
        What :func:`seal` returned.
    root : Path
        Folder that `record.path` is relative to.
    deep : bool
        Read the file and compare its CRC-32C; otherwise only its existence and size are looked at.

    Returns
    -------
    str or None
        None if the file matches, else one sentence saying what is wrong.
    """
    path = Path(root) / record.path
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        if record.size is None:
            return None
        return f"Shard {path} is missing; {record.size} bytes were written."
    try:
        size = os.fstat(descriptor).st_size
        if record.size is None:
            return f"Shard {path} holds {size} bytes although it was recorded as empty."
        if size != record.size:
            return f"Shard {path} holds {size} bytes; {record.size} were written."
        if deep and _crc32c_of(descriptor) != record.crc32c:
            return f"Shard {path} does not match its checksum: its content has changed since it was written."
    finally:
        os.close(descriptor)
    return None
