"""Rows of numbers as text, at the speed of memory: no Python object per line, no temporary table."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

#: Most columns that a row may have.
MAX_COLUMNS = 6

#: What :func:`parse_rows` found.
PARSED, BAD_NUMBER, BAD_WIDTH, LONG_NUMBER = 0, 1, 2, 3

_POWERS = 10.0 ** np.arange(23)
#: A mantissa that takes another digit after this one may not fit the 53 bits of an exact division.
_EXACT = 10**14


@njit(nogil=True, cache=True)
def _write_rows(values, suffixes, lengths, out):
    digits = np.empty(20, np.uint8)
    at = 0
    rows, columns = values.shape
    for row in range(rows):
        for column in range(columns):
            value = np.int64(values[row, column])
            if value < 0:
                out[at] = 45
                at += 1
                value = -value
            count = 0
            while True:
                digits[count] = 48 + value % 10
                value //= 10
                count += 1
                if value == 0:
                    break
            for i in range(count - 1, -1, -1):
                out[at] = digits[i]
                at += 1
            for i in range(lengths[column]):
                out[at] = suffixes[column, i]
                at += 1
    return at


def format_rows(values: np.ndarray, suffixes: tuple[bytes, ...]) -> bytes:
    """Write rows of integers as text.

    Parameters
    ----------
    values : (N, K) integer ndarray
        Between -2⁶³ + 1 and 2⁶³ - 1.
    suffixes : tuple of bytes
        What follows the integer of each column, separator or line end included: ``b" "``, ``b".000 "``.

    Returns
    -------
    bytes
        N lines; the buffers take (20 + suffix) bytes a number.
    """
    lengths = np.array([len(suffix) for suffix in suffixes], np.int64)
    padded = np.zeros((len(suffixes), max(lengths)), np.uint8)
    for row, suffix in zip(padded, suffixes, strict=True):
        row[: len(suffix)] = np.frombuffer(suffix, np.uint8)
    out = np.empty(len(values) * int((20 + lengths).sum()), np.uint8)
    return out[: _write_rows(np.ascontiguousarray(values), padded, lengths, out)].tobytes()


@njit(nogil=True, cache=True)
def _parse(text, out, width, powers, exact):
    """Rows, their width, lines passed, status; the text ends with a line end."""
    row, line, at, size = 0, 0, 0, text.size
    while at < size:
        line += 1
        column = 0
        comment = text[at] == 35 or text[at] == 64
        while text[at] != 10:
            c = text[at]
            if comment or c == 32 or c == 9 or c == 13:
                at += 1
                continue
            if column == out.shape[1]:
                return row, width, line, BAD_WIDTH
            negative = c == 45
            if c == 45 or c == 43:
                at += 1
            mantissa, places, found = np.int64(0), 0, False
            point = False
            while True:
                c = text[at]
                if 48 <= c <= 57:
                    if mantissa >= exact:
                        return row, width, line, LONG_NUMBER
                    mantissa = mantissa * 10 + (c - 48)
                    places += point
                    found = True
                elif c == 46 and not point:
                    point = True
                else:
                    break
                at += 1
            if found and (c == 101 or c == 69 or places > 22):
                return row, width, line, LONG_NUMBER
            if not found or not (c == 32 or c == 9 or c == 13 or c == 10):
                return row, width, line, BAD_NUMBER
            number = mantissa / powers[places]
            out[row, column] = -number if negative else number
            column += 1
        at += 1
        if column == 0:
            continue
        if width == 0:
            width = column
        if column != width or column < 3:
            return row, width, line, BAD_WIDTH
        row += 1
    return row, width, line, PARSED


def parse_rows(text: bytes, width: int = 0) -> tuple[np.ndarray, int, int]:
    """Read rows of numbers; lines that are empty or start with ``#`` or ``@`` are skipped.

    Parameters
    ----------
    text : bytes
        Whole lines, the last one with its line end; numbers apart by blanks or tabs.
    width : int
        Columns of every row, 3 to 6; 0: those of the first row.

    Returns
    -------
    (N, width) float64 ndarray
        Every number rounded as Python's ``float`` rounds it.
    int
        How many lines were passed.
    int
        0, or what is wrong with the last of them: ``BAD_NUMBER``, ``BAD_WIDTH``.
    """
    buffer = np.frombuffer(text, np.uint8)
    # A row has at least three numbers of one digit, so six bytes: no need to count the lines first.
    out = np.empty((buffer.size // 6 + 1, MAX_COLUMNS))
    rows, width, lines, status = _parse(buffer, out, width, _POWERS, _EXACT)
    if status == LONG_NUMBER:
        return _parse_slowly(text, width)
    return out[:rows, :width], lines, status


def _parse_slowly(text: bytes, width: int) -> tuple[np.ndarray, int, int]:
    """Numbers of more than 15 digits or with an exponent, by Python's own correctly rounded ``float``."""
    rows: list[list[float]] = []
    status, lines = PARSED, text.splitlines()
    passed = 0
    for line in lines:
        passed += 1
        fields = line.split()
        if not fields or line[:1] in (b"#", b"@"):
            continue
        width = width or len(fields)
        if len(fields) != width or not 3 <= width <= MAX_COLUMNS:
            status = BAD_WIDTH
            break
        try:
            numbers = [float(entry) for entry in fields]
        except ValueError:
            status = BAD_NUMBER
            break
        if not all(map(math.isfinite, numbers)):
            status = BAD_NUMBER
            break
        rows.append(numbers)
    return np.array(rows, np.float64).reshape(len(rows), width), passed, status
