"""What several kinds ask of a model, as far as its files show; the rest is in ``jobs.kinds``.

Every refusal is a ``ModelFailure`` with a code of the list in ``jobs.models``.
"""

from __future__ import annotations

from jobs.errors import ModelFailure
from jobs.models.inspection import ModelFacts

CAUSAL = ("ForCausalLM", "LMHeadModel")
"""Endings of the architectures of causal language models."""

SEQ2SEQ = ("ForConditionalGeneration", "MTModel", "EncoderDecoderModel")
"""Endings of the architectures of encoders with a decoder."""


def check_reads_texts(facts: ModelFacts) -> None:
    """Raise ``ModelFailure`` for a model of images or sounds alone."""
    if not facts.has_tokenizer:
        raise ModelFailure(
            f"the model reads no texts: it has no tokenizer ({named(facts)})",
            code="model_no_tokenizer",
        )


def check_vocabulary(rows: int | None, *, largest_token: int | None) -> None:
    """Raise ``ModelFailure`` where texts become token ids beyond the table of embeddings."""
    if rows is None or largest_token is None or largest_token < rows:
        return
    raise ModelFailure(
        f"the model's tokenizer has token ids up to {largest_token}, and its table of embeddings "
        f"has {rows} rows (vocab_size): resize it with "
        "model.resize_token_embeddings(len(tokenizer)), train it, and save both",
        code="model_few_embeddings",
    )


def named(facts: ModelFacts) -> str:
    """The model's architecture, for a message."""
    return ", ".join(facts.architectures) or facts.model_type or "unknown"
