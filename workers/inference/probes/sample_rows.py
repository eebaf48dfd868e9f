"""Made-up rows for the probe: short texts of a tokenizer's own words, some of one length."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from transformers import PreTrainedTokenizerBase

from workers.inference import row_isolation
from workers.inference.batching import memory
from workers.inference.batching.tokenization import Window
from workers.inference.special_tokens import SpecialTokens

T = TypeVar("T")

SHORT, MEDIUM, LONG = 1, 8, 16
"""Words of the texts."""

LOOKED_AT = 400
"""Ids of the vocabulary that are tried for a word, evenly spread over it."""

Read = Callable[[list[str]], list[Window | None]]
"""What a model reads of texts; ``None``: nothing."""


class RowFails(Exception):
    """A made-up row cannot be computed, even alone: there is nothing to compare with."""


class NoMemory(RowFails):
    """Memory was not enough for a few short rows, which may pass."""


def tried(work: Callable[[], T]) -> T:
    """What the work on a made-up row returns. Raises ``RowFails`` if it is the row that fails."""
    try:
        return work()
    except BaseException as error:  # a tokenizer's panic is no ``Exception``
        if isinstance(error, Exception) and memory.is_out_of_memory(error):
            raise NoMemory("memory is not enough for a few short rows") from error
        row_isolation.check(error)
        raise RowFails(f"a made-up row fails: {row_isolation.reason(error)}") from error


@dataclass(frozen=True, slots=True)
class Rows:
    """Windows, and which of them have one length."""

    windows: tuple[Window, ...]
    equal: tuple[int, ...]
    short: tuple[int, ...]  # all but one that is much longer, if there is one


def made_up(
    read: Read, *, tokenizer: PreTrainedTokenizerBase, tokens: SpecialTokens, longest: int = 0
) -> Rows:
    """Rows of a few lengths; several of one, two of which are equal. Raises ``RowFails``.

    Some have the padding token among their own; where it also ends texts none has, for a head
    that looks for those takes only rows with equally many. One has ``longest`` tokens, if that is
    more than the others have.
    """
    words = tried(lambda: list(_words(tokenizer, count=LONG))) or ["a"]
    every = [(words * LONG)[start : start + LONG] for start in range(3)]
    texts = [every[0][:MEDIUM], every[1][:SHORT], every[2], [words[0]] * MEDIUM]
    found = _read(read, texts)
    if not found:
        raise RowFails("the tokenizer makes no token of its own words")
    medium, other = found[0], found[-1]
    equal = [medium, _with(medium, 1, other.ids[min(1, len(other.ids) - 1)])]
    if tokens.padding not in tokens.ends:
        equal.append(_with(medium, 1, tokens.padding))
        if medium.ids[-1] not in tokenizer.all_special_ids:
            equal.append(_with(medium, len(medium.ids) - 1, tokens.padding))
    windows = [*equal, *found]
    lengths = [len(window.ids) for window in windows]
    short = tuple(range(len(windows)))
    if longest > max(lengths):
        windows += _read(read, [(words * longest)[:longest]])
    alike = tuple(place for place in short if lengths[place] == lengths[0])
    return Rows(tuple(windows), equal=alike, short=short)


def _read(read: Read, texts: list[list[str]]) -> list[Window]:
    """The windows of texts of these words, but for those without any."""
    windows = tried(lambda: read([" ".join(text) for text in texts]))
    return [window for window in windows if window is not None]


def _with(window: Window, place: int, token: int) -> Window:
    """The window with another token in a place, if it has that place."""
    if place >= len(window.ids):
        return window
    ids = list(window.ids)
    ids[place] = token
    return replace(window, ids=ids)


def _words(tokenizer: PreTrainedTokenizerBase, *, count: int) -> Iterator[str]:
    """Some texts of one token of the vocabulary each, different ones."""
    given: Any = tokenizer
    special, size, seen = set(given.all_special_ids), len(given), 0
    for place in range(min(LOOKED_AT, size)):
        # From the middle on: the first ids are often bytes and marks.
        token = (size // 2 + place * max(1, size // LOOKED_AT)) % size
        word = "" if token in special else given.decode([token]).strip()
        if word and word.isprintable() and "\ufffd" not in word:
            yield word
            seen += 1
        if seen == count:
            return
