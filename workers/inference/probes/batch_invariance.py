"""The probe of batch invariance: how rows may share a batch, found when a model is loaded.

No model is trusted to ignore padding, or to compute a row the same in a batch as alone. A few
sample rows go through it alone and together, and the first batch layout that changes no output by
more than rounding does is used (promise P6, decision 0028). The reference is what the freshly
loaded model computes for a row alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import structlog
import torch
from torch import nn

from workers.inference.batching.autotune_cache import TuningCache
from workers.inference.batching.batcher import BatchLayout
from workers.inference.probes import sample_rows
from workers.inference.probes.batch_policy import BatchPolicy
from workers.inference.probes.module_snapshot import ModuleSnapshot
from workers.inference.probes.sample_rows import SampleRowFailed, SampleRowsOutOfMemory

log = structlog.get_logger()

CACHE_NAME = "batch_policy"

ROUNDING_TOLERANCE = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
"""How far rounding may move an output in a batch, relative to the largest output of all rows."""

Forward = Callable[[Sequence[int]], torch.Tensor]
"""Outputs (rows, ...) of the model for some sample rows in one batch."""

Layouts = Mapping[BatchLayout, tuple[Forward, Sequence[Sequence[int]]]]
"""For each layout, preferred ones first: how rows share a batch, and the groups to try it on."""


def cached_policy(
    cache: TuningCache, probe: Callable[[], BatchPolicy], *, model: str
) -> BatchPolicy:
    """The policy from an earlier load on this machine, or that of a probe, which is then cached.

    Where a sample row fails, every row has a batch of its own: the fault will show in the rows.
    """
    policy = cache.get(CACHE_NAME, BatchPolicy.read)
    if policy is None:
        try:
            policy = probe()
        except SampleRowFailed as failure:
            policy = BatchPolicy(BatchLayout.SINGLE, reason=str(failure))
        else:
            cache.keep(CACHE_NAME, policy.fields())
    log.info("rows share batches", model=model, how=str(policy), **policy.fields())
    return policy


def install_reset_hooks(model: nn.Module, policy: BatchPolicy, *, snapshot: ModuleSnapshot) -> None:
    """Let every forward pass begin as that of a freshly loaded model, where the policy says so."""
    if policy.resets:
        model.register_forward_pre_hook(lambda *_: snapshot.restore())
    if policy.seeds:
        model.register_forward_pre_hook(lambda *_: seed())


def seed() -> None:
    """Let a model that draws random numbers in its forward pass draw the same ones each time."""
    torch.manual_seed(0)


class InvarianceProbe:
    """A model and its outputs for a few sample rows. For one policy."""

    def __init__(
        self,
        model: nn.Module,
        *,
        snapshot: ModuleSnapshot,
        alone: Callable[[int], torch.Tensor],
        rows: int,
    ) -> None:
        self._snapshot = snapshot
        self._alone = alone
        self._rows = range(rows)
        dtype: Any = model.dtype
        self._tolerance = ROUNDING_TOLERANCE.get(dtype, max(ROUNDING_TOLERANCE.values()))
        self._resets = self._seeds = False
        self._reference: list[torch.Tensor] = []

    @torch.inference_mode()
    def policy(self, layouts: Layouts) -> BatchPolicy:
        """The first layout in which all rows of its groups have the outputs that they have alone.

        Raises ``SampleRowFailed``.
        """
        try:
            reason = self._compute_reference()
            allowed = layouts if not reason else _without_padding(layouts)
            layout = None if self._seeds else self._first_invariant(allowed)
        finally:
            self._snapshot.restore()
        if self._seeds:
            reason = "the model draws random numbers, which are the same ones for each row"
        elif layout is None:
            reason = "together they are not computed as alone"
        elif not reason and layout is not next(iter(layouts)):
            reason = "padding changes the numbers"
        return BatchPolicy(
            layout or BatchLayout.SINGLE, resets=self._resets, seeds=self._seeds, reason=reason
        )

    def is_invariant(self, forward: Forward, rows: Sequence[int]) -> bool:
        """Whether these rows in one batch have the outputs that each has alone."""
        try:
            outputs = sample_rows.attempt(
                lambda: self._forward_from_fresh_state(lambda: forward(rows))
            )
        except SampleRowsOutOfMemory:
            raise
        except SampleRowFailed:  # the model cannot compute several rows together
            return False
        return self._close(outputs, torch.stack([self._reference[row] for row in rows]))

    def _compute_reference(self) -> str:
        """Compute each row alone; the reason why no layout may mix lengths, if there is one."""
        self._snapshot.restore()
        self._reference = [self._output(row) for row in self._rows]
        changed, behaves_differently = self._snapshot.changed, self._snapshot.behaves_differently
        if changed:
            self._resets = True
            self._reference = [self._output(row) for row in self._rows]
        ends = {self._rows[0], self._rows[-1]}
        if not all(self._close(self._output(row), self._reference[row]) for row in ends):
            self._seeds = True
        if behaves_differently:
            return "a forward pass changes the model, which is put back before each"
        return ""

    def _first_invariant(self, layouts: Layouts) -> BatchLayout | None:
        for layout, (forward, groups) in layouts.items():
            if all(self.is_invariant(forward, group) for group in groups):
                return layout
        return None

    def _output(self, row: int) -> torch.Tensor:
        return sample_rows.attempt(lambda: self._forward_from_fresh_state(lambda: self._alone(row)))

    def _forward_from_fresh_state(self, forward: Callable[[], torch.Tensor]) -> torch.Tensor:
        if self._resets:
            self._snapshot.restore()
        if self._seeds:
            seed()
        return forward().float()

    def _close(self, outputs: torch.Tensor, reference: torch.Tensor) -> bool:
        finite = reference.isfinite()
        if outputs.shape != reference.shape or not torch.equal(outputs.isfinite(), finite):
            return False
        differences = (outputs - reference)[finite].abs()
        largest = max(map(_largest, self._reference))
        return not differences.numel() or differences.max().item() <= self._tolerance * largest


def _largest(outputs: torch.Tensor) -> float:
    finite = outputs[outputs.isfinite()].abs()
    return finite.max().item() if finite.numel() else 0.0


def _without_padding(layouts: Layouts) -> Layouts:
    """The layouts in which all rows of a batch have one length."""
    mixed = (BatchLayout.PACKED, BatchLayout.PADDED)
    return {layout: how for layout, how in layouts.items() if layout not in mixed}
