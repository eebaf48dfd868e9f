"""Text to text: an encoder reads each row's text, and a decoder writes another of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import AutoModelForSeq2SeqLM, GenerationConfig, PreTrainedTokenizerBase

from jobs.errors import ModelFailure
from jobs.kinds import Text2TextOptions
from jobs.models.inspection import ModelFacts
from jobs.results.schemas import RowCode
from jobs.settings import Settings
from workers.inference import model_loader
from workers.inference.batching.forward import Beat, RowError
from workers.inference.batching.tokenization import DEFAULT_WINDOW
from workers.inference.decoding import text_generation
from workers.inference.decoding.decoder import Prompt
from workers.inference.decoding.text_generation import Writer, Written
from workers.inference.probes import preflight

PLAIN = frozenset({"<s>", "</s>", "<pad>", "<unk>", "<mask>"})
"""Special tokens that stand for no language."""


class Sources:
    """Rows become what the encoder reads, cut where that ends."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, *, options: Text2TextOptions, window: int
    ) -> None:
        self._tokenizer: Any = tokenizer
        self._prompt = options.prompt or ""
        self._steps = options.max_new_tokens
        self._window = window

    def source(self, row: int, text: str) -> Prompt | RowError:
        """The row's tokens, those that end a text included."""
        if not self._tokenizer(text, add_special_tokens=False)["input_ids"]:
            return RowError(RowCode.NO_TOKENS, "the tokenizer makes no token of this text")
        whole = self._prompt + text
        ids = self._tokenizer(whole)["input_ids"]
        if len(ids) <= self._window:
            return Prompt(row, ids, steps=self._steps)
        cut = self._tokenizer(whole, truncation=True, max_length=self._window)["input_ids"]
        return Prompt(row, cut, steps=self._steps, truncated=True)


class Translator:
    """A loaded encoder with a decoder. For one thread at a time."""

    def __init__(self, writer: Writer, *, sources: Sources, digest: str) -> None:
        self.digest = digest
        self.sharing = writer.sharing
        self._writer = writer
        self._sources = sources

    def answer(self, texts: Mapping[int, str], *, beat: Beat) -> dict[int, Written | RowError]:
        """A text for every row; equal ones are written once."""
        return self._writer.answer_once(texts, read=self._sources.source, beat=beat)


def load(
    folder: Path, options: Text2TextOptions, *, facts: ModelFacts, settings: Settings
) -> Translator:
    """The folder's encoder-decoder on this process's device. Raises ``ModelFailure``."""
    auto: Any = AutoModelForSeq2SeqLM
    tokenizer = model_loader.tokenizer(folder)
    model = model_loader.model(folder, auto=auto, options=options)
    if options.source_language is not None:
        _set_source(tokenizer, options.source_language)
    target = options.target_language
    preflight.check_vocabulary(model, tokenizer)
    config = text_generation.config(
        model,
        tokenizer,
        options=options,
        num_beams=options.beams,
        length_penalty=options.length_penalty,
        no_repeat_ngram_size=options.no_repeat_ngram,
        forced_bos_token_id=None if target is None else _language(tokenizer, target),
    )
    limits = [limit for limit in (facts.max_tokens, options.max_tokens) if limit is not None]
    window = min(limits, default=DEFAULT_WINDOW)
    writer = Writer(
        model,
        tokenizer=tokenizer,
        config=config,
        options=options,
        settings=settings,
        digest=facts.digest,
        room=facts.max_tokens,
    )
    sources = Sources(tokenizer, options=options, window=window)
    preflight.check_decoder(model, steps=options.max_new_tokens, start=_start(config))
    writer.check(read=sources.source, room=window)
    return Translator(
        writer,
        sources=sources,
        digest=facts.digest,
    )


def _start(config: GenerationConfig) -> int:
    """The token that a text begins with, as the library finds it."""
    for found in (config.decoder_start_token_id, config.bos_token_id):
        first = found[0] if isinstance(found, list) and found else found
        if isinstance(first, int):
            return first
    raise ModelFailure(
        "the model's generation_config.json must have a decoder_start_token_id (or a "
        "bos_token_id), the token that a text begins with; both are null",
        code="model_no_start_token",
    )


def _set_source(tokenizer: Any, language: str) -> None:
    _language(tokenizer, language)
    if not hasattr(tokenizer, "src_lang"):
        raise ModelFailure(
            "the model's tokenizer knows no source language: leave text2text.source_language out",
            code="language_unknown",
        )
    tokenizer.src_lang = language


def _language(tokenizer: Any, language: str) -> int:
    """The id of the token that stands for a language, spelt as the tokenizer's files spell it."""
    for name in (language, f"__{language}__"):  # the second as in M2M100
        found = tokenizer.convert_tokens_to_ids(name)
        if found is not None and found != tokenizer.unk_token_id:
            return int(found)
    known = [token for token in tokenizer.all_special_tokens if token not in PLAIN]
    raise ModelFailure(
        f"the model's tokenizer knows no language {language!r}; its special tokens are "
        f"{', '.join(known[:20]) or 'none'}",
        code="language_unknown",
    )
