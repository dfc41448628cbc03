"""Arrays in and out of the ledger: inline as base64 text, or aside as an npz file; never pickled."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import zipfile
from collections.abc import Sequence
from typing import Any

import numpy as np

from cytomill.runtime.stage import Arrays

#: Partial results past this size go to a file of their own instead of the ledger line.
INLINE_LIMIT_BYTES = 64 * 1024


def total_bytes(arrays: Arrays) -> int:
    """Bytes that the arrays hold."""
    return sum(array.nbytes for array in arrays.values())


def refuse_objects(arrays: Arrays) -> None:
    """Raise TypeError for object arrays, which only pickle could store."""
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray) or array.dtype.hasobject:
            raise TypeError(
                f"result {name!r} is a {type(array).__name__} that cannot be stored without pickle"
            )


def to_inline(arrays: Arrays) -> dict[str, Any]:
    """Arrays as JSON-able values: dtype, shape, base64 of the bytes in C order."""
    return {
        name: [
            array.dtype.str,
            list(array.shape),
            base64.b64encode(np.ascontiguousarray(array).tobytes()).decode(),
        ]
        for name, array in arrays.items()
    }


def from_inline(values: dict[str, Any]) -> Arrays:
    """The inverse of :func:`to_inline`."""
    return {
        name: np.frombuffer(base64.b64decode(text), dtype=np.dtype(dtype)).reshape(shape).copy()
        for name, (dtype, shape, text) in values.items()
    }


def npz_bytes(arrays: Arrays) -> bytes:
    """Arrays as the bytes of an uncompressed npz file, under their names.

    Written member by member: `numpy.savez` takes names such as ``file`` for its own arguments, and before
    NumPy 2.2 stores its argument `allow_pickle` as an array.

    Raises
    ------
    ValueError
        For an object array.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)
    return buffer.getvalue()


def to_npz(arrays: Arrays) -> bytes:
    """Arrays as the bytes of an uncompressed npz file."""
    return npz_bytes({f"array_{name}": array for name, array in arrays.items()})


def from_npz(data: bytes) -> Arrays:
    """The inverse of :func:`to_npz`."""
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        return {key.removeprefix("array_"): file[key] for key in file.files}


def digest(arrays: Arrays) -> str:
    """A short SHA-256 over names, dtypes, shapes and bytes: what later stages depend on."""
    total = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        total.update(f"{name}|{array.dtype.str}|{array.shape}|".encode())
        total.update(array.tobytes())
    return total.hexdigest()[:20]


def text_array(sentences: Sequence[str]) -> np.ndarray:
    """Sentences as a unicode array (of length 0 too: its dtype is then one character)."""
    return np.array(list(sentences), dtype=str) if len(sentences) else np.empty(0, "<U1")


def digest_of(value: Any) -> str:
    """A short SHA-256 of a JSON-able value: what a later stage depends on."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:20]


def concatenate(parts: list[Arrays]) -> Arrays:
    """Join partial results along axis 0, in the order given; takes them out of `parts` as it goes.

    So there are never two copies of all of them.

    Raises
    ------
    ValueError
        If the parts do not all have the same names.
    """
    if not parts:
        return {}
    names = set(parts[0])
    for part in parts:
        if set(part) != names:
            raise ValueError(f"partial results differ in their names: {sorted(names)} and {sorted(part)}")
    return {name: _join([part.pop(name) for part in parts]) for name in list(parts[0])}


def _join(pieces: list[np.ndarray]) -> np.ndarray:
    rows = sum(len(piece) for piece in pieces)
    joined = np.empty((rows, *pieces[0].shape[1:]), np.result_type(*pieces))
    while pieces:
        piece = pieces.pop()
        joined[rows - len(piece) : rows] = piece
        rows -= len(piece)
    return joined
