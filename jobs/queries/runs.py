"""Runs of training jobs with their ranks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import Session

from jobs.queries import paging
from jobs.queries.paging import Order
from jobs.tables import Checkpoint, Rank, Run


@dataclass(frozen=True)
class RunView:
    """One attempt at a job, by whom, and where it began."""

    run: Run
    from_step: int  # of the checkpoint that it resumed from; 0: it began at the beginning
    ranks: list[Rank]  # in order


def page(
    session: Session,
    job_id: str,
    *,
    limit: int,
    after: int | None = None,
    order: Order = Order.DESC,
) -> tuple[list[RunView], bool]:
    """Runs of a job by number, beginning behind the run ``after``; and whether more follow."""
    query = sa.select(Run).where(Run.job_id == job_id)
    place = None if after is None else (after,)
    query = paging.sort(query, Run.number, order=order, after=place)
    rows, more = paging.page(session, query, limit=limit)
    return _views(session, rows), more


def latest(session: Session, job_ids: Iterable[str]) -> dict[str, RunView]:
    """The newest run of each job that has ever had one."""
    query = (
        sa.select(Run)
        .ext(postgresql.distinct_on(Run.job_id))
        .where(Run.job_id.in_(list(job_ids)))
        .order_by(Run.job_id, Run.number.desc())
    )
    return {view.run.job_id: view for view in _views(session, session.scalars(query).all())}


def _views(session: Session, found: Sequence[Run]) -> list[RunView]:
    if not found:
        return []
    ranks = session.scalars(
        sa.select(Rank).where(Rank.run_id.in_([run.id for run in found])).order_by(Rank.rank)
    ).all()
    begun = _from_steps(session, found)
    return [
        RunView(
            run=run,
            from_step=begun.get(run.checkpoint_id or 0, 0),
            ranks=[rank for rank in ranks if rank.run_id == run.id],
        )
        for run in found
    ]


def _from_steps(session: Session, found: Sequence[Run]) -> dict[int, int]:
    ids = [run.checkpoint_id for run in found if run.checkpoint_id is not None]
    query = sa.select(Checkpoint.id, Checkpoint.step).where(Checkpoint.id.in_(ids))
    return dict(session.execute(query).all())
