"""Deliveries: claimed by one process at a time, tried, delivered or tried again later.

A claim takes the lock on the endpoint's row, so that an endpoint gets no more at a time than it
may, however many processes send; a lease and a fence guard the rest. A process that dies keeps a
delivery until its lease ends: it is sent again, and so at least once.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from jobs import durations
from jobs.errors import NotFound
from jobs.ledger import webhook_endpoints
from jobs.lookups import clock
from jobs.tables import WebhookDelivery, WebhookEndpoint, WebhookEvent
from jobs.webhooks import retries
from jobs.webhooks.answers import Failure
from jobs.webhooks.states import DeliveryState

AT_A_TIME = 4
"""Deliveries to one endpoint that are under way at once; of one that fails, a single one."""

MAIL_LEASE = timedelta(minutes=5)
"""A mail server may take its time."""

KEPT = timedelta(days=30)
BATCH = 1_000
"""Events that one transaction removes."""


@dataclass(frozen=True)
class Claim:
    """A delivery that this process may send now, and all that it needs to know for that."""

    id: int
    fence: int
    endpoint_id: str
    url: str | None
    email: str | None
    secrets: tuple[str, ...]  # valid ones, the newest first
    event_id: str
    event_type: str
    at: datetime  # when it happened
    data: dict[str, Any]


def claim(session: Session, *, duration: timedelta) -> Claim | None:
    """The next delivery of the endpoint that was tried longest ago; ``None``: nothing is due.

    It is the caller's for ``duration``, a mail for ``MAIL_LEASE``.
    """
    now = clock.now(session)
    endpoint = session.scalar(
        sa.select(WebhookEndpoint)
        .where(_is_ready())
        .order_by(WebhookEndpoint.tried_at.asc().nulls_first())
        .limit(1)
        .with_for_update(skip_locked=True, key_share=True)
        .execution_options(populate_existing=True)
    )
    if endpoint is None:
        return None
    delivery = session.scalar(  # behind the lock: what others have claimed is seen
        sa.select(WebhookDelivery)
        .join(WebhookEndpoint, WebhookEndpoint.id == WebhookDelivery.endpoint_id)
        .where(_is_due(endpoint.id), _has_room())
        .order_by(WebhookDelivery.next_at, WebhookDelivery.id)
        .limit(1)
    )
    if delivery is None:
        return None
    endpoint.tried_at = now
    lease = duration if endpoint.email is None else MAIL_LEASE
    delivery.leased_until = delivery.next_at = now + lease
    delivery.fence += 1
    delivery.tries += 1
    delivery.first_tried_at = delivery.first_tried_at or now
    session.flush()
    old = webhook_endpoints.old_secrets(endpoint, now=now)
    event = session.get_one(WebhookEvent, delivery.event_id)
    return Claim(
        id=delivery.id,
        fence=delivery.fence,
        endpoint_id=endpoint.id,
        url=endpoint.url,
        email=endpoint.email,
        secrets=tuple(filter(None, (endpoint.secret, *(each for each, _ in reversed(old))))),
        event_id=event.id,
        event_type=event.type,
        at=event.at,
        data=event.data,
    )


def succeed(session: Session, claimed: Claim, *, status_code: int | None) -> bool:
    """Record that the endpoint took it; ``False``: the lease was over, and another sends it."""
    done = session.scalar(
        sa.update(WebhookDelivery)
        .where(*_held(claimed))
        .values(
            state=DeliveryState.DELIVERED,
            delivered_at=sa.func.now(),
            leased_until=None,
            status_code=status_code,
            error=None,
        )
        .returning(WebhookDelivery.id)
    )
    session.execute(
        sa.update(WebhookEndpoint)
        .where(WebhookEndpoint.id == claimed.endpoint_id, WebhookEndpoint.failures > 0)
        .values(failures=0, failing_since=None, rest_until=None)
    )
    return done is not None


def fail(session: Session, claimed: Claim, failure: Failure) -> bool:
    """Record a try that failed; ``False``: the lease was over.

    Where it was the last one, or the receiver is gone, its endpoint is disabled.
    """
    endpoint = session.scalar(
        sa.select(WebhookEndpoint)
        .where(WebhookEndpoint.id == claimed.endpoint_id)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    )
    delivery = session.scalar(sa.select(WebhookDelivery).where(*_held(claimed)).with_for_update())
    if endpoint is None or delivery is None:
        return False
    now = clock.now(session)
    counts = delivery.tries > 0  # else the endpoint was enabled during this try
    following = retries.next_try(
        tries=max(1, delivery.tries),
        first_tried_at=delivery.first_tried_at or now,
        now=now,
        key=f"{endpoint.id} {delivery.event_id}",
    )
    delivery.leased_until = None
    delivery.next_at = following or now
    delivery.status_code, delivery.error = failure.status_code, failure.reason
    if endpoint.rest_until is None or endpoint.rest_until <= now:  # of several at once, one counts
        endpoint.failures += 1
        endpoint.failing_since = endpoint.failing_since or now
        endpoint.rest_until = now + retries.rest(endpoint.failures)
    is_over = counts and (failure.gone or following is None)
    if is_over and endpoint.disabled_at is None and endpoint.deleted_at is None:
        webhook_endpoints.disable(session, endpoint, reason=_why(claimed, failure))
    session.flush()
    return True


def resend(session: Session, endpoint_id: str, delivery_id: int, *, project_id: str) -> int:
    """Send the event once more, behind what waits; one that waits itself is tried at once.

    The delivery. Raises ``NotFound``, and ``Conflict`` for an endpoint that is disabled.
    """
    endpoint = webhook_endpoints.locked(session, endpoint_id, project_id=project_id)
    webhook_endpoints.check_enabled(endpoint)
    found = session.scalar(
        sa.select(WebhookDelivery).where(
            WebhookDelivery.id == delivery_id, WebhookDelivery.endpoint_id == endpoint_id
        )
    )
    if found is None:
        raise NotFound(f"no delivery {delivery_id} to {endpoint_id}")
    endpoint.rest_until = None
    if found.state is DeliveryState.PENDING:
        found.next_at = max(clock.now(session), found.leased_until or found.created_at)
        session.flush()
        return found.id
    made = WebhookDelivery(
        endpoint_id=endpoint_id,
        event_id=found.event_id,
        object_id=found.object_id,
        state=DeliveryState.PENDING,
        resent=True,
    )
    session.add(made)
    session.flush()
    return made.id


def forget(session: Session) -> int:
    """Remove a batch of what is older than ``KEPT``, or was for endpoints that are deleted."""
    deleted = sa.select(WebhookEndpoint.id).where(WebhookEndpoint.deleted_at.is_not(None))
    of_deleted = (
        sa.select(WebhookDelivery.id).where(WebhookDelivery.endpoint_id.in_(deleted)).limit(BATCH)
    )
    old = (
        sa.select(WebhookEvent.id)
        .where(WebhookEvent.at < sa.func.now() - KEPT)
        .order_by(WebhookEvent.at)
        .limit(BATCH)
        .with_for_update(skip_locked=True)
    )
    events = session.scalars(old).all()
    removed = session.execute(
        sa.delete(WebhookDelivery).where(
            sa.or_(WebhookDelivery.event_id.in_(events), WebhookDelivery.id.in_(of_deleted))
        )
    )
    session.execute(sa.delete(WebhookEvent).where(WebhookEvent.id.in_(events)))
    return int(removed.rowcount)  # type: ignore[attr-defined]


def _is_ready() -> sa.ColumnElement[bool]:
    """An endpoint to which something may be sent now."""
    rest_until = WebhookEndpoint.rest_until
    due = sa.select(WebhookDelivery.id).where(_is_due(WebhookEndpoint.id))
    return sa.and_(
        WebhookEndpoint.disabled_at.is_(None),
        WebhookEndpoint.deleted_at.is_(None),
        sa.or_(rest_until.is_(None), rest_until <= sa.func.now()),
        due.exists(),
        _has_room(),
    )


def _has_room() -> sa.ColumnElement[bool]:
    """Fewer deliveries to an endpoint are under way than may be."""
    leased = aliased(WebhookDelivery)
    under_way = (
        sa.select(sa.func.count(leased.id))
        .where(leased.endpoint_id == WebhookEndpoint.id, leased.leased_until > sa.func.now())
        .scalar_subquery()
    )
    return under_way < sa.case((WebhookEndpoint.failures > 0, 1), else_=AT_A_TIME)


def _is_due(endpoint_id: Any) -> sa.ColumnElement[bool]:
    """A delivery to this endpoint that no process has, and none of its object is before it."""
    earlier = aliased(WebhookDelivery)
    before = sa.select(earlier.id).where(
        earlier.endpoint_id == WebhookDelivery.endpoint_id,
        earlier.object_id == WebhookDelivery.object_id,
        earlier.state == DeliveryState.PENDING,
        earlier.id < WebhookDelivery.id,
    )
    return sa.and_(
        WebhookDelivery.endpoint_id == endpoint_id,
        WebhookDelivery.state == DeliveryState.PENDING,
        WebhookDelivery.next_at <= sa.func.now(),
        ~before.exists(),
    )


def _held(claimed: Claim) -> tuple[sa.ColumnElement[bool], ...]:
    return (
        WebhookDelivery.id == claimed.id,
        WebhookDelivery.fence == claimed.fence,
        WebhookDelivery.state == DeliveryState.PENDING,
    )


def _why(claimed: Claim, failure: Failure) -> str:
    if failure.gone:
        return failure.reason
    return (
        f"{claimed.event_type} ({claimed.event_id}) was not taken for "
        f"{durations.in_words(retries.LONGEST)}: {failure.reason}"
    )
