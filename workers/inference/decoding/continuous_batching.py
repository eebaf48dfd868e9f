"""Continuous batching: a row that has ended makes room for the next prompt.

As in Orca (Yu et al. 2022), but in steps of more than one token: rows are decoded together until
some of them have ended. Those leave the batch, and as many of the next prompts are prefilled as
there is room for, the longest first (decision 0017).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from jobs.progress import Beat
from workers.inference.batching.batcher import MAX_PADDING, SMALL_PADDING
from workers.inference.decoding.decoder import Decoder
from workers.inference.decoding.decoding_batch import DecodingBatch, Prompt, SequenceState

PAUSE = 0.25
"""Share of the rows that must have ended before others take their places: each change of the batch
costs a copy of the whole KV cache."""

LAST_PAUSE = 0.5
"""The same when no prompt is waiting, and rows only leave."""


class ContinuousBatcher:
    """Waiting prompts, the longest first, and the batch that is being decoded."""

    def __init__(self, prompts: Sequence[Prompt], *, decoder: Decoder) -> None:
        ordered = sorted(
            prompts, key=lambda prompt: (-len(prompt.ids), -prompt.max_new_tokens, prompt.row)
        )
        self._waiting = deque(ordered)
        self._decoder = decoder
        self._batch: DecodingBatch | None = None
        self._prefilling: list[Prompt] = []

    @property
    def running(self) -> list[Prompt]:
        """Prompts that have been admitted and have not ended."""
        sequences = [] if self._batch is None else self._batch.sequences
        return [*(sequence.prompt for sequence in sequences), *self._prefilling]

    def preempt(self) -> list[Prompt]:
        """Discard the output of all running prompts, and let them wait again; those prompts."""
        prompts = self.evict()
        self._waiting.extendleft(reversed(prompts))
        return prompts

    def evict(self) -> list[Prompt]:
        """Remove all running prompts and their output; those prompts."""
        prompts = self.running
        self._batch, self._prefilling = None, []
        return prompts

    def drop_next(self) -> Prompt:
        """Remove the first waiting prompt."""
        return self._waiting.popleft()

    def run(
        self, budget: Callable[[], int], *, beat: Beat, done: Callable[[SequenceState], None]
    ) -> None:
        """Generate for all waiting prompts; ``done`` gets each sequence that has ended.

        ``budget``: tokens that the running sequences may have at their longest, padding included.
        """
        while self._waiting or self._batch is not None:
            while self._admit(budget()):
                self._prefill(beat=beat, done=done)
            if self._batch is not None:
                most = min(sequence.remaining for sequence in self._batch.sequences)
                pause = PAUSE if self._waiting else LAST_PAUSE
                self._decoder.step(self._batch, most=most, pause=pause, beat=beat)
                self._batch = _without_ended(self._batch, done=done)

    def _admit(self, budget: int) -> bool:
        """Admit the waiting prompts that fit beside the running ones; whether there are any."""
        sequences = [] if self._batch is None else self._batch.sequences
        widest = max((sequence.prompt.max_length for sequence in sequences), default=0)
        shortest = longest = len(self._waiting[0].ids) if self._waiting else 0
        while self._waiting:
            prompt = self._waiting[0]
            widest = max(widest, prompt.max_length)
            count = len(sequences) + len(self._prefilling)
            if count and (count + 1) * widest > budget:
                break
            shortest, longest = min(shortest, len(prompt.ids)), max(longest, len(prompt.ids))
            if longest - shortest > max(SMALL_PADDING, MAX_PADDING * longest):
                break
            self._prefilling.append(self._waiting.popleft())
        return bool(self._prefilling)

    def _prefill(self, *, beat: Beat, done: Callable[[SequenceState], None]) -> None:
        """Prefill the admitted prompts, and generate their first token."""
        new = self._decoder.batch(self._prefilling)
        self._decoder.step(new, most=1, beat=beat)
        unfinished = _without_ended(new, done=done)
        self._prefilling = (
            [] if unfinished is None else [each.prompt for each in unfinished.sequences]
        )
        if self._batch is None:
            self._batch = unfinished
        elif unfinished is not None:
            self._batch.join(unfinished)
        self._prefilling = []


def _without_ended(
    batch: DecodingBatch, *, done: Callable[[SequenceState], None]
) -> DecodingBatch | None:
    """The batch without sequences that have ended; ``None``: all have."""
    ended = [sequence for sequence in batch.sequences if not sequence.remaining]
    indices = [index for index, sequence in enumerate(batch.sequences) if sequence.remaining]
    if ended and indices:
        batch.keep(indices)
    for sequence in ended:
        done(sequence)
    return batch if indices else None
