"""Where the time of a job went, from when it was accepted: each moment counts as one thing.

A moment at which a chunk or a run computes is computing, whatever else goes on then; at others one
at which a model is loaded is loading, and one at which a result is written is writing. The rest
goes by the state of the job. So the parts add up to the whole.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from jobs.states import FINAL, JobState


class TimePart(StrEnum):
    """What a job spent time on, in the order in which it comes."""

    OTHER_JOBS = "other_jobs"  # it waited for jobs that it needs
    PLANNER = "planner"  # it waited for a planner
    PLANNING = "planning"
    WORKER = "worker"  # it waited for a worker or hosts, or for another try
    RUNNING = "running"  # it ran; how that time was divided is not on record
    LOADING = "loading"  # rows and model were read, or hosts gathered: no row was computed
    COMPUTING = "computing"
    WRITING = "writing"
    PAUSED = "paused"
    ENDED = "ended"  # it had ended, and was retried later


_WORK = (TimePart.COMPUTING, TimePart.LOADING, TimePart.WRITING)
"""What processes do for a job; the first that happens at a moment counts."""

_OF_STATE = {
    JobState.QUEUED: TimePart.PLANNER,
    JobState.PLANNING: TimePart.PLANNING,
    JobState.RUNNING: TimePart.WORKER,
    JobState.FINALIZING: TimePart.WRITING,
    JobState.CANCELLING: TimePart.WRITING,
    JobState.PAUSED: TimePart.PAUSED,
    **dict.fromkeys(FINAL, TimePart.ENDED),
}


@dataclass(frozen=True)
class Span:
    """A time in which processes did one thing for a job."""

    part: TimePart
    begin: datetime
    end: datetime


@dataclass(frozen=True)
class StateChange:
    """A job came into this state then."""

    at: datetime
    state: JobState
    held: bool = False  # it waits for other jobs

    @property
    def part(self) -> TimePart:
        """What a moment in that state counts as while no process works."""
        return TimePart.OTHER_JOBS if self.held else _OF_STATE[self.state]


def of_states(changes: Sequence[StateChange], *, end: datetime) -> list[Span]:
    """What each time counts as while no process works, from the first change to ``end``."""
    found = sorted(changes, key=lambda change: change.at)
    ends = [*(change.at for change in found[1:]), end]
    spans = [
        Span(change.part, change.at, min(until, end))
        for change, until in zip(found, ends, strict=True)
    ]
    return [span for span in spans if span.begin < span.end]


def seconds(
    changes: Sequence[StateChange], work: Iterable[Span], *, end: datetime
) -> dict[TimePart, float]:
    """Seconds of each part that took any, from the first of ``changes`` to ``end``."""
    begin = min((change.at for change in changes), default=end)
    found: defaultdict[TimePart, float] = defaultdict(float)
    at, state, running = begin, TimePart.PLANNER, Counter[TimePart]()
    for moment, step in sorted(_steps(changes, work), key=lambda each: each[0]):
        now = min(max(moment, begin), end)
        found[_current(running, state)] += (now - at).total_seconds()
        at = now
        if isinstance(step, TimePart):
            state = step
        else:
            part, count = step
            running[part] += count
    found[_current(running, state)] += max(0.0, (end - at).total_seconds())
    return {part: found[part] for part in TimePart if found[part] > 0}


def _steps(
    changes: Iterable[StateChange], work: Iterable[Span]
) -> Iterator[tuple[datetime, TimePart | tuple[TimePart, int]]]:
    """What changes when: the state, or how much of a part goes on."""
    for change in changes:
        yield change.at, change.part
    for span in work:
        if span.end > span.begin:
            yield span.begin, (span.part, 1)
            yield span.end, (span.part, -1)


def _current(running: Counter[TimePart], state: TimePart) -> TimePart:
    return next((part for part in _WORK if running[part] > 0), state)
