"""The key that signs the broker's messages (docs/decisions/0035).

It is in Postgres, which every process that sends or receives them reaches: it needs no setting, and
the password of the broker does not give it away.
"""

from __future__ import annotations

import secrets

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from jobs.database import Sessions
from jobs.tables import MessageKey

KEY_BYTES = 32


def get(session: Session) -> bytes:
    """The key of this installation, made at the first call."""
    session.execute(
        insert(MessageKey)
        .values(id=1, key=secrets.token_bytes(KEY_BYTES))
        .on_conflict_do_nothing(index_elements=[MessageKey.id])
    )
    return session.scalars(sa.select(MessageKey.key)).one()


def read(sessions: Sessions) -> bytes:
    """The same, in a transaction of its own."""
    with sessions.begin() as session:
        return get(session)
