"""How rows may share a batch: found with a few made-up rows when a model is loaded.

No model is trusted to ignore padding, or to compute a row beside others as it does alone. A few
rows go through it alone and together, and the first way to share a batch that moves no number by
more than rounding does is taken (promise P6, decision 0028). Right is what the freshly loaded model
computes for a row alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import structlog
import torch
from torch import nn

from workers.inference.batching.autotune_cache import TuningCache
from workers.inference.batching.batcher import Fill
from workers.inference.probes import sample_rows
from workers.inference.probes.batch_sharing import Verdict
from workers.inference.probes.module_snapshot import Snapshot
from workers.inference.probes.sample_rows import NoMemory, RowFails

log = structlog.get_logger()

VERDICT = "sharing"

NOISE = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
"""How far rounding may move a number in a batch, relative to the largest of all rows' numbers."""

CHANGES = "a forward pass changes the model, which is put back before each"

Measure = Callable[[Sequence[int]], torch.Tensor]
"""Numbers (rows, ...) that the model outputs for some of the made-up rows together."""

Ways = Mapping[Fill, tuple[Measure, Sequence[Sequence[int]]]]
"""How rows of each group go through the model together, best way first."""


def remembered(cache: TuningCache, probe: Callable[[], Verdict], *, model: str) -> Verdict:
    """The verdict of an earlier load on this machine, or that of a probe, which is then kept.

    Where a made-up row fails, no row shares a batch: what is wrong is for the rows to show.
    """
    found = cache.get(VERDICT, Verdict.read)
    if found is None:
        try:
            found = probe()
        except RowFails as failure:
            found = Verdict(Fill.ALONE, reason=str(failure))
        else:
            cache.keep(VERDICT, found.fields())
    log.info("rows share batches", model=model, how=str(found), **found.fields())
    return found


def steady(model: nn.Module, verdict: Verdict, *, fresh: Snapshot) -> None:
    """Let every forward pass begin as that of a freshly loaded model."""
    if verdict.resets:
        model.register_forward_pre_hook(lambda *_: fresh.restore())
    if verdict.seeds:
        model.register_forward_pre_hook(lambda *_: seed())


def seed() -> None:
    """Let the random numbers that a model draws while it computes be the same each time."""
    torch.manual_seed(0)


class Probe:
    """A model and what it outputs for a few rows. For one verdict."""

    def __init__(
        self,
        model: nn.Module,
        *,
        fresh: Snapshot,
        alone: Callable[[int], torch.Tensor],
        rows: int,
    ) -> None:
        self._loaded = fresh
        self._alone = alone
        self._rows = range(rows)
        dtype: Any = model.dtype
        self._noise = NOISE.get(dtype, max(NOISE.values()))
        self._resets = self._seeds = False
        self._right: list[torch.Tensor] = []

    @torch.inference_mode()
    def verdict(self, ways: Ways) -> Verdict:
        """The first way in which all rows of its groups are together what they are alone.

        Raises ``RowFails``.
        """
        try:
            reason = self._begin()
            found = None if self._seeds else self._first(ways if not reason else _unpadded(ways))
        finally:
            self._loaded.restore()
        kept = {"resets": self._resets, "seeds": self._seeds}
        if self._seeds:
            reason = "the model draws random numbers, which are the same ones for each row"
        elif found is None:
            reason = "together they are not computed as alone"
        elif not reason and found is not next(iter(ways)):
            reason = "padding changes the numbers"
        return Verdict(found or Fill.ALONE, **kept, reason=reason)

    def agrees(self, measure: Measure, rows: Sequence[int]) -> bool:
        """Whether these rows together are as each is alone."""
        try:
            found = sample_rows.tried(lambda: self._fresh(lambda: measure(rows)))
        except NoMemory:
            raise
        except RowFails:  # the model cannot do it with several
            return False
        return self._close(found, torch.stack([self._right[row] for row in rows]))

    def _begin(self) -> str:
        """Measure each row alone; why rows of different lengths must not meet, if that is known."""
        self._loaded.restore()
        self._right = [self._measured(row) for row in self._rows]
        changed, otherwise = self._loaded.changed, self._loaded.behaves_otherwise
        if changed:
            self._resets = True
            self._right = [self._measured(row) for row in self._rows]
        ends = {self._rows[0], self._rows[-1]}
        if not all(self._close(self._measured(row), self._right[row]) for row in ends):
            self._seeds = True
        return (
            "a forward pass changes the model, which is put back before each" if otherwise else ""
        )

    def _first(self, ways: Ways) -> Fill | None:
        for way, (measure, groups) in ways.items():
            if all(self.agrees(measure, group) for group in groups):
                return way
        return None

    def _measured(self, row: int) -> torch.Tensor:
        return sample_rows.tried(lambda: self._fresh(lambda: self._alone(row)))

    def _fresh(self, measure: Callable[[], torch.Tensor]) -> torch.Tensor:
        if self._resets:
            self._loaded.restore()
        if self._seeds:
            seed()
        return measure().float()

    def _close(self, found: torch.Tensor, right: torch.Tensor) -> bool:
        finite = right.isfinite()
        if found.shape != right.shape or not torch.equal(found.isfinite(), finite):
            return False
        apart = (found - right)[finite].abs()
        largest = max(map(_largest, self._right))
        return not apart.numel() or apart.max().item() <= self._noise * largest


def _largest(numbers: torch.Tensor) -> float:
    finite = numbers[numbers.isfinite()].abs()
    return finite.max().item() if finite.numel() else 0.0


def _unpadded(ways: Ways) -> Ways:
    """Those in which all rows of a batch have one length."""
    return {way: how for way, how in ways.items() if way not in (Fill.PACK, Fill.PAD)}
