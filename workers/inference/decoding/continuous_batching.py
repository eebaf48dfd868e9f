"""Prompts flow through a causal model: a row that has ended makes room for the next.

That is continuous batching (Yu et al. 2022, Orca), in steps of more than one token: rows are
written together until some of them have ended. Those leave, and as many of the next prompts are
read as there is room for, the longest first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from workers.inference.batching.batcher import MAX_PADDING, SMALL_PADDING
from workers.inference.batching.forward import Beat
from workers.inference.decoding.decoder import Group, Line, Prompt, Stepper

PAUSE = 0.25
"""Share of the rows that must have ended before others take their places: each time costs a copy of
all keys and values."""

LAST_PAUSE = 0.5
"""The same when no other waits, and rows only leave."""


class Flow:
    """Prompts on their way through a model, the longest first."""

    def __init__(self, prompts: Sequence[Prompt], *, stepper: Stepper) -> None:
        ordered = sorted(prompts, key=lambda prompt: (-len(prompt.ids), -prompt.steps, prompt.row))
        self._waiting = deque(ordered)
        self._stepper = stepper
        self._group: Group | None = None
        self._reading: list[Prompt] = []

    @property
    def under_way(self) -> list[Prompt]:
        """Those that are being written."""
        lines = [] if self._group is None else self._group.lines
        return [*(line.prompt for line in lines), *self._reading]

    def put_back(self) -> list[Prompt]:
        """Forget what was written for those under way, and let them wait again; they are told."""
        found = self.take_out()
        self._waiting.extendleft(reversed(found))
        return found

    def take_out(self) -> list[Prompt]:
        """Forget those under way and what was written for them; they are told."""
        found = self.under_way
        self._group, self._reading = None, []
        return found

    def drop(self) -> Prompt:
        """Forget the first of those that wait."""
        return self._waiting.popleft()

    def run(self, budget: Callable[[], int], *, beat: Beat, done: Callable[[Line], None]) -> None:
        """Write all that wait; ``done`` is told of each line that has ended.

        Those under way may at most come to have so many tokens, and what fills them up.
        """
        while self._waiting or self._group is not None:
            while self._admit(budget()):
                self._read(beat=beat, done=done)
            if self._group is not None:
                most = min(line.left for line in self._group.lines)
                pause = PAUSE if self._waiting else LAST_PAUSE
                self._stepper.step(self._group, most=most, pause=pause, beat=beat)
                self._group = _without_ended(self._group, done=done)

    def _admit(self, budget: int) -> bool:
        """Take from those that wait the ones that fit in beside those under way, if any does."""
        lines = [] if self._group is None else self._group.lines
        widest = max((line.prompt.length for line in lines), default=0)
        shortest = longest = len(self._waiting[0].ids) if self._waiting else 0
        while self._waiting:
            prompt = self._waiting[0]
            widest = max(widest, prompt.length)
            count = len(lines) + len(self._reading)
            if count and (count + 1) * widest > budget:
                break
            shortest, longest = min(shortest, len(prompt.ids)), max(longest, len(prompt.ids))
            if longest - shortest > max(SMALL_PADDING, MAX_PADDING * longest):
                break
            self._reading.append(self._waiting.popleft())
        return bool(self._reading)

    def _read(self, *, beat: Beat, done: Callable[[Line], None]) -> None:
        """Read those that were admitted, and write their first token."""
        new = self._stepper.group(self._reading)
        self._stepper.step(new, most=1, beat=beat)
        left = _without_ended(new, done=done)
        self._reading = [] if left is None else [line.prompt for line in left.lines]
        if self._group is None:
            self._group = left
        elif left is not None:
            self._group.join(left)
        self._reading = []


def _without_ended(group: Group, *, done: Callable[[Line], None]) -> Group | None:
    """The group, but for lines that have ended; ``None``: all have."""
    ended = [line for line in group.lines if not line.left]
    places = [place for place, line in enumerate(group.lines) if line.left]
    if ended and places:
        group.keep(places)
    for line in ended:
        done(line)
    return group if places else None
