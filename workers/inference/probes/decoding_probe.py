"""The probe for models that write: what they output for the next tokens of a few prompts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessor, PreTrainedModel, PreTrainedTokenizerBase

from jobs.settings import Settings
from workers.inference.batching.autotune_cache import TuningCache
from workers.inference.batching.batcher import Fill
from workers.inference.batching.tokenization import Window
from workers.inference.decoding.decoder import Group, Prompt, Stepper
from workers.inference.probes import batch_invariance, sample_rows
from workers.inference.probes.batch_invariance import Probe, Ways
from workers.inference.probes.batch_sharing import Verdict
from workers.inference.probes.sample_rows import NoMemory, RowFails, Rows

STEPS = 2
"""Tokens written of each prompt: the first as it is read, the second from the cache."""


def share(
    stepper: Stepper,
    model: PreTrainedModel,
    *,
    tokenizer: PreTrainedTokenizerBase,
    settings: Settings,
    digest: str,
    room: int | None,
) -> Verdict:
    """Let a stepper's prompts share batches as they may; how that is.

    A prompt and what is written have ``room`` for this many tokens; ``None``: no limit is known.
    """
    usual = Verdict(stepper.fill, in_pieces=stepper.can_pause)
    longest = None if room is None else max(1, room - STEPS)

    def read(texts: list[str]) -> list[Window | None]:
        given: Any = tokenizer
        found = [list(ids)[:longest] for ids in given(texts)["input_ids"]]
        return [Window(ids=ids, types=[]) if ids else None for ids in found]

    def probed() -> Verdict:
        rows = sample_rows.made_up(read, tokenizer=tokenizer, tokens=stepper.tokens)
        with _plain(model, stepper) as plain:
            try:
                return _Trial(plain, rows).verdict(model, usual=usual)
            except RowFails as failure:
                if not usual.in_pieces or isinstance(failure, NoMemory):
                    raise
                # Perhaps it takes no cache but its own.
                whole = replace(usual, in_pieces=False)
                plain.obey(whole)
                return _Trial(plain, rows).verdict(model, usual=whole)

    cache = TuningCache.of(settings, model=model, digest=digest, kind="write", **usual.fields())
    found = batch_invariance.remembered(cache, probed, model=digest)
    stepper.obey(found)
    return found


@contextmanager
def _plain(model: PreTrainedModel, stepper: Stepper) -> Iterator[Stepper]:
    """The stepper without settings that change scores; within, the model has none of its own."""
    own = model.generation_config
    assert own is not None  # of a model that writes
    start = stepper.tokens.start if model.config.is_encoder_decoder else None
    made: Any = GenerationConfig
    config = made(
        pad_token_id=stepper.tokens.padding, decoder_start_token_id=start, use_cache=own.use_cache
    )
    model.generation_config = made()
    try:
        yield stepper.with_config(config)
    finally:
        model.generation_config = own


class _Forced(LogitsProcessor):
    """Keeps the scores of every step, and makes each row go on with a token of its prompt."""

    def __init__(self, group: Group) -> None:
        self.scores: list[torch.Tensor] = []
        self._lines = [(line.prompt.ids, len(line.new)) for line in group.lines]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        """Scores of which only the next token's is not minus infinity."""
        step = len(self.scores)
        self.scores.append(scores.float().cpu())
        forced = torch.full_like(scores, float("-inf"))
        for row, (ids, done) in zip(forced, self._lines, strict=True):
            row[ids[(done + step) % len(ids)] % len(row)] = 0.0
        return forced


class _Trial:
    """Made-up prompts through a stepper."""

    def __init__(self, stepper: Stepper, rows: Rows) -> None:
        self._stepper = stepper
        self._rows = rows
        self._prompts = [
            Prompt(place, window.ids, steps=STEPS) for place, window in enumerate(rows.windows)
        ]

    def verdict(self, model: Any, *, usual: Verdict) -> Verdict:
        """The closest way to share batches, no closer than is usual."""
        trial = Probe(
            model,
            fresh=self._stepper.fresh,
            alone=lambda row: self._together([row])[0],
            rows=len(self._prompts),
        )
        ways: Ways = {Fill.LENGTH: (self._together, [self._rows.equal])}
        if usual.fill is Fill.PAD:
            ways = {Fill.PAD: (self._together, [self._rows.short]), **ways}
        found = trial.verdict(ways)
        if not usual.in_pieces or found.fill is not Fill.PAD:
            return replace(found, in_pieces=False)
        return replace(found, in_pieces=trial.agrees(self._in_pieces, self._rows.short))

    def _together(self, rows: Sequence[int]) -> torch.Tensor:
        """Scores (rows, steps, vocabulary)."""
        return self._stepped(self._group(rows), STEPS)

    def _in_pieces(self, rows: Sequence[int]) -> torch.Tensor:
        """The same where some rows join others whose first token is written."""
        half = len(rows) // 2
        one, other = self._group(rows[:half]), self._group(rows[half:])
        firsts = [self._stepped(each, 1) for each in (one, other)]
        one.join(other)
        return torch.cat([torch.cat(firsts), self._stepped(one, STEPS - 1)], dim=1)

    def _group(self, rows: Sequence[int]) -> Group:
        return self._stepper.group([self._prompts[row] for row in rows])

    def _stepped(self, group: Group, steps: int) -> torch.Tensor:
        forced = _Forced(group)
        self._stepper.step(group, most=steps, beat=lambda: None, after=[forced])
        return torch.stack(forced.scores, dim=1)
