"""Tokens that open the event stream of one job for minutes.

A browser's ``EventSource`` cannot send a key in a header, and a key in a URL would be written into
logs of proxies and into the history. A token in its place lets its holder read the events of one
job, until it expires, and nothing else. It is signed with the hash of the key that asked for it, so
that it ends with that key as well, and no process keeps a secret of its own.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy.orm import Session

from jobs import ids
from jobs.errors import Unauthorized
from jobs.ledger import keys
from jobs.lookups import clock
from jobs.rights import Rights, Scope

LIFE = timedelta(minutes=5)
LONGEST = 1000
"""Characters of a token: more are not looked at."""

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
    claims = [project_id, job_id, int(expires_at.timestamp())]
    payload = json.dumps(claims, separators=(",", ":")).encode()
    signature = _signature(payload, key_hash=keys.key_hash(key))
    return EventToken(f"{_text(payload)}.{_text(signature)}", expires_at)


def rights(session: Session, token: str, *, job_id: str) -> Rights:
    """What a token lets its holder do for the project. Raises ``Unauthorized``."""
    try:
        payload, signature = map(_bytes, token[:LONGEST].split("."))
        project_id, of_job, expires = json.loads(payload)
        good = of_job == job_id and clock.now(session) < datetime.fromtimestamp(expires, UTC)
    except (ValueError, TypeError, OverflowError, OSError, binascii.Error) as error:
        raise _refused(job_id) from error
    if not good or not isinstance(project_id, str) or not project_id.isprintable():
        raise _refused(job_id)
    for key_hash in keys.valid_hashes(session, project_id=project_id):
        if hmac.compare_digest(_signature(payload, key_hash=key_hash), signature):
            return Rights(project_id, ids.of_key(key_hash), frozenset({Scope.READ}))
    raise _refused(job_id)


def _refused(job_id: str) -> Unauthorized:
    return Unauthorized(MESSAGE.format(job_id=job_id), param="token")


def _signature(payload: bytes, *, key_hash: str) -> bytes:
    return hmac.new(bytes.fromhex(key_hash), _PURPOSE + payload, hashlib.sha256).digest()


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _bytes(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
