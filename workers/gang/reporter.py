"""Metrics, progress and log of a rank, buffered and written to the ledger about once a second."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable
from typing import Any

import structlog

from jobs import database
from jobs.ledger import ranks, telemetry
from jobs.ledger.ranks import RankLease, RunProgress
from workers.context import Context
from workers.gang.program import Message
from workers.gang.step_meter import StepMeter

log = structlog.get_logger()

WRITE_SECONDS = 1.0
MAX_PENDING = 5_000
"""Points and lines kept while Postgres is away; the oldest are dropped beyond that."""


PROGRESS = frozenset({"progress", "checkpoint", "stopped"})
"""Types of messages that say how far a program is."""


class Reporter:
    """Reports one rank. Rank 0 reports the run's metrics and progress; every rank has a log."""

    def __init__(self, lease: RankLease, *, context: Context) -> None:
        self._lease = lease
        self._context = context
        self._points: list[tuple[int, dict[str, float]]] = []
        self._lines: list[str] = []
        self._lines_left = context.settings.train_log_lines
        self._progress = RunProgress()
        self._written_at = 0.0
        self._meter = StepMeter()

    def take(self, messages: Iterable[Message]) -> None:
        """Buffer the metrics and progress of rank 0; messages of other ranks are ignored."""
        if self._lease.rank != 0:
            return
        for message in messages:
            self._meter.take(message)
            if message["type"] == "points":
                self._points.append((int(message["step"]), dict(message["values"])))
            elif message["type"] in PROGRESS:
                self._progress = _with(self._progress, message)

    def log(self, lines: list[str]) -> None:
        """Buffer log lines, up to the limit of a rank."""
        kept = lines[: self._lines_left]
        self._lines += kept
        self._lines_left -= len(kept)
        if lines and self._lines_left == 0 and kept:
            self._lines.append("... this rank's log goes on, but no more of it is kept")

    def write(self, *, now: bool = False) -> None:
        """Write the buffers, if a second has passed or ``now``. Raises ``LeaseLost``."""
        if not now and time.monotonic() - self._written_at < WRITE_SECONDS:
            return
        self._written_at = time.monotonic()
        try:
            self._write_log()
            self._write_progress()
        except database.MAY_PASS as error:
            log.warning("a rank's report waits", error=str(error))
            del self._points[:-MAX_PENDING], self._lines[:-MAX_PENDING]

    def _write_log(self) -> None:
        """In its own transaction: the last log lines of a rank that is over are kept."""
        if self._lines:
            with self._context.sessions.begin() as session:
                telemetry.add_log_lines(session, self._lease, self._lines)
            self._lines = []

    def _write_progress(self) -> None:
        if not self._points and self._progress == RunProgress():
            return
        with self._context.sessions.begin() as session:
            if self._points:
                telemetry.add_points(session, self._lease, self._points)
            ranks.record_progress(session, self._lease, self._progress)
        self._points, self._progress = [], RunProgress()


def _with(known: RunProgress, message: Message) -> RunProgress:
    """What is known after one more message: of a training its steps, of an evaluation its rows."""
    news: dict[str, Any] = {}
    if "step" in message:
        news |= {"step": int(message["step"]), "steps_total": message.get("steps_total")}
    if message.get("rows") is not None:
        news["evaluated"] = (int(message["rows"]), int(message["rows_total"]))
    return dataclasses.replace(known, **news)
