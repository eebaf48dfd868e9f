"""A budget of tokens for what goes through the device together, within whatever memory there is."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from workers.inference import row_isolation
from workers.inference.batching import batcher, memory
from workers.inference.batching.autotune import Trial
from workers.inference.batching.batcher import Fill

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Work(Generic[T]):
    """What is done with items in batches."""

    length: Callable[[T], int]  # tokens of an item
    run: Callable[[list[T]], None]  # through the device, together
    refuse: Callable[[T], None]  # an item that does not fit even alone
    fail: Callable[[T, str], None]  # an item that raises even alone, and the error of its row
    beat: Callable[[], None]  # after every batch
    finish: Callable[[], None]  # wait until the device has done what was run
    fill: Fill = Fill.PAD  # how items of different lengths go together


class Budget:
    """The tokens that the device's memory has borne so far; those of a trial while it lasts.

    It also knows which items raise: a batch that does is cut in two until they are found.
    """

    def __init__(self, tokens: int, *, trial: Trial | None = None) -> None:
        self.tokens = tokens
        self._usual = tokens
        self._ran_out = False
        self._trial = trial
        self.tally = row_isolation.Tally("the model")

    @property
    def largest(self) -> int:
        """Tokens of the largest batch that may come."""
        return self.tokens if self._trial is None else self._trial.largest

    def do(self, items: Sequence[T], work: Work[T]) -> None:
        """Every item, longest first, in batches of at most so many tokens, padding included.

        When memory runs out the budget halves, and what is left is cut anew. Raises
        ``ModelFailure`` where all items raise alike, and ``DeviceFailed``.
        """
        left = list(items)
        while left:
            trial = self._trial
            left = (
                self._until_memory_ends(left, work)
                if trial is None
                else self._try(left, work, trial)
            )

    def alone(self, item: T, work: Work[T]) -> None:
        """One item in a batch of its own."""
        self._fits([item], work)
        work.beat()

    def bears(self, run: Callable[[], None], *, release: Callable[[], None]) -> bool:
        """Whether memory was enough for this; if not, what it was for is told to ``release`` it."""
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
        memory.give_back()
        return False

    def halve(self, lengths: Sequence[int]) -> None:
        """Items of these lengths did not fit together."""
        size = len(lengths) * max(lengths)
        self.tokens = max(1, min(self.tokens, size) // 2)

    def _try(self, items: list[T], work: Work[T], trial: Trial) -> list[T]:
        """One batch of the size whose turn it is; the items that are left."""
        self.tokens = size = trial.next()
        lengths = [work.length(item) for item in items]
        places = next(batcher.cut(lengths, budget=size, fill=work.fill))
        began = time.perf_counter()
        fits = self._fits([items[place] for place in places], work)
        if fits:
            work.finish()
            tokens = sum(lengths[place] for place in places)
            trial.note(size, tokens=tokens, seconds=time.perf_counter() - began)
            work.beat()
        if self._ran_out:  # now sizes follow the memory there is, and nothing is remembered
            self._trial, self.tokens = None, min(self.tokens, self._usual)
        elif trial.over:
            self._trial, self.tokens = None, trial.best() or self._usual
        done = set(places) if fits else set()
        return [item for place, item in enumerate(items) if place not in done]

    def _until_memory_ends(self, items: list[T], work: Work[T]) -> list[T]:
        """Work the items off; those left when memory ran out, for a smaller budget."""
        lengths = [work.length(item) for item in items]
        cuts = batcher.cut(lengths, budget=self.tokens, fill=work.fill)
        batches = [[items[index] for index in batch] for batch in cuts]
        for number, batch in enumerate(batches):
            if not self._fits(batch, work):
                return [item for batch in batches[number:] for item in batch]
            work.beat()
        return []

    def _fits(self, batch: list[T], work: Work[T]) -> bool:
        """Do one batch; ``False``, with half the budget, if it must be tried in pieces."""
        why = None
        try:
            fits = self.bears(lambda: work.run(batch), release=lambda: None)
        except BaseException as error:  # noqa: BLE001 - what is no row's fault is raised by check
            row_isolation.check(error)
            why = row_isolation.reason(error)
        if why is not None:  # out here, where the error no longer holds tensors
            self._isolate(batch, why, work)
            return True
        if fits:
            self.tally.answered(len(batch))
            return True
        if len(batch) == 1:
            work.refuse(batch[0])
            return True
        self.halve([work.length(item) for item in batch])
        return False

    def _isolate(self, batch: list[T], why: str, work: Work[T]) -> None:
        """Do a batch that raised in halves, so that only the items that raise alone fail."""
        if len(batch) == 1:
            work.fail(batch[0], self.tally.raised(why))
            return
        middle = len(batch) // 2
        for half in (batch[:middle], batch[middle:]):
            if not self._fits(half, work):
                self._isolate(half, why, work)
            work.beat()
