"""Tables: Parquet for programs, CSV beside it for people."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cytomill.storage.durable import replacing
from cytomill.storage.errors import VolumeError

#: Key of the schema's metadata that holds what the caller says about the table.
METADATA_KEY = b"cytomill"


def _with_suffix(stem: Path, suffix: str) -> Path:
    # Not Path.with_suffix: a stem such as "particles-5.9-4-4" has a dot that is no suffix.
    return stem.with_name(stem.name + suffix)


def write_table(
    frame: pd.DataFrame, stem: Path, csv: bool = True, metadata: Mapping[str, Any] | None = None
) -> list[Path]:
    """Write a table, atomically; the same table gives the same bytes.

    Parameters
    ----------
    frame : DataFrame
        Columns of plain values; the index is not kept.
    stem : Path
        Path without suffix; its folder must exist.
    csv : bool
        Write a CSV file too. Floating-point numbers are written so that reading gives them back exactly.
    metadata : mapping, optional
        JSON-able facts about the table (units, provenance), kept in the schema of the Parquet file.

    Returns
    -------
    list of Path
        The files written.
    """
    stem = Path(stem)
    table = pa.Table.from_pandas(frame, preserve_index=False)
    if metadata is not None:
        text = json.dumps(metadata, sort_keys=True, allow_nan=False)
        table = table.replace_schema_metadata({**(table.schema.metadata or {}), METADATA_KEY: text})
    written = [_with_suffix(stem, ".parquet")]
    # Straight into the files: of a million rows the text alone would be half a gigabyte.
    with replacing(written[0]) as file:
        pq.write_table(table, file, compression="zstd")
    del table
    if csv:
        written.append(_with_suffix(stem, ".csv"))
        with replacing(written[1]) as file:
            frame.to_csv(file, index=False, lineterminator="\n", mode="wb", encoding="utf-8")
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
        table = pq.read_table(io.BytesIO(path.read_bytes()))
    except (OSError, pa.ArrowException) as error:
        raise VolumeError(f"Table {path} cannot be read ({error}).") from error
    frame = table.to_pandas()
    text = (table.schema.metadata or {}).get(METADATA_KEY)
    frame.attrs = json.loads(text) if text else {}
    return frame
