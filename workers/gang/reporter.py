"""What a rank tells and logs, on its way to the ledger: gathered, written about each second."""

from __future__ import annotations

import time
from collections.abc import Iterable

import structlog

from jobs import database
from jobs.ledger import ranks, telemetry
from jobs.ledger.ranks import RankLease
from workers.context import Context
from workers.gang.program import Told

log = structlog.get_logger()

EVERY_SECONDS = 1.0
MOST_WAITING = 5_000
"""Points and lines that wait for Postgres; while it is away for long, the oldest are let go."""


class Report:
    """One rank's report. Rank 0 speaks for the run; every rank has a log."""

    def __init__(self, held: RankLease, *, context: Context) -> None:
        self._held = held
        self._context = context
        self._points: list[tuple[int, dict[str, float]]] = []
        self._lines: list[str] = []
        self._lines_left = context.settings.train_log_lines
        self._step: tuple[int, int | None] | None = None
        self._written_at = 0.0

    def take(self, facts: Iterable[Told]) -> None:
        """Take what was told in, if it is this rank that speaks."""
        if self._held.rank != 0:
            return
        for fact in facts:
            if fact["type"] == "points":
                self._points.append((int(fact["step"]), dict(fact["values"])))
            elif fact["type"] == "progress":
                self._step = (int(fact["step"]), fact.get("steps_total"))

    def log(self, lines: list[str]) -> None:
        """Take log lines in, up to the limit of a rank."""
        kept = lines[: self._lines_left]
        self._lines += kept
        self._lines_left -= len(kept)
        if lines and self._lines_left == 0 and kept:
            self._lines.append("... this rank's log goes on, but no more of it is kept")

    def write(self, *, now: bool = False) -> None:
        """Write what has gathered, if a second has passed. Raises ``LeaseLost``."""
        if not now and time.monotonic() - self._written_at < EVERY_SECONDS:
            return
        self._written_at = time.monotonic()
        try:
            self._write_log()
            self._write_progress()
        except database.MAY_PASS as error:
            log.warning("a rank's report waits", error=str(error))
            del self._points[:-MOST_WAITING], self._lines[:-MOST_WAITING]

    def _write_log(self) -> None:
        """Apart from the rest: the last words of a rank that is over are kept."""
        if self._lines:
            with self._context.sessions.begin() as session:
                telemetry.add_log_lines(session, self._held, self._lines)
            self._lines = []

    def _write_progress(self) -> None:
        if not self._points and self._step is None:
            return
        with self._context.sessions.begin() as session:
            if self._points:
                telemetry.add_points(session, self._held, self._points)
            if self._step is not None:
                step, total = self._step
                ranks.tell_progress(session, self._held, step=step, steps_total=total)
        self._points, self._step = [], None
