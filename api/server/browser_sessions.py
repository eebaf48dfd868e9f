"""Sessions of browsers: a cookie that stands for the key with which somebody signed in.

The cookie does not hold the key. It names the project and an end, and is signed with the hash of
the key, like a token of events: a session ends with its key, any process of the API can read it,
and no process keeps a secret of its own. A form carries a token that is made of the cookie, so that
a page of another origin cannot send it.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy.orm import Session

from api.server import signed_claims
from jobs.errors import Unauthorized
from jobs.ledger import keys
from jobs.lookups import clock
from jobs.rights import Rights

COOKIE = "nightshift_session"
VISIT_COOKIE = "nightshift_visit"
"""Of somebody who has not signed in yet: what the form of signing in is bound to."""

LIFE = timedelta(hours=12)
MESSAGE = "sign in with an API key of a project"

PURPOSE = b"nightshift session 1\0"
_FORM = b"nightshift form 1\0"


@dataclass(frozen=True)
class BrowserSession:
    """What it may do, and the key with which it began."""

    rights: Rights
    key_hash: str


def issue(session: Session, *, key: str, project_id: str) -> str:
    """The text of a cookie for a key that was found to be the project's."""
    end = clock.now(session) + LIFE
    claims = (project_id, int(end.timestamp()), secrets.token_hex(8))
    return signed_claims.issue(*claims, purpose=PURPOSE, key=key)


def read(session: Session, cookie: str) -> BrowserSession:
    """The session of a cookie. Raises ``Unauthorized``."""
    try:
        signed = signed_claims.read(cookie, claims=3)
        good = clock.now(session) < datetime.fromtimestamp(signed.claims[1], UTC)
        key_hash = signed_claims.key_hash(session, signed, purpose=PURPOSE) if good else None
    except (Unauthorized, ValueError, TypeError, OverflowError, OSError) as error:
        raise Unauthorized(MESSAGE) from error
    if key_hash is None:
        raise Unauthorized(MESSAGE)
    return BrowserSession(keys.of_hash(session, key_hash), key_hash)


def form_token(cookie: str) -> str:
    """What a form of the holder of this cookie carries."""
    return hmac.new(cookie.encode(), _FORM, hashlib.sha256).hexdigest()


def is_form_token(token: str, *, cookie: str) -> bool:
    """Whether the holder of the cookie was given this token."""
    return hmac.compare_digest(form_token(cookie).encode(), token.encode())
