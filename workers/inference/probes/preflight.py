"""The preflight check: what a loaded model cannot do with a job's options, before the first row.

A text as long as the model may read, or ``MAX_SAMPLE_TOKENS`` tokens of it, goes through tokenizer
and model alone, with the options of the job. What raises there would raise for every row: the job
fails once. Running out of memory is not the model's fault. Keeps promise P4.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from jobs.decisions.crash_policy import Phase
from jobs.errors import ModelFailure
from jobs.models import compatibility
from workers import time_limits
from workers.inference import row_isolation, special_tokens
from workers.inference.batching import memory
from workers.inference.batching.chunk_runner import TextTokenizer
from workers.inference.batching.collator import Collator, Head
from workers.inference.batching.forward import RowError
from workers.inference.batching.tokenization import TokenWindow
from workers.inference.decoding.decoder import Decoder
from workers.inference.decoding.decoding_batch import Prompt
from workers.time_limits import TimeLimit

T = TypeVar("T")

BuildPrompt = Callable[[int, Any], Prompt | RowError]

MAX_SAMPLE_TOKENS = 1_024
"""Tokens at most: one row, so that it does not delay a first chunk."""

SAMPLE_TEXT = "The quick brown fox jumps over the lazy dog. 0123456789 球队赢得了决赛 été"
VOCABULARY_SAMPLE = 32
"""Tokens of the model's own vocabulary in the text, beside ``SAMPLE_TEXT``."""

NEW_TOKENS = 2
"""Tokens that are generated: the first by prefill, the second from the KV cache."""


def check_vocabulary(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, special: bool = False
) -> None:
    """Raise ``ModelFailure`` where the tokenizer has ids that the model has no embedding for.

    Added special tokens count only if ``special``: many models are published with such a padding
    token, and work. A row whose text has one is an error row.
    """
    ids = set(_vocabulary(tokenizer))
    if not special:
        ids -= _added_special(tokenizer)
    rows = special_tokens.embedding_rows(model)
    compatibility.check_vocabulary(rows, largest_token=max(ids, default=None))


def check_forward(
    head: Head,
    *,
    tokenizer: PreTrainedTokenizerBase,
    window_tokenizer: TextTokenizer,
    collator: Collator,
    width: int,
) -> None:
    """Raise ``ModelFailure`` unless the model returns ``width`` outputs for a long window."""
    words = text(tokenizer)
    with time_limits.trying(Phase.TOKENIZER):
        tokenized = _attempt("the tokenizer", lambda: window_tokenizer.tokenize([words])[0])
    if tokenized is None or not tokenized.windows:
        return
    # As many words as make MAX_SAMPLE_TOKENS tokens; they are cut to the model's window size.
    long = " ".join([words] * (1 + MAX_SAMPLE_TOKENS // tokenized.tokens))
    tokenized = _attempt("the tokenizer", lambda: window_tokenizer.tokenize([long])[0]) or tokenized
    window = tokenized.windows[0]
    actual = _attempt("the model", lambda: _output_width(head, collator, window))
    if actual is not None and actual != width:
        raise ModelFailure(
            f"the model must output {width} numbers for a text, as its config.json says, "
            f"and outputs {actual}"
        )


def check_generation(
    decoder: Decoder,
    *,
    tokenizer: PreTrainedTokenizerBase,
    build_prompt: BuildPrompt,
    max_prompt_tokens: int | None,
) -> None:
    """Raise ``ModelFailure`` unless the model generates tokens after a short and a long prompt.

    ``max_prompt_tokens``: tokens that a prompt may have.
    """
    with time_limits.trying(Phase.TOKENIZER):
        _attempt("the tokenizer", lambda: len(_encoded(tokenizer, text(tokenizer))))
    with time_limits.trying(Phase.TEMPLATE):
        prompt = _attempt(
            "the tokenizer or its chat template", lambda: _bounded(build_prompt, text(tokenizer))
        )
    short = prompt if isinstance(prompt, Prompt) else _short_prompt(build_prompt, tokenizer)
    if short is None:
        return
    most = min(NEW_TOKENS, short.max_new_tokens)
    longest = max(len(short.ids), min(MAX_SAMPLE_TOKENS, max_prompt_tokens or MAX_SAMPLE_TOKENS))
    ids = (short.ids * (1 + longest // len(short.ids)))[:longest]
    # An end-of-text token may be at the end only, as heads and decoders expect.
    long = Prompt(1, [*ids[:-1], short.ids[-1]], max_new_tokens=short.max_new_tokens)
    prompts = [long, short] if decoder.can_pad else [long]
    _attempt("the model", lambda: decoder.step(decoder.batch(prompts), most=most, beat=_no_beat))


def check_decoder(model: PreTrainedModel, *, steps: int, start: int) -> None:
    """Raise ``ModelFailure`` where a decoder has no position for the last token it may generate."""
    ids = torch.full((1, min(steps, MAX_SAMPLE_TOKENS)), start, device=model.device)
    encoder_inputs = {"input_ids": ids[:, :1], "attention_mask": torch.ones_like(ids[:, :1])}
    module: Any = model
    _attempt(
        f"the decoder, for the {ids.shape[1]} tokens of max_new_tokens,",
        lambda: _forward(module, decoder_input_ids=ids, **encoder_inputs),
    )


def text(tokenizer: PreTrainedTokenizerBase) -> str:
    """Plain words, and some of the tokenizer's own."""
    own: Any = tokenizer
    special = {*own.all_special_ids, *own.added_tokens_decoder}
    ids = sorted(set(_vocabulary(tokenizer)) - special)
    pieces = ids[:: max(1, len(ids) // VOCABULARY_SAMPLE)][:VOCABULARY_SAMPLE]
    return f"{SAMPLE_TEXT} {own.decode(pieces)}"


def _short_prompt(build_prompt: BuildPrompt, tokenizer: PreTrainedTokenizerBase) -> Prompt | None:
    """A prompt of one word, for a model that reads few tokens."""
    words = text(tokenizer).split()
    prompt = _attempt("the tokenizer or its chat template", lambda: build_prompt(0, words[-1]))
    return prompt if isinstance(prompt, Prompt) else None


def _attempt(who: str, work: Callable[[], T]) -> T | None:
    """The result of the work; ``None`` where memory was not enough. Raises ``ModelFailure``."""
    try:
        return work()
    except BaseException as error:
        if isinstance(error, Exception) and memory.is_out_of_memory(error):
            return None
        if not row_isolation.is_of_device(error):
            row_isolation.check(error)
        raise ModelFailure(
            f"{who} raises for a text of plain words, before the first row: "
            f"{row_isolation.reason(error)}",
            code="template_timeout" if isinstance(error, TimeLimit) else "model_raises",
        ) from error


def _bounded(build_prompt: BuildPrompt, words: str) -> Prompt | RowError:
    with time_limits.interrupted():
        return build_prompt(0, words)


def _encoded(tokenizer: Any, words: str) -> list[int]:
    ids: list[int] = tokenizer(words)["input_ids"]
    return ids


@torch.inference_mode()
def _output_width(head: Head, collator: Collator, window: TokenWindow) -> int:
    return head.forward(collator.collate([window])).shape[-1]


@torch.inference_mode()
def _forward(module: Any, **inputs: torch.Tensor) -> None:
    module(**inputs)


def _vocabulary(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    own: Any = tokenizer
    try:
        return list(own.get_vocab().values())
    except NotImplementedError:
        return []


def _added_special(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Ids of special tokens beyond the vocabulary itself."""
    own: Any = tokenizer
    try:
        size = own.vocab_size
    except NotImplementedError:
        return set()
    added = getattr(own, "added_tokens_decoder", {})
    return {id_ for id_, token in added.items() if token.special and id_ >= size}


def _no_beat() -> None:
    """Before the first row there is no chunk whose lease could be lost."""
