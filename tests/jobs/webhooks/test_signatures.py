"""Signatures that the library of the Standard Webhooks and OpenAI's client accept."""

from __future__ import annotations

import base64
from datetime import UTC, datetime

import openai
import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from jobs.webhooks import events, signatures
from jobs.webhooks.events import EventType

BODY = events.body(
    event_id="evt_1",
    event_type=EventType.JOB_SUCCEEDED,
    at=datetime(2026, 12, 1, tzinfo=UTC),
    data={"id": "job_1", "object": "job", "links": {"job": "/v1/jobs/job_1"}},
    base_url="https://jobs.example.com/",
)


def headers(*secrets: str) -> dict[str, str]:
    return signatures.headers(secrets, event_id="evt_1", at=datetime.now(UTC), body=BODY)


def test_the_vector_of_the_specification() -> None:
    """The example in the repository of the Standard Webhooks."""
    found = signatures.headers(
        ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
        event_id="msg_p5jXN8AQM9LWM0D4loKWxJek",
        at=datetime.fromtimestamp(1_614_265_330, UTC),
        body=b'{"test": 2432232314}',
    )
    assert found["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_the_library_and_openais_client_accept_what_is_signed() -> None:
    secret = signatures.new_secret()
    event = Webhook(secret).verify(BODY, headers(secret))
    assert event["data"]["links"] == {"job": "https://jobs.example.com/v1/jobs/job_1"}
    official = openai.OpenAI(api_key="none", webhook_secret=secret)
    unwrapped = official.webhooks.unwrap(BODY, headers(secret))
    assert (unwrapped.id, unwrapped.type) == ("evt_1", "job.succeeded")
    assert unwrapped.created_at == 1_796_083_200


def test_each_of_several_secrets_is_accepted() -> None:
    old, new, other = (signatures.new_secret() for _ in range(3))
    for secret in (old, new):
        Webhook(secret).verify(BODY, headers(new, old))
    with pytest.raises(WebhookVerificationError):
        Webhook(other).verify(BODY, headers(new, old))


def test_another_body_is_refused() -> None:
    secret = signatures.new_secret()
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(BODY + b" ", headers(secret))


def test_a_secret_is_random_and_as_long_as_the_specification_wants() -> None:
    secret = signatures.new_secret()
    assert secret != signatures.new_secret()
    assert 24 <= len(base64.b64decode(secret.removeprefix("whsec_"))) <= 64
    assert secret[10:-4] not in signatures.hint(secret)
