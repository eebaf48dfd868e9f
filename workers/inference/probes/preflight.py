"""What a loaded model cannot do with a job's options, found by one small pass before its first row.

A text as long as the model may read, or ``LONGEST`` tokens of it, goes through tokenizer and model
alone, with the options of the job. What raises there would raise for every row: the job fails once.
Running out of memory is no fault of the model. Keeps promise P4.
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
from workers.inference.batching.chunk_pass import Reads
from workers.inference.batching.collator import Family, Padder
from workers.inference.batching.forward import RowError
from workers.inference.batching.tokenization import Window
from workers.inference.decoding.decoder import Prompt, Stepper
from workers.time_limits import TimeLimit

T = TypeVar("T")

LONGEST = 1_024
"""Tokens at most: one row, so that a first chunk does not wait for it."""

PLAIN = "The quick brown fox jumps over the lazy dog. 0123456789 球队赢得了决赛 été"
PIECES = 32
"""Tokens of the model's own vocabulary that the text has beside ``PLAIN``."""

STEPS = 2
"""Tokens that are written: the first reads the prompt, the second the cache."""


def check_vocabulary(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, special: bool = False
) -> None:
    """Raise ``ModelFailure`` where the tokenizer has ids that the table of embeddings lacks.

    Special tokens that were added to it count only on request: many a model is published with such
    a padding token, and works. A row that spells one out is an error of its own.
    """
    known = set(_vocabulary(tokenizer))
    if not special:
        known -= _added_special(tokenizer)
    rows = special_tokens.table(model)
    compatibility.check_vocabulary(rows, largest_token=max(known, default=None))


def check_measuring(
    family: Family,
    *,
    tokenizer: PreTrainedTokenizerBase,
    reader: Reads,
    padder: Padder,
    numbers: int,
) -> None:
    """Raise ``ModelFailure`` unless the model outputs this many numbers for a long window."""
    words = text(tokenizer)
    with time_limits.trying(Phase.TOKENIZER):
        reading = _tried("the tokenizer", lambda: reader.read([words])[0])
    if reading is None or not reading.windows:
        return
    # As many of the words as make LONGEST tokens; the reader cuts them to the model's own window.
    long = " ".join([words] * (1 + LONGEST // reading.tokens))
    reading = _tried("the tokenizer", lambda: reader.read([long])[0]) or reading
    window = reading.windows[0]
    found = _tried("the model", lambda: _measured(family, padder, window))
    if found is not None and found != numbers:
        raise ModelFailure(
            f"the model must output {numbers} numbers for a text, as its config.json says, "
            f"and outputs {found}"
        )


def check_writing(
    stepper: Stepper,
    *,
    tokenizer: PreTrainedTokenizerBase,
    read: Callable[[int, Any], Prompt | RowError],
    room: int | None,
) -> None:
    """Raise ``ModelFailure`` unless the model writes a few tokens after a short and a long prompt.

    ``room``: tokens that a prompt may have.
    """
    with time_limits.trying(Phase.TOKENIZER):
        _tried("the tokenizer", lambda: len(_encoded(tokenizer, text(tokenizer))))
    with time_limits.trying(Phase.TEMPLATE):
        read_text = _tried(
            "the tokenizer or its chat template", lambda: _bounded(read, text(tokenizer))
        )
    short = read_text if isinstance(read_text, Prompt) else _prompt(read, tokenizer)
    if short is None:
        return
    most = min(STEPS, short.steps)
    longest = max(len(short.ids), min(LONGEST, room or LONGEST))
    ids = (short.ids * (1 + longest // len(short.ids)))[:longest]
    # The end of a text may stand at its end alone, as heads and decoders ask for it.
    long = Prompt(1, [*ids[:-1], short.ids[-1]], steps=short.steps)
    batch = [long, short] if stepper.can_pad else [long]
    _tried("the model", lambda: stepper.step(stepper.group(batch), most=most, beat=_no_beat))


def check_decoder(model: PreTrainedModel, *, steps: int, start: int) -> None:
    """Raise ``ModelFailure`` where a decoder has no position for the last token it may write."""
    ids = torch.full((1, min(steps, LONGEST)), start, device=model.device)
    given = {"input_ids": ids[:, :1], "attention_mask": torch.ones_like(ids[:, :1])}
    module: Any = model
    _tried(
        f"the decoder, for the {ids.shape[1]} tokens of max_new_tokens,",
        lambda: _forward(module, decoder_input_ids=ids, **given),
    )


def text(tokenizer: PreTrainedTokenizerBase) -> str:
    """Plain words, and some of the tokenizer's own."""
    known: Any = tokenizer
    special = {*known.all_special_ids, *known.added_tokens_decoder}
    ids = sorted(set(_vocabulary(tokenizer)) - special)
    own = ids[:: max(1, len(ids) // PIECES)][:PIECES]
    return f"{PLAIN} {known.decode(own)}"


def _prompt(
    read: Callable[[int, Any], Prompt | RowError], tokenizer: PreTrainedTokenizerBase
) -> Prompt | None:
    """A prompt for a model with little room."""
    words = text(tokenizer).split()
    found = _tried("the tokenizer or its chat template", lambda: read(0, words[-1]))
    return found if isinstance(found, Prompt) else None


def _tried(who: str, work: Callable[[], T]) -> T | None:
    """What the work returns; ``None`` where memory was not enough."""
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


def _bounded(read: Callable[[int, Any], Prompt | RowError], words: str) -> Prompt | RowError:
    with time_limits.interrupted():
        return read(0, words)


def _encoded(tokenizer: Any, words: str) -> list[int]:
    ids: list[int] = tokenizer(words)["input_ids"]
    return ids


@torch.inference_mode()
def _measured(family: Family, padder: Padder, window: Window) -> int:
    return family.measure(padder.inputs([window])).shape[-1]


@torch.inference_mode()
def _forward(module: Any, **inputs: torch.Tensor) -> None:
    module(**inputs)


def _vocabulary(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    known: Any = tokenizer
    try:
        return list(known.get_vocab().values())
    except NotImplementedError:
        return []


def _added_special(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Ids of special tokens that stand beside the vocabulary itself."""
    known: Any = tokenizer
    try:
        own = known.vocab_size
    except NotImplementedError:
        return set()
    added = getattr(known, "added_tokens_decoder", {})
    return {place for place, token in added.items() if token.special and place >= own}


def _no_beat() -> None:
    """Nobody waits yet."""
