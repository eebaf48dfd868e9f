"""The probe of batch invariance for models that generate text: their scores for the next tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessor, PreTrainedModel, PreTrainedTokenizerBase

from jobs.settings import Settings
from workers.inference.batching.autotune_cache import TuningCache
from workers.inference.batching.batcher import BatchLayout
from workers.inference.batching.tokenization import TokenWindow
from workers.inference.decoding.decoder import Decoder
from workers.inference.decoding.decoding_batch import DecodingBatch, Prompt
from workers.inference.probes import batch_invariance, sample_rows
from workers.inference.probes.batch_invariance import InvarianceProbe, Layouts
from workers.inference.probes.batch_policy import BatchPolicy
from workers.inference.probes.sample_rows import (
    SampleRowFailed,
    SampleRows,
    SampleRowsOutOfMemory,
)

NEW_TOKENS = 2
"""Tokens generated for each prompt: the first by prefill, the second from the KV cache."""


def apply_policy(
    decoder: Decoder,
    model: PreTrainedModel,
    *,
    tokenizer: PreTrainedTokenizerBase,
    settings: Settings,
    digest: str,
    max_total_tokens: int | None,
) -> BatchPolicy:
    """Probe (or read from the cache) the batch policy, install it in the decoder, and return it.

    ``max_total_tokens``: of a prompt and its output together; ``None``: no limit is known.
    """
    usual = BatchPolicy(decoder.layout, in_pieces=decoder.supports_continuous_batching)
    longest = None if max_total_tokens is None else max(1, max_total_tokens - NEW_TOKENS)

    def tokenize(texts: list[str]) -> list[TokenWindow | None]:
        own: Any = tokenizer
        encoded = [list(ids)[:longest] for ids in own(texts)["input_ids"]]
        return [TokenWindow(ids=ids, type_ids=[]) if ids else None for ids in encoded]

    def probe() -> BatchPolicy:
        rows = sample_rows.build(tokenize, tokenizer=tokenizer, tokens=decoder.tokens)
        with _plain_decoder(model, decoder) as plain:
            try:
                return _DecodingProbe(plain, rows).policy(model, usual=usual)
            except SampleRowFailed as failure:
                if not usual.in_pieces or isinstance(failure, SampleRowsOutOfMemory):
                    raise
                # Perhaps the model takes no KV cache but its own.
                whole = replace(usual, in_pieces=False)
                plain.apply(whole)
                return _DecodingProbe(plain, rows).policy(model, usual=whole)

    cache = TuningCache.of(
        settings, model=model, digest=digest, variant="decoding", **usual.fields()
    )
    policy = batch_invariance.cached_policy(cache, probe, model=digest)
    decoder.apply(policy)
    return policy


@contextmanager
def _plain_decoder(model: PreTrainedModel, decoder: Decoder) -> Iterator[Decoder]:
    """The decoder without settings that change scores; within, the model has none of its own."""
    own = model.generation_config
    assert own is not None  # every model that generates has one
    start = decoder.tokens.start if model.config.is_encoder_decoder else None
    make: Any = GenerationConfig
    config = make(
        pad_token_id=decoder.tokens.padding, decoder_start_token_id=start, use_cache=own.use_cache
    )
    model.generation_config = make()
    try:
        yield decoder.with_config(config)
    finally:
        model.generation_config = own


class _TeacherForcing(LogitsProcessor):
    """Records the scores of every step, and continues each row with a token of its prompt."""

    def __init__(self, batch: DecodingBatch) -> None:
        self.scores: list[torch.Tensor] = []
        self._sequences = [(each.prompt.ids, len(each.new_tokens)) for each in batch.sequences]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        """Scores that are minus infinity except for the forced token's."""
        step = len(self.scores)
        self.scores.append(scores.float().cpu())
        forced = torch.full_like(scores, float("-inf"))
        for row, (ids, done) in zip(forced, self._sequences, strict=True):
            row[ids[(done + step) % len(ids)] % len(row)] = 0.0
        return forced


class _DecodingProbe:
    """Sample prompts through a decoder."""

    def __init__(self, decoder: Decoder, rows: SampleRows) -> None:
        self._decoder = decoder
        self._rows = rows
        self._prompts = [
            Prompt(row, window.ids, max_new_tokens=NEW_TOKENS)
            for row, window in enumerate(rows.windows)
        ]

    def policy(self, model: Any, *, usual: BatchPolicy) -> BatchPolicy:
        """The closest layout that the probe allows, no closer than ``usual``."""
        probe = InvarianceProbe(
            model,
            snapshot=self._decoder.snapshot,
            alone=lambda row: self._together([row])[0],
            rows=len(self._prompts),
        )
        layouts: Layouts = {BatchLayout.EQUAL_LENGTH: (self._together, [self._rows.equal])}
        if usual.layout is BatchLayout.PADDED:
            layouts = {BatchLayout.PADDED: (self._together, [self._rows.short]), **layouts}
        policy = probe.policy(layouts)
        if not usual.in_pieces or policy.layout is not BatchLayout.PADDED:
            return replace(policy, in_pieces=False)
        return replace(policy, in_pieces=probe.is_invariant(self._in_pieces, self._rows.short))

    def _together(self, rows: Sequence[int]) -> torch.Tensor:
        """Scores (rows, steps, vocabulary)."""
        return self._scores(self._batch(rows), NEW_TOKENS)

    def _in_pieces(self, rows: Sequence[int]) -> torch.Tensor:
        """The same where some rows join others after their first token."""
        half = len(rows) // 2
        one, other = self._batch(rows[:half]), self._batch(rows[half:])
        first = [self._scores(each, 1) for each in (one, other)]
        one.join(other)
        return torch.cat([torch.cat(first), self._scores(one, NEW_TOKENS - 1)], dim=1)

    def _batch(self, rows: Sequence[int]) -> DecodingBatch:
        return self._decoder.batch([self._prompts[row] for row in rows])

    def _scores(self, batch: DecodingBatch, steps: int) -> torch.Tensor:
        forcing = _TeacherForcing(batch)
        self._decoder.step(batch, most=steps, beat=lambda: None, after=[forcing])
        return torch.stack(forcing.scores, dim=1)
