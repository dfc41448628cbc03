"""A log file for a short analysis in Python: steps, files read, files written, errors."""

from __future__ import annotations

import functools
import inspect
import logging
import os
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, Self, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])

_OUTPUTS = ("output_dir", "save_dir", "result_path")


class QuickLogger:
    """Write steps to ``{log_dir}/{name}_{YYYYmmdd_HHMMSS}.log``, and to the console.

    The file is closed by :meth:`close`, at the end of a ``with`` block, or with the logger.  A second
    logger of one name within a second gets a file of its own.

    Parameters
    ----------
    name : str
        First part of the file's name; what no file name may hold is replaced by ``_``.
    log_dir : path-like
        Made, with its parents, where it does not exist.
    console_output : bool
        Print ``LEVEL: message`` too.

    Attributes
    ----------
    path : Path
        The log file.
    logger : logging.Logger
        Passes nothing on to the root logger.
    """

    def __init__(
        self, name: str = "analysis", log_dir: str | os.PathLike = "logs", console_output: bool = True
    ) -> None:
        folder = Path(log_dir)
        folder.mkdir(parents=True, exist_ok=True)
        safe = "".join("_" if c in '/\\:*?"<>|' or ord(c) < 32 else c for c in name) or "analysis"
        stem = f"{safe}_{datetime.now():%Y%m%d_%H%M%S}"
        self.path = _new_file(folder, stem)
        # Not logging.getLogger: the registry would keep every logger, and its file, for ever.
        self.logger = logging.Logger(stem, logging.INFO)
        file = logging.FileHandler(self.path, encoding="utf-8")
        file.setFormatter(logging.Formatter("%(asctime)s - %(levelname)s - %(message)s"))
        self.logger.addHandler(file)
        if console_output:
            console = logging.StreamHandler(sys.stdout)
            console.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
            self.logger.addHandler(console)

    def step(self, message: object) -> None:
        """Note what is done."""
        self.logger.info("%s", message)

    def file_in(self, file_path: object) -> None:
        """Note a file that is read."""
        self.logger.info("Input file: %s", file_path)

    def file_out(self, file_path: object) -> None:
        """Note a file that was written."""
        self.logger.info("Output file: %s", file_path)

    def error(self, message: object) -> None:
        """Note what went wrong."""
        self.logger.error("%s", message)

    def close(self) -> None:
        """Close the file; closing twice does no harm."""
        for handler in tuple(self.logger.handlers):
            self.logger.removeHandler(handler)
            handler.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "logger"):
            self.close()


def _new_file(folder: Path, stem: str) -> Path:
    """An empty file of its own: ``stem.log``, or the first free of ``stem_2.log``, ``stem_3.log`` …"""
    number = 1
    while True:
        path = folder / (f"{stem}.log" if number == 1 else f"{stem}_{number}.log")
        try:
            path.touch(exist_ok=False)
        except FileExistsError:
            number += 1
            continue
        return path


def log_analysis(log_dir: str | os.PathLike = "logs") -> Callable[[Function], Function]:
    """Decorate a function so that each call writes a log file of its own.

    Noted are start and end, arguments that are paths (``path``, ``file`` or ``dir`` in their name), where
    output goes (``output_dir``, ``save_dir``, ``result_path``), paths returned, and an exception, which is
    raised again.

    Parameters
    ----------
    log_dir : path-like
        As for :class:`QuickLogger`.
    """

    def decorate(function: Function) -> Function:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def logged(*args: Any, **kwargs: Any) -> Any:
            with QuickLogger(function.__name__, log_dir, console_output=False) as logger:
                logger.step(f"Starting execution: {function.__name__}")
                try:
                    _log_arguments(logger, signature.bind(*args, **kwargs))
                    result = function(*args, **kwargs)
                except Exception as error:
                    logger.error(f"Execution failed: {function.__name__} - {error}")
                    raise
                logger.step(f"Completed execution: {function.__name__}")
                for path in result if isinstance(result, list | tuple) else (result,):
                    if isinstance(path, str | os.PathLike):
                        logger.step(f"Generated file: {path}")
                return result

        return logged

    return decorate


def _log_arguments(logger: QuickLogger, bound: inspect.BoundArguments) -> None:
    bound.apply_defaults()
    for name, value in bound.arguments.items():
        if not isinstance(value, str | os.PathLike):
            continue
        if name in _OUTPUTS:
            logger.step(f"Output path: {value}")
        elif any(part in name.lower() for part in ("path", "file", "dir")):
            logger.step(f"Input path: {value}")
