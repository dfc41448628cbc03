"""Journals as files: lines of JSON, a space and the CRC-32C of the JSON.

A line that its checksum does not prove is torn where it is the last of its journal and has no end: its
writer was killed, and nothing hangs on it. Anywhere else it is damage.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c

from cytomill.runtime.arrays import from_inline, from_npz
from cytomill.runtime.stage import Arrays
from cytomill.storage.durable import write_atomic

JOURNALS = "ledger"

#: Lines longer than this are not held in memory for the arrays in them: their place is, and they are read
#: again where the arrays are needed.
HELD_LINE_BYTES = 1024

_NAME = re.compile(r"((\d+)-.+)-r(\d+)\.jsonl")


class LedgerError(RuntimeError):
    """A ledger that cannot be used; the message is one sentence that names the file."""


@dataclass(frozen=True)
class JournalFile:
    """One rank's journal of one launch.

    Parameters
    ----------
    number : int
        The launch, counted from 1.
    launch : str
        Its name.
    rank : int
        MPI rank.
    path : Path
        The file.
    """

    number: int
    launch: str
    rank: int
    path: Path


def journal_name(launch: str, rank: int) -> str:
    """Name of a journal's file."""
    return f"{launch}-r{rank}.jsonl"


def journal_files(root: Path) -> list[JournalFile]:
    """Journals of a campaign in order of launch and rank; other files in their folder are left alone."""
    matches = [(_NAME.fullmatch(path.name), path) for path in (root / JOURNALS).glob("*.jsonl")]
    found = [JournalFile(int(m[2]), m[1], int(m[3]), path) for m, path in matches if m]
    return sorted(found, key=lambda file: (file.number, file.launch, file.rank))


def epoch_key(epoch: str) -> tuple[str, int]:
    """Sort key of an epoch: launch, then order within it."""
    launch, _, sequence = epoch.rpartition(".")
    return launch, int(sequence or 0)


def next_launch(root: Path, name: str) -> str:
    """Number a launch after all that have a journal, so that order does not hang on clocks."""
    return f"{max((file.number for file in journal_files(root)), default=0) + 1:05d}-{name}"


def make_line(values: dict[str, Any]) -> bytes:
    """One line, with its checksum and its end."""
    text = json.dumps(values, separators=(",", ":")).encode()
    return text + b" %08x\n" % google_crc32c.value(text)


def _whole(line: bytes) -> bytes | None:
    """The JSON of a line; None where it does not match its checksum."""
    text, _, crc = line.rstrip(b"\n").rpartition(b" ")
    return text if len(crc) == 8 and crc == b"%08x" % google_crc32c.value(text) else None


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    offset = 0
    with open(path, "rb") as file:
        for line in file:
            yield offset, line
            offset += len(line)


def placed_lines(path: Path, damaged: list[str]) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """Yield ``(offset, bytes, values)`` of the whole lines of a journal, one in memory at a time.

    A torn last line is skipped; a sentence about each damaged one joins `damaged`.
    """
    for number, (offset, line) in enumerate(_lines(path), 1):
        text = _whole(line)
        if text is not None:
            yield offset, len(line), json.loads(text)
        elif line.endswith(b"\n") and line != b"\n":
            damaged.append(f"{path}: line {number} does not match its checksum")


def read_lines(path: Path, damaged: list[str]) -> Iterator[dict[str, Any]]:
    """Yield the values of the whole lines of a journal, as :func:`placed_lines`."""
    for _, _, values in placed_lines(path, damaged):
        yield values


def damaged_lines(path: Path) -> Iterator[bytes]:
    """Yield what is left of the damaged lines of a journal."""
    for _, line in _lines(path):
        if line.endswith(b"\n") and line != b"\n" and _whole(line) is None:
            yield line


def line_at(path: Path, offset: int, size: int) -> dict[str, Any]:
    """Read one line again.

    Raises
    ------
    LedgerError
        If it cannot be read, or does not match its checksum any more.
    """
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            text = _whole(file.read(size))
    except OSError as error:
        raise LedgerError(f"{path}: {error.strerror}; run 'cytomill verify --mend'") from error
    if text is None:
        raise LedgerError(
            f"{path}: the line at byte {offset} does not match its checksum any more; "
            "run 'cytomill verify --mend'"
        )
    return json.loads(text)


def drop_damaged_lines(path: Path) -> None:
    """Rewrite a journal without its damaged lines; the old file is kept in the folder ``damaged`` beside it.

    What they recorded is done again, so that nothing hangs on them. Only under the campaign's lock.
    """
    kept = path.parent / "damaged"
    kept.mkdir(exist_ok=True)
    write_atomic(kept / path.name, path.read_bytes())
    write_atomic(path, b"".join(line for _, line in _lines(path) if _whole(line) is not None))


def kept_of(line: dict[str, Any], key: str, place: tuple[str, int, int]) -> Any:
    """Stored arrays of a line, or where they can be read again."""
    name, offset, size = place
    if size <= HELD_LINE_BYTES or "inline" not in line[key]:
        return line[key]
    return {"line": name, "at": offset, "size": size, "key": key}


def load_arrays(root: Path, stored: Any) -> Arrays:
    """Arrays that a ledger line holds or points to.

    Raises
    ------
    LedgerError
        If the file aside, or the line in its journal, is missing or does not match its checksum.
    """
    if "line" in stored:
        stored = line_at(root / stored["line"], stored["at"], stored["size"])[stored["key"]]
    if "inline" in stored:
        return from_inline(stored["inline"])
    path = root / stored["aside"]
    try:
        data = path.read_bytes()
    except OSError as error:
        raise LedgerError(
            f"{path}: partial results are missing ({error.strerror}); run 'cytomill verify --mend'"
        ) from error
    if len(data) != stored["size"] or google_crc32c.value(data) != stored["crc"]:
        raise LedgerError(
            f"{path}: partial results differ from the ledger's checksum; run 'cytomill verify --mend'"
        )
    return from_npz(data)
