"""Sample rows for the probes: short texts of the tokenizer's own words, some of equal length."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from transformers import PreTrainedTokenizerBase

from jobs.errors import ControlFlow
from workers.inference import row_isolation
from workers.inference.batching import memory
from workers.inference.batching.tokenization import TokenWindow
from workers.inference.special_tokens import SpecialTokens

T = TypeVar("T")

SHORT, MEDIUM, LONG = 1, 8, 16
"""Words of the texts."""

CANDIDATES = 400
"""Ids that are tried as words, evenly spread over the vocabulary."""

Tokenize = Callable[[list[str]], list[TokenWindow | None]]
"""The window of each text; ``None``: the text has no tokens."""


class SampleRowFailed(ControlFlow):
    """A sample row cannot be computed, even alone: there is nothing to compare with."""


class SampleRowsOutOfMemory(SampleRowFailed):
    """Memory was not enough for a few short rows, which may be different next time."""


def attempt(work: Callable[[], T]) -> T:
    """The result of work on sample rows. Raises ``SampleRowFailed`` if it is a row that fails."""
    try:
        return work()
    except BaseException as error:  # a panic in a tokenizer is no ``Exception``
        if isinstance(error, Exception) and memory.is_out_of_memory(error):
            message = "memory is not enough for a few short rows"
            raise SampleRowsOutOfMemory(message) from error
        row_isolation.check(error)
        raise SampleRowFailed(f"a made-up row fails: {row_isolation.reason(error)}") from error


@dataclass(frozen=True, slots=True)
class SampleRows:
    """Windows, and the indices of some of them."""

    windows: tuple[TokenWindow, ...]
    equal: tuple[int, ...]  # windows of one length
    short: tuple[int, ...]  # all but one that is much longer, if there is one


def build(
    tokenize: Tokenize,
    *,
    tokenizer: PreTrainedTokenizerBase,
    tokens: SpecialTokens,
    longest: int = 0,
) -> SampleRows:
    """Rows of a few lengths; several of one length, two of them equal. Raises ``SampleRowFailed``.

    Some have the padding token in their text; none has where that is also an end-of-text token, for
    a head that looks for end-of-text tokens needs equally many in all rows. One row has ``longest``
    tokens, if that is more than the others have.
    """
    words = attempt(lambda: list(_words(tokenizer, count=LONG))) or ["a"]
    shifted = [(words * LONG)[start : start + LONG] for start in range(3)]
    texts = [shifted[0][:MEDIUM], shifted[1][:SHORT], shifted[2], [words[0]] * MEDIUM]
    tokenized = _windows(tokenize, texts)
    if not tokenized:
        raise SampleRowFailed("the tokenizer makes no token of its own words")
    medium, other = tokenized[0], tokenized[-1]
    equal = [medium, _with_token(medium, 1, other.ids[min(1, len(other.ids) - 1)])]
    if tokens.padding not in tokens.ends:
        equal.append(_with_token(medium, 1, tokens.padding))
        if medium.ids[-1] not in tokenizer.all_special_ids:
            equal.append(_with_token(medium, len(medium.ids) - 1, tokens.padding))
    windows = [*equal, *tokenized]
    lengths = [len(window.ids) for window in windows]
    short = tuple(range(len(windows)))
    if longest > max(lengths):
        windows += _windows(tokenize, [(words * longest)[:longest]])
    return SampleRows(
        tuple(windows),
        equal=tuple(index for index in short if lengths[index] == lengths[0]),
        short=short,
    )


def _windows(tokenize: Tokenize, texts: list[list[str]]) -> list[TokenWindow]:
    """The windows of texts of these words; texts without tokens are left out."""
    windows = attempt(lambda: tokenize([" ".join(text) for text in texts]))
    return [window for window in windows if window is not None]


def _with_token(window: TokenWindow, index: int, token: int) -> TokenWindow:
    """The window with another token at an index, if it is long enough."""
    if index >= len(window.ids):
        return window
    ids = list(window.ids)
    ids[index] = token
    return replace(window, ids=ids)


def _words(tokenizer: PreTrainedTokenizerBase, *, count: int) -> Iterator[str]:
    """Different texts of one token of the vocabulary each."""
    own: Any = tokenizer
    special, size, seen = set(own.all_special_ids), len(own), 0
    for index in range(min(CANDIDATES, size)):
        # From the middle on: the first ids are often bytes and punctuation marks.
        token = (size // 2 + index * max(1, size // CANDIDATES)) % size
        word = "" if token in special else own.decode([token]).strip()
        if word and word.isprintable() and "\ufffd" not in word:
            yield word
            seen += 1
        if seen == count:
            return
