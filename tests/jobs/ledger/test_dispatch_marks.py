"""Marking chunks as sent, whatever plan Postgres chooses."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from jobs.ledger import dispatch_marks
from tests.jobs.ledger.building import Ledger

PLANS = ("hashjoin", "mergejoin", "nestloop", "hashagg", "sort", "material", "memoize", "seqscan")


@pytest.mark.parametrize(
    "without", [(), *((name,) for name in PLANS), PLANS[:2], PLANS[:2] + PLANS[3:7]]
)
def test_no_more_chunks_are_marked_than_were_asked_for(
    ledger: Ledger, without: tuple[str, ...]
) -> None:
    """A join that selects again for every chunk would select others each time."""
    jobs = [ledger.running(*[1] * 50) for _ in range(3)]
    counts = dict(zip(jobs, (8, 1, 60), strict=True))
    with ledger.sessions.begin() as session:
        for name in without:
            session.execute(sa.text(f"SET LOCAL enable_{name} = off"))
        sent = dispatch_marks.mark_chunks(session, counts)
    for job_id, expected in zip(jobs, (8, 1, 50), strict=True):
        assert [chunk.first_row for chunk in sent[job_id]] == list(range(expected))
        marked = [chunk for chunk in ledger.live(job_id) if chunk.dispatched_at is not None]
        assert len(marked) == expected
