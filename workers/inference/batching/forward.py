"""The forward pass: rows' windows through the model, batch by batch, into their outputs."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch

from jobs import progress
from jobs.progress import Beat
from jobs.row_codes import RowCode
from workers.inference.batching.batcher import BatchLayout
from workers.inference.batching.collator import Collator, Head
from workers.inference.batching.token_budget import BatchWork, TokenBudget
from workers.inference.batching.tokenization import TokenizedText, TokenWindow
from workers.inference.heads.label_decision import Floats


@dataclass(frozen=True, slots=True)
class RowError:
    """Why a row has no result."""

    code: RowCode
    message: str


NOT_FINITE = RowError(RowCode.NOT_FINITE, "the model's outputs for this text are not finite")


@dataclass(slots=True)
class Row:
    """A text in the engine: its windows, and after the forward pass the outputs of each."""

    tokenized: TokenizedText
    outputs: Floats  # (windows, width); NaN before the forward pass
    error: RowError | None = None

    @classmethod
    def of(cls, tokenized: TokenizedText | RowError, *, width: int) -> Self:
        """A row before its forward pass; one that could not be tokenized has an error already."""
        if isinstance(tokenized, RowError):
            nothing = TokenizedText(windows=(), truncated=False)
            return cls(nothing, np.empty((0, width)), error=tokenized)
        row = cls(tokenized, outputs=np.full((len(tokenized.windows), width), np.nan))
        if not tokenized.windows:
            row.error = RowError(RowCode.NO_TOKENS, "the tokenizer makes no token of this text")
        return row


@dataclass(frozen=True, slots=True)
class _RowWindow:
    row: Row
    index: int

    @property
    def window(self) -> TokenWindow:
        return self.row.tokenized.windows[self.index]


class ModelRunner:
    """A model with its head on its device, and the token budget that fits into its memory."""

    def __init__(self, head: Head, *, collator: Collator, budget: TokenBudget) -> None:
        self.head = head
        self._budget = budget
        self._collator = collator

    @property
    def budget(self) -> int:
        """Tokens that may go through the device together."""
        return self._budget.largest

    def run(self, rows: Sequence[Row], *, beat: Beat, share: float = 0.0) -> None:
        """Fill in the rows' outputs, longest windows first; calls ``beat`` after every batch.

        ``share``: how much of the chunk's work this is; each batch counts by its tokens.
        """
        windows = [
            _RowWindow(row, index) for row in rows for index in range(len(row.tokenized.windows))
        ]
        pending = _PendingOutputs()
        tokens = sum(len(item.window.ids) for item in windows)
        work = self._work(pending, beat=beat, share_of_token=share / max(tokens, 1))
        self._budget.run(windows, work)
        pending.collect()

    def run_alone(self, row: Row, *, beat: Beat) -> None:
        """Compute a row's outputs again, each window in a batch of its own."""
        pending = _PendingOutputs()
        for index in range(len(row.tokenized.windows)):
            self._budget.run_alone(_RowWindow(row, index), self._work(pending, beat=beat))
        pending.collect()

    def _work(
        self, pending: _PendingOutputs, *, beat: Beat, share_of_token: float = 0.0
    ) -> BatchWork[_RowWindow]:
        def run(batch: list[_RowWindow]) -> None:
            pending.add(batch, self._forward(batch))
            lengths = [len(item.window.ids) for item in batch]
            progress.advance(beat, share_of_token * sum(lengths))
            progress.computed(beat, tokens=sum(lengths), padding=self._padding(lengths))

        return BatchWork(
            length=lambda item: len(item.window.ids),
            run=run,
            refuse=_refuse,
            fail=_fail,
            beat=beat,
            finish=pending.collect,
            layout=self._collator.layout,
        )

    def _padding(self, lengths: list[int]) -> int:
        """Tokens of a batch that stand for nothing."""
        if self._collator.layout is BatchLayout.PACKED:
            return 0
        return len(lengths) * max(lengths) - sum(lengths)

    @torch.inference_mode()
    def _forward(self, batch: list[_RowWindow]) -> torch.Tensor:
        inputs = self._collator.collate([item.window for item in batch])
        return self.head.forward(inputs).float()


class _PendingOutputs:
    """Outputs on their way from the device: a GPU computes the next batch meanwhile."""

    def __init__(self) -> None:
        self._batches: deque[tuple[list[_RowWindow], torch.Tensor, torch.cuda.Event | None]] = (
            deque()
        )

    def add(self, batch: list[_RowWindow], outputs: torch.Tensor) -> None:
        """Start to copy a batch's outputs to the host; those of the batch before are collected."""
        copied = None
        if outputs.is_cuda:
            pinned = torch.empty(outputs.shape, dtype=outputs.dtype, pin_memory=True)
            outputs = pinned.copy_(outputs, non_blocking=True)
            copied = torch.cuda.current_stream().record_event()
        self._batches.append((batch, outputs, copied))
        self.collect(but=1 if copied else 0)

    def collect(self, *, but: int = 0) -> None:
        """Wait for outputs and fill them in; those of the last ``but`` batches stay pending."""
        while len(self._batches) > but:
            batch, outputs, copied = self._batches.popleft()
            if copied is not None:
                copied.synchronize()
            for item, output in zip(batch, outputs.cpu().double().numpy(), strict=True):
                item.row.outputs[item.index] = output


def _refuse(item: _RowWindow) -> None:
    message = f"a window of {len(item.window.ids)} tokens does not fit into the device's memory"
    item.row.error = RowError(RowCode.OUT_OF_MEMORY, message)


def _fail(item: _RowWindow, message: str) -> None:
    item.row.error = RowError(RowCode.ROW_FAILED, message)
