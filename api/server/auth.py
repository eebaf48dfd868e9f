"""Who is calling: a bearer key, and the project it acts for."""

from __future__ import annotations

from sqlalchemy.orm import Session

from jobs.errors import Unauthorized
from jobs.ledger import projects

MESSAGE = (
    "a valid API key must be sent as `Authorization: Bearer KEY`; `nightshift up` writes one down"
)
"""The same for a missing, a malformed and an unknown key: a guesser learns nothing."""


def bearer(header: str | None) -> str:
    """The key in an ``Authorization`` header. Raises ``Unauthorized``."""
    scheme, _, key = (header or "").partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        raise Unauthorized(MESSAGE)
    return key.strip()


def project(session: Session, key: str) -> str:
    """The key's project. Raises ``Unauthorized``."""
    try:
        return projects.authenticate(session, key=key)
    except Unauthorized as error:
        raise Unauthorized(MESSAGE) from error
