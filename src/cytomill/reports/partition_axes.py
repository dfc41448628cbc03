"""What figures of radial distributions share: the axis of positions, the scale of g, columns as numbers."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cytomill.reports.canvas import LIGHT
from cytomill.reports.quantities import figures_text

#: Size of a figure that stands beside another, inches.
HALF = (6.2, 3.9)
_LONGEST_NAME = 32
_POSITION = "normalised radial position t (0 nuclear envelope, 1 plasma membrane)"


def radial_axis(ax, n_shells: int) -> None:
    """Position below, shells above."""
    ax.set_xlim(0, 1)
    ax.set_xlabel(_POSITION)
    above = ax.secondary_xaxis("top")
    step = -(-n_shells // 16)
    names = [str(i) for i in range(1, n_shells + 1, step)]
    above.set_xticks((np.arange(0, n_shells, step) + 0.5) / n_shells, [f"shell {names[0]}", *names[1:]])
    above.tick_params(length=0, pad=1, labelsize=8)
    above.spines["top"].set_visible(False)


def even_line(ax) -> None:
    """The line g = 1, and what the axis says."""
    ax.axhline(1, color=LIGHT["muted"], lw=1.0, ls=(0, (4, 3)))
    ax.set_ylabel("enrichment g (1 = even)")


def ceiling(*series) -> float:
    """Upper end of an axis of g: all of g, but no outlier of an interval may flatten the curve."""
    values = [np.ravel(np.asarray(s, np.float64)) for s in series if s is not None]
    main = values[0][np.isfinite(values[0])]
    rest = np.concatenate(values)
    rest = rest[np.isfinite(rest)]
    top = max(2.0, float(main.max()) * 1.1 if main.size else 0.0)
    return max(top, min(float(rest.max()) * 1.06, 1.7 * top)) if rest.size else top


def spoken(g: np.ndarray) -> str:
    """Values from NE to PM as words."""
    return ", ".join(figures_text(float(v)) for v in g)


def shortened(name: object) -> str:
    """A name that a figure has room for."""
    name = str(name)
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"


def numbers(table: pd.DataFrame, column: str) -> np.ndarray:
    """A column as floats; NaN throughout where the table has no such column."""
    if column not in table:
        return np.full(len(table), np.nan)
    return table[column].to_numpy(dtype=np.float64, na_value=np.nan)


def same_numbers(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether two series agree, NaN with NaN."""
    return bool(np.allclose(first, second, rtol=1e-9, atol=0, equal_nan=True))
