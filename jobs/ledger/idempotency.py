"""Requests with an ``Idempotency-Key``: the same key with the same body makes one thing."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs.errors import Conflict
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

    ``digest``: of the request's body. Raises ``Conflict`` for a key that was sent with another.
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
        raise Conflict(
            f"Idempotency-Key {key!r} was used for {found.id} with another {body}; send a new key "
            f"with a new {noun}",
            code="idempotency_key_reused",
        )
    return str(found.id)
