"""Trouble of the machine is told from a unit's, also where a library keeps the system's number to itself."""

import errno

import pytest

from cytomill.runtime.failures import is_environment_failure


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.ENOENT, "No such file"), False),
        (RuntimeError("No space left on device (os error 28)"), True),
        (RuntimeError("Too many open files (os error 24)"), True),
        (RuntimeError("No such file or directory (os error 2)"), False),
        (ValueError("a bad slice"), False),
    ],
)
def test_full_disks_and_lost_handles_are_no_units_fault(error, expected):
    assert is_environment_failure(error) is expected
    wrapped = ValueError("region cannot be read")
    wrapped.__cause__ = error
    assert is_environment_failure(wrapped) is expected
