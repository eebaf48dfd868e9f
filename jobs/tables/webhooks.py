"""The tables of webhooks: endpoints, events, and the outbox, a row for each event and endpoint.

``jobs.ledger.webhook_outbox`` writes events and deliveries in the transaction that makes the event,
``jobs.ledger.webhook_endpoints`` what owners do, ``jobs.ledger.webhook_deliveries`` each try.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import (
    ARRAY,
    Boolean,
    CheckConstraint,
    ForeignKey,
    Identity,
    Index,
    Integer,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from jobs.tables.base import Base, Json, one_of
from jobs.webhooks.states import DeliveryState


class WebhookEndpoint(Base):
    """Where a project's events go. Its row is the lock under which a delivery is claimed."""

    __tablename__ = "webhook_endpoints"

    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    name: Mapped[str]  # for people; may be empty
    url: Mapped[str | None]  # null: it is a person, who gets mails
    email: Mapped[str | None]  # null: it is a receiver with a URL
    event_types: Mapped[list[str]] = mapped_column(ARRAY(Text))  # empty: all of them
    secret: Mapped[str | None]  # with which events are signed, as it was shown; null: of a person
    old_secrets: Mapped[list[Json]] = mapped_column(  # secret and until: sign as well, until then
        JSONB, server_default=text("'[]'")
    )
    idempotency_key: Mapped[str | None]  # of its creation; null: none given, or it was deleted
    request_sha256: Mapped[str]  # of its creation, as of a job
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())  # or secret rotated

    tried_at: Mapped[datetime | None]  # a try began last; null: none has. The oldest goes first
    failures: Mapped[int] = mapped_column(Integer, server_default=text("0"))  # tries in a row
    failing_since: Mapped[datetime | None]  # the first of those; null: there is none
    rest_until: Mapped[datetime | None]  # nothing is sent before; null: nothing keeps it from that
    disabled_at: Mapped[datetime | None]  # null: events are sent
    disabled_reason: Mapped[str | None]
    deleted_at: Mapped[datetime | None]  # the row stays as a tombstone; null: its owner sees it

    __table_args__ = (
        UniqueConstraint("project_id", "idempotency_key"),
        CheckConstraint("(url IS NULL) <> (email IS NULL)", name="one_place"),
        CheckConstraint(
            "deleted_at IS NOT NULL OR (url IS NULL) = (secret IS NULL)", name="url_signed"
        ),
        CheckConstraint(
            "(disabled_at IS NULL) = (disabled_reason IS NULL)", name="disabled_with_reason"
        ),
        CheckConstraint("(failing_since IS NULL) = (failures = 0)", name="failing_since_failure"),
        Index(None, "project_id", "created_at", "id", postgresql_where=text("deleted_at IS NULL")),
    )


class WebhookEvent(Base):
    """Something that happened, while its project had an endpoint for it; never changed."""

    __tablename__ = "webhook_events"

    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    type: Mapped[str]
    data: Mapped[Json]  # ids and paths (jobs.webhooks.events)
    at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (Index(None, "at"),)


class WebhookDelivery(Base):
    """The outbox: one event on its way to one endpoint."""

    __tablename__ = "webhook_deliveries"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    endpoint_id: Mapped[str] = mapped_column(ForeignKey("webhook_endpoints.id"))
    event_id: Mapped[str] = mapped_column(ForeignKey("webhook_events.id"))
    object_id: Mapped[str]  # what the event is about: of one, a later waits for the earlier
    state: Mapped[DeliveryState] = mapped_column(server_default=text("'pending'"))
    resent: Mapped[bool] = mapped_column(Boolean, server_default=text("false"))  # its owner asked
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    fence: Mapped[int] = mapped_column(server_default=text("0"))  # grows by one at every claim
    leased_until: Mapped[datetime | None]  # a process sends it; null: none does
    tries: Mapped[int] = mapped_column(Integer, server_default=text("0"))  # since it was enabled
    first_tried_at: Mapped[datetime | None]  # of those; null: there is none
    next_at: Mapped[datetime] = mapped_column(server_default=func.now())  # not tried before; while
    # it is leased, the end of the lease
    status_code: Mapped[int | None] = mapped_column(Integer)  # of the last answer; null: none came
    error: Mapped[str | None]  # why the last try failed, in words; null: none did
    delivered_at: Mapped[datetime | None]  # set if and only if the state is delivered

    __table_args__ = (
        CheckConstraint(one_of("state", DeliveryState), name="state"),
        CheckConstraint(
            "(state = 'delivered') = (delivered_at IS NOT NULL)", name="delivered_iff_at"
        ),
        CheckConstraint("(first_tried_at IS NULL) = (tries = 0)", name="tried_iff_tries"),
        Index(None, "endpoint_id", "id"),
        Index(None, "event_id"),
        Index(
            "ix_webhook_deliveries_due",
            "endpoint_id",
            "next_at",
            postgresql_where=text("state = 'pending'"),
        ),
        Index(
            "ix_webhook_deliveries_order",
            "endpoint_id",
            "object_id",
            "id",
            postgresql_where=text("state = 'pending'"),
        ),
        Index(
            "ix_webhook_deliveries_leased",
            "endpoint_id",
            postgresql_where=text("leased_until IS NOT NULL"),
        ),
    )


class WebhookGroupCheck(Base):
    """A job of this group has ended: control looks whether the group has.

    Only a transaction behind that of the last job can tell; the row goes when it was looked at.
    """

    __tablename__ = "webhook_group_checks"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    group_id: Mapped[str]
