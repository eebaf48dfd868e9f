"""Webhook endpoints and deliveries as their owners see them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs.errors import NotFound
from jobs.queries import paging
from jobs.queries.paging import Order
from jobs.tables import WebhookDelivery, WebhookEndpoint, WebhookEvent
from jobs.webhooks.states import DeliveryState

MOST_COUNTED = 10_000


@dataclass(frozen=True)
class EndpointView:
    """An endpoint, and what waits for it."""

    endpoint: WebhookEndpoint
    waiting: int  # deliveries, at most one more than ``MOST_COUNTED``
    waiting_since: datetime | None  # null: nothing waits
    now: datetime


@dataclass(frozen=True)
class DeliveryView:
    """A delivery with its event."""

    delivery: WebhookDelivery
    event: WebhookEvent


def get(session: Session, endpoint_id: str, *, project_id: str) -> EndpointView:
    """The endpoint. Raises ``NotFound``, for another project's too."""
    return _view(session, _row(session, endpoint_id, project_id=project_id))


def page(
    session: Session,
    *,
    project_id: str,
    limit: int,
    after: str | None = None,
    order: Order = Order.DESC,
) -> tuple[list[EndpointView], bool]:
    """Endpoints by age, beginning behind the endpoint ``after``; and whether there are more.

    The endpoint ``after`` may have been deleted since.
    """
    query = sa.select(WebhookEndpoint).where(
        WebhookEndpoint.project_id == project_id, WebhookEndpoint.deleted_at.is_(None)
    )
    place = None if after is None else _place(session, after, project_id=project_id)
    query = paging.sort(
        query, WebhookEndpoint.created_at, WebhookEndpoint.id, order=order, after=place
    )
    found, more = paging.page(session, query, limit=limit)
    return [_view(session, each) for each in found], more


def deliveries(
    session: Session,
    endpoint_id: str,
    *,
    project_id: str,
    limit: int,
    after: int | None = None,
    order: Order = Order.DESC,
    state: DeliveryState | None = None,
) -> tuple[list[DeliveryView], bool]:
    """Deliveries to an endpoint in the order in which they were made. Raises ``NotFound``."""
    _row(session, endpoint_id, project_id=project_id)
    query = sa.select(WebhookDelivery).where(WebhookDelivery.endpoint_id == endpoint_id)
    if state is not None:
        query = query.where(WebhookDelivery.state == state)
    place = None if after is None else (after,)
    query = paging.sort(query, WebhookDelivery.id, order=order, after=place)
    found, more = paging.page(session, query, limit=limit)
    return _with_events(session, found), more


def delivery(
    session: Session, endpoint_id: str, delivery_id: int, *, project_id: str
) -> DeliveryView:
    """One delivery to an endpoint. Raises ``NotFound``."""
    _row(session, endpoint_id, project_id=project_id)
    found = session.scalar(
        sa.select(WebhookDelivery)
        .where(WebhookDelivery.id == delivery_id, WebhookDelivery.endpoint_id == endpoint_id)
        .execution_options(populate_existing=True)
    )
    if found is None:
        raise NotFound(f"no delivery {delivery_id} to {endpoint_id}")
    return _with_events(session, [found])[0]


def _row(session: Session, endpoint_id: str, *, project_id: str) -> WebhookEndpoint:
    found = session.scalar(
        sa.select(WebhookEndpoint)
        .where(
            WebhookEndpoint.id == endpoint_id,
            WebhookEndpoint.project_id == project_id,
            WebhookEndpoint.deleted_at.is_(None),
        )
        .execution_options(populate_existing=True)
    )
    if found is None:
        raise NotFound(f"no webhook endpoint {endpoint_id!r} in this project")
    return found


def _place(session: Session, endpoint_id: str, *, project_id: str) -> Sequence[object]:
    place = session.execute(
        sa.select(WebhookEndpoint.created_at, WebhookEndpoint.id).where(
            WebhookEndpoint.id == endpoint_id, WebhookEndpoint.project_id == project_id
        )
    ).one_or_none()
    if place is None:
        raise NotFound(
            f"no webhook endpoint {endpoint_id!r} in this project to list after", param="after"
        )
    return place


def _view(session: Session, endpoint: WebhookEndpoint) -> EndpointView:
    some = (
        sa.select(WebhookDelivery.created_at)
        .where(
            WebhookDelivery.endpoint_id == endpoint.id,
            WebhookDelivery.state == DeliveryState.PENDING,
        )
        .order_by(WebhookDelivery.id)
        .limit(MOST_COUNTED + 1)
        .subquery()
    )
    waiting, since, now = session.execute(
        sa.select(sa.func.count(), sa.func.min(some.c.created_at), sa.func.now()).select_from(some)
    ).one()
    return EndpointView(endpoint, waiting, since, now)


def _with_events(session: Session, found: Sequence[WebhookDelivery]) -> list[DeliveryView]:
    wanted = {each.event_id for each in found}
    query = sa.select(WebhookEvent).where(WebhookEvent.id.in_(wanted))
    events = {each.id: each for each in session.scalars(query)} if wanted else {}
    return [DeliveryView(each, events[each.event_id]) for each in found]
