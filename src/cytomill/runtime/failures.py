"""What ends an attempt, what ends a dataset, what ends the job."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

from cytomill.runtime.stage import DatasetRefused


class ExitCode(IntEnum):
    """Exit codes of `cytomill run`; all ranks leave with the same one."""

    FINISHED = 0
    FAILED = 1
    REFUSED = 2
    SET_ASIDE = 3
    DAMAGED = 4
    LOCKED = 5
    STOPPED = 75


class Stopped(Exception):
    """Every rank agreed to stop; what is done is in the ledger. Exit code 75 (EX_TEMPFAIL)."""


class Refused(Exception):
    """The run is refused before anything is computed; the message is one sentence. Exit code 2."""


class JobFailed(RuntimeError):
    """The job ends now; the message names rank, dataset, stage and unit."""


class MachineFailed(RuntimeError):
    """A unit's child process met trouble of the machine; the message says which."""


#: Trouble of the machine, not of the unit: blaming the unit would set the whole campaign aside.
_ENVIRONMENT = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ESTALE}


_OS_ERROR = re.compile(r"\(os error (\d+)\)")


def is_environment_failure(error: BaseException) -> bool:
    """Whether an exception of a unit says that the machine failed (disk full, quota, handles)."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, MachineFailed) or _number_of(seen) in _ENVIRONMENT:
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def _number_of(error: BaseException) -> int | None:
    """The system's number of an error; libraries in Rust raise other types, and say it in the message."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    found = _OS_ERROR.search(str(error))
    return int(found[1]) if found else None


def sentence(error: BaseException) -> str:
    """One line about an exception: its type and its message; of a ValueError the message alone.

    Inputs are refused by ValueError with a sentence for the user, which needs no type in front.
    """
    text = " ".join(str(error).split()) or "no message"
    return text if isinstance(error, ValueError) else f"{type(error).__name__}: {text}"


@contextmanager
def naming(where: str) -> Iterator[None]:
    """Turn an exception into one that ends the job and says where."""
    try:
        yield
    except (DatasetRefused, JobFailed, Refused, Stopped):
        raise
    except Exception as error:
        raise JobFailed(f"{where}: {sentence(error)}") from error
