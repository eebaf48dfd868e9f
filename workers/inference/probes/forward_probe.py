"""The probe for models that are measured: classifiers and encoders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from jobs.settings import Settings
from workers.inference.batching.autotune_cache import TuningCache
from workers.inference.batching.batcher import Fill
from workers.inference.batching.collator import Family, Inputs, Padder
from workers.inference.batching.tokenization import PairReader, Reader, Window
from workers.inference.kernels import unpadding
from workers.inference.probes import batch_invariance, sample_rows
from workers.inference.probes.batch_invariance import Probe, Ways
from workers.inference.probes.batch_sharing import Verdict
from workers.inference.probes.sample_rows import Rows

LONGEST = 1_100
"""Tokens of the longest row, for models with an attention of their own: what is known of such
changes at 64 to 704 tokens."""


def share(
    family: Family,
    *,
    padder: Padder,
    reader: Reader | PairReader,
    tokenizer: PreTrainedTokenizerBase,
    settings: Settings,
    digest: str,
    kind: str,
    known: Verdict | None = None,
) -> Verdict:
    """Let batches be cut as the rows of this model may share them; how that is.

    ``kind`` tells apart what else is computed differently. A ``known`` verdict is taken as it is.
    """

    def probed() -> Verdict:
        rows = _rows(family, padder, reader, tokenizer)
        return _probed(family, padder, rows)

    cache = TuningCache.of(
        settings,
        model=family.model,
        digest=digest,
        kind=kind,
        fill=padder.fill,
        window=reader.window,
    )
    found = known or batch_invariance.remembered(cache, probed, model=digest)
    if padder.fill is Fill.PACK and found.fill is not Fill.PACK:
        unpadding.uninstall(family.model)
    padder.fill = found.fill
    batch_invariance.steady(family.model, found, fresh=padder.fresh)
    return found


def _rows(
    family: Family, padder: Padder, reader: Reader | PairReader, tokenizer: PreTrainedTokenizerBase
) -> Rows:
    own = not family.model._supports_sdpa  # noqa: SLF001 (no public name)
    return sample_rows.made_up(
        lambda texts: _read(reader, texts),
        tokenizer=tokenizer,
        tokens=padder.tokens,
        longest=min(reader.window, LONGEST) if own else 0,
    )


def _read(reader: Reader | PairReader, texts: list[str]) -> list[Window | None]:
    return [each.windows[0] if each.windows else None for each in reader.read(texts)]


def _probed(family: Family, padder: Padder, rows: Rows) -> Verdict:
    model: Any = family.model

    def some(numbers: Sequence[int]) -> list[Window]:
        return [rows.windows[number] for number in numbers]

    def as_it_came(inputs: Inputs) -> torch.Tensor:
        with unpadding.unpacked(model):
            return family.measure(inputs)

    def padded(numbers: Sequence[int]) -> torch.Tensor:
        return as_it_came(padder.padded(some(numbers)))

    def packed(numbers: Sequence[int]) -> torch.Tensor:
        return family.measure(padder.packed(some(numbers)))

    long = [(0, number) for number in range(len(rows.short), len(rows.windows))]
    mixed = [rows.short, *long]
    ways: Ways = {Fill.PAD: (padded, mixed), Fill.LENGTH: (padded, [rows.equal])}
    if padder.fill is Fill.PACK:
        ways = {Fill.PACK: (packed, mixed), **ways}
    alone = lambda number: padded([number])[0]  # noqa: E731
    return Probe(model, fresh=padder.fresh, alone=alone, rows=len(rows.windows)).verdict(ways)
