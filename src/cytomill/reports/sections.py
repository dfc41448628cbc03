"""Parts that a page may hold any number of: a table as text, a section with figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from cytomill.reports.canvas import Picture
from cytomill.reports.quantities import NOTHING, count_text, figures_text

#: Significant figures of a column of words.
WORDS = -1


@dataclass(frozen=True)
class Column:
    """A column of a table on a page.

    Parameters
    ----------
    name : str
        In the table.
    heading : str
        On the page, with its unit.
    digits : int
        Significant figures; 0 for a count, `WORDS` for text.
    factor : float
        To the heading's unit.
    """

    name: str
    heading: str
    digits: int = 3
    factor: float = 1.0


@dataclass
class TextTable:
    """A table as text.

    Parameters
    ----------
    headings : list of (str, bool)
        Heading, and whether the column holds words.
    rows : list of list of str
        Text of every field.
    total : int
        Rows of the whole table.
    """

    headings: list[tuple[str, bool]]
    rows: list[list[str]]
    total: int


@dataclass
class Section:
    """A section of a campaign's page.

    Parameters
    ----------
    title, anchor : str
        Heading, and identifier in links.
    words : list of str
        Paragraphs above the figures.
    pictures : list of Picture
        Two a row.
    table : TextTable or None
        Below the figures.
    hint : str
        Small print at the end.
    """

    title: str
    anchor: str
    words: list[str] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    table: TextTable | None = None
    hint: str = ""


def text_table(table: pd.DataFrame, columns: Sequence[Column], most: int | None = None) -> TextTable:
    """The columns that a table has, as text; columns of words that say nothing are left out.

    Parameters
    ----------
    table : pandas.DataFrame
        Any rows.
    columns : sequence of Column
        In the order to show.
    most : int or None
        Rows to keep.
    """
    chosen = [
        c
        for c in columns
        if c.name in table and (c.digits != WORDS or any(word_text(value) for value in table[c.name]))
    ]
    fields = [[_field(value, c) for value in table[c.name].iloc[:most]] for c in chosen]
    rows = [list(row) for row in zip(*fields)]
    return TextTable([(c.heading, c.digits == WORDS) for c in chosen], rows, len(table))


def number_text(value: object, digits: int) -> str:
    """A number to some significant figures, 0 for a count; a dash where there is none."""
    if pd.isna(value):
        return NOTHING
    return count_text(int(value)) if digits == 0 else figures_text(float(value), digits)


def column_text(values: pd.Series, digits: int) -> list[str]:
    """Numbers of a column with as many decimals each: the largest has `digits` figures, 0 for counts."""
    numbers = values.to_numpy(dtype=np.float64)
    finite = np.abs(numbers[np.isfinite(numbers)])
    largest = finite.max(initial=0.0)
    if digits == 0 or not largest or not 1e-3 <= largest < 1e6:
        return [number_text(value, digits) for value in numbers]
    decimals = max(0, digits - 1 - int(f"{largest:e}".partition("e")[2]))
    return [
        f"{value:,.{decimals}f}".replace(",", "\u202f") if np.isfinite(value) else NOTHING
        for value in numbers
    ]


def word_text(value: object) -> str:
    """Text of a field; empty where there is none."""
    return "" if pd.isna(value) else str(value)


def _field(value: object, column: Column) -> str:
    if column.digits == WORDS:
        return word_text(value) or NOTHING
    return number_text(
        value if column.factor == 1 or pd.isna(value) else value * column.factor, column.digits
    )
