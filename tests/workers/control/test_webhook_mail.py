"""Mails of events: a real mail server receives them, refuses them, or is not there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import Envelope

from api.stack import ports
from jobs.ledger import webhook_endpoints
from jobs.settings import Settings
from jobs.tables import WebhookDelivery
from jobs.webhooks.endpoints import EndpointRequest
from tests.jobs.ledger.building import PROJECT, Ledger
from tests.jobs.ledger.test_webhooks import Outbox, ended, outbox
from workers.control.webhooks import WebhookSender

__all__ = ["outbox"]

TO = "ops@example.com"


class Mailbox:
    """What the server has taken, and what it answers."""

    def __init__(self) -> None:
        self.envelopes: list[Envelope] = []
        self.answer = "250 OK"

    async def handle_DATA(  # noqa: N802 - the name that aiosmtpd calls
        self, _server: object, _session: object, envelope: Envelope
    ) -> str:
        if self.answer.startswith("250"):
            self.envelopes.append(envelope)
        return self.answer


@pytest.fixture
def mailbox() -> Mailbox:
    return Mailbox()


@pytest.fixture
def server(mailbox: Mailbox) -> Iterator[Controller]:
    controller = Controller(mailbox, hostname="127.0.0.1", port=ports.choose())
    controller.start()
    yield controller
    controller.stop()


def mailed(outbox: Outbox, smtp_url: str) -> WebhookDelivery:
    """The delivery of a job's end to a person, after one try."""
    settings = Settings(
        database_url=outbox.ledger.url, smtp_url=smtp_url, smtp_from="nightshift@example.com"
    )
    with outbox.ledger.sessions.begin() as session:
        endpoint, _ = webhook_endpoints.create(
            session,
            EndpointRequest(email=TO),
            project_id=PROJECT,
            idempotency_key=None,
            settings=settings,
        )
    ended(outbox.ledger)
    sender = WebhookSender(outbox.ledger.sessions, settings=settings)
    assert sender.turn() == 1
    assert sender.wait(10)
    (delivery,) = outbox.deliveries(endpoint)
    return delivery


def url(server: Controller) -> str:
    return f"smtp://{server.hostname}:{server.port}"


def test_a_person_gets_a_mail_with_ids_and_links(
    outbox: Outbox, server: Controller, mailbox: Mailbox
) -> None:
    delivery = mailed(outbox, url(server))
    assert (delivery.state, delivery.error) == ("delivered", None)
    (envelope,) = mailbox.envelopes
    assert (envelope.mail_from, envelope.rcpt_tos) == ("nightshift@example.com", [TO])
    content: Any = envelope.content
    text = content.decode()
    assert f"Subject: Nightshift: job.failed {delivery.object_id}" in text
    assert f"/v1/jobs/{delivery.object_id}" in text
    assert "error_code: model_unreadable" in text
    assert "a text" not in text


def test_a_mail_that_the_server_refuses_waits_for_the_next_try(
    outbox: Outbox, server: Controller, mailbox: Mailbox
) -> None:
    mailbox.answer = "451 try again later"
    delivery = mailed(outbox, url(server))
    assert delivery.state == "pending"
    assert "try again later" in (delivery.error or "")


@pytest.mark.parametrize(
    ("smtp_url", "words"),
    [
        ("smtp://127.0.0.1:9", "refused"),
        ("http://127.0.0.1:9", "must begin with smtp:// or smtps://"),
    ],
)
def test_a_server_that_is_not_there_is_a_try_that_failed(
    outbox: Outbox, smtp_url: str, words: str
) -> None:
    assert words in (mailed(outbox, smtp_url).error or "")


def test_without_a_server_no_endpoint_has_an_address(ledger: Ledger) -> None:
    with ledger.sessions.begin() as session, pytest.raises(Exception, match="SMTP_URL"):
        webhook_endpoints.create(
            session,
            EndpointRequest(email=TO),
            project_id=PROJECT,
            idempotency_key=None,
            settings=Settings(),
        )
