"""How far chunks are that are not done: written with their leases, added up for rate and ETA."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

import pytest
import sqlalchemy as sa

from jobs.decisions.throughput import Work
from jobs.ledger import chunks
from jobs.lookups import clock
from jobs.progress import MeteredBeat, WorkMeter, advance, no_beat
from jobs.queries import jobs as job_queries
from jobs.queries.jobs import JobView
from jobs.states import ChunkState
from jobs.tables import Chunk
from tests.jobs.decisions.test_throughput import Span, summed
from tests.jobs.ledger.building import LEASE, PROJECT, Ledger

SPANS = (  # seconds ago: begun, last heard of
    Span(rows=100, begun=-400.0, reported=-250.0, done=True),  # before the window
    Span(rows=300, begun=-180.0, reported=-60.0, done=True),  # half of it within the window
    Span(rows=80, begun=-20.0, reported=-9.0, done=True),
    Span(rows=60, begun=-8.0, reported=-3.0, done=False),
    Span(rows=20, begun=-70.0, reported=-40.0, done=False),  # its worker is silent
)


def view(ledger: Ledger, job_id: str) -> JobView:
    with ledger.sessions.begin() as session:
        return job_queries.get(session, job_id, project_id=PROJECT)


def test_the_query_adds_up_what_the_decision_means(ledger: Ledger) -> None:
    job_id = ledger.running(*(100 if not span.done else int(span.rows) for span in SPANS))
    for chunk, span in zip(ledger.live(job_id), SPANS, strict=True):
        lease = ledger.claimed(chunk.id)
        if span.done:
            ledger.commit(lease)
        values = {"done_at" if span.done else "reported_at": clock.seconds_ago(-span.reported)}
        fraction = {} if span.done else {"fraction_done": span.rows / 100}
        begun = {"begun_at": clock.seconds_ago(-span.begun)}
        with ledger.sessions.begin() as session:
            update = sa.update(Chunk).where(Chunk.id == chunk.id)
            session.execute(update.values(**values, **fraction, **begun))
    found, expected = view(ledger, job_id).counts.work, summed(SPANS, now=0.0)
    for field in dataclasses.fields(Work):
        assert getattr(found, field.name) == pytest.approx(
            getattr(expected, field.name), abs=0.5, rel=0.02
        ), field.name


def test_a_chunk_that_is_begun_counts_as_far_as_it_is_done(ledger: Ledger) -> None:
    job_id = ledger.running(100, 100)
    first, _ = ledger.live(job_id)
    lease = ledger.claimed(first.id)
    meter = WorkMeter()
    meter.begin()
    advance(MeteredBeat(no_beat, meter), 0.25)
    with ledger.sessions.begin() as session:
        chunks.renew(session, lease, duration=LEASE, work=meter)
    counts = view(ledger, job_id).counts
    assert (counts.under_way, counts.rows_done) == (25, 0)
    ledger.commit(lease)
    counts = view(ledger, job_id).counts
    assert (counts.under_way, counts.rows_done) == (0, 100)
    assert ledger.chunk(first.id).begun_at is not None


def test_a_worker_that_loads_its_model_computes_nothing_yet(ledger: Ledger) -> None:
    job_id = ledger.running(100)
    lease = ledger.claimed(ledger.only_chunk(job_id))
    with ledger.sessions.begin() as session:
        chunks.renew(session, lease, duration=LEASE, work=WorkMeter())
    found = view(ledger, job_id).counts.work
    assert (found.workers, found.rate) == (0, None)


def test_what_a_dead_worker_had_done_counts_no_more(ledger: Ledger) -> None:
    job_id = ledger.running(100)
    lease = ledger.claimed(ledger.only_chunk(job_id))
    meter = WorkMeter(fraction_done=0.5)
    meter.begin()
    with ledger.sessions.begin() as session:
        chunks.renew(session, lease, duration=LEASE, work=meter)
    ledger.crash(lease)
    assert view(ledger, job_id).counts.under_way == 0
    again = ledger.claimed(lease.chunk_id)
    chunk = ledger.chunk(again.chunk_id)
    assert (chunk.state, chunk.fraction_done) == (ChunkState.LEASED, 0.0)


def test_the_last_seconds_of_a_job_are_few(ledger: Ledger) -> None:
    job_id = ledger.running(100, 100)
    first, second = ledger.live(job_id)
    ledger.commit(ledger.claimed(first.id))
    ledger.claimed(second.id)
    with ledger.sessions.begin() as session:
        update = sa.update(Chunk)
        now = sa.func.now()
        ten = timedelta(seconds=10)
        session.execute(
            update.where(Chunk.id == first.id).values(begun_at=now - 2 * ten, done_at=now - ten)
        )
        session.execute(
            update.where(Chunk.id == second.id).values(
                begun_at=now - ten, fraction_done=0.5, reported_at=now
            )
        )
    found = view(ledger, job_id)
    assert found.rate == pytest.approx(7.5, rel=0.1)
    assert found.eta_seconds == pytest.approx(50 / 7.5, rel=0.1)
