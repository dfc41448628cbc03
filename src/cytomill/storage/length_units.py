"""Units of length as image files spell them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

_NM_PER = {
    "pm": 1e-3,
    "angstrom": 0.1,
    "å": 0.1,
    "nm": 1.0,
    "µm": 1e3,
    "um": 1e3,
    "micron": 1e3,
    "mm": 1e6,
    "cm": 1e7,
    "dm": 1e8,
    "m": 1e9,
    "km": 1e12,
    "inch": 2.54e7,
    "in": 2.54e7,
}
_PREFIXES = {
    "pico": 1e-3,
    "nano": 1.0,
    "micro": 1e3,
    "milli": 1e6,
    "centi": 1e7,
    "deci": 1e8,
    "": 1e9,
    "kilo": 1e12,
}
_NM_PER |= {f"{prefix}met{ending}": size for prefix, size in _PREFIXES.items() for ending in ("er", "re")}


def nm_per(unit: Any) -> float | None:
    """Return the length of a unit in nm, or None if it is missing, a pixel or not known.

    Knows symbols and names, singular or plural, Greek mu and micro sign, and what ImageJ makes of
    them: ``\\u00B5m`` spelt out, or the text of a tuple.
    """
    if not isinstance(unit, str):
        return None
    text = re.sub(r"\\u([0-9a-fA-F]{4})", lambda match: chr(int(match.group(1), 16)), unit)
    text = text.strip("()[]'\", \0").lower().replace("\u03bc", "\u00b5")  # Greek mu to micro sign
    return _NM_PER.get(text, _NM_PER.get(text.removesuffix("s")))


def voxel_size(sizes: Mapping[str, float | None], is_plane: bool) -> tuple[float, float, float] | None:
    """Return the voxel size (Z, Y, X) in nm from what is known of each axis, or None.

    One value missing makes it None, except Z of a single plane, which has no spacing of its own:
    there the size along Y is repeated.
    """
    known = {axis: size for axis, size in sizes.items() if size and math.isfinite(size) and size > 0}
    if is_plane and "y" in known:
        known.setdefault("z", known["y"])
    if not {"z", "y", "x"} <= known.keys():
        return None
    return known["z"], known["y"], known["x"]
