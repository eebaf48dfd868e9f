"""What the API answers about webhooks; the outer shape of an endpoint is OpenAI's."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, Self

from pydantic import BaseModel

from jobs.ledger import webhook_endpoints
from jobs.queries.webhooks import DeliveryView, EndpointView
from jobs.webhooks import signatures
from jobs.webhooks.states import DeliveryState

EndpointState = Literal["active", "failing", "disabled"]


class WebhookEndpointDetails(BaseModel):
    """What Nightshift knows of an endpoint besides OpenAI's fields."""

    state: EndpointState
    reason: str | None  # why it is disabled
    email: str | None  # null: it has a URL
    disabled_at: datetime | None
    failing_since: datetime | None  # null: the last try did not fail
    failures: int  # tries in a row that failed
    next_try_not_before: datetime | None  # null: nothing keeps it from being tried
    waiting: int  # deliveries that it has not taken; 10,001 stands for more than 10,000
    waiting_since: datetime | None  # null: none
    old_secrets_until: list[datetime]  # until when secrets before the last rotations sign as well


class WebhookEndpoint(BaseModel):
    """A receiver of events, as OpenAI's client reads it."""

    id: str
    object: Literal["webhook_endpoint"] = "webhook_endpoint"
    name: str
    url: str | None  # null: it has an address for mails
    event_types: list[str]  # empty: everything
    signing_secret_hint: str | None  # null: mails are not signed
    created_at: int
    updated_at: int
    nightshift: WebhookEndpointDetails

    @classmethod
    def of(cls, view: EndpointView) -> Self:
        """One endpoint as its owner sees it."""
        return cls(**_fields(view))


class SignedWebhookEndpoint(WebhookEndpoint):
    """An endpoint with its secret, which is shown when it is made, and not again."""

    signing_secret: str | None  # null: mails are not signed

    @classmethod
    def of(cls, view: EndpointView) -> Self:
        """The answer to its creation, or to a rotation."""
        return cls(**_fields(view), signing_secret=view.endpoint.secret)


class WebhookEndpointPage(BaseModel):
    """Endpoints, newest first."""

    object: Literal["list"] = "list"
    data: list[WebhookEndpoint]
    has_more: bool
    first_id: str | None
    last_id: str | None

    @classmethod
    def of(cls, views: list[EndpointView], *, has_more: bool) -> Self:
        """One page."""
        shown = [WebhookEndpoint.of(view) for view in views]
        first, last = (shown[0].id, shown[-1].id) if shown else (None, None)
        return cls(data=shown, has_more=has_more, first_id=first, last_id=last)


class WebhookEventTypes(BaseModel):
    """What can happen."""

    object: Literal["list"] = "list"
    data: list[str]


class WebhookDelivery(BaseModel):
    """One event on its way to one endpoint."""

    id: int
    object: Literal["webhook_delivery"] = "webhook_delivery"
    event: str
    event_type: str
    about: str  # the object of the event; of one object, a later event waits for the earlier
    happened_at: datetime
    state: DeliveryState
    tries: int
    status_code: int | None  # of the last answer; null: none came
    error: str | None  # why the last try failed; null: none did
    next_try_at: datetime | None  # null: it has ended
    delivered_at: datetime | None
    resent: bool

    @classmethod
    def of(cls, view: DeliveryView) -> Self:
        """One delivery."""
        delivery, event = view.delivery, view.event
        return cls(
            id=delivery.id,
            event=event.id,
            event_type=event.type,
            about=delivery.object_id,
            happened_at=event.at,
            state=delivery.state,
            tries=delivery.tries,
            status_code=delivery.status_code,
            error=delivery.error,
            next_try_at=delivery.next_at if delivery.state is DeliveryState.PENDING else None,
            delivered_at=delivery.delivered_at,
            resent=delivery.resent,
        )


class WebhookDeliveryPage(BaseModel):
    """Deliveries, newest first; ``next`` is the ``after`` of the next page."""

    object: Literal["list"] = "list"
    data: list[WebhookDelivery]
    has_more: bool
    next: int | None


class WebhookTest(BaseModel):
    """A sample event on its way; its delivery shows how it ended."""

    object: Literal["webhook_endpoint.test"] = "webhook_endpoint.test"
    webhook_endpoint_id: str
    event_type: str
    delivery: WebhookDelivery


def _fields(view: EndpointView) -> dict[str, Any]:
    endpoint = view.endpoint
    old = webhook_endpoints.old_secrets(endpoint, now=view.now)
    return {
        "id": endpoint.id,
        "name": endpoint.name,
        "url": endpoint.url,
        "event_types": list(endpoint.event_types),
        "signing_secret_hint": None
        if endpoint.secret is None
        else signatures.hint(endpoint.secret),
        "created_at": int(endpoint.created_at.timestamp()),
        "updated_at": int(endpoint.updated_at.timestamp()),
        "nightshift": WebhookEndpointDetails(
            state=_state(view),
            reason=endpoint.disabled_reason,
            email=endpoint.email,
            disabled_at=endpoint.disabled_at,
            failing_since=endpoint.failing_since,
            failures=endpoint.failures,
            next_try_not_before=endpoint.rest_until,
            waiting=view.waiting,
            waiting_since=view.waiting_since,
            old_secrets_until=[until for _, until in old],
        ),
    }


def _state(view: EndpointView) -> EndpointState:
    if view.endpoint.disabled_at is not None:
        return "disabled"
    return "failing" if view.endpoint.failures else "active"
