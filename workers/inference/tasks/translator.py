"""Text to text, such as translation: an encoder reads each row's text, and a decoder generates."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import AutoModelForSeq2SeqLM, GenerationConfig, PreTrainedTokenizerBase

from jobs.errors import ModelFailure
from jobs.kinds import Text2TextOptions
from jobs.models.inspection import ModelFacts
from jobs.progress import Beat
from jobs.row_codes import RowCode
from jobs.settings import Settings
from workers.inference import model_loader
from workers.inference.batching.forward import RowError
from workers.inference.batching.tokenization import DEFAULT_WINDOW
from workers.inference.decoding import text_generation
from workers.inference.decoding.decoding_batch import Prompt
from workers.inference.decoding.text_generation import GeneratedText, TextGenerator
from workers.inference.probes import preflight

NOT_LANGUAGES = frozenset({"<s>", "</s>", "<pad>", "<unk>", "<mask>"})
"""Special tokens that do not stand for a language."""


class SourceTokenizer:
    """Tokenizes rows for the encoder, truncated to its window."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, *, options: Text2TextOptions, window_size: int
    ) -> None:
        self._tokenizer: Any = tokenizer
        self._prompt = options.prompt or ""
        self._max_new_tokens = options.max_new_tokens
        self._window_size = window_size

    def prompt(self, row: int, text: str) -> Prompt | RowError:
        """The row's tokens, the end-of-text token included."""
        if not self._tokenizer(text, add_special_tokens=False)["input_ids"]:
            return RowError(RowCode.NO_TOKENS, "the tokenizer makes no token of this text")
        whole, size = self._prompt + text, self._window_size
        ids = self._tokenizer(whole)["input_ids"]
        if len(ids) <= size:
            return Prompt(row, ids, max_new_tokens=self._max_new_tokens)
        truncated = self._tokenizer(whole, truncation=True, max_length=size)["input_ids"]
        return Prompt(row, truncated, max_new_tokens=self._max_new_tokens, truncated=True)


class Translator:
    """A loaded encoder-decoder. For one thread at a time."""

    def __init__(self, generator: TextGenerator, *, sources: SourceTokenizer, digest: str) -> None:
        self.digest = digest
        self.batch_policy = generator.batch_policy
        self._generator = generator
        self._sources = sources

    def answer(
        self, texts: Mapping[int, str], *, beat: Beat
    ) -> dict[int, GeneratedText | RowError]:
        """A text for every row; equal texts have one output."""
        return self._generator.answer_distinct(texts, build_prompt=self._sources.prompt, beat=beat)


def load(
    folder: Path, options: Text2TextOptions, *, facts: ModelFacts, settings: Settings
) -> Translator:
    """The folder's encoder-decoder on this process's device. Raises ``ModelFailure``."""
    auto: Any = AutoModelForSeq2SeqLM
    tokenizer = model_loader.tokenizer(folder)
    model = model_loader.model(folder, auto=auto, options=options)
    if options.source_language is not None:
        _set_source_language(tokenizer, options.source_language)
    target = options.target_language
    preflight.check_vocabulary(model, tokenizer)
    config = text_generation.generation_config(
        model,
        tokenizer,
        options=options,
        num_beams=options.beams,
        length_penalty=options.length_penalty,
        no_repeat_ngram_size=options.no_repeat_ngram,
        forced_bos_token_id=None if target is None else _language_token(tokenizer, target),
    )
    limits = [limit for limit in (facts.max_tokens, options.max_tokens) if limit is not None]
    window_size = min(limits, default=DEFAULT_WINDOW)
    generator = TextGenerator(
        model,
        tokenizer=tokenizer,
        config=config,
        options=options,
        settings=settings,
        digest=facts.digest,
        max_total_tokens=facts.max_tokens,
    )
    sources = SourceTokenizer(tokenizer, options=options, window_size=window_size)
    preflight.check_decoder(model, steps=options.max_new_tokens, start=_start_token(config))
    generator.check(build_prompt=sources.prompt, max_prompt_tokens=window_size)
    return Translator(generator, sources=sources, digest=facts.digest)


def _start_token(config: GenerationConfig) -> int:
    """The token that an output begins with, found as the library does."""
    for token in (config.decoder_start_token_id, config.bos_token_id):
        first = token[0] if isinstance(token, list) and token else token
        if isinstance(first, int):
            return first
    raise ModelFailure(
        "the model's generation_config.json must have a decoder_start_token_id (or a "
        "bos_token_id), the token that a text begins with; both are null",
        code="model_no_start_token",
    )


def _set_source_language(tokenizer: Any, language: str) -> None:
    _language_token(tokenizer, language)
    if not hasattr(tokenizer, "src_lang"):
        raise ModelFailure(
            "the model's tokenizer knows no source language: leave text2text.source_language out",
            code="language_unknown",
        )
    tokenizer.src_lang = language


def _language_token(tokenizer: Any, language: str) -> int:
    """The id of the token that stands for a language, spelt as in the tokenizer's files."""
    for name in (language, f"__{language}__"):  # the second as in M2M100
        token = tokenizer.convert_tokens_to_ids(name)
        if token is not None and token != tokenizer.unk_token_id:
            return int(token)
    known = [token for token in tokenizer.all_special_tokens if token not in NOT_LANGUAGES]
    raise ModelFailure(
        f"the model's tokenizer knows no language {language!r}; its special tokens are "
        f"{', '.join(known[:20]) or 'none'}",
        code="language_unknown",
    )
