"""Progress of long work: what does it calls ``beat`` now and then, and is interrupted by it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

Beat = Callable[[], None]
"""Called while work goes on. Raises ``LeaseLost``, or another error, to interrupt it."""


def no_beat() -> None:
    """For work that no lease depends on."""


@dataclass
class WorkMeter:
    """How much of a piece of work is done; one thread works, another reads."""

    fraction_done: float = 0.0  # 0 to 1
    began_at: float | None = None  # on the monotonic clock; None: it is being prepared
    tokens: int = 0  # in batches of forward passes
    padding: int = 0  # beside those
    tokenize_seconds: float = 0.0

    def begin(self) -> None:
        """Everything is ready, and the work begins."""
        self.began_at = time.monotonic()

    def advance(self, fraction: float) -> None:
        """Another fraction of the work is done."""
        self.fraction_done = min(1.0, self.fraction_done + fraction)

    @property
    def seconds(self) -> float | None:
        """Since it began."""
        return None if self.began_at is None else time.monotonic() - self.began_at


@dataclass(frozen=True)
class MeteredBeat:
    """A beat whose work is metered; see ``advance``."""

    beat: Beat
    meter: WorkMeter

    def __call__(self) -> None:
        """Beat."""
        self.beat()


def advance(beat: Beat, fraction: float) -> None:
    """Count another fraction of the work as done, if this beat is metered."""
    if isinstance(beat, MeteredBeat):
        beat.meter.advance(fraction)


def computed(beat: Beat, *, tokens: int, padding: int) -> None:
    """Count a batch of a forward pass, if this beat is metered."""
    if isinstance(beat, MeteredBeat):
        beat.meter.tokens += tokens
        beat.meter.padding += padding


def tokenized(beat: Beat, *, seconds: float) -> None:
    """Count the time that a tokenizer took, if this beat is metered; for one thread."""
    if isinstance(beat, MeteredBeat):
        beat.meter.tokenize_seconds += seconds
