"""Webhook endpoints: create, change, rotate the secret, enable, test, delete.

Every function takes the lock on the endpoint's row first; ``FOR NO KEY UPDATE``, which an event
that is written for the endpoint does not wait for.
"""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs import ids
from jobs.errors import BadRequest, Conflict, NotFound
from jobs.ledger import idempotency, webhook_outbox
from jobs.lookups import clock
from jobs.settings import Settings
from jobs.tables import Project, WebhookDelivery, WebhookEndpoint
from jobs.webhooks import addresses, endpoints, events, signatures
from jobs.webhooks.endpoints import EndpointChange, EndpointRequest
from jobs.webhooks.events import EventType
from jobs.webhooks.states import DeliveryState


def create(
    session: Session,
    request: EndpointRequest,
    *,
    project_id: str,
    idempotency_key: str | None,
    settings: Settings,
) -> tuple[str, bool]:
    """The endpoint's id, and whether it is new; a repeated key is as that of a job.

    Raises ``BadRequest``, and ``Conflict`` where the project has too many.
    """
    digest = hashlib.sha256(request.model_dump_json().encode()).hexdigest()
    session.execute(
        sa.select(Project.id).where(Project.id == project_id).with_for_update(key_share=True)
    )
    earlier = idempotency.earlier(
        session, WebhookEndpoint, project_id=project_id, key=idempotency_key, digest=digest
    )
    if earlier is not None:
        return earlier, False
    _check_place(request.url, request.email, settings=settings)
    _check_room(session, project_id)
    endpoint = WebhookEndpoint(
        id=ids.webhook_endpoint(),
        project_id=project_id,
        name=request.name,
        url=request.url,
        email=request.email,
        event_types=[each.value for each in request.event_types],
        secret=None if request.url is None else signatures.new_secret(),
        idempotency_key=idempotency_key,
        request_sha256=digest,
    )
    session.add(endpoint)
    session.flush()
    return endpoint.id, True


def change(
    session: Session,
    endpoint_id: str,
    given: EndpointChange,
    *,
    project_id: str,
    settings: Settings,
) -> None:
    """Change what is given; what waits goes to a new URL as well."""
    endpoint = locked(session, endpoint_id, project_id=project_id)
    if given.url is not None and endpoint.url is None:
        raise BadRequest("this endpoint sends mails: make another one for a URL", param="url")
    _check_place(given.url, None, settings=settings)
    values = {
        "url": given.url or endpoint.url,
        "name": endpoint.name if given.name is None else given.name,
        "event_types": endpoint.event_types
        if given.event_types is None
        else [each.value for each in given.event_types],
    }
    if any(getattr(endpoint, name) != value for name, value in values.items()):
        _update(session, endpoint, **values, updated_at=clock.now(session))


def rotate(session: Session, endpoint_id: str, *, project_id: str, overlap: timedelta) -> str:
    """A new secret. The ones before it sign beside it for ``overlap``, and then no more.

    Raises ``BadRequest`` for a person, and ``Conflict`` while too many are valid.
    """
    endpoint = locked(session, endpoint_id, project_id=project_id)
    if endpoint.secret is None:
        raise BadRequest("mails are not signed: an endpoint with an address has no secret")
    now = clock.now(session)
    until = now + overlap
    before = [*old_secrets(endpoint, now=now), (endpoint.secret, until)]
    kept = [(secret, min(end, until)) for secret, end in before] if overlap else []
    if len(kept) >= endpoints.MOST_SECRETS:
        raise Conflict(
            f"{endpoint_id} has {len(kept)} valid secrets: wait until one of them ends, or rotate "
            "with an overlap of 0, which ends all of them",
            code="too_many_secrets",
        )
    secret = signatures.new_secret()
    old = [{"secret": each, "until": end.isoformat()} for each, end in kept]
    _update(session, endpoint, secret=secret, old_secrets=old, updated_at=now)
    return secret


def old_secrets(endpoint: WebhookEndpoint, *, now: datetime) -> list[tuple[str, datetime]]:
    """The secrets before the one that counts which are still valid, and until when."""
    found = [
        (str(each["secret"]), datetime.fromisoformat(each["until"]))
        for each in endpoint.old_secrets
    ]
    return [(secret, until) for secret, until in found if until > now]


def disable(session: Session, endpoint: WebhookEndpoint, *, reason: str) -> None:
    """Send it nothing until it is enabled; the other endpoints of the project learn of it."""
    _update(session, endpoint, disabled_at=clock.now(session), disabled_reason=reason)
    webhook_outbox.record(
        session, events.endpoint_disabled(endpoint.id), project_id=endpoint.project_id
    )


def enable(session: Session, endpoint_id: str, *, project_id: str, skip_waiting: bool) -> None:
    """Send what waits at once, or leave it out; harmless on one that is enabled.

    From now on a delivery may fail for as long as a new one.
    """
    endpoint = locked(session, endpoint_id, project_id=project_id)
    at_once = sa.func.greatest(sa.func.now(), WebhookDelivery.leased_until)  # passes over null
    values: dict[str, Any] = {"tries": 0, "first_tried_at": None, "next_at": at_once}
    if skip_waiting:
        values = {"state": DeliveryState.SKIPPED, "leased_until": None}
    session.execute(
        sa.update(WebhookDelivery)
        .where(
            WebhookDelivery.endpoint_id == endpoint_id,
            WebhookDelivery.state == DeliveryState.PENDING,
        )
        .values(**values)
    )
    _update(
        session,
        endpoint,
        disabled_at=None,
        disabled_reason=None,
        failures=0,
        failing_since=None,
        rest_until=None,
    )


def send_test(session: Session, endpoint_id: str, *, project_id: str, event_type: EventType) -> int:
    """The delivery of a sample event. Raises ``Conflict`` for an endpoint that is disabled."""
    endpoint = locked(session, endpoint_id, project_id=project_id)
    check_enabled(endpoint)
    _update(session, endpoint, rest_until=None)
    return webhook_outbox.record_for(
        session,
        events.endpoint_test(endpoint_id, event_type),
        project_id=project_id,
        endpoint_id=endpoint_id,
    )


def delete(session: Session, endpoint_id: str, *, project_id: str) -> None:
    """Make it a tombstone without secrets; nothing is sent to it any more."""
    endpoint = locked(session, endpoint_id, project_id=project_id)
    _update(
        session,
        endpoint,
        deleted_at=clock.now(session),
        secret=None,
        old_secrets=[],
        idempotency_key=None,
    )


def locked(session: Session, endpoint_id: str, *, project_id: str) -> WebhookEndpoint:
    """The endpoint under its lock. Raises ``NotFound``, for another project's too."""
    endpoint = session.scalar(
        sa.select(WebhookEndpoint)
        .where(
            WebhookEndpoint.id == endpoint_id,
            WebhookEndpoint.project_id == project_id,
            WebhookEndpoint.deleted_at.is_(None),
        )
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    )
    if endpoint is None:
        raise NotFound(f"no webhook endpoint {endpoint_id!r} in this project")
    return endpoint


def check_enabled(endpoint: WebhookEndpoint) -> None:
    """Raise ``Conflict`` for an endpoint to which nothing is sent."""
    if endpoint.disabled_at is not None:
        raise Conflict(
            f"{endpoint.id} is disabled ({endpoint.disabled_reason}): enable it first",
            code="endpoint_disabled",
        )


def _check_place(url: str | None, email: str | None, *, settings: Settings) -> None:
    """Refuse what can never be sent; the addresses of a name are looked up at each try."""
    host = endpoints.host(url) if url is not None else ""
    if addresses.is_literal(host) and not addresses.are_allowed(
        [host], allowed=settings.webhook_allowed
    ):
        raise BadRequest(
            f"{host} is not a public address, and webhooks go to no others unless the setting "
            "NIGHTSHIFT_WEBHOOK_NETWORKS names its network",
            param="url",
            code="address_refused",
        )
    if email is not None and not settings.smtp_url:
        raise BadRequest(
            "this installation sends no mails: NIGHTSHIFT_SMTP_URL is not set",
            param="email",
            code="no_smtp",
        )


def _check_room(session: Session, project_id: str) -> None:
    count = session.scalar(
        sa.select(sa.func.count())
        .select_from(WebhookEndpoint)
        .where(WebhookEndpoint.project_id == project_id, WebhookEndpoint.deleted_at.is_(None))
    )
    if (count or 0) >= endpoints.MOST_ENDPOINTS:
        raise Conflict(
            f"a project has at most {endpoints.MOST_ENDPOINTS} webhook endpoints: delete one",
            code="too_many_endpoints",
        )


def _update(session: Session, endpoint: WebhookEndpoint, **values: Any) -> None:
    for name, value in values.items():
        setattr(endpoint, name, value)
    session.flush()
