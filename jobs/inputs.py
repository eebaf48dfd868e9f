"""What a job read: the objects of its corpora, as they are written down with it.

A planner lists the objects of a corpus once. From then on the job reads these and no others, also
when it is planned again by another planner or by a retry: an object that has changed since is an
error (``corpus_changed``), one that came later belongs to another job.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")

ROWS = "rows"
"""The split of the only corpus of a bulk job, as in the table of shards."""

SQL = "sql:"
"""Before the name of a SQL source."""

UNKNOWN = -1
"""The size of an object that an earlier version did not write down."""

MOST_OBJECTS = 50_000
"""Objects of one corpus."""


@dataclass(frozen=True)
class Input:
    """One object of a corpus. ``name`` and ``version`` are what tells it from every other."""

    name: str  # the id of an uploaded file, a URI, or `sql:` and the name of a SQL source
    version: str  # changes when the content does
    bytes: int
    object_key: str | None = None  # in the installation's own store; None: at the URI
    filename: str | None = None  # of an uploaded file: its ending gives the format
    sha256: str | None = None  # None: it has not been read to its end, or is on the hub
    rows: int | None = None  # None: it has not been read to its end
    query: dict[str, Any] | None = None  # of rows of a SQL source; None: of other objects


@dataclass(frozen=True)
class ReadInput:
    """What became known of an object by reading it to its end."""

    index: int  # among the objects of its corpus
    rows: int  # bad ones too
    sha256: str | None


def fingerprint(inputs: Sequence[Input], *, single: bool) -> str:
    """What changes when any object does; of a corpus that names one object its version."""
    if single and inputs:
        return inputs[0].version
    digest = hashlib.sha256()
    for each in inputs:
        digest.update(f"{each.name}\0{each.version}\n".encode())
    return f"{len(inputs)} objects: {digest.hexdigest()}"


def in_batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """The same in lists of at most ``size``."""
    rest = iter(items)
    while batch := list(itertools.islice(rest, size)):
        yield batch
