"""Tokens that open the event stream of one job for minutes.

A browser's ``EventSource`` cannot send a key in a header, and a key in a URL would be written into
logs of proxies and into the history. A token in its place lets its holder read the events of one
job, until it expires, and nothing else. It is signed with the hash of the key that asked for it, so
that it ends with that key as well, and no process keeps a secret of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy.orm import Session

from api.server import signed_claims
from jobs import ids
from jobs.errors import Unauthorized
from jobs.lookups import clock
from jobs.rights import Rights, Scope

LIFE = timedelta(minutes=5)
MESSAGE = (
    "the token must be one of this job that has not expired: ask for another with "
    "POST /v1/jobs/{job_id}/events/token"
)
"""The same for one that is malformed, forged, expired, or of another job."""

_PURPOSE = b"nightshift job events 1\0"


@dataclass(frozen=True)
class EventToken:
    """A token and when it ends."""

    text: str
    expires_at: datetime


def issue(session: Session, *, key: str, project_id: str, job_id: str) -> EventToken:
    """A token for a job of the project; the caller has looked it up there."""
    expires_at = clock.now(session) + LIFE
    claims = (project_id, job_id, int(expires_at.timestamp()))
    return EventToken(signed_claims.issue(*claims, purpose=_PURPOSE, key=key), expires_at)


def rights(session: Session, token: str, *, job_id: str) -> Rights:
    """What a token lets its holder do for the project. Raises ``Unauthorized``."""
    try:
        signed = signed_claims.read(token, claims=3)
        project_id, of_job, expires = signed.claims
        good = of_job == job_id and clock.now(session) < datetime.fromtimestamp(expires, UTC)
        key_hash = signed_claims.key_hash(session, signed, purpose=_PURPOSE) if good else None
    except (Unauthorized, ValueError, TypeError, OverflowError, OSError) as error:
        raise _refused(job_id) from error
    if key_hash is None:
        raise _refused(job_id)
    return Rights(project_id, ids.of_key(key_hash), frozenset({Scope.READ}))


def _refused(job_id: str) -> Unauthorized:
    return Unauthorized(MESSAGE.format(job_id=job_id), param="token")
