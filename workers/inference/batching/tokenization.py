"""Tokenization: a text becomes windows of tokens, each short enough for the model."""

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
"""Tokens of a window where neither the model nor the options set a limit."""

BYTES_PER_SLICE = 16
"""Bytes of text that are tokenized together, for each token of the budget: about four batches."""


class PairedText(NamedTuple):
    """A row's text and its second column: a second text, or the row's own settings as JSON."""

    text: str
    second: str


RowText = str | PairedText
"""The engine's input for a row."""


@dataclass(frozen=True, slots=True)
class TokenWindow:
    """The input of one forward pass for one row: token ids, special ones included, and types."""

    ids: list[int]
    type_ids: list[int]


@dataclass(frozen=True, slots=True)
class Token:
    """A token and the part of the text that it stands for; a special one stands for none."""

    id: int
    type_id: int
    text: str
    span: tuple[int, int] | None  # index of its first character, and of the one after its last


@dataclass(frozen=True, slots=True)
class TokenizedText:
    """The windows of one text. No windows: the text has no tokens of its own."""

    windows: tuple[TokenWindow, ...]
    truncated: bool
    unknown: int = 0  # unknown tokens among all

    @property
    def tokens(self) -> int:
        """Number of tokens that the model reads; those in two windows count twice."""
        return sum(len(window.ids) for window in self.windows)


class WindowTokenizer:
    """A model's tokenizer, set to a window size. For one thread at a time.

    ``prompt`` precedes every text; ``lower`` lower-cases all of it.
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
        self._keeps_end = tokenizer.truncation_side == "left"
        self.window_size = _window_size(max_tokens, options)
        max_tokens = self.window_size - self._backend.num_special_tokens_to_add(is_pair=False)
        if max_tokens < 1:
            raise ModelFailure(f"the model's window of {self.window_size} tokens holds no text")
        # Neighbouring windows share at most half of their tokens: progress would be too slow.
        stride = min(options.stride, max_tokens // 2) if self._strides else 0
        # A tokenizer.json may have its own truncation and padding, which we do not want.
        self._backend.no_padding()
        self._backend.enable_truncation(
            max_length=self.window_size, stride=stride, direction=tokenizer.truncation_side
        )
        self._prompt = prompt
        self._prompt_tokens = len(self._backend.encode(prompt).ids) if prompt else 0
        if self._prompt_tokens == self.window_size:
            raise ModelFailure(
                f"the prompt must be shorter: the model's window of {self.window_size} tokens "
                "holds no text beside it",
                code="model_too_short",
            )

    def tokenize(self, texts: Sequence[RowText]) -> list[TokenizedText]:
        """One result for each text, in order; the two texts of a pair share their windows.

        In a pair that is too long, the longer text is truncated.
        """
        encodings = self._backend.encode_batch_fast([self._bounded(text) for text in texts])
        return [
            self._tokenized(encoding, text=text)
            for encoding, text in zip(encodings, texts, strict=True)
        ]

    def first_window(self, text: str) -> list[Token]:
        """The tokens of the text's first window; spans count from the start of the prompt."""
        encoding = self._backend.encode(text)
        fields = zip(
            encoding.ids,
            encoding.type_ids,
            encoding.tokens,
            encoding.offsets,
            encoding.special_tokens_mask,
            strict=True,
        )
        return [
            Token(id_, type_id, token, None if special else span)
            for id_, type_id, token, span, special in fields
        ]

    def _bounded(self, text: RowText) -> RowText:
        """A pair with both texts cut to a few windows, which changes none of its windows.

        Without this the overflow of a pair has every combination of its texts' pieces.
        """
        if isinstance(text, str) or all(len(each.encode()) <= self.window_size for each in text):
            return text
        both = [self._backend.encode(each, add_special_tokens=False) for each in text]
        pieces = [[encoding, *encoding.overflowing] for encoding in both]
        sizes = [sum(map(len, each)) for each in pieces]
        return PairedText(
            *(  # the longer one must stay longer: it is the one that is truncated
                self._first_windows(each, own, windows=2 if size == min(sizes) else 3)
                for each, own, size in zip(text, pieces, sizes, strict=True)
            )
        )

    def _first_windows(self, text: str, pieces: Sequence[Encoding], *, windows: int) -> str:
        """The first ``windows`` windows of a text, from the side that truncation keeps."""
        if len(pieces) <= windows:
            return text
        offsets = pieces[windows - 1].offsets
        return text[offsets[0][0] :] if self._keeps_end else text[: offsets[-1][1]]

    def _tokenized(self, encoding: Encoding, *, text: RowText) -> TokenizedText:
        if self._has_no_own_tokens(encoding, text=text):
            return TokenizedText(windows=(), truncated=False)
        rest = encoding.overflowing
        encodings = [encoding, *rest] if self._strides else [encoding]
        windows = tuple(TokenWindow(ids=each.ids, type_ids=each.type_ids) for each in encodings)
        return TokenizedText(
            windows=windows,
            truncated=bool(rest) and not self._strides,
            unknown=sum(count_unknown(self._unknown, each.ids) for each in windows),
        )

    def _has_no_own_tokens(self, encoding: Encoding, *, text: RowText) -> bool:
        """Whether a text has no tokens beside special ones and those of the prompt."""
        if isinstance(text, PairedText):
            return not {0, 1} <= set(encoding.sequence_ids)
        if len(encoding.ids) > self._prompt_tokens > 0:
            return False
        own = text.removeprefix(self._prompt)
        return all((self._backend.encode(own) if self._prompt else encoding).special_tokens_mask)


class HypothesisTokenizer:
    """A model's tokenizer that pairs every text with each hypothesis: one window for each pair.

    A text that is too long beside the longest hypothesis is truncated, and hypotheses are not.
    ``hypothesis_ids`` are the token ids of each.
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
        self._hypotheses = tuple(hypotheses)
        self._backend.no_padding()
        self._backend.no_truncation()
        self.hypothesis_ids = [
            self._backend.encode(text, add_special_tokens=False).ids for text in hypotheses
        ]
        longest = max(map(len, self.hypothesis_ids))
        self.window_size = size = _window_size(max_tokens, options)
        if size - self._backend.num_special_tokens_to_add(is_pair=True) - longest < 1:
            raise ModelFailure(
                f"the labels or the hypothesis must be shorter: the model's window of {size} "
                "tokens holds no text beside them",
                code="model_too_short",
            )
        self._backend.enable_truncation(
            max_length=size, strategy="only_first", direction=tokenizer.truncation_side
        )

    def tokenize(self, texts: Sequence[str]) -> list[TokenizedText]:
        """One result for each text, in order."""
        pairs = [(text, hypothesis) for text in texts for hypothesis in self._hypotheses]
        encodings = iter(self._backend.encode_batch(pairs))
        count = len(self._hypotheses)
        return [self._tokenized(list(itertools.islice(encodings, count))) for _ in texts]

    def _tokenized(self, encodings: list[Encoding]) -> TokenizedText:
        if 0 not in encodings[0].sequence_ids:  # no token comes from the text
            return TokenizedText(windows=(), truncated=False)
        windows = tuple(TokenWindow(ids=each.ids, type_ids=each.type_ids) for each in encodings)
        return TokenizedText(
            windows=windows,
            truncated=any(each.overflowing for each in encodings),
            unknown=sum(count_unknown(self._unknown, each.ids) for each in windows),
        )


def unknown_token(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The id of the unknown token; ``None``: the tokenizer has pieces for every text.

    Byte-level tokenizers name one that they never produce, often the end-of-text token.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or isinstance(backend.model, models.Unigram):
        named: int | None = tokenizer.unk_token_id
        return None if named == tokenizer.eos_token_id else named
    token = getattr(backend.model, "unk_token", None)
    token_id: int | None = None if token is None else backend.token_to_id(token)
    return token_id


def count_unknown(unknown: int | None, ids: Sequence[int]) -> int:
    """How often the id of the unknown token is among these."""
    return 0 if unknown is None else ids.count(unknown)


def slices(texts: Sequence[RowText], *, budget: int) -> Iterator[list[int]]:
    """Indices of texts in slices of a few batches each, the longest texts first.

    Length is in UTF-8 bytes, which follow the number of tokens more closely than characters do:
    a Chinese character has three bytes and is one token, an English token has four or five letters.
    """
    sizes = [utf8_bytes(text) for text in texts]
    group: list[int] = []
    bytes_left = budget * BYTES_PER_SLICE
    for index in sorted(range(len(texts)), key=lambda index: (-sizes[index], index)):
        group.append(index)
        bytes_left -= sizes[index]
        if bytes_left <= 0:
            yield group
            group, bytes_left = [], budget * BYTES_PER_SLICE
    if group:
        yield group


def utf8_bytes(text: RowText) -> int:
    """The length of a text, or of both texts of a pair."""
    return len(text.encode() if isinstance(text, str) else "".join(text).encode())


def _window_size(max_tokens: int | None, options: WindowOptions) -> int:
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
