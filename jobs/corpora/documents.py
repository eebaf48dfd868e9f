"""Whether a file that should have one JSON row per line is a multi-line JSON document instead.

An array over several lines, an object over several lines, and lines that all end in a comma are not
JSONL, whatever their last line looks like: one row would be right and every other one wrong. The
structure of the first rows decides; a few bad lines among good ones change nothing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

SAMPLE_BYTES = 256 * 2**10
"""Bytes of the first rows that are kept; the first row is kept in full."""

_OPENING = (b"[", b"{")
_raw_decode = json.JSONDecoder().raw_decode


@dataclass
class DocumentDetector:
    """Is fed the first rows and decides whether they are parts of a document."""

    rows: int = 0
    good: int = 0  # objects and strings
    commas: int = 0  # rows that are JSON except for a comma at an end, without the last row
    begins: bytes = b""  # the first rows, as far as they fit
    _cut: bool = False  # there were rows that did not fit
    _comma: bool = False  # the last row has such a comma
    _first_is_json: bool = False

    def add(self, raw: bytes, *, good: bool, parsed: bool) -> None:
        """Add a row that is not blank; ``parsed``: it is valid JSON as it is."""
        if not self.rows:
            self._first_is_json = parsed
        self.rows += 1
        self.good += good
        self.commas += self._comma
        self._comma = not parsed and _has_comma(raw)
        self._keep(raw)

    def add_long(self, begin: bytes) -> None:
        """Add a row over the limit, of which only the first character is known."""
        self.rows += 1
        self.commas += self._comma
        self._comma = False
        if self.rows == 1 and begin == b"[":
            self._keep(begin)
        self._cut = True

    @property
    def is_document(self) -> bool:
        if self.rows == 1:
            return self._comma or self._opens()
        if self.commas * 2 > self.rows - 1 > 0:
            return True
        return self.good * 2 <= self.rows and self._opens()

    def _keep(self, raw: bytes) -> None:
        if self._cut or (self.begins and len(self.begins) + len(raw) > SAMPLE_BYTES):
            self._cut = True
        else:
            self.begins += raw.strip() + b"\n"

    def _opens(self) -> bool:
        """Whether a value begins in the first row and continues in the next."""
        text = self.begins.decode("utf-8", "replace")
        if self._first_is_json or not self.begins.startswith(_OPENING):
            return False
        array = text.startswith("[")
        inner = text[1:].lstrip() if array else text
        if array and inner.startswith("]"):
            return True
        try:
            _, end = _raw_decode(inner)
        except (ValueError, RecursionError):
            return self._cut and not self.good  # it may end after the part that was kept
        rest = inner[end:].lstrip()
        return rest.startswith((",", "]")) if array else "\n" in inner[:end]


def _has_comma(raw: bytes) -> bool:
    row = raw.strip()
    inner = row.removesuffix(b",").removeprefix(b",")
    if inner == row:
        return False
    try:
        json.loads(inner)
    except (ValueError, RecursionError):
        return False
    return True
