"""The control loop: lead or wait, turn, sleep until a notification or the interval."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Callable

import psycopg
import sqlalchemy as sa
import structlog

from jobs import database
from jobs.decisions import dispatch_window
from jobs.monitoring import catalogue, meters
from jobs.settings import Settings
from workers import process_names
from workers.control import gangs, reconciler, retention, schedules
from workers.control.leadership import Leadership, LeadershipLost
from workers.control.publisher import BrokerAway, Publisher
from workers.control.served import ServedCounts

log = structlog.get_logger()

HOUSEKEEPING_SECONDS = 60.0
JUDGING_SECONDS = 1.0
RETAINING_SECONDS = 5.0
FOLLOWING_SECONDS = 1.0
"""Seconds between two looks of a process that does not lead."""

SETTLING_SHARE = 20
"""To look through the jobs that wait for others takes one part of this many of the time at most."""

SHORTEST_PAUSE = 0.05
"""Seconds between two turns, however fast workers take messages."""


class Control:
    """One control process: leads whenever no other does. ``run`` returns after ``stop``."""

    def __init__(self, publisher: Publisher, *, settings: Settings) -> None:
        self._publisher = publisher
        self._settings = settings
        self._name = process_names.owner(os.getpid())
        self._stopping = threading.Event()

    def stop(self, *_: object) -> None:
        """Make ``run`` return after the turn that is under way; fit for a signal handler."""
        self._stopping.set()

    def run(self) -> None:
        """Lead whenever no other process does, through outages of Postgres and Redis."""
        while not self._stopping.is_set():
            _count_leading(leads=False)
            try:
                with self.candidate() as leadership:
                    self._follow_or_lead(leadership)
            except LeadershipLost as lost:
                log.warning("this control process leads no more", reason=str(lost))
            except (psycopg.Error, sa.exc.DBAPIError) as error:
                log.warning("control cannot work with Postgres and tries again", error=str(error))
                self._stopping.wait(1.0)

    def candidate(self) -> Leadership:
        """A session of this process that may lead."""
        settings = self._settings
        return Leadership(
            settings.database_url, name=self._name, duration=settings.control_lease_duration
        )

    def _follow_or_lead(self, leadership: Leadership) -> None:
        turns = Turns(leadership, self._publisher, settings=self._settings)
        turned_at = time.monotonic()
        while not self._stopping.is_set():
            if not leadership.is_leader():
                schedules.look_and_fire(leadership.sessions, settings=self._settings)
                self._stopping.wait(FOLLOWING_SECONDS)
                continue
            _count_leading(leads=True)
            now = time.monotonic()
            did = turns.turn(led_for=leadership.led_for)
            leadership.wait(self._pause(did, over=now - turned_at))
            turned_at = now

    def _pause(self, did: int, *, over: float) -> float:
        """Seconds to the next turn; the last did ``did`` things, ``over`` seconds after another."""
        lease = self._settings.control_lease_seconds
        return dispatch_window.pause(
            sent=did,
            elapsed=over,
            size=self._settings.dispatch_window,
            shortest=SHORTEST_PAUSE,
            longest=min(self._settings.control_interval_seconds, lease / 3),
        )


class Turns:
    """The turns of one leader, in the session of its leadership."""

    def __init__(self, leadership: Leadership, publisher: Publisher, *, settings: Settings) -> None:
        self._leadership = leadership
        self._sessions = leadership.sessions
        self._publisher = publisher
        self._settings = settings
        self._tidied_at = 0.0
        self._retained_at = -math.inf
        self._judged_at = -math.inf
        self._settles_at = -math.inf  # not before this
        self._broker_error: str | None = None
        self._served: dict[str, ServedCounts] = {}  # by pool

    def turn(self, *, led_for: float) -> int:
        """One turn; how many things it moved or sent.

        A fresh leader, or one that was late or has just seen Postgres come back, rescues nothing
        for half a lease: workers that could not renew meanwhile are not dead, and do so first.
        """
        self._broker_error = None
        rescuing = led_for > self._settings.lease_seconds / 2
        wanted = reconciler.look(self._sessions)
        did = self._part(reconciler.expire) if wanted.expire else 0
        if wanted.schedules:
            did += self._part(schedules.fire, settings=self._settings)
        if wanted.settle:
            did += self._settle()
        if wanted.rescue and rescuing:
            did += self._part(reconciler.rescue)
        if wanted.judge:
            did += self._judge()
        if wanted.finalize:
            did += self._part(reconciler.begin_finalizing)
        if wanted.steps or wanted.finalize:
            did += self._dispatch(reconciler.dispatch_steps)
        if wanted.chunks:
            did += self._dispatch(reconciler.dispatch_chunks, served=self._served)
        if wanted.training:
            did += self._train(rescuing=rescuing)
        self._leadership.record_turn(broker_error=self._broker_error)
        self._retain()
        self._tidy()
        return did

    def _settle(self) -> int:
        """Let jobs go that wait for others: however many there are, a small share of the time."""
        begun = time.monotonic()
        if begun < self._settles_at:
            return 0
        did = self._part(reconciler.settle)
        took = time.monotonic() - begun
        self._settles_at = 0.0 if did else begun + took * SETTLING_SHARE
        return did

    def _judge(self) -> int:
        """End jobs of which too many rows failed: it adds up chunks, and so once a second."""
        if time.monotonic() - self._judged_at < JUDGING_SECONDS:
            return 0
        self._judged_at = time.monotonic()
        return self._part(reconciler.fail_jobs_over_their_limit)

    def _retain(self) -> None:
        """Let go what has been kept long enough; that need not wake the next turn."""
        if time.monotonic() - self._retained_at > RETAINING_SECONDS:
            self._retained_at = time.monotonic()
            self._part(retention.retain, settings=self._settings)

    def _train(self, *, rescuing: bool) -> int:
        """The parts of a turn that are about training."""
        did = self._part(gangs.judge_runs, settings=self._settings, rescuing=rescuing)
        for part in (gangs.stop_runs, gangs.give_way, gangs.end_cancelled, gangs.form_gangs):
            did += self._part(part)
        return did + self._dispatch(gangs.dispatch_ranks)

    def _dispatch(self, part: Callable[..., int], **kwargs: object) -> int:
        """A part that sends, unless the broker is away: one timeout a turn is enough."""
        if self._broker_error is not None:
            return 0
        return self._part(part, self._publisher, settings=self._settings, **kwargs)

    def _part(self, part: Callable[..., int], *args: object, **kwargs: object) -> int:
        """One part of a turn; what is wrong with it must not keep the others from their work."""
        self._leadership.keep()
        try:
            with meters.timed(catalogue.CONTROL_SECONDS, part=part.__name__):
                did = part(self._sessions, *args, **kwargs)
        except BrokerAway as away:
            self._broker_error = str(away)
            log.warning("the broker does not answer", error=str(away))
        except Exception as error:
            if database.is_away(error):
                raise
            meters.add(catalogue.CONTROL_FAILURES, part=part.__name__)
            log.exception("a part of control's turn failed", part=part.__name__)
        else:
            meters.add(catalogue.CONTROL_MOVES, did, part=part.__name__)
            return did
        return 0

    def _tidy(self) -> None:
        if time.monotonic() - self._tidied_at > HOUSEKEEPING_SECONDS:
            self._tidied_at = time.monotonic()
            reconciler.forget_workers(self._sessions)
            self._part(schedules.mend)
            if self._broker_error is None:
                self._part(gangs.forget_hosts, self._publisher)


def _count_leading(*, leads: bool) -> None:
    """Of queues, what only a leader looks at is not known to another."""
    meters.level(catalogue.CONTROL_LEADS, float(leads))
    if not leads:
        meters.clear(catalogue.QUEUE_MESSAGES)


def run(control: Control) -> None:
    """Run until SIGTERM or SIGINT."""
    signal.signal(signal.SIGTERM, control.stop)
    signal.signal(signal.SIGINT, control.stop)
    control.run()
