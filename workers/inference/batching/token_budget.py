"""A token budget for batches, adapted to the memory that there is; and which items of a batch fail.

Keeps promise P4: a batch that raises is halved until the items that raise alone are found.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from workers.inference import row_isolation
from workers.inference.batching import batcher, memory
from workers.inference.batching.autotune import BatchSizeTrial
from workers.inference.batching.batcher import BatchLayout

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class BatchWork(Generic[T]):
    """What to do with items in batches."""

    length: Callable[[T], int]  # tokens of an item
    run: Callable[[list[T]], None]  # a batch through the device
    refuse: Callable[[T], None]  # an item that does not fit into memory even alone
    fail: Callable[[T, str], None]  # an item that raises even alone, and its error message
    beat: Callable[[], None]  # after every batch
    finish: Callable[[], None]  # wait until the device has finished all batches
    layout: BatchLayout = BatchLayout.PADDED


class TokenBudget:
    """The number of tokens in a batch that fits into the device's memory, as far as is known.

    During a trial it is the size whose turn it is.
    """

    def __init__(self, tokens: int, *, trial: BatchSizeTrial | None = None) -> None:
        self.tokens = tokens
        self._default = tokens
        self._ran_out = False
        self._trial = trial
        self.tally = row_isolation.FaultTally("the model")

    @property
    def largest(self) -> int:
        """Tokens of the largest batch that may come."""
        return self.tokens if self._trial is None else self._trial.largest

    def run(self, items: Sequence[T], work: BatchWork[T]) -> None:
        """Run every item, longest first, in batches within the budget, padding included.

        When memory runs out the budget halves, and the remaining items are batched again. Raises
        ``ModelFailure`` where all items raise alike, and ``DeviceFailed``.
        """
        left = list(items)
        while left:
            trial = self._trial
            left = (
                self._run_until_out_of_memory(left, work)
                if trial is None
                else self._run_trial_batch(left, work, trial)
            )

    def run_alone(self, item: T, work: BatchWork[T]) -> None:
        """Run one item in a batch of its own."""
        self._run_batch([item], work)
        work.beat()

    def fits_in_memory(self, run: Callable[[], None], *, release: Callable[[], None]) -> bool:
        """Whether ``run`` had enough memory; if not, ``release`` drops what it allocated."""
        try:
            run()
        except (RuntimeError, MemoryError) as error:
            if not memory.is_out_of_memory(error):
                raise
        else:
            return True
        self._ran_out = True
        # Out here, where the error no longer holds the tensors that did not fit.
        release()
        memory.empty_cache()
        return False

    def halve(self, lengths: Sequence[int]) -> None:
        """Halve the budget: items of these lengths did not fit together."""
        size = len(lengths) * max(lengths)
        self.tokens = max(1, min(self.tokens, size) // 2)

    def _run_trial_batch(
        self, items: list[T], work: BatchWork[T], trial: BatchSizeTrial
    ) -> list[T]:
        """Run one batch of the size whose turn it is; the remaining items."""
        self.tokens = size = trial.next()
        lengths = [work.length(item) for item in items]
        indices = next(batcher.cut(lengths, budget=size, layout=work.layout))
        began = time.perf_counter()
        fits = self._run_batch([items[index] for index in indices], work)
        if fits:
            work.finish()
            tokens = sum(lengths[index] for index in indices)
            trial.record(size, tokens=tokens, seconds=time.perf_counter() - began)
            work.beat()
        if self._ran_out:  # now the size follows from the memory there is, and nothing is cached
            self._trial, self.tokens = None, min(self.tokens, self._default)
        elif trial.over:
            self._trial, self.tokens = None, trial.best() or self._default
        done = set(indices) if fits else set()
        return [item for index, item in enumerate(items) if index not in done]

    def _run_until_out_of_memory(self, items: list[T], work: BatchWork[T]) -> list[T]:
        """Run the items; those that remain when memory runs out, for a smaller budget."""
        lengths = [work.length(item) for item in items]
        cuts = batcher.cut(lengths, budget=self.tokens, layout=work.layout)
        batches = [[items[index] for index in batch] for batch in cuts]
        for number, batch in enumerate(batches):
            if not self._run_batch(batch, work):
                return [item for batch in batches[number:] for item in batch]
            work.beat()
        return []

    def _run_batch(self, batch: list[T], work: BatchWork[T]) -> bool:
        """Run one batch; ``False``, with half the budget, if it must be tried in smaller ones."""
        why = None
        try:
            fits = self.fits_in_memory(lambda: work.run(batch), release=lambda: None)
        except BaseException as error:  # noqa: BLE001 - what is no row's fault is raised by check
            row_isolation.check(error)
            why = row_isolation.reason(error)
        if why is not None:  # out here, where the error no longer holds tensors
            self._isolate(batch, why, work)
            return True
        if fits:
            self.tally.succeeded(len(batch))
            return True
        if len(batch) == 1:
            work.refuse(batch[0])
            return True
        self.halve([work.length(item) for item in batch])
        return False

    def _isolate(self, batch: list[T], why: str, work: BatchWork[T]) -> None:
        """Run a batch that raised in halves, so that only the items that raise alone fail."""
        if len(batch) == 1:
            work.fail(batch[0], self.tally.raised(why))
            return
        middle = len(batch) // 2
        for half in (batch[:middle], batch[middle:]):
            if not self._run_batch(half, work):
                self._isolate(half, why, work)
            work.beat()
