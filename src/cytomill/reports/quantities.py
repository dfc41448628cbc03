"""Numbers for people: thousands separated, three figures, the unit beside them."""

from __future__ import annotations

import math
from datetime import datetime, timedelta

#: Stands where there is no number.
NOTHING = "–"


def count_text(value: int | None) -> str:
    """A count with thin separators of thousands."""
    return NOTHING if value is None else f"{int(value):,}".replace(",", "\u202f")


def figures_text(value: float | None, figures: int = 3) -> str:
    """A number to some significant figures, without an exponent between 1e-3 and 1e6."""
    if value is None or not math.isfinite(value):
        return NOTHING
    if value == 0:
        return "0"
    mantissa, _, power = f"{value:.{figures - 1}e}".partition("e")
    exponent = int(power)
    if exponent < -3 or exponent > 5:
        return f"{mantissa}·10{str(exponent).translate(_SUPERSCRIPT)}"
    return f"{value:,.{max(0, figures - 1 - exponent)}f}".replace(",", "\u202f")


def level_text(levels: float) -> str:
    """Grey levels: whole where they are whole."""
    return count_text(int(levels)) if float(levels).is_integer() else figures_text(levels)


def percent_text(share: float | None) -> str:
    """A share of one as per cent."""
    return NOTHING if share is None else f"{figures_text(100 * share)}\u202f%"


def seconds_text(seconds: float | None) -> str:
    """A duration: ``850 ms``, ``12.3 s``, ``4 min 10 s``, ``3 h 05 min``."""
    if seconds is None or not math.isfinite(seconds):
        return NOTHING
    if seconds < 0.9995:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 99.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min"


def table_seconds_text(seconds: float | None) -> str:
    """Seconds for a column of them: hundredths below ten, and nothing finer."""
    if seconds is None or not math.isfinite(seconds):
        return NOTHING
    if 0 < seconds < 0.005:
        return "< 0.01"
    return f"{seconds:.2f}" if seconds < 9.995 else figures_text(seconds)


def probability_text(value: float | None) -> str:
    """A number from 0 to 1 to three places; what is not quite an end of the scale is said so."""
    if value is None or not math.isfinite(value):
        return NOTHING
    if 0 < value < 0.0005:
        return "< 0.001"
    return "> 0.999" if 0.9995 <= value < 1 else f"{value:.3f}"


def time_text(stamp: str) -> str:
    """A time of ISO 8601 in words: ``21 November 2026, 09:15 UTC``; any other text as it is.

    The zone is the one that was written, as hours from UTC where it is another.
    """
    try:
        time = datetime.fromisoformat(stamp)
    except (TypeError, ValueError):
        return str(stamp)
    if "T" not in stamp.upper():
        return stamp
    offset = time.utcoffset()
    zone = ""
    if offset is not None:
        hours = "" if offset == timedelta(0) else time.strftime("%z")
        zone = f" UTC{hours[:3]}{':' + hours[3:5] if hours[3:5] not in ('', '00') else ''}"
    return f"{time.day} {_MONTHS[time.month - 1]} {time.year}, {time:%H:%M}{zone}"


def bytes_text(size: float | None) -> str:
    """A size in decimal units: ``512 B``, ``1.50 GB``."""
    if size is None:
        return NOTHING
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(size) < 999.5 or unit == "TB":
            break
        size /= 1000
    return f"{size:.0f} B" if unit == "B" else f"{figures_text(size)} {unit}"


def shape_text(shape: tuple[int, ...]) -> str:
    """A shape with multiplication signs, (Z, Y, X)."""
    return " × ".join(str(n) for n in shape) if shape else NOTHING


def voxel_text(voxel_size_nm: tuple[float, ...] | None) -> str:
    """A voxel size, (Z, Y, X)."""
    if voxel_size_nm is None:
        return "unknown"
    return " × ".join(f"{v:g}" for v in voxel_size_nm) + " nm"


_MONTHS = "January February March April May June July August September October November December".split()
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def number_of(number: int, noun: str) -> str:
    """``1 rank``, ``2 ranks``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
