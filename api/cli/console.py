"""What commands print: JSON for programs; lines, numbers and durations for people."""

from __future__ import annotations

import json
import re
import sys
from typing import Any

_STEERING = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Controls, which would steer the terminal, and halves of surrogate pairs, which are no text."""


def line(text: str = "") -> None:
    """One line on stdout."""
    sys.stdout.write(f"{printable(text)}\n")


def note(text: str) -> None:
    """One line on stderr, beside the command's output."""
    sys.stderr.write(f"{printable(text)}\n")


def printable(text: str) -> str:
    """The text without what a terminal would obey: a name is no command to it."""
    return _STEERING.sub("\ufffd", text)


def as_json(value: Any) -> None:
    """A value for programs."""
    sys.stdout.write(f"{json.dumps(value, indent=2, ensure_ascii=False)}\n")


def answer(found: Any, sentence: str, *, json: bool) -> None:
    """What the API answered for programs, or a sentence about it for people."""
    if json:
        as_json(found)
    else:
        line(sentence)


def as_json_line(value: Any) -> None:
    """A value on one line, for streams of them."""
    sys.stdout.write(f"{json.dumps(value, ensure_ascii=False)}\n")


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
