"""Webhooks under faults: every event at least once, in order, to no forbidden address.

Receivers fail, hang, redirect to 127.0.0.1 and answer 410; API and control are killed in the middle
and come back.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from standardwebhooks import Webhook

from api.client import Client
from api.stack import ports
from jobs.ledger import controls, transitions
from jobs.tables import WebhookDelivery
from jobs.webhooks.states import DeliveryState
from tests.support.installation import KEY, PROJECT, Installation
from tests.support.installations import NewInstallation
from tests.support.receivers import ALLOWED, FORBIDDEN, Receiver, receiving
from tests.support.waiting import wait_until

JOBS = 3
"""Each of them fails twice, with a retry between: two events of one object."""


@pytest.fixture
def installation(new_installation: NewInstallation) -> Iterator[Installation]:
    made = new_installation(
        Path("/none"),
        api_port=ports.choose(),
        webhook_networks=[ALLOWED],
        webhook_timeout_seconds=1,
        allowed_inputs=["file:///"],
        allowed_models=["/"],
    )
    try:
        yield made
    finally:
        made.stop()


def test_every_event_arrives_in_order_and_none_at_a_forbidden_address(
    installation: Installation,
) -> None:
    release, back = threading.Event(), threading.Event()

    def hang() -> int:
        release.wait(60)
        return 0

    def be_gone() -> int:
        return 204 if back.is_set() else 410

    with contextlib.ExitStack() as stack:
        victim = stack.enter_context(receiving(host=FORBIDDEN))
        failing = stack.enter_context(receiving(500))
        hanging = stack.enter_context(receiving(hang))
        redirecting = stack.enter_context(receiving(302))
        redirecting.location = victim.url
        gone = stack.enter_context(receiving(*[be_gone] * 50))
        dying = stack.enter_context(receiving(hang, hang, hang))
        receivers = (failing, hanging, redirecting, gone, dying)
        client = stack.enter_context(
            Client(f"http://127.0.0.1:{installation.settings.api_port}", KEY)
        )
        api = installation.start("api.server")
        control = installation.start_role("control")
        made = [client.webhooks.create(each.url) for each in receivers]
        forbidden = client.webhooks.create(f"http://localhost:{victim.server.server_port}/")
        jobs = [client.submit(spec())["id"] for _ in range(JOBS)]
        for job_id in jobs:
            fail(installation, job_id)
        wait_until(lambda: under_way(installation, made[-1]["id"]), seconds=20)
        control.kill()
        api.kill()
        for job_id in jobs:  # nothing of ours runs
            retry(installation, job_id)
            fail(installation, job_id)
        installation.start("api.server")
        installation.start_role("control")
        wait_until(
            lambda: shown(client, made[3]["id"])["state"] == "disabled", seconds=30, every=0.3
        )
        back.set()
        client.webhooks.enable(made[3]["id"])
        wait_until(
            lambda: not any(shown(client, each["id"])["waiting"] for each in made),
            seconds=60,
            every=0.3,
        )
        for receiver, endpoint in zip(receivers, made, strict=True):
            assert_each_arrived_in_order(installation, receiver, endpoint)
        errors = {each["error"] for each in client.webhooks.deliveries(forbidden["id"])}
        assert errors <= {None, "it cannot be reached: it has an address that is not public"}
        assert shown(client, forbidden["id"])["state"] == "failing"
        assert victim.received == []
        release.set()


def assert_each_arrived_in_order(
    installation: Installation, receiver: Receiver, endpoint: dict[str, str]
) -> None:
    with installation.sessions.begin() as session:
        query = sa.select(WebhookDelivery).where(WebhookDelivery.endpoint_id == endpoint["id"])
        sent = list(session.scalars(query.order_by(WebhookDelivery.id)))
    assert {each.state for each in sent} == {DeliveryState.DELIVERED}
    taken = [each for each in receiver.received if each.status == 204]
    for each in taken:
        Webhook(endpoint["signing_secret"]).verify(each.body, each.headers)
    assert {each.id for each in taken} == {each.event_id for each in sent}
    for about in {each.object_id for each in sent}:
        wanted = [each.event_id for each in sent if each.object_id == about]
        came = [each.id for each in receiver.received if each.event["data"]["id"] == about]
        assert list(dict.fromkeys(came)) == wanted
        assert came == sorted(came, key=wanted.index)  # no later one before an earlier one again


def spec() -> dict[str, object]:
    return {"kind": "classify", "model": "/none", "corpus": {"uri": "file:///none.jsonl"}}


def fail(installation: Installation, job_id: str) -> None:
    with installation.sessions.begin() as session:
        assert transitions.fail(session, job_id, code="model_unreadable", message="no model")


def retry(installation: Installation, job_id: str) -> None:
    with installation.sessions.begin() as session:
        controls.retry(session, job_id, project_id=PROJECT)


def under_way(installation: Installation, endpoint_id: str) -> bool:
    """Whether a delivery to the endpoint is under way."""
    with installation.sessions.begin() as session:
        query = sa.select(WebhookDelivery.id).where(
            WebhookDelivery.endpoint_id == endpoint_id,
            WebhookDelivery.leased_until > sa.func.now(),
        )
        return bool(session.scalars(query).all())


def shown(client: Client, endpoint_id: str) -> dict[str, object]:
    return dict(client.webhooks.get(endpoint_id)["nightshift"])
