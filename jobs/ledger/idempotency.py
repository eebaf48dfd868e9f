"""Requests with an ``Idempotency-Key``: the same key with the same body makes one thing."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs.errors import KeyReused
from jobs.tables import Job, JobGroup, Schedule, WebhookEndpoint

Keyed = type[Job] | type[JobGroup] | type[Schedule] | type[WebhookEndpoint]

_NOUNS: dict[Any, tuple[str, str]] = {
    Job: ("job", "spec"),
    JobGroup: ("group", "spec"),
    Schedule: ("schedule", "body"),
    WebhookEndpoint: ("endpoint", "body"),
}
"""What is made, and what it is made of."""


def earlier(
    session: Session, table: Keyed, *, project_id: str, key: str | None, digest: str
) -> str | None:
    """The id of what this key has made before; ``None``: nothing, as far as is committed.

    ``digest``: of the request's body. Raises ``KeyReused`` for a key that was sent with another.
    """
    if key is None:
        return None
    found = session.execute(
        sa.select(table.id, table.request_sha256).where(
            table.project_id == project_id, table.idempotency_key == key
        )
    ).one_or_none()
    if found is None:
        return None
    if found.request_sha256 != digest:
        noun, body = _NOUNS[table]
        raise reused(key, made_id=found.id, noun=noun, body=body)
    return str(found.id)


def reused(key: str, *, made_id: str, noun: str, body: str) -> KeyReused:
    """The error for a key that has made ``made_id`` of another body."""
    return KeyReused(
        f"Idempotency-Key {key!r} was used for {made_id} with another {body}; send a new key "
        f"with a new {noun}"
    )
