"""Which rows of a corpus are for validation: a seeded share, stratified by label.

The choice depends on the seed and on the rows' labels in corpus order, and on nothing else: every
process that asks makes the same one, without holding more than a few numbers per label.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping

WHOLE = ""
"""The one stratum of rows that have no single label: texts to be written, sets of labels."""

_BITS = 64


def strata(labels: Mapping[str, int] | None, *, rows: int, multi_label: bool) -> dict[str, int]:
    """The counts to split by: rows per label, or all rows as one stratum ``WHOLE``."""
    return {WHOLE: rows} if labels is None or multi_label else dict(labels)


def validation_rows(counts: Mapping[str, int], *, share: float) -> dict[str, int]:
    """How many rows of each label validate: the share, rounded.

    A label with two rows or more has at least one on either side; a single row is trained on.
    """
    return {label: _share_of(rows, share=share) for label, rows in counts.items()}


def _share_of(rows: int, *, share: float) -> int:
    return max(min(math.floor(rows * share + 0.5), rows - 1), min(1, rows - 1), 0)


class Selector:
    """Selection sampling per label (Knuth, TAOCP 3.4.2, Algorithm S).

    Asked once for each row, in corpus order, it takes exactly ``validation_rows`` of each label,
    every choice of so many rows being as likely as any other.
    """

    def __init__(self, counts: Mapping[str, int], *, share: float, seed: int) -> None:
        self._left = dict(counts)
        self._wanted = validation_rows(counts, share=share)
        self._seed = seed

    def take(self, label: str) -> bool:
        """Whether the next row of this label is for validation.

        Raises ``KeyError`` for a label that was not counted, ``ValueError`` for a row too many.
        """
        left, wanted = self._left[label], self._wanted[label]
        if left == 0:
            raise ValueError(f"more rows of {label!r} are asked for than were counted")
        taken = self._draw(label, left) * left < wanted << _BITS
        self._left[label] = left - 1
        self._wanted[label] = wanted - taken
        return taken

    def _draw(self, label: str, left: int) -> int:
        """64 bits by hash of where we are: as good as a generator per label, and no state."""
        place = f"{self._seed}:{left}:{label}".encode("utf-8", "surrogatepass")
        return int.from_bytes(hashlib.blake2b(place, digest_size=_BITS // 8).digest())
