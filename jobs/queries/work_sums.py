"""The sums of ``jobs.decisions.throughput.Work`` over a job's chunks, as columns of a query.

A chunk counts from when its rows were begun: to its end if it is done, to its worker's last report
while it is under way.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from jobs.decisions.throughput import LATELY, STALE, WINDOW
from jobs.states import ChunkState
from jobs.tables import Chunk


def columns() -> list[sa.ColumnElement[Any]]:
    """Named as in ``jobs.queries.jobs.Counts``."""
    now = sa.func.now()
    done = Chunk.state == ChunkState.DONE
    under_way = sa.and_(Chunk.state == ChunkState.LEASED, Chunk.lease_expires_at > now)
    reported = sa.case((done, Chunk.done_at), else_=Chunk.reported_at)
    computing = sa.case((done, Chunk.done_at), else_=_earlier(now, Chunk.reported_at + STALE))
    known = sa.and_(
        Chunk.begun_at.is_not(None),
        sa.or_(sa.and_(done, Chunk.done_at > now - WINDOW), under_way),
    )
    fraction = sa.case((done, 1.0), else_=Chunk.fraction_done)
    unreported = _seconds(_earlier(now, Chunk.reported_at + STALE) - Chunk.reported_at)
    return [
        _sum(Chunk.rows * fraction * _part_within(WINDOW, reported), known).label("work_rows"),
        _sum(_overlap(WINDOW, reported), known).label("work_seconds"),
        _sum(_overlap(LATELY, computing), known).label("busy_seconds"),
        sa.func.coalesce(_seconds(now - sa.func.min(Chunk.begun_at)), 0.0).label("age_seconds"),
        _sum(Chunk.rows * Chunk.fraction_done, under_way).label("under_way"),
        _sum(unreported, under_way).label("unreported_seconds"),
    ]


def _overlap(window: timedelta, end: sa.ColumnElement[Any]) -> sa.ColumnElement[float]:
    """Seconds of a chunk, from its beginning to ``end``, within the window up to now."""
    begin = sa.func.greatest(Chunk.begun_at, sa.func.now() - window)
    return sa.func.greatest(_seconds(end - begin), 0.0)


def _part_within(window: timedelta, end: sa.ColumnElement[Any]) -> sa.ColumnElement[float]:
    """Which part of a chunk that is, by time; a chunk that took none is in it as a whole."""
    length = _seconds(end - Chunk.begun_at)
    return sa.case((length > 0, _overlap(window, end) / sa.func.nullif(length, 0.0)), else_=1.0)


def _earlier(one: sa.ColumnElement[Any], other: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    return sa.func.least(one, other)


def _seconds(interval: sa.ColumnElement[Any]) -> sa.ColumnElement[float]:
    return sa.cast(sa.extract("epoch", interval), sa.Double)


def _sum(value: sa.ColumnElement[Any], condition: sa.ColumnElement[bool]) -> sa.ColumnElement[Any]:
    return sa.func.coalesce(sa.cast(sa.func.sum(value).filter(condition), sa.Double), 0.0)
