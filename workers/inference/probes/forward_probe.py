"""The probe of batch invariance for models with one forward pass per row: classifiers, encoders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from jobs.settings import Settings
from workers.inference.batching.autotune_cache import TuningCache
from workers.inference.batching.batcher import BatchLayout
from workers.inference.batching.collator import Collator, Head, ModelInputs
from workers.inference.batching.tokenization import (
    HypothesisTokenizer,
    TokenWindow,
    WindowTokenizer,
)
from workers.inference.kernels import unpadding
from workers.inference.probes import batch_invariance, sample_rows
from workers.inference.probes.batch_invariance import InvarianceProbe, Layouts
from workers.inference.probes.batch_policy import BatchPolicy
from workers.inference.probes.sample_rows import SampleRows

MAX_SAMPLE_TOKENS = 1_100
"""Tokens of the longest row, for models that lack SDPA attention: some of these change how they
compute attention at 64 to 704 tokens."""


def apply_policy(
    head: Head,
    *,
    collator: Collator,
    window_tokenizer: WindowTokenizer | HypothesisTokenizer,
    tokenizer: PreTrainedTokenizerBase,
    settings: Settings,
    digest: str,
    variant: str,
    known: BatchPolicy | None = None,
) -> BatchPolicy:
    """Probe (or read from the cache) the batch policy, install it in collator and model, return it.

    ``variant`` names what else makes the same model compute differently. A ``known`` policy is
    used without a probe.
    """

    def probe() -> BatchPolicy:
        rows = _sample_rows(head, collator, window_tokenizer, tokenizer)
        return _probe(head, collator, rows)

    cache = TuningCache.of(
        settings,
        model=head.model,
        digest=digest,
        variant=variant,
        layout=collator.layout,
        window=window_tokenizer.window_size,
    )
    policy = known or batch_invariance.cached_policy(cache, probe, model=digest)
    if collator.layout is BatchLayout.PACKED and policy.layout is not BatchLayout.PACKED:
        unpadding.uninstall(head.model)
    collator.layout = policy.layout
    batch_invariance.install_reset_hooks(head.model, policy, snapshot=collator.snapshot)
    return policy


def _sample_rows(
    head: Head,
    collator: Collator,
    window_tokenizer: WindowTokenizer | HypothesisTokenizer,
    tokenizer: PreTrainedTokenizerBase,
) -> SampleRows:
    lacks_sdpa = not head.model._supports_sdpa  # noqa: SLF001 (no public name)
    return sample_rows.build(
        lambda texts: _first_windows(window_tokenizer, texts),
        tokenizer=tokenizer,
        tokens=collator.tokens,
        longest=min(window_tokenizer.window_size, MAX_SAMPLE_TOKENS) if lacks_sdpa else 0,
    )


def _first_windows(
    window_tokenizer: WindowTokenizer | HypothesisTokenizer, texts: list[str]
) -> list[TokenWindow | None]:
    tokenized = window_tokenizer.tokenize(texts)
    return [each.windows[0] if each.windows else None for each in tokenized]


def _probe(head: Head, collator: Collator, rows: SampleRows) -> BatchPolicy:
    model: Any = head.model

    def windows(indices: Sequence[int]) -> list[TokenWindow]:
        return [rows.windows[index] for index in indices]

    def without_unpadding(inputs: ModelInputs) -> torch.Tensor:
        with unpadding.suspended(model):
            return head.forward(inputs)

    def padded(indices: Sequence[int]) -> torch.Tensor:
        return without_unpadding(collator.padded(windows(indices)))

    def packed(indices: Sequence[int]) -> torch.Tensor:
        return head.forward(collator.packed(windows(indices)))

    with_long = [(0, index) for index in range(len(rows.short), len(rows.windows))]
    mixed = [rows.short, *with_long]
    layouts: Layouts = {
        BatchLayout.PADDED: (padded, mixed),
        BatchLayout.EQUAL_LENGTH: (padded, [rows.equal]),
    }
    if collator.layout is BatchLayout.PACKED:
        layouts = {BatchLayout.PACKED: (packed, mixed), **layouts}
    return InvarianceProbe(
        model,
        snapshot=collator.snapshot,
        alone=lambda index: padded([index])[0],
        rows=len(rows.windows),
    ).policy(layouts)
