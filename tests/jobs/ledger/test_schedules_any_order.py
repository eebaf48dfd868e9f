"""Promise P8 whatever is done to a schedule in whatever order, against a model of it.

The model knows which timing counted from when to when, and asks the calendar for its fire times.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import takewhile
from typing import Any, ClassVar

import sqlalchemy as sa
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from hypothesis.stateful import run_state_machine_as_test as run_machine

from jobs.errors import BadRequest
from jobs.ledger import fires
from jobs.schedules.calendar import fire_times
from jobs.schedules.states import FireOrigin, FireState
from jobs.schedules.timing import Timing
from jobs.states import FINAL
from jobs.tables import Fire, Job, Schedule
from tests.jobs.ledger.building import Ledger
from tests.jobs.ledger.scheduling import SETTINGS, SPEC, Clockwork, at
from tests.support.dying import Died, dying_at

EVENING = at("2026-10-24 20:00")  # clocks go back in Berlin in the night that follows
MOST_STATEMENTS = 40
GROUP = {"first": SPEC, "second": {**SPEC, "depends_on": ["first:end"]}}

TIMINGS: tuple[dict[str, Any], ...] = (
    {"cron": ["*/15 * * * *"]},
    {"cron": ["0 2 * * *"], "time_zone": "Europe/Berlin"},
    {"cron": ["30 1-3 * * *"], "time_zone": "Europe/Berlin", "fold": "both"},
    {"cron": ["5 * * * *"], "time_zone": "Europe/Berlin", "jitter": "10m"},
    {"every": "20m", "offset": "7m"},
)
POLICIES: tuple[dict[str, Any], ...] = (
    {},
    {"overlap": "allow", "catch_up": {"mode": "all"}},
    {"overlap": "allow", "catch_up": {"window": "1h"}},
    {"overlap": "buffer_one"},
    {"overlap": "buffer_all", "catch_up": {"mode": "all", "limit": 3}},
    {"overlap": "cancel_other"},
)
NO_TIMING = dict.fromkeys(("cron", "every", "offset", "time_zone", "fold", "jitter"))
NO_POLICY = dict.fromkeys(("overlap", "catch_up", "pause_on_failure"))
HAD_JOBS = {FireState.SUBMITTED, FireState.SUCCEEDED, FireState.FAILED, FireState.CANCELLED}


@dataclass
class Stretch:
    """From when to when a timing counted."""

    timing: Timing
    after: datetime
    until: datetime | None = None  # it counts still

    def due(self, now: datetime) -> Iterator[datetime]:
        until = now if self.until is None else self.until
        fires = fire_times(self.timing, after=self.after)
        return (fire.due for fire in takewhile(lambda fire: fire.due <= until, fires))


class AnyOrder(RuleBasedStateMachine):
    """Owners, control processes that may die, jobs that end, and a clock that jumps."""

    ledger: ClassVar[Ledger]

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clockwork(self.ledger, now=EVENING)
        self.stretches: list[Stretch] = []
        self.schedule = ""
        self.paused = False
        self.backfilled: set[datetime] = set()

    @initialize(
        timing=st.sampled_from(TIMINGS),
        policy=st.sampled_from(POLICIES),
        jobs=st.sampled_from([None, GROUP]),
    )
    def create(
        self, *, timing: dict[str, Any], policy: dict[str, Any], jobs: dict[str, Any] | None
    ) -> None:
        self.schedule = self.clock.create(timing=timing, jobs=jobs, **policy)
        self.stretches.append(Stretch(Timing.model_validate(timing), self.clock.now))

    # Time and control.

    @rule(minutes=st.integers(1, 90))
    def wait(self, *, minutes: int) -> None:
        self.clock.now += timedelta(minutes=minutes)

    @rule(hours=st.integers(2, 30))
    def be_away(self, *, hours: int) -> None:
        """No control process runs."""
        self.clock.now += timedelta(hours=hours)

    @rule(seconds=st.integers(1, 600))
    def turn_while_the_clock_is_set_back(self, *, seconds: int) -> None:
        now = self.clock.now
        self.clock.now -= timedelta(seconds=seconds)
        self.turn()
        self.clock.now = now

    @rule()
    def turn(self) -> None:
        with self.ledger.sessions.begin() as session:
            fires.fire_due(session, now=self.clock.now, settings=SETTINGS)

    @rule()
    def follow(self) -> None:
        with self.ledger.sessions.begin() as session:
            fires.follow(session, now=self.clock.now, settings=SETTINGS)

    @rule(statement=st.integers(1, MOST_STATEMENTS), following=st.booleans())
    def die_in_a_turn(self, *, statement: int, following: bool) -> None:
        with contextlib.suppress(Died), dying_at(self.ledger.engine, statement):
            if following:
                self.follow()
            else:
                self.turn()

    @rule(dies=st.booleans())
    def turn_while_another_process_holds_what_is_due(self, *, dies: bool) -> None:
        with self.ledger.sessions() as holder:
            fires.fire_due(holder, now=self.clock.now, settings=SETTINGS)
            self.turn()
            if dies:
                holder.rollback()
            else:
                holder.commit()

    # Owners.

    @rule(timing=st.sampled_from(TIMINGS))
    def change_when_it_fires(self, *, timing: dict[str, Any]) -> None:
        self.clock.edit(self.schedule, timing=NO_TIMING | timing)
        new = Timing.model_validate(timing)
        if new != self.stretches[-1].timing or self.paused:
            self._end_stretch()
            self.stretches.append(Stretch(new, self.clock.now))
            if self.paused:
                self._end_stretch()

    @rule(jobs=st.sampled_from([{"": SPEC}, GROUP]))
    def change_what_is_submitted(self, *, jobs: dict[str, Any]) -> None:
        templates = [{"name": name or None, "spec": spec} for name, spec in jobs.items()]
        self.clock.edit(self.schedule, jobs=templates)

    @rule(policy=st.sampled_from(POLICIES))
    def change_the_policy(self, *, policy: dict[str, Any]) -> None:
        self.clock.edit(self.schedule, policy=NO_POLICY | policy)

    @rule(note=st.none() | st.just("moving"))
    def pause(self, *, note: str | None) -> None:
        self.clock.pause(self.schedule, note)
        self._end_stretch()
        self.paused = True

    @rule()
    def resume(self) -> None:
        self.clock.resume(self.schedule)
        if self.paused:
            self.stretches.append(Stretch(self.stretches[-1].timing, self.clock.now))
        self.paused = False

    @rule()
    def trigger(self) -> None:
        self.clock.trigger(self.schedule)

    @rule(hours=st.integers(1, 12), at_most=st.integers(1, 3))
    def backfill(self, *, hours: int, at_most: int) -> None:
        since, now = self.clock.now - timedelta(hours=hours), self.clock.now
        with contextlib.suppress(BadRequest):
            self.clock.backfill(self.schedule, since, now, at_most=at_most)
        microsecond = timedelta(microseconds=1)
        asked = Stretch(self.stretches[-1].timing, since - microsecond, now)
        self.backfilled |= set(asked.due(now))

    # Jobs.

    @precondition(lambda self: self._running())
    @rule(which=st.integers(0, 30), failed=st.booleans())
    def end_a_job(self, *, which: int, failed: bool) -> None:
        self.clock.settle()
        free = [job for job in self._running() if not job.held]
        if free:
            self.clock.end(free[which % len(free)], failed=failed)

    @rule()
    def cancel_jobs_of_fires_that_a_later_one_takes_the_place_of(self) -> None:
        self.clock.cancel_wanted()

    # What always holds.

    @invariant()
    def a_fire_has_all_of_its_jobs_if_and_only_if_it_was_submitted(self) -> None:
        if not self.schedule:
            return
        jobs: dict[int | None, list[Job]] = {}
        for job in self.clock.jobs(self.schedule):
            jobs.setdefault(job.fire_id, []).append(job)
        for fire in self.clock.fires(self.schedule):
            submitted = fire.submitted_at is not None
            ours = jobs.pop(fire.id, [])
            assert bool(ours) == submitted, fire.due
            members = {job.member for job in ours}
            assert members <= {None} or members == set(GROUP), fire.due
            assert len(ours) == len(members), "none is there twice"
            assert len({job.group_id for job in ours}) <= 1
            assert (fire.state is FireState.SUBMITTED) == any(
                job.state not in FINAL for job in ours
            )
            assert not submitted or fire.state in HAD_JOBS
            assert submitted or fire.reason
        assert not jobs

    @invariant()
    def no_fire_is_at_a_time_that_the_calendar_does_not_have(self) -> None:
        if not self.schedule:
            return
        times = self._due() | self.backfilled
        for fire in self.clock.fires(self.schedule):
            if fire.origin is not FireOrigin.TRIGGER:
                assert fire.due in times
                assert fire.due <= self.clock.now

    def teardown(self) -> None:
        """Once control has turned, every fire time is a fire, or was missed or skipped."""
        if not self.schedule:
            return
        due = sorted(self._due())
        self.clock.now += timedelta(minutes=11)  # the jitter of the last of them passes
        self.clock.turn()
        recorded = self._recorded()
        assert [each for each in due if each not in recorded] == []
        with self.ledger.sessions.begin() as session:
            session.execute(sa.update(Schedule).values(next_due=None, next_at=None))
            session.execute(sa.update(Fire).values(to_follow=False))

    def _due(self) -> set[datetime]:
        return {due for stretch in self.stretches for due in stretch.due(self.clock.now)}

    def _recorded(self) -> set[datetime]:
        """Times with a fire of their own, and those that stand in the record of missed ones."""
        found = self.clock.fires(self.schedule)
        due = self._due()
        return {fire.due for fire in found} | {
            each for fire in found if fire.until for each in due if fire.due <= each <= fire.until
        }

    def _end_stretch(self) -> None:
        if self.stretches[-1].until is None:
            self.stretches[-1].until = self.clock.now

    def _running(self) -> list[Job]:
        jobs = self.clock.jobs(self.schedule) if self.schedule else []
        return [job for job in jobs if job.state not in FINAL]


def test_each_fire_time_is_one_fire_in_any_order(ledger: Ledger) -> None:
    class OnThisLedger(AnyOrder):
        pass

    OnThisLedger.ledger = ledger
    run_machine(
        OnThisLedger,
        settings=settings(
            max_examples=12,
            stateful_step_count=25,
            phases=[Phase.generate],  # to shrink takes minutes on a real database
            suppress_health_check=list(HealthCheck),
        ),
    )
