"""Sessions of browsers: a cookie that stands for the key with which somebody signed in.

The cookie does not hold the key. It names the project and an end, and is signed with the hash of
the key, like a token of events: a session ends with its key, any process of the API can read it,
and no process keeps a secret of its own. A form carries a token that is made of the cookie, so that
a page of another origin cannot send it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy.orm import Session

from jobs.errors import Unauthorized
from jobs.ledger import keys
from jobs.lookups import clock
from jobs.rights import Rights

COOKIE = "nightshift_session"
VISIT_COOKIE = "nightshift_visit"
"""Of somebody who has not signed in yet: what the form of signing in is bound to."""

LIFE = timedelta(hours=12)
LONGEST = 1000
"""Characters of a cookie: more are not looked at."""

MESSAGE = "sign in with an API key of a project"

_PURPOSE = b"nightshift session 1\0"
_FORM = b"nightshift form 1\0"


@dataclass(frozen=True)
class BrowserSession:
    """What it may do, and the key with which it began."""

    rights: Rights
    key_hash: str


def issue(session: Session, *, key: str, project_id: str) -> str:
    """The text of a cookie for a key that was found to be the project's."""
    end = clock.now(session) + LIFE
    claims = [project_id, int(end.timestamp()), secrets.token_hex(8)]
    payload = json.dumps(claims, separators=(",", ":")).encode()
    signature = _signature(payload, key_hash=keys.key_hash(key))
    return f"{_text(payload)}.{_text(signature)}"


def read(session: Session, cookie: str) -> BrowserSession:
    """The session of a cookie. Raises ``Unauthorized``."""
    try:
        payload, signature = map(_bytes, cookie[:LONGEST].split("."))
        project_id, ends, _ = json.loads(payload)
        good = clock.now(session) < datetime.fromtimestamp(ends, UTC)
    except (ValueError, TypeError, OverflowError, OSError, binascii.Error) as error:
        raise Unauthorized(MESSAGE) from error
    if not good or not isinstance(project_id, str) or not project_id.isprintable():
        raise Unauthorized(MESSAGE)
    for key_hash in keys.valid_hashes(session, project_id=project_id):
        if hmac.compare_digest(_signature(payload, key_hash=key_hash), signature):
            return BrowserSession(keys.of_hash(session, key_hash), key_hash)
    raise Unauthorized(MESSAGE)


def form_token(cookie: str) -> str:
    """What a form of the holder of this cookie carries."""
    return hmac.new(cookie.encode(), _FORM, hashlib.sha256).hexdigest()


def is_form_token(token: str, *, cookie: str) -> bool:
    """Whether the holder of the cookie was given this token."""
    return hmac.compare_digest(form_token(cookie).encode(), token.encode())


def _signature(payload: bytes, *, key_hash: str) -> bytes:
    return hmac.new(bytes.fromhex(key_hash), _PURPOSE + payload, hashlib.sha256).digest()


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _bytes(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
