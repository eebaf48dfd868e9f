"""Tables for people: whole in a pipe, as wide as the terminal on a terminal.

A terminal that is too narrow costs the least important columns first: they are cut with an
ellipsis, then left out, and a line on stderr names what was left out. Ids are never cut.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from rich.cells import cell_len, set_cell_size

from api.cli import console

T = TypeVar("T")

GAP = 2
"""Spaces between columns."""

NARROWEST = 8
WHOLE = 1_000
"""The least width of a column: half of a time or of an id says nothing, of a sentence it does."""

BAR = 24
LABELS = 20
"""Labels shown of a histogram."""


@dataclass(frozen=True)
class Column:
    """A column; the higher ``cut``, the sooner it gives way. 0: never."""

    title: str
    cut: int = 0
    least: int = NARROWEST
    """It is not cut below this width; it is left out."""


@dataclass(frozen=True)
class Listing:
    """Entries of a listing, and how many there are besides."""

    entries: list[Any]
    more: bool = False
    total: int | None = None
    """Of all, if that is known."""

    @classmethod
    def first(cls, found: Iterator[Any], limit: int) -> Listing:
        """At most ``limit`` of the entries."""
        entries = list(itertools.islice(found, limit))
        return cls(entries, more=len(entries) == limit and next(found, None) is not None)

    def of(self, total: int | None) -> Listing:
        """The same, of this many entries."""
        return replace(self, total=total)


def listing(
    found: Listing | Sequence[T],
    columns: Sequence[Column | str],
    row: Callable[[T], Sequence[Any]],
    *,
    json: bool,
) -> None:
    """Entries for programs, or as a table that says how many of them it shows."""
    shown = found if isinstance(found, Listing) else Listing(list(found))
    if json:
        console.as_json(shown.entries)
        return
    table(columns, [row(entry) for entry in shown.entries])
    count = len(shown.entries)
    if shown.total is not None and shown.total > count:
        console.note(f"{count:,} of {shown.total:,} shown (--limit shows more)")
    elif shown.more:
        console.note(f"the first {count:,} shown (--limit shows more)")


def table(columns: Sequence[Column | str], rows: Iterable[Sequence[Any]]) -> None:
    """A table on stdout."""
    known = [each if isinstance(each, Column) else Column(each) for each in columns]
    cells = [[_cell(value) for value in row] for row in rows]
    natural = [
        max(cell_len(cell) for cell in column)
        for column in zip([column.title for column in known], *cells, strict=True)
    ]
    widths = fitted(known, natural, width=_terminal_width())
    for row in ([column.title for column in known], *cells):
        shown = (_cut(cell, width) for cell, width in zip(row, widths, strict=True) if width)
        console.line((" " * GAP).join(shown).rstrip())
    left_out = [column.title for column, width in zip(known, widths, strict=True) if not width]
    if left_out and cells:
        console.note(f"too narrow for {', '.join(left_out)} (--json has all)")


def facts(found: Sequence[tuple[str, Any]]) -> None:
    """One thing in full: a line for each fact that is there, its name in front."""
    width = max(len(name) for name, _ in found)
    for name, value in found:
        if value is not None:
            console.line(f"{name.ljust(width)}  {value}")


def fitted(columns: Sequence[Column], widths: Sequence[int], *, width: int | None) -> list[int]:
    """The width of each column on a terminal of this width; 0: it is left out."""
    found = list(widths)
    if width is None:
        return found
    yielding = sorted(
        (place for place, column in enumerate(columns) if column.cut),
        key=lambda place: -columns[place].cut,
    )
    least = [
        min(natural, max(column.least, cell_len(column.title)))
        for column, natural in zip(columns, widths, strict=True)
    ]
    for place in yielding:
        found[place] = max(least[place], found[place] - _excess(found, width))
    for place in yielding:
        if _excess(found, width) > 0:
            found[place] = 0
    for place in reversed(yielding):  # room that a column left is for others, the best ones first
        room = -_excess(found, width) - (0 if found[place] else GAP)
        if found[place] + room >= least[place]:
            found[place] = min(widths[place], found[place] + room)
    return found


def _excess(widths: Sequence[int], width: int) -> int:
    """Cells by which the columns are too wide for the terminal."""
    shown = [each for each in widths if each]
    return sum(shown) + GAP * (len(shown) - 1) - width


def _terminal_width() -> int | None:
    """Of the terminal that stdout is; ``None``: it is none, and nothing is cut."""
    if not sys.stdout.isatty():
        return None
    if (given := os.environ.get("COLUMNS", "")).isdecimal() and int(given):
        return int(given)
    return os.get_terminal_size(sys.stdout.fileno()).columns or None


def _cut(cell: str, width: int) -> str:
    """The cell in exactly this width."""
    if cell_len(cell) <= width:
        return set_cell_size(cell, width)
    return f"{set_cell_size(cell, width - 1)}…"


def _cell(value: Any) -> str:
    return "-" if value is None else console.printable(" ".join(str(value).split()))


def histogram(counts: Mapping[str, int], *, rows: int) -> None:
    """Labels, most frequent first, with their share of all rows."""
    shown = list(counts.items())[:LABELS]
    top = max(1, *counts.values())
    table(
        (Column("LABEL", cut=1), "ROWS", "SHARE", ""),
        [
            (
                label,
                console.number(count),
                f"{count / max(rows, 1):.1%}",
                "█" * round(BAR * count / top),
            )
            for label, count in shown
        ],
    )
    if len(counts) > len(shown):
        console.line(f"and {len(counts) - len(shown)} more labels")
