"""What commands print: JSON for programs; tables, numbers and durations for people."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

BAR = 24
LABELS = 20
"""Labels shown of a histogram."""


def line(text: str = "") -> None:
    """One line on stdout."""
    sys.stdout.write(f"{text}\n")


def note(text: str) -> None:
    """One line on stderr, beside the command's output."""
    sys.stderr.write(f"{text}\n")


def as_json(value: Any) -> None:
    """A value for programs."""
    line(json.dumps(value, indent=2, ensure_ascii=False))


def as_json_line(value: Any) -> None:
    """A value on one line, for streams of them."""
    line(json.dumps(value, ensure_ascii=False))


def table(headers: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Columns as wide as they must be; nothing is cut off, so that ids can be copied."""
    cells = [[_cell(value) for value in row] for row in rows]
    columns = list(zip(headers, *cells, strict=True))
    widths = [max(len(cell) for cell in column) for column in columns]
    for row in (headers, *cells):
        padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        line("  ".join(padded).rstrip())


def histogram(counts: Mapping[str, int], *, rows: int) -> None:
    """Labels, most frequent first, with their share of all rows."""
    shown = list(counts.items())[:LABELS]
    top = max(1, *counts.values())
    table(
        ("LABEL", "ROWS", "SHARE", ""),
        [
            (label, number(count), f"{count / max(rows, 1):.1%}", "█" * round(BAR * count / top))
            for label, count in shown
        ],
    )
    if len(counts) > len(shown):
        line(f"and {len(counts) - len(shown)} more labels")


def number(value: float | None) -> str:
    """A count with thousands separated."""
    return "-" if value is None else f"{value:,.0f}"


def share(count: float, *, of: float) -> str:
    """A part of a whole; what is there is never 0 %."""
    part = count / of if of else 0.0
    return "<0.1%" if 0 < part < 0.0005 else f"{part:.1%}"  # noqa: PLR2004


def rate(value: float | None) -> str:
    """Rows per second."""
    if value is None:
        return "-"
    return f"{value:,.0f}/s" if value >= 10 else f"{value:.1f}/s"  # noqa: PLR2004


def duration(seconds: float | None) -> str:
    """In the two largest units: ``2h 5m``, ``3m 20s``, ``7s``."""
    if seconds is None:
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h {minutes}m"
    return f"{minutes}m {rest}s" if minutes else f"{rest}s"


def moment(iso: str | None) -> str:
    """A time of the API, to the second, UTC."""
    return "-" if iso is None else iso[:19].replace("T", " ")


def size(value: int) -> str:
    """Bytes in the largest fitting unit."""
    amount = float(value)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:  # noqa: PLR2004
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


def _cell(value: Any) -> str:
    return "-" if value is None else " ".join(str(value).split())
