"""Tables: Parquet for programs, CSV beside it for people."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from cytomill.storage.durable import replacing
from cytomill.storage.errors import VolumeError

#: Key of the schema's metadata that holds what the caller says about the table.
METADATA_KEY = b"cytomill"


def _with_suffix(stem: Path, suffix: str) -> Path:
    # Not Path.with_suffix: a stem such as "particles-5.9-4-4" has a dot that is no suffix.
    return stem.with_name(stem.name + suffix)


def _line(names: Sequence[str]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(names)
    return text.getvalue().encode()


def write_table(
    frames: pd.DataFrame | Iterable[pd.DataFrame],
    stem: Path,
    with_csv: bool = True,
    metadata: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Write a table, atomically; the same table in the same parts gives the same bytes.

    Parameters
    ----------
    frames : DataFrame, or iterable of DataFrame
        Columns of plain values; the index is not kept. A table that is large comes in parts of the same
        columns, one at least, of which one at a time is in memory.
    stem : Path
        Path without suffix; its folder must exist.
    with_csv : bool
        Write a CSV file too. Floating-point numbers are written so that reading gives them back exactly.
    metadata : mapping, optional
        JSON-able facts about the table (units, provenance), kept in the schema of the Parquet file.

    Returns
    -------
    list of Path
        The files written.

    Raises
    ------
    ValueError
        If there is no part, or the parts differ in their columns.
    """
    stem = Path(stem)
    written = [_with_suffix(stem, suffix) for suffix in ((".parquet", ".csv") if with_csv else (".parquet",))]
    said = {} if metadata is None else {METADATA_KEY: json.dumps(metadata, sort_keys=True, allow_nan=False)}
    with ExitStack() as stack:
        files = [stack.enter_context(replacing(path)) for path in written]
        writer: pq.ParquetWriter | None = None
        for frame in [frames] if isinstance(frames, pd.DataFrame) else frames:
            table, first = pa.Table.from_pandas(frame, preserve_index=False), writer is None
            if writer is None:
                schema = table.schema.with_metadata({**(table.schema.metadata or {}), **said})
                writer = stack.enter_context(pq.ParquetWriter(files[0], schema, compression="zstd"))
            writer.write_table(table.replace_schema_metadata(schema.metadata))
            for file in files[1:]:
                if first:
                    file.write(_line(table.column_names))
                # Several times faster than pandas; numbers in the fewest digits that give them back.
                pa_csv.write_csv(table, file, pa_csv.WriteOptions(include_header=False))
        if writer is None:
            raise ValueError(f"a table of no part was to be written to {stem}")
    return written


def read_table(stem: Path) -> pd.DataFrame:
    """Read the Parquet file of a table.

    Parameters
    ----------
    stem : Path
        As given to :func:`write_table`, or the Parquet file itself.

    Returns
    -------
    DataFrame
        With the table's metadata in ``attrs``.

    Raises
    ------
    VolumeError
        If the file is missing or damaged.
    """
    stem = Path(stem)
    path = stem if stem.name.endswith(".parquet") else _with_suffix(stem, ".parquet")
    try:
        with open(path, "rb") as file:
            table = pq.read_table(file)
    except (OSError, pa.ArrowException) as error:
        raise VolumeError(f"Table {path} cannot be read ({error}).") from error
    text = (table.schema.metadata or {}).get(METADATA_KEY)
    # Column by column into the frame: two copies of a million rows are half a gigabyte.
    frame = table.to_pandas(split_blocks=True, self_destruct=True)
    frame.attrs = json.loads(text) if text else {}
    return frame
