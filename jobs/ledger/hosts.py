"""Hosts, kept on record by the heartbeats of their agents."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from jobs.decisions import run_verdict
from jobs.decisions.run_verdict import RankOutcome
from jobs.ledger import events, runs
from jobs.lookups import predicates
from jobs.states import RankState
from jobs.tables import Host, Rank


@dataclass(frozen=True)
class HostDescription:
    """A host as its agent reports it."""

    name: str
    incarnation: str  # new at every start of the agent
    pool: str
    address: str
    devices: int
    device: str
    memory_bytes: int
    shares_pool: str | None
    sharing: str | None
    worker: str | None = None  # its agent's name among Celery's


def beat(session: Session, host: HostDescription) -> bool:
    """Renew the host's heartbeat; ``False`` when another agent uses its name.

    An agent that was restarted takes the name over, and the ranks of the earlier one end.
    """
    values = {**asdict(host), "beat_at": sa.func.now()}
    ours = session.scalar(
        insert(Host)
        .values(values)
        .on_conflict_do_update(
            index_elements=[Host.name],
            set_=values,
            where=Host.incarnation == host.incarnation,
        )
        .returning(Host.name)
    )
    return ours is not None


def arrive(session: Session, host: HostDescription) -> None:
    """Take the name over from an earlier agent, whose ranks end with it.

    The host comes first: a gang that is being formed with it is then seen by what follows.
    """
    values = {**asdict(host), "draining": False, "beat_at": sa.func.now()}
    session.execute(
        insert(Host)
        .values(values)
        .on_conflict_do_update(
            index_elements=[Host.name], set_={**values, "started_at": sa.func.now()}
        )
    )
    session.execute(
        sa.update(Rank)
        .where(
            Rank.host == host.name,
            Rank.incarnation != host.incarnation,
            Rank.state != RankState.ENDED,
        )
        .values(
            state=RankState.ENDED,
            lease_expires_at=None,
            outcome=RankOutcome.SILENT,
            error="the host's agent was restarted",
            ended_at=sa.func.now(),
        )
    )
    events.wake_control(session)


def drain(session: Session, *, name: str, incarnation: str) -> None:
    """Take no more ranks; the run that has one there is asked to save a checkpoint and end.

    That does not wait for control, which may be ending too. Control stops a run that is formed with
    the host at this moment.
    """
    ours = (Host.name == name, Host.incarnation == incarnation)
    run_id = session.scalar(sa.select(Host.run_id).where(*ours))
    if run_id is not None:  # first, because a run is locked before its hosts
        reason = run_verdict.going_away(name)
        runs.request_stop(session, run_id, how="checkpoint", reason=reason)
    session.execute(sa.update(Host).where(*ours).values(draining=True))
    events.wake_control(session)


def doubt(session: Session, name: str) -> None:
    """Count the host as gone until it beats again: it did not answer for its rank."""
    session.execute(
        sa.update(Host)
        .where(Host.name == name)
        .values(beat_at=sa.func.now() - 2 * predicates.SILENCE)
    )


def leave(session: Session, *, name: str, incarnation: str) -> None:
    """Remove the host from the record."""
    session.execute(sa.delete(Host).where(Host.name == name, Host.incarnation == incarnation))


def forget_silent(session: Session, *, seconds: float) -> list[str]:
    """Remove hosts that have been silent for ``seconds`` and hold nothing; returns their names."""
    silent = sa.func.now() - sa.func.make_interval(0, 0, 0, 0, 0, 0, seconds)
    return list(
        session.scalars(
            sa.delete(Host).where(Host.beat_at < silent, Host.run_id.is_(None)).returning(Host.name)
        )
    )
