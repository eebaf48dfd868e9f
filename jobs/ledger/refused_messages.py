"""Messages of the broker that workers refused or died of.

Promise P12, docs/decisions/0035: a message harms no worker, and one of which two workers have died
is in quarantine. Its job, if control has signed it, fails and says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from jobs.ledger import transitions
from jobs.lookups.predicates import QUARANTINE_DEATHS
from jobs.tables import Chunk, RefusedMessage, Run

KEPT = 1_000
"""Rows that are kept of messages that were refused; those refused last stay."""

CODE = "message_ended_workers"


@dataclass(frozen=True)
class Refusal:
    """A message that was refused, ``times`` times."""

    digest: str
    queue: str
    reason: str
    message: str
    size: int
    times: int = 1


@dataclass(frozen=True)
class Death:
    """A message on which a worker was acting when it died; ``task`` if control has signed it."""

    digest: str
    queue: str
    size: int
    worker: str  # that died
    task: str | None = None
    argument: int | str | None = None  # the first: the chunk, job or run


def record(session: Session, refusals: Sequence[Refusal], *, worker: str) -> None:
    """Count refusals, and forget the oldest beyond ``KEPT``."""
    for refusal in refusals:
        values = {
            "reason": refusal.reason,
            "message": refusal.message,
            "worker": worker,
            "last_at": sa.func.now(),
        }
        session.execute(
            insert(RefusedMessage)
            .values(
                digest=refusal.digest,
                queue=refusal.queue,
                size=refusal.size,
                times=refusal.times,
                **values,
            )
            .on_conflict_do_update(
                index_elements=[RefusedMessage.digest],
                set_={**values, "times": RefusedMessage.times + refusal.times},
            )
        )
    if refusals:
        _forget_oldest(session)


def record_death(session: Session, death: Death) -> bool:
    """Count a worker that died of the message; ``True``: it is in quarantine from now on."""
    job_id = _job_of(session, death)
    values = {
        "reason": "ended_worker",
        "message": "a worker died while it received it",
        "worker": death.worker,
        "last_at": sa.func.now(),
    }
    deaths = session.execute(
        insert(RefusedMessage)
        .values(
            digest=death.digest,
            queue=death.queue,
            size=death.size,
            times=0,
            deaths=1,
            job_id=job_id,
            **values,
        )
        .on_conflict_do_update(
            index_elements=[RefusedMessage.digest],
            set_={**values, "deaths": RefusedMessage.deaths + 1},
        )
        .returning(RefusedMessage.deaths)
    ).scalar_one()
    if deaths < QUARANTINE_DEATHS:
        return False
    if job_id is not None:
        transitions.fail(
            session,
            job_id,
            code=CODE,
            message=f"{deaths} workers died while they received a message of this job, the last "
            f"was {death.worker}; see its log, then `nightshift jobs retry`",
        )
    return True


def lift_quarantine(session: Session, job_id: str) -> None:
    """Forget the deaths of a job's messages: it is tried again."""
    session.execute(sa.delete(RefusedMessage).where(RefusedMessage.job_id == job_id))


def _job_of(session: Session, death: Death) -> str | None:
    match death.task, death.argument:
        case "chunk", int(chunk_id):
            return session.scalar(sa.select(Chunk.job_id).where(Chunk.id == chunk_id))
        case "rank", str(run_id):
            return session.scalar(sa.select(Run.job_id).where(Run.id == run_id))
        case "plan" | "finalize", str(job_id):
            return job_id
    return None


def _forget_oldest(session: Session) -> None:
    kept = (
        sa.select(RefusedMessage.digest).order_by(RefusedMessage.last_at.desc()).limit(KEPT)
    ).scalar_subquery()
    session.execute(
        sa.delete(RefusedMessage).where(
            RefusedMessage.digest.not_in(kept), RefusedMessage.deaths == 0
        )
    )
