"""Which fires of a schedule are let go, and what a fire does while an earlier one still runs.

Pure: the time, the fires so far and the jobs that run are passed in. ``jobs/ledger`` applies the
answers in the transaction that records the fires. docs/schedules.md explains the choices.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import islice, takewhile
from typing import Literal

from pydantic import Field, field_validator

from jobs.durations import Duration, in_words, written
from jobs.errors import BadRequest
from jobs.kinds.base import Strict
from jobs.schedules.calendar import FireTime, fire_times, jittered
from jobs.schedules.timing import Timing

SHORTEST_WINDOW = timedelta(seconds=10)
MOST_CAUGHT_UP = 1_000
MOST_COUNTED = 1_000
"""Missed fires are counted up to here."""
MOST_BUFFERED = 1_000
MOST_BACKFILLED = 1_000

_MICROSECOND = timedelta(microseconds=1)
_FIRST_STEP = timedelta(minutes=1)


class CatchUp(Strict):
    """What happens to fires that were due while no control process ran."""

    mode: Literal["latest", "all"] = Field(
        "latest", description="Whether only the latest of them is let go, or all in order."
    )
    window: Duration = Field(
        timedelta(days=1), description="A fire that is later than this is missed."
    )
    limit: int = Field(
        MOST_CAUGHT_UP,
        ge=1,
        le=MOST_CAUGHT_UP,
        description="With `all`, at most this number of fires, the latest ones.",
    )

    @field_validator("window")
    @classmethod
    def _not_too_short(cls, value: timedelta) -> timedelta:
        if value < SHORTEST_WINDOW:
            raise ValueError(f"must be at least {written(SHORTEST_WINDOW)}")
        return value

    @property
    def most(self) -> int:
        """How many fires are let go at once."""
        return 1 if self.mode == "latest" else self.limit


@dataclass(frozen=True)
class Missed:
    """Fires in a row that make no job, with the reason: one record, however many they are."""

    first: FireTime
    last: FireTime
    count: int  # MOST_COUNTED says "that many or more"
    reason: str


@dataclass(frozen=True)
class DueFires:
    """What is due of one schedule."""

    let_go: tuple[FireTime, ...] = ()  # in order
    missed: tuple[Missed, ...] = ()  # in order, all before the first that is let go
    last: FireTime | None = None  # the last fire considered, the next cursor; none: none was due
    following: FireTime | None = None  # the next fire; none: the schedule has ended
    following_at: datetime | None = None  # when that is let go, jitter included


def due_fires(
    timing: Timing,
    *,
    schedule_id: str,
    cursor: datetime,
    now: datetime,
    last_local: datetime | None = None,
    catch_up: CatchUp | None = None,
    fires_left: int | None = None,
) -> DueFires:
    """The fires after ``cursor``, the last fire considered, of which it is time at ``now``.

    ``fires_left``: how many may still be let go (``max_fires``); ``None``: any number.
    ``last_local`` is as for ``fire_times``. A long outage costs no more work than the fires that
    are let go.
    """
    if fires_left == 0:
        return DueFires()
    catch_up = catch_up or CatchUp()
    upcoming = _Upcoming(timing, schedule_id, last_local)
    until = upcoming.time_has_come(since=cursor, now=now)
    window_start = max(cursor, now - catch_up.window - timing.jitter - _MICROSECOND)
    chosen = upcoming.latest(window_start, until, most=catch_up.most)
    missed = [upcoming.missed(cursor, min(window_start, until), _too_late(catch_up))]
    if chosen:
        before = chosen[0].due - _MICROSECOND
        missed.append(upcoming.missed(window_start, before, _left_out(catch_up)))
        chosen = chosen[:fires_left]
    recorded = tuple(each for each in missed if each is not None)
    last = chosen[-1] if chosen else recorded[-1].last if recorded else None
    if fires_left is not None and len(chosen) >= fires_left:
        return DueFires(tuple(chosen), recorded, last)
    following = next(upcoming.after(last.due if last else cursor), None)
    following_at = upcoming.let_go_at(following) if following else None
    return DueFires(tuple(chosen), recorded, last, following, following_at)


def next_fire(
    timing: Timing, *, schedule_id: str, after: datetime, last_local: datetime | None = None
) -> tuple[FireTime, datetime] | None:
    """The next fire and when it is let go; ``None``: the schedule has ended."""
    upcoming = _Upcoming(timing, schedule_id, last_local)
    fire = next(upcoming.after(after), None)
    return None if fire is None else (fire, upcoming.let_go_at(fire))


def backfilled(
    timing: Timing, since: datetime, until: datetime, *, now: datetime
) -> list[FireTime]:
    """The fire times of a backfill. Raises ``BadRequest``."""
    if not since <= until <= now:
        raise BadRequest(
            "a backfill goes from an earlier to a later time, and not into the future",
            param="until",
        )
    found = fire_times(timing, after=since - _MICROSECOND)
    within = takewhile(lambda each: each.due <= until, found)
    times = list(islice(within, MOST_BACKFILLED + 1))
    if len(times) > MOST_BACKFILLED:
        raise BadRequest(
            f"a backfill has at most {MOST_BACKFILLED:,} fires, and this range has more: ask for "
            "it in parts",
            param="until",
            code="backfill_too_long",
        )
    return times


class Overlap(StrEnum):
    """What a fire does while a job of an earlier fire still runs."""

    SKIP = "skip"
    BUFFER_ONE = "buffer_one"
    BUFFER_ALL = "buffer_all"
    CANCEL_OTHER = "cancel_other"
    ALLOW = "allow"


class Action(StrEnum):
    """What a fire does that was let go."""

    START = "start"
    SKIP = "skip"
    BUFFER = "buffer"


@dataclass(frozen=True)
class Decision:
    """What a fire does, and what it does to others."""

    action: Action
    reason: str | None = None  # why it is skipped or waits
    replaces: datetime | None = None  # the buffered fire that is dropped for it
    replaced_reason: str | None = None  # what that one then says
    cancels: tuple[str, ...] = ()  # jobs and groups of earlier fires


def overlap(
    policy: Overlap, *, running: Sequence[str], buffered: Sequence[datetime], new: datetime
) -> Decision:
    """What the fire at ``new`` does.

    ``running``: of each earlier fire that has not ended its job, or the group of its jobs.
    ``buffered``: earlier fires that wait, oldest first; they start first, so ``new`` waits behind
    them even when nothing runs.
    """
    if policy is Overlap.ALLOW or not (running or buffered):
        return Decision(Action.START)
    if policy is Overlap.CANCEL_OTHER:
        return Decision(Action.START, cancels=tuple(running))
    busy = _busy(running)
    if policy is Overlap.SKIP:
        return Decision(Action.SKIP, reason=busy)
    if policy is Overlap.BUFFER_ONE and buffered:
        taken = f"the fire of {new:%Y-%m-%dT%H:%M:%SZ} took its place: one at most waits"
        return Decision(Action.BUFFER, busy, replaces=buffered[-1], replaced_reason=taken)
    if len(buffered) >= MOST_BUFFERED:
        return Decision(Action.SKIP, reason=f"{MOST_BUFFERED} earlier fires wait: no more may")
    return Decision(Action.BUFFER, reason=busy)


def unbuffered(policy: Overlap, *, running: Sequence[str], buffered: int) -> int:
    """How many of the fires that wait start now, oldest first."""
    if policy in {Overlap.ALLOW, Overlap.CANCEL_OTHER}:
        return buffered  # the policy was changed while they waited
    return min(buffered, 0 if running else 1)


@dataclass(frozen=True)
class _Upcoming:
    """The fires of one schedule."""

    timing: Timing
    schedule_id: str
    last_local: datetime | None

    def after(self, moment: datetime) -> Iterator[FireTime]:
        return fire_times(self.timing, after=moment, last_local=self.last_local)

    def between(self, since: datetime, until: datetime) -> Iterator[FireTime]:
        """After ``since``, and up to ``until``."""
        return takewhile(lambda fire: fire.due <= until, self.after(since))

    def latest(self, since: datetime, until: datetime, *, most: int) -> list[FireTime]:
        """The last ``most`` fires between: found backwards, in growing steps, if there are more."""
        fires = list(islice(self.between(since, until), most + 1))
        if len(fires) <= most:
            return fires
        step = _FIRST_STEP
        while True:
            fires = list(deque(self.between(max(since, until - step), until), maxlen=most))
            if len(fires) == most:
                return fires
            step *= 2

    def missed(self, since: datetime, until: datetime, reason: str) -> Missed | None:
        """All fires between, as one record."""
        fires = list(islice(self.between(since, until), MOST_COUNTED))
        if not fires:
            return None
        last = self.latest(since, until, most=1)[0]
        return Missed(first=fires[0], last=last, count=len(fires), reason=reason)

    def time_has_come(self, *, since: datetime, now: datetime) -> datetime:
        """Up to when fires are let go by now: jitter holds back none but the last that is due."""
        if self.timing.jitter:
            for fire in self.latest(since, now, most=1):
                if self.let_go_at(fire) > now:
                    return fire.due - _MICROSECOND
        return now

    def let_go_at(self, fire: FireTime) -> datetime:
        following = next(self.after(fire.due), None) if self.timing.jitter else None
        return jittered(
            fire,
            schedule_id=self.schedule_id,
            timing=self.timing,
            next_due=following.due if following else None,
        )


def _too_late(catch_up: CatchUp) -> str:
    window = in_words(catch_up.window)
    return f"no control process ran: it is later than the catch-up window of {window}"


def _left_out(catch_up: CatchUp) -> str:
    if catch_up.mode == "latest":
        return "a later fire was due as well, and catch-up is `latest`"
    return (
        f"more than {catch_up.limit} fires were due, the limit of catch-up: the oldest are missed"
    )


def _busy(running: Sequence[str]) -> str:
    match len(running):
        case 0:
            return "an earlier fire waits"
        case 1:
            return f"{running[0]} of an earlier fire still runs"
    return f"{running[0]} and {len(running) - 1} more of earlier fires still run"
