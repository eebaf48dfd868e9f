"""Patterns of URIs: ``s3://bucket/day=*/part-?.parquet``, ``file:///data/**/*.csv``, and prefixes.

Within one segment of the path ``*`` stands for any text, ``?`` for any character and ``[abc]`` for
one of these; ``**`` as a whole segment stands for any number of segments. A URI that ends in a
slash is a prefix: it stands for every object below it. A name that begins with ``_`` or ``.`` is
left out, unless its segment of the pattern begins so too: such names mark what is no data
(``_SUCCESS``, ``_temporary/``). No part of this module reads storage.
"""

from __future__ import annotations

import fnmatch
import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self
from urllib.parse import unquote

ANY_DEPTH = "**"
MOST_SEGMENTS = 50
"""Segments with a wildcard in one pattern."""

_WILDCARD = re.compile(r"[*?\[]")
_ENCODED = {"%2a": "[*]", "%2A": "[*]", "%3f": "[?]", "%3F": "[?]", "%5b": "[[]", "%5B": "[[]"}
_HIDDEN = ("_", ".")


def is_pattern(uri: str) -> bool:
    """Whether a URI stands for any number of objects."""
    path = uri.partition("://")[2]
    return path.endswith("/") or _WILDCARD.search(path) is not None


def fixed(uri: str) -> str:
    """The part of a pattern before its first segment with a wildcard, which names a folder."""
    scheme, separator, path = uri.partition("://")
    segments = path.split("/")
    count = next((i for i, each in enumerate(segments) if _WILDCARD.search(each)), len(segments))
    path = "/".join(segments[:count])
    return f"{scheme}{separator}{path or ('/' if scheme.lower() == 'file' else '')}"


@dataclass(frozen=True)
class Pattern:
    """The segments of a pattern behind its fixed part, as ``fnmatch`` reads them.

    A path is matched segment by segment: ``begin`` gives the places in the pattern where matching
    starts, and ``step`` those after one more segment; none are left where nothing can match.
    """

    segments: tuple[str, ...]

    @classmethod
    def of(cls, uri: str) -> Self:
        """The pattern of a URI for which ``is_pattern`` holds. Raises ``ValueError``."""
        scheme, _, path = uri.partition("://")
        rest = uri.removeprefix(fixed(uri)).strip("/")
        segments = [each for each in rest.split("/") if each] or [ANY_DEPTH]
        if path.endswith("/") and segments[-1] != ANY_DEPTH:
            segments.append(ANY_DEPTH)
        if len(segments) > MOST_SEGMENTS:
            raise ValueError(f"a pattern has at most {MOST_SEGMENTS} segments with wildcards")
        if any(ANY_DEPTH in each and each != ANY_DEPTH for each in segments):
            raise ValueError("`**` must be a whole segment of a pattern, as in `data/**/*.csv`")
        if scheme.lower() == "file":
            segments = [_decoded(each) for each in segments]
        return cls(tuple(segments))

    def begin(self) -> frozenset[int]:
        """The places before the first segment."""
        return self._closed({0})

    def step(self, places: frozenset[int], name: str) -> frozenset[int]:
        """The places behind a segment with this name."""
        after: set[int] = set()
        for place in places:
            if place == len(self.segments):
                continue
            segment = self.segments[place]
            if name.startswith(_HIDDEN) and not segment.startswith(_HIDDEN):
                continue
            if segment == ANY_DEPTH:
                after |= {place, place + 1} if place == len(self.segments) - 1 else {place}
            elif _regex(segment).match(name):
                after.add(place + 1)
        return self._closed(after)

    def matches(self, path: Sequence[str]) -> bool:
        """Whether an object with these segments behind the fixed part is meant."""
        places = self.begin()
        for name in path:
            places = self.step(places, name)
        return bool(path) and self.accepts(places)

    def accepts(self, places: frozenset[int]) -> bool:
        """Whether an object may end at one of these places."""
        return len(self.segments) in places

    def _closed(self, places: set[int]) -> frozenset[int]:
        """The places, and those behind a ``**`` that stands for nothing; the last one does not."""
        found = set(places)
        for place in places:
            while place < len(self.segments) - 1 and self.segments[place] == ANY_DEPTH:
                place += 1  # noqa: PLW2901 - the loop walks on from there
                found.add(place)
        return frozenset(found)


@functools.lru_cache(maxsize=1_000)
def _regex(segment: str) -> re.Pattern[str]:
    return re.compile(fnmatch.translate(segment))


def _decoded(segment: str) -> str:
    """A segment of a ``file:`` URI; an encoded wildcard stands for the character itself."""
    return unquote(re.sub("%2[aA]|%3[fF]|%5[bB]", lambda found: _ENCODED[found[0]], segment))
