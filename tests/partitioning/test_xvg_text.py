"""Rows of numbers as text: written and read as Python does it, without a Python object a line."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cytomill.partitioning.xvg_text import BAD_NUMBER, BAD_WIDTH, format_rows, parse_rows


@settings(max_examples=40, deadline=None)
@given(
    arrays(
        np.float64,
        st.tuples(st.integers(1, 20), st.just(4)),
        elements=st.floats(allow_nan=False, allow_infinity=False),
    )
)
def test_every_number_is_read_as_python_reads_it(values):
    text = "".join(" ".join(map(repr, row)) + "\n" for row in values.tolist()).encode()
    rows, lines, status = parse_rows(text)
    assert status == 0 and lines == len(values)
    assert rows.tobytes() == (values + 0.0).tobytes() or np.array_equal(rows, values)


@settings(max_examples=40, deadline=None)
@given(
    arrays(np.int64, st.tuples(st.integers(0, 30), st.just(4)), elements=st.integers(-(2**63) + 1, 2**63 - 1))
)
def test_integers_are_written_as_python_writes_them(values):
    expected = "".join(f"{a}.000 {b} {c} {d}\n" for a, b, c, d in values.tolist())
    assert format_rows(values, (b".000 ", b" ", b" ", b"\n")).decode() == expected


def test_decimals_of_up_to_15_digits_are_rounded_correctly():
    rng = np.random.default_rng(1)
    words = [f"{rng.integers(0, 10**5)}.{rng.integers(0, 10**8):08d}".encode() + b" " for _ in range(3000)]
    rows, _, status = parse_rows(b"".join(b"".join(words[i : i + 3]) + b"\n" for i in range(0, 3000, 3)))
    assert status == 0 and rows.ravel().tolist() == [float(word) for word in words]


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (b"1 2\n", BAD_WIDTH),
        (b"1 2 3 4 5 6 7\n", BAD_WIDTH),
        (b"1 - 3\n", BAD_NUMBER),
        (b"1 .. 3\n", BAD_NUMBER),
    ],
)
def test_what_is_no_row_is_said(text, status):
    assert parse_rows(text)[2] == status
