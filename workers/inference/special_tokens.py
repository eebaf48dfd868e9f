"""The special token ids of a model: padding, end-of-text and start tokens, decided here only.

A model's files name them in up to three places, config.json, generation_config.json and the
tokenizer's, and these need not agree. An id counts only if it is in the model's vocabulary: -1
means none in the files of some models.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

NO_PADDING_ID = -1
"""In a config: no token has this id."""


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """Ids of a model's special tokens, all of them inside its vocabulary."""

    padding: int  # pads rows; the model's own, wherever it recognizes padding by its id
    neutral: int  # the baseline of explanations: a token that stands for no text
    ends: tuple[int, ...]  # each of them ends a generated text
    start: int | None  # the first token of an encoder-decoder's output; None: no file names one

    @classmethod
    def of(cls, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> SpecialTokens:
        """Read from the files of a model and its tokenizer.

        Padding: from config.json before all others, since heads that look for the last token, and
        positions that skip padding, use that one. A row whose text has this token is then computed
        as it is without any padding. Ends and start: from generation_config.json first, as
        ``generate`` of transformers does.
        """
        size = vocabulary(model)
        configs = (text_config(model.config), model.config)
        generation = getattr(model, "generation_config", None)
        named = [getattr(each, "pad_token_id", None) for each in (*configs, generation, tokenizer)]
        sources = (generation, *configs, tokenizer)
        ends = _first(_ids(getattr(each, "eos_token_id", None), size=size) for each in sources)
        padding = _ids(named, size=size)
        others = [getattr(tokenizer, f"{name}_token_id", None) for name in ("mask", "unk", "eos")]
        starts = [getattr(each, "decoder_start_token_id", None) for each in (generation, *configs)]
        starts.append(getattr(generation, "bos_token_id", None))
        return cls(
            padding=(*padding, *ends, 0)[0],
            neutral=(*padding, *_ids(others, size=size), 0)[0],
            ends=ends,
            start=next(iter(_ids(starts, size=size)), None),
        )


def set_missing_padding_id(model: PreTrainedModel) -> None:
    """Give a config without a padding id an id that no token has.

    Some heads find a row's last token by the padding id. Without an id they refuse more than one
    row; with ``NO_PADDING_ID`` the last token is the batch's last, so that rows of equal length may
    share a batch. The probe decides whether others may.
    """
    for config in (text_config(model.config), model.config):
        if getattr(config, "pad_token_id", None) is None:
            config.pad_token_id = NO_PADDING_ID


def text_config(config: Any) -> Any:
    """The text part of a config."""
    try:
        return config.get_text_config()
    except ValueError:  # there are several
        return config


def embedding_rows(model: PreTrainedModel) -> int | None:
    """Rows of the model's embedding table; ``None``: it has no such table."""
    own: Any = model
    try:
        embeddings = own.get_input_embeddings()
    except (AttributeError, NotImplementedError):
        return None
    return embeddings.num_embeddings if isinstance(embeddings, nn.Embedding) else None


def check_ids(ids: Sequence[int], *, rows: int | None) -> None:
    """Raise ``IndexError`` where the embedding table has no row for one of these ids.

    On an accelerator such an id would end the process instead of raising.
    """
    if rows is not None and max(ids, default=0) >= rows:
        raise IndexError(
            f"the text has the token id {max(ids)}, and the model's table of embeddings has {rows} "
            "rows"
        )


def vocabulary(model: PreTrainedModel) -> int | None:
    """The number of token ids that a model can read; ``None``: unknown."""
    own: Any = model
    try:
        size = own.get_input_embeddings().weight.shape[0]
    except (AttributeError, NotImplementedError):
        size = getattr(text_config(model.config), "vocab_size", None)
    return size if isinstance(size, int) and size > 0 else None


def _ids(given: Any, *, size: int | None) -> tuple[int, ...]:
    """The ids, one, several or none, that are in the vocabulary."""
    several: Iterable[Any] = given if isinstance(given, list | tuple) else (given,)
    return tuple(
        int(each)
        for each in several
        if isinstance(each, int) and each >= 0 and (size is None or each < size)
    )


def _first(candidates: Iterable[tuple[int, ...]]) -> tuple[int, ...]:
    """The first that is not empty."""
    return next((each for each in candidates if each), ())
