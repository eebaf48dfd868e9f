"""Which rows of a corpus are for validation: a seeded share, stratified by label.

The choice depends only on the seed and on the rows' labels in corpus order. Every process makes the
same one, and holds only two counts per label.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping

ONLY_STRATUM = ""
"""The one stratum of rows without a single label: rows to generate, rows with sets of labels."""

_BITS = 64


def strata(labels: Mapping[str, int] | None, *, rows: int, multi_label: bool) -> dict[str, int]:
    """Rows per stratum: the labels, or all rows as the one stratum ``ONLY_STRATUM``."""
    return {ONLY_STRATUM: rows} if labels is None or multi_label else dict(labels)


def validation_rows(counts: Mapping[str, int], *, share: float) -> dict[str, int]:
    """How many rows of each label are for validation: the share, rounded.

    A label with two or more rows has at least one on each side; a single row is for training.
    """
    return {label: _share_of(rows, share=share) for label, rows in counts.items()}


def _share_of(rows: int, *, share: float) -> int:
    return max(min(math.floor(rows * share + 0.5), rows - 1), min(1, rows - 1), 0)


class Selector:
    """Selection sampling per label (Knuth, TAOCP 3.4.2, Algorithm S).

    Called once for each row, in corpus order, it takes exactly ``validation_rows`` rows of each
    label; every such subset of the rows is equally likely.
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
            raise ValueError(f"there are more rows of {label!r} than were counted")
        taken = self._draw(label, left) * left < wanted << _BITS
        self._left[label] = left - 1
        self._wanted[label] = wanted - taken
        return taken

    def _draw(self, label: str, left: int) -> int:
        """64 bits, hashed from the position: as random as a generator per label, without state."""
        position = f"{self._seed}:{left}:{label}".encode("utf-8", "surrogatepass")
        return int.from_bytes(hashlib.blake2b(position, digest_size=_BITS // 8).digest())
