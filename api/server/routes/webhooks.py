"""Webhook endpoints and their deliveries, in OpenAI's shape where it has one."""

from __future__ import annotations

import functools
from typing import Annotated

from fastapi import APIRouter, Path, Query, Response
from pydantic import Field
from sqlalchemy.orm import Session

from api.server import schemas
from api.server.creates import Counted
from api.server.dependencies import (
    After,
    ByAge,
    IdempotencyKey,
    Limit,
    NoteMade,
    ProjectId,
    Shared,
    Transaction,
)
from jobs import names
from jobs.kinds import Strict
from jobs.ledger import creations, webhook_deliveries
from jobs.ledger import webhook_endpoints as ledger
from jobs.queries import webhooks
from jobs.queries.paging import Order
from jobs.webhooks.endpoints import EndpointChange, EndpointRequest, Rotation
from jobs.webhooks.events import EventType
from jobs.webhooks.states import DeliveryState

router = APIRouter(prefix="/v1", tags=["webhooks"])

EndpointId = Annotated[
    str, Path(pattern=f"^{names.ID}$", description="The id of a webhook endpoint.")
]
DeliveryId = Annotated[int, Path(ge=0, lt=2**62)]
Behind = Annotated[int | None, Query(ge=0, lt=2**62, description="The `next` of the page before.")]


class Sample(Strict):
    """What a test sends."""

    event_type: EventType = Field(EventType.ENDPOINT_TEST, description="The type of the sample.")


class Enabling(Strict):
    """How an endpoint is enabled again."""

    skip_waiting: bool = Field(
        default=False, description="Leave out what has waited; each of it can be sent by itself."
    )


@router.get("/webhook_event_types")
def list_event_types(_project: ProjectId) -> schemas.WebhookEventTypes:
    """What can happen."""
    return schemas.WebhookEventTypes(data=[each.value for each in EventType])


@router.post(
    "/webhook_endpoints",
    status_code=201,
    responses={200: {"model": schemas.SignedWebhookEndpoint}},
)
def create_webhook_endpoint(
    *,
    body: EndpointRequest,
    response: Response,
    session: Transaction,
    project: ProjectId,
    shared: Shared,
    note_made: NoteMade,
    counted: Counted,
    idempotency_key: IdempotencyKey = None,
) -> schemas.SignedWebhookEndpoint:
    """Make an endpoint: 201 for a new one, 200 for one that this key has made before.

    Its secret is shown in this answer, and not again.
    """
    create = functools.partial(
        ledger.create,
        session,
        body,
        project_id=project,
        idempotency_key=idempotency_key,
        settings=shared.settings,
    )
    endpoint, new = creations.once(session, counted, create)
    note_made(endpoint)
    response.status_code = 201 if new else 200
    return _with_secret(session, endpoint, project)


@router.get("/webhook_endpoints")
def list_webhook_endpoints(
    *,
    session: Transaction,
    project: ProjectId,
    limit: Limit = 20,
    after: After = None,
    order: ByAge = Order.DESC,
) -> schemas.WebhookEndpointPage:
    """The project's endpoints, newest first."""
    found, more = webhooks.page(session, project_id=project, limit=limit, after=after, order=order)
    return schemas.WebhookEndpointPage.of(found, has_more=more)


@router.get("/webhook_endpoints/{endpoint}")
def get_webhook_endpoint(
    endpoint: EndpointId, session: Transaction, project: ProjectId
) -> schemas.WebhookEndpoint:
    """One endpoint: where it goes, whether it takes what is sent, and what waits."""
    return _shown(session, endpoint, project)


@router.post("/webhook_endpoints/{endpoint}")
def change_webhook_endpoint(
    *,
    endpoint: EndpointId,
    body: EndpointChange,
    session: Transaction,
    project: ProjectId,
    shared: Shared,
) -> schemas.WebhookEndpoint:
    """Change what is given; what waits goes to a new URL as well."""
    ledger.change(session, endpoint, body, project_id=project, settings=shared.settings)
    return _shown(session, endpoint, project)


@router.delete("/webhook_endpoints/{endpoint}")
def delete_webhook_endpoint(
    endpoint: EndpointId, session: Transaction, project: ProjectId
) -> schemas.Deleted:
    """Delete an endpoint; what waits for it is not sent."""
    ledger.delete(session, endpoint, project_id=project)
    return schemas.Deleted(id=endpoint, object="webhook_endpoint.deleted")


@router.post("/webhook_endpoints/{endpoint}/rotate_secret")
def rotate_secret(
    endpoint: EndpointId,
    session: Transaction,
    project: ProjectId,
    body: Rotation | None = None,
) -> schemas.SignedWebhookEndpoint:
    """Make a new secret; the one before signs beside it for a while."""
    overlap = (body or Rotation()).duration
    ledger.rotate(session, endpoint, project_id=project, overlap=overlap)
    return _with_secret(session, endpoint, project)


@router.post("/webhook_endpoints/{endpoint}/enable")
def enable_webhook_endpoint(
    endpoint: EndpointId,
    session: Transaction,
    project: ProjectId,
    body: Enabling | None = None,
) -> schemas.WebhookEndpoint:
    """Send what waits at once, also to an endpoint that was disabled."""
    skip = (body or Enabling()).skip_waiting
    ledger.enable(session, endpoint, project_id=project, skip_waiting=skip)
    return _shown(session, endpoint, project)


@router.post("/webhook_endpoints/{endpoint}/test", status_code=201)
def send_test(
    endpoint: EndpointId, session: Transaction, project: ProjectId, body: Sample | None = None
) -> schemas.WebhookTest:
    """Send a sample event, behind nothing that waits."""
    event_type = (body or Sample()).event_type
    made = ledger.send_test(session, endpoint, project_id=project, event_type=event_type)
    return schemas.WebhookTest(
        webhook_endpoint_id=endpoint,
        event_type=event_type,
        delivery=_delivery(session, endpoint, made, project),
    )


@router.get("/webhook_endpoints/{endpoint}/deliveries")
def list_deliveries(
    *,
    endpoint: EndpointId,
    session: Transaction,
    project: ProjectId,
    limit: Limit = 20,
    after: Behind = None,
    order: ByAge = Order.DESC,
    state: Annotated[DeliveryState | None, Query(description="Only those in this state.")] = None,
) -> schemas.WebhookDeliveryPage:
    """Its deliveries of the last 30 days, newest first: tries, answers, and what comes next."""
    found, more = webhooks.deliveries(
        session, endpoint, project_id=project, limit=limit, after=after, order=order, state=state
    )
    return schemas.WebhookDeliveryPage(
        data=[schemas.WebhookDelivery.of(view) for view in found],
        has_more=more,
        next=found[-1].delivery.id if more else None,
    )


@router.get("/webhook_endpoints/{endpoint}/deliveries/{delivery}")
def get_delivery(
    endpoint: EndpointId, delivery: DeliveryId, session: Transaction, project: ProjectId
) -> schemas.WebhookDelivery:
    """One delivery."""
    return _delivery(session, endpoint, delivery, project)


@router.post("/webhook_endpoints/{endpoint}/deliveries/{delivery}/resend", status_code=201)
def resend_delivery(
    endpoint: EndpointId, delivery: DeliveryId, session: Transaction, project: ProjectId
) -> schemas.WebhookDelivery:
    """Send it again, with the same id of the event; one that waits is tried at once."""
    made = webhook_deliveries.resend(session, endpoint, delivery, project_id=project)
    return _delivery(session, endpoint, made, project)


def _shown(session: Session, endpoint: str, project: str) -> schemas.WebhookEndpoint:
    return schemas.WebhookEndpoint.of(webhooks.get(session, endpoint, project_id=project))


def _with_secret(session: Session, endpoint: str, project: str) -> schemas.SignedWebhookEndpoint:
    return schemas.SignedWebhookEndpoint.of(webhooks.get(session, endpoint, project_id=project))


def _delivery(
    session: Session, endpoint: str, delivery: int, project: str
) -> schemas.WebhookDelivery:
    return schemas.WebhookDelivery.of(
        webhooks.delivery(session, endpoint, delivery, project_id=project)
    )
