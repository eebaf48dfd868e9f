"""Texts become windows of tokens, each short enough for the model."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tokenizers import Encoding, Tokenizer, models, normalizers
from transformers import PreTrainedTokenizerBase

from jobs.errors import ModelFailure
from jobs.kinds import LongTexts, WindowOptions

DEFAULT_WINDOW = 512
"""Where neither the model nor the options name a limit."""

BYTES_PER_SLICE = 16
"""Bytes of text tokenized in one go, for each token of the budget: about four batches."""


class Coupled(NamedTuple):
    """A row's text and what stands beside it: a second text, or settings of its own as JSON."""

    text: str
    beside: str


Item = str | Coupled
"""What a row hands to the engine."""


@dataclass(frozen=True, slots=True)
class Window:
    """What the model reads in one go: token ids, special ones included, and their segments."""

    ids: list[int]
    types: list[int]


@dataclass(frozen=True, slots=True)
class Token:
    """A token of a text, and where it stands there; a special one stands nowhere."""

    id: int
    type: int
    name: str
    place: tuple[int, int] | None  # its first character, and the one after its last


@dataclass(frozen=True, slots=True)
class Reading:
    """One text as the model will read it. No windows: the text has no tokens of its own."""

    windows: tuple[Window, ...]
    truncated: bool
    unknown: int = 0  # of the tokens, those that stand for whatever the tokenizer does not know

    @property
    def tokens(self) -> int:
        """Tokens that the model reads; those that two windows share count twice."""
        return sum(len(window.ids) for window in self.windows)


class Reader:
    """A model's tokenizer, set to windows of a length. For one thread at a time.

    ``prompt`` is what every text begins with; ``lower`` puts all into lower case.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_tokens: int | None,
        options: WindowOptions,
        prompt: str = "",
        lower: bool = False,
    ) -> None:
        self._backend = _backend(tokenizer)
        self._unknown = unknown_token(tokenizer)
        if lower:
            _lower(self._backend)
        self._strides = options.long_texts is LongTexts.STRIDE
        self._from_the_left = tokenizer.truncation_side == "left"
        self.window = _window(max_tokens, options)
        room = self.window - self._backend.num_special_tokens_to_add(is_pair=False)
        if room < 1:
            raise ModelFailure(f"the model's window of {self.window} tokens holds no text")
        # Neighbouring windows share at most half of what a window holds, or they would crawl.
        stride = min(options.stride, room // 2) if self._strides else 0
        # A tokenizer.json may carry a truncation and a padding of its own, which are not ours.
        self._backend.no_padding()
        self._backend.enable_truncation(
            max_length=self.window, stride=stride, direction=tokenizer.truncation_side
        )
        self._prompt = prompt
        self._prompt_tokens = len(self._backend.encode(prompt).ids) if prompt else 0
        if self._prompt_tokens == self.window:
            raise ModelFailure(
                f"the prompt must be shorter: the model's window of {self.window} tokens holds no "
                "text beside it",
                code="model_too_short",
            )

    def read(self, items: Sequence[Item]) -> list[Reading]:
        """One reading per text, in order; the two of a pair are read together.

        Of a pair that is too long, the longer text is cut.
        """
        encodings = self._backend.encode_batch_fast([self._bounded(item) for item in items])
        return [
            self._reading(encoding, item=item)
            for encoding, item in zip(encodings, items, strict=True)
        ]

    def tokens(self, text: str) -> list[Token]:
        """The tokens of the text's first window, those of the prompt with places in it."""
        encoding = self._backend.encode(text)
        found = zip(
            encoding.ids,
            encoding.type_ids,
            encoding.tokens,
            encoding.offsets,
            encoding.special_tokens_mask,
            strict=True,
        )
        return [
            Token(id_, type_, name, None if special else place)
            for id_, type_, name, place, special in found
        ]

    def _bounded(self, item: Item) -> Item:
        """A pair whose texts are cut to a few windows, which changes nothing that is read.

        What is cut off both texts of a pair comes back in every combination of its pieces.
        """
        if isinstance(item, str) or all(len(text.encode()) <= self.window for text in item):
            return item
        both = [self._backend.encode(text, add_special_tokens=False) for text in item]
        pieces = [[encoding, *encoding.overflowing] for encoding in both]
        sizes = [sum(map(len, each)) for each in pieces]
        return Coupled(
            *(  # the longer one stays so: it is the one that more is cut of
                self._beginning(text, own, windows=2 if size == min(sizes) else 3)
                for text, own, size in zip(item, pieces, sizes, strict=True)
            )
        )

    def _beginning(self, text: str, pieces: Sequence[Encoding], *, windows: int) -> str:
        """So many windows of a text, from the side that is read."""
        if len(pieces) <= windows:
            return text
        places = pieces[windows - 1].offsets
        return text[places[0][0] :] if self._from_the_left else text[: places[-1][1]]

    def _reading(self, encoding: Encoding, *, item: Item) -> Reading:
        if self._says_nothing(encoding, item=item):
            return Reading(windows=(), truncated=False)
        rest = encoding.overflowing
        encodings = [encoding, *rest] if self._strides else [encoding]
        windows = tuple(Window(ids=each.ids, types=each.type_ids) for each in encodings)
        return Reading(
            windows=windows,
            truncated=bool(rest) and not self._strides,
            unknown=sum(counted(self._unknown, each.ids) for each in windows),
        )

    def _says_nothing(self, encoding: Encoding, *, item: Item) -> bool:
        """Whether a text has no tokens of its own: those of the prompt are not counted."""
        if isinstance(item, Coupled):
            return not {0, 1} <= set(encoding.sequence_ids)
        if len(encoding.ids) > self._prompt_tokens > 0:
            return False
        own = item.removeprefix(self._prompt)
        return all((self._backend.encode(own) if self._prompt else encoding).special_tokens_mask)


class PairReader:
    """A model's tokenizer that reads every text with each of some hypotheses: a window for each.

    A text that is too long beside the longest of them is cut, and the hypotheses are not.
    ``hypotheses`` are their token ids.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_tokens: int | None,
        options: WindowOptions,
        hypotheses: Sequence[str],
    ) -> None:
        self._backend = _backend(tokenizer)
        self._unknown = unknown_token(tokenizer)
        self._texts = tuple(hypotheses)
        self._backend.no_padding()
        self._backend.no_truncation()
        self.hypotheses = [
            self._backend.encode(text, add_special_tokens=False).ids for text in hypotheses
        ]
        longest = max(map(len, self.hypotheses))
        self.window = window = _window(max_tokens, options)
        if window - self._backend.num_special_tokens_to_add(is_pair=True) - longest < 1:
            raise ModelFailure(
                f"the labels or the hypothesis must be shorter: the model's window of {window} "
                "tokens holds no text beside them",
                code="model_too_short",
            )
        self._backend.enable_truncation(
            max_length=window, strategy="only_first", direction=tokenizer.truncation_side
        )

    def read(self, texts: Sequence[str]) -> list[Reading]:
        """One reading per text, in order."""
        pairs = [(text, hypothesis) for text in texts for hypothesis in self._texts]
        encodings = iter(self._backend.encode_batch(pairs))
        return [self._reading(list(itertools.islice(encodings, len(self._texts)))) for _ in texts]

    def _reading(self, encodings: list[Encoding]) -> Reading:
        if 0 not in encodings[0].sequence_ids:  # nothing is of the text
            return Reading(windows=(), truncated=False)
        windows = tuple(Window(ids=each.ids, types=each.type_ids) for each in encodings)
        return Reading(
            windows=windows,
            truncated=any(each.overflowing for each in encodings),
            unknown=sum(counted(self._unknown, each.ids) for each in windows),
        )


def unknown_token(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The id of whatever a tokenizer does not know; ``None``: it has pieces for every text.

    Byte-level tokenizers name one that they never make, often the token that ends a text.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or isinstance(backend.model, models.Unigram):
        named: int | None = tokenizer.unk_token_id
        return None if named == tokenizer.eos_token_id else named
    token = getattr(backend.model, "unk_token", None)
    found: int | None = None if token is None else backend.token_to_id(token)
    return found


def counted(unknown: int | None, ids: Sequence[int]) -> int:
    """How often the id of whatever is unknown is among these."""
    return 0 if unknown is None else ids.count(unknown)


def slices(texts: Sequence[Item], *, budget: int) -> Iterator[list[int]]:
    """Indices of texts in groups of a few batches each, the longest texts first.

    Length is counted in UTF-8 bytes, which follow the tokens more closely than characters do:
    a Chinese character has three bytes and one token, an English token four or five letters.
    """
    sizes = [_size(text) for text in texts]
    group: list[int] = []
    room = budget * BYTES_PER_SLICE
    for index in sorted(range(len(texts)), key=lambda index: (-sizes[index], index)):
        group.append(index)
        room -= sizes[index]
        if room <= 0:
            yield group
            group, room = [], budget * BYTES_PER_SLICE
    if group:
        yield group


def _size(item: Item) -> int:
    return len(item.encode() if isinstance(item, str) else "".join(item).encode())


def _window(max_tokens: int | None, options: WindowOptions) -> int:
    limits = [limit for limit in (max_tokens, options.max_tokens) if limit is not None]
    return min(limits, default=DEFAULT_WINDOW)


def _backend(tokenizer: PreTrainedTokenizerBase) -> Tokenizer:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        raise ModelFailure(
            f"the tokenizer ({type(tokenizer).__name__}) must be a fast one: save it as "
            "tokenizer.json with the transformers library",
            code="model_no_tokenizer",
        )
    return backend


def _lower(backend: Tokenizer) -> None:
    own = backend.normalizer
    steps = [normalizers.Lowercase(), *([] if own is None else [own])]
    backend.normalizer = normalizers.Sequence(steps)
