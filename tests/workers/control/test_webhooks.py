"""Webhooks on the way: what is due reaches real receivers, signed, in order, at least once."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from standardwebhooks import Webhook

from jobs.ledger import webhook_endpoints
from jobs.settings import Settings
from jobs.tables import WebhookDelivery
from jobs.webhooks.endpoints import EndpointRequest
from jobs.webhooks.states import DeliveryState
from tests.jobs.ledger.building import PROJECT, Ledger
from tests.jobs.ledger.test_webhooks import Outbox, ended, failed_twice, outbox
from tests.support.receivers import ALLOWED, FORBIDDEN, Receiver, receiving
from tests.support.waiting import wait_until
from workers.control import webhook_post
from workers.control.webhooks import WebhookSender

__all__ = ["outbox"]


class Post:
    """The sender of one ledger, and endpoints for receivers."""

    def __init__(self, outbox: Outbox) -> None:
        self.outbox = outbox
        self.settings = Settings(
            database_url=outbox.ledger.url,
            webhook_networks=[ALLOWED],
            webhook_timeout_seconds=2,
            public_url="https://jobs.example.com",
        )
        self.sender = WebhookSender(outbox.ledger.sessions, settings=self.settings)

    def endpoint(self, receiver: Receiver) -> str:
        return self.endpoint_at(receiver.url)

    def endpoint_at(self, url: str) -> str:
        with self.outbox.ledger.sessions.begin() as session:
            return webhook_endpoints.create(
                session,
                EndpointRequest(url=url),
                project_id=PROJECT,
                idempotency_key=None,
                settings=self.settings,
            )[0]

    def send(self) -> int:
        """Send all that is due now; how much that was."""
        sent = 0
        while begun := self.sender.turn():
            sent += begun
            assert self.sender.wait(10)
        return sent

    def send_all(self) -> None:
        """Send until nothing waits, with no time between the tries."""
        while self.send():
            self.outbox.let_time_pass()

    def only(self, endpoint: str) -> WebhookDelivery:
        (delivery,) = self.outbox.deliveries(endpoint)
        return delivery


@pytest.fixture
def post(outbox: Outbox) -> Post:
    return Post(outbox)


def test_an_event_reaches_its_receiver_signed_with_every_valid_secret(post: Post) -> None:
    with receiving() as receiver:
        endpoint = post.endpoint(receiver)
        secret = post.outbox.row(endpoint).secret
        job_id = ended(post.outbox.ledger)
        assert post.send() == 1
        (received,) = receiver.received
    assert secret is not None
    event = Webhook(secret).verify(received.body, received.headers)
    assert event == received.event
    assert event["type"] == "job.failed"
    assert event["data"]["links"]["job"] == f"https://jobs.example.com/v1/jobs/{job_id}"
    assert "a text" not in received.body.decode()
    assert received.headers["content-type"] == "application/json"
    delivery = post.only(endpoint)
    assert (delivery.state, delivery.status_code, delivery.tries) == ("delivered", 204, 1)
    assert received.id == delivery.event_id


def test_a_receiver_that_fails_gets_every_event_in_the_order_of_its_object(
    post: Post, ledger: Ledger
) -> None:
    with receiving(500, 503, 0, 404, 500) as receiver:
        endpoint = post.endpoint(receiver)
        objects = [failed_twice(ledger) for _ in range(3)]
        post.send_all()
        taken = [each for each in receiver.received if each.status == 204]
    wanted = [each.event_id for each in post.outbox.deliveries(endpoint)]
    assert sorted(each.id for each in taken) == sorted(wanted)
    for about in objects:
        ours = [each.id for each in taken if each.event["data"]["id"] == about]
        assert ours == [event for event in wanted if event in ours]
        assert len(ours) == 2


def test_a_receiver_that_hangs_delays_no_other(post: Post, ledger: Ledger) -> None:
    held = threading.Event()

    def hang() -> int:
        held.wait(20)
        return 0

    with receiving(*[hang] * 20) as slow, receiving() as quick:
        hanging = [post.endpoint(slow) for _ in range(2)]
        post.endpoint(quick)
        for _ in range(10):
            ended(ledger)
        post.sender.turn()
        wait_until(lambda: len(quick.received) >= 4)
        assert post.sender.wait(10)
        post.send()
        assert len(quick.ids()) == 10
        held.set()
    for endpoint in hanging:
        row = post.outbox.row(endpoint)
        assert 1 <= row.failures <= 4
        assert row.rest_until is not None
    assert "did not answer within 2 s" in (post.outbox.deliveries(hanging[0])[0].error or "")


def test_a_receiver_that_answers_410_is_disabled_and_asked_no_more(
    post: Post, ledger: Ledger
) -> None:
    with receiving(410) as receiver:
        endpoint = post.endpoint(receiver)
        ended(ledger)
        post.send()
        ended(ledger)
        post.outbox.let_time_pass()
        post.send()
        assert len(receiver.received) == 1
        assert post.outbox.row(endpoint).disabled_reason == "it answered 410 Gone"
        post.outbox.enable(endpoint)
        post.send()
        assert len(receiver.ids()) == 2


def test_a_name_of_a_forbidden_address_gets_nothing(post: Post, ledger: Ledger) -> None:
    with receiving(host=FORBIDDEN) as victim:
        endpoint = post.endpoint_at(f"http://localhost:{victim.server.server_port}/")
        ended(ledger)
        post.send()
        assert victim.received == []
    assert post.only(endpoint).error == (
        "it cannot be reached: it has an address that is not public"
    )


def test_a_fault_of_ours_is_a_try_that_failed(
    post: Post, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr(webhook_post, "send", broken)
    endpoint = post.endpoint_at(f"http://{ALLOWED}:9/")
    ended(ledger)
    post.send()
    delivery = post.only(endpoint)
    assert delivery.error == "a fault of Nightshift itself (RuntimeError)"
    assert delivery.leased_until is None


@pytest.fixture
def running(post: Post) -> Iterator[Post]:
    with post.sender.running():
        yield post


def test_a_sender_that_runs_sends_what_comes_and_ends_soon(running: Post, ledger: Ledger) -> None:
    with receiving() as receiver:
        endpoint = running.endpoint(receiver)
        ended(ledger)
        wait_until(lambda: running.only(endpoint).state is DeliveryState.DELIVERED, seconds=10)
        assert len(receiver.ids()) == 1
