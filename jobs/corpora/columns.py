"""Which column holds the text, and failures that name the columns there are."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from jobs.errors import CorpusFailure
from jobs.specs import Corpus

USUAL = ("text", "content", "sentence", "body", "document", "title")
_LISTED = 30


def choose_text(found: Sequence[str], corpus: Corpus, *, strings: Sequence[str]) -> str:
    """The column given, else the first usual one, else the only one of text beside the ids.

    ``strings`` are those columns of ``found`` that hold text. Raises ``column_missing``.
    """
    if corpus.text_column is not None:
        return require(corpus.text_column, found, param="text_column")
    by_lower = {name.lower(): name for name in reversed(found) if name != corpus.id_column}
    for usual in USUAL:
        if usual in by_lower:
            return by_lower[usual]
    candidates = [name for name in strings if name != corpus.id_column]
    if len(candidates) == 1:
        return candidates[0]
    raise missing(f"which column holds the text is not clear; pass text_column; {listed(found)}")


def require(name: str, found: Collection[str], *, param: str) -> str:
    """The name, which must be among the columns. Raises ``column_missing``."""
    if name not in found:
        raise missing(f"there is no column {name!r}; pass {param} as one of them; {listed(found)}")
    return name


def missing(message: str) -> CorpusFailure:
    """A failure with code ``column_missing``."""
    return CorpusFailure(message, code="column_missing")


def listed(found: Collection[str]) -> str:
    """The columns in words, the first of very many."""
    names = [repr(name[:100]) for name in list(found)[:_LISTED]]
    if len(found) > _LISTED:
        names.append(f"and {len(found) - _LISTED:,} more")
    return f"columns found: {', '.join(names) or 'none'}"
