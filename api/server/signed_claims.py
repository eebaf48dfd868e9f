"""Claims that are signed with the hash of a key, so that they end with it (decisions 0032, 0054).

A text of claims names its project first. Any process of the API can read it, and none keeps a
secret of its own. A purpose keeps the texts of one use apart from those of another.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from jobs.errors import Unauthorized
from jobs.ledger import keys

LONGEST = 1000
"""Characters of a text: more are not looked at."""


@dataclass(frozen=True)
class Signed:
    """Claims as they were sent; their signature may be anybody's until ``key_hash`` finds it."""

    claims: list[Any]
    payload: bytes
    signature: bytes


def issue(*claims: Any, purpose: bytes, key: str) -> str:
    """Claims, of which the first is the project of this key, as a text for a URL or a cookie."""
    payload = json.dumps(claims, separators=(",", ":")).encode()
    return (
        f"{text(payload)}.{text(signature(payload, purpose=purpose, key_hash=keys.key_hash(key)))}"
    )


def read(given: str, *, claims: int) -> Signed:
    """A text with this number of claims. Raises ``Unauthorized``."""
    try:
        payload, signed = map(_bytes, given[:LONGEST].split("."))
        found = json.loads(payload)
    except (ValueError, RecursionError, binascii.Error) as error:
        raise Unauthorized("the claims cannot be read") from error
    if not isinstance(found, list) or len(found) != claims or not _is_project(found[0]):
        raise Unauthorized("the claims are not those that are issued")
    return Signed(found, payload, signed)


def key_hash(session: Session, signed: Signed, *, purpose: bytes) -> str:
    """The hash of the valid key of the project that signed the claims. Raises ``Unauthorized``."""
    for each in keys.valid_hashes(session, project_id=signed.claims[0]):
        made = signature(signed.payload, purpose=purpose, key_hash=each)
        if hmac.compare_digest(made, signed.signature):
            return each
    raise Unauthorized("no valid key has signed the claims")


def signature(payload: bytes, *, purpose: bytes, key_hash: str) -> bytes:
    """Of the key with this hash."""
    return hmac.new(bytes.fromhex(key_hash), purpose + payload, hashlib.sha256).digest()


def text(data: bytes) -> str:
    """Bytes as letters that a URL and a cookie may have."""
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _is_project(value: object) -> bool:
    """Postgres takes no NUL and no surrogate, and no project has one in its id."""
    return isinstance(value, str) and value.isprintable()


def _bytes(given: str) -> bytes:
    return base64.b64decode(given + "=" * (-len(given) % 4), altchars=b"-_", validate=True)
