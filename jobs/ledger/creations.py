"""A create that is repeated because its answer was lost makes one thing.

Who sends an ``Idempotency-Key`` says which create it repeats. The official client sends none, but
counts its tries: ``jobs.decisions.create_tries`` finds the create that one repeats. What is made is
written down in the transaction that makes it, so it holds across processes and restarts.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs.decisions import create_tries
from jobs.decisions.create_tries import Made, Try
from jobs.ledger import idempotency
from jobs.lookups import clock
from jobs.tables import Creation

REPEATED_WITHIN = timedelta(minutes=15)
"""The official client waits ten minutes for an answer, and then a minute at most."""

KEPT = timedelta(days=1)
PRUNED_AT_ONCE = 100

_LOCKS = 7_627_109
"""Of the advisory locks on creates; the other half of the key is what the request creates."""


@dataclass(frozen=True)
class Request:
    """A create by the key of this sha256. ``digest``: of the body, in hex."""

    project_id: str
    caller: str
    route: str
    digest: str


@dataclass(frozen=True)
class CountedRequest(Request):
    """One without an ``Idempotency-Key``, of a client that counts its tries."""

    attempt: Try


def with_digest(request: CountedRequest, digest: str) -> CountedRequest:
    """The same request, whose body is known now."""
    return dataclasses.replace(request, digest=digest)


def once(
    session: Session, request: CountedRequest | None, make: Callable[[], tuple[str, bool]]
) -> tuple[str, bool]:
    """The id of what the request makes or made at an earlier try, and whether it is new.

    ``request``: ``None`` for one that does not count its tries, for which ``make`` decides. Waits
    for other tries with the same body, one of which may be about to commit what this one repeats.
    """
    if request is None:
        return make()
    _lock(session, request.caller, request.route, request.digest)
    found = create_tries.repeated(_made(session, request), request.attempt)
    arrival = {str(request.attempt.count): request.attempt.arrived.isoformat()}
    if found is not None:
        session.execute(
            sa.update(Creation)
            .where(Creation.made_id == found.id, Creation.idempotency_key.is_(None))
            .values(tries=Creation.tries.concat(arrival))
        )
        return found.id, False
    made_id, new = make()
    _record(session, request, made_id, tries=arrival)
    return made_id, new


def once_by_key(
    session: Session, request: Request, *, key: str, make: Callable[[], str]
) -> tuple[str, bool]:
    """As ``once``, for what has no column for its ``Idempotency-Key``; remembered for a day.

    Raises ``KeyReused`` for a key that was sent with another body.
    """
    _lock(session, request.project_id, request.route, key)
    found = session.execute(
        sa.select(Creation.made_id, Creation.request_sha256).where(
            Creation.project_id == request.project_id,
            Creation.route == request.route,
            Creation.idempotency_key == key,
        )
    ).one_or_none()
    if found is not None:
        if found.request_sha256 != request.digest:
            raise idempotency.reused(key, made_id=found.made_id, noun="file", body="content")
        return str(found.made_id), False
    made_id = make()
    _record(session, request, made_id, tries={}, key=key)
    return made_id, True


def name(session: Session, made_id: str, *, caller: str, now: datetime) -> None:
    """The caller's client knows this id: no later try repeats the create that made it."""
    session.execute(
        sa.update(Creation)
        .where(Creation.made_id == made_id, Creation.caller == caller, Creation.named_at.is_(None))
        .values(named_at=now)
    )


def free_key(session: Session, made_id: str) -> None:
    """What was made is deleted: its ``Idempotency-Key`` may make another one."""
    session.execute(
        sa.delete(Creation).where(
            Creation.made_id == made_id, Creation.idempotency_key.is_not(None)
        )
    )


def _lock(session: Session, *what: str) -> None:
    """Until the end of the transaction; what the next statement reads is committed by then."""
    digest = hashlib.sha256("\0".join(what).encode()).digest()
    half = int.from_bytes(digest[:4], "big", signed=True)
    session.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCKS, half)))


def _made(session: Session, request: Request) -> list[Made]:
    rows = session.execute(
        sa.select(Creation.made_id, Creation.tries, Creation.named_at)
        .where(
            Creation.caller == request.caller,
            Creation.route == request.route,
            Creation.request_sha256 == request.digest,
            Creation.idempotency_key.is_(None),
            Creation.created_at >= clock.seconds_ago(REPEATED_WITHIN.total_seconds()),
        )
        .order_by(Creation.id)
    )
    return [
        Made(
            row.made_id,
            {int(count): datetime.fromisoformat(at) for count, at in row.tries.items()},
            row.named_at,
        )
        for row in rows
    ]


def _record(
    session: Session,
    request: Request,
    made_id: str,
    *,
    tries: dict[str, str],
    key: str | None = None,
) -> None:
    session.add(
        Creation(
            project_id=request.project_id,
            caller=request.caller,
            route=request.route,
            request_sha256=request.digest,
            idempotency_key=key,
            made_id=made_id,
            tries=tries,
        )
    )
    session.flush()
    _prune(session)


def _prune(session: Session) -> None:
    """Remove creations that no client repeats any more, and more of them than come in."""
    old = (
        sa.select(Creation.id)
        .where(Creation.created_at < clock.seconds_ago(KEPT.total_seconds()))
        .order_by(Creation.created_at)
        .limit(PRUNED_AT_ONCE)
        .with_for_update(skip_locked=True)
    )
    session.execute(
        sa.delete(Creation).where(Creation.id.in_(old)).execution_options(synchronize_session=False)
    )
