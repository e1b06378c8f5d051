"""Tables of a page: what a cell shows, and what it is sorted by."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """text: as it is shown.  key: the number that it is sorted by, where it has one.  link: where it leads to."""

    text: str
    key: float | None = None
    link: str | None = None


@dataclass(frozen=True)
class PageTable:
    """caption: what the rows are.  numeric: by column, whether it is sorted by numbers; they stand to the right."""

    caption: str
    heads: Sequence[str]
    rows: Sequence[Sequence[Entry]]
    numeric: Sequence[bool]

    def sort_key(self, entry: Entry, column: int) -> str:
        """For the page's script; an entry without a number in a column of numbers has none."""
        if not self.numeric[column]:
            return entry.text
        return "" if entry.key is None else repr(float(entry.key))


def page_table(caption: str, heads: Sequence[str], rows: Iterable[Sequence[Entry | str]]) -> PageTable:
    """A column is one of numbers where most of its filled entries have a key, or read as numbers."""
    entries = [[cell if isinstance(cell, Entry) else Entry(cell, number_in(cell)) for cell in row] for row in rows]
    numeric = []
    for column in zip(*entries, strict=True):
        filled = [entry for entry in column if entry.text]
        numeric.append(2 * sum(entry.key is not None for entry in filled) > len(filled))
    return PageTable(caption, heads, entries, numeric or [False] * len(heads))


def number_in(text: str) -> float | None:
    """The number that a text begins with ("3.80 MB", "5.3x", "0 of 12.3M", "97.2%"); None where there is none."""
    first = text.partition(" ")[0].rstrip("x%")
    try:
        return float(first.replace(",", ""))
    except ValueError:
        return None
