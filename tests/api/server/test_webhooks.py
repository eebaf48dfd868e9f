"""Webhook endpoints over HTTP, by plain requests and by OpenAI's client."""

from __future__ import annotations

from typing import Any

import httpx
import openai
import pytest

from tests.api.server.conftest import FakeWorkers
from tests.api.server.installation import Tenant

URL = "https://hooks.example.com/nightshift"


def make(tenant: Tenant, **fields: Any) -> dict[str, Any]:
    answer = tenant.http.post("/v1/webhook_endpoints", json={"url": URL, **fields})
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def error(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    return dict(answer.json()["error"])


def official(tenant: Tenant) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{tenant.installation.url}/v1", api_key=tenant.key)


def test_a_secret_is_shown_when_it_is_made_and_never_again(tenant: Tenant) -> None:
    made = make(tenant, name="mine", event_types=["job.failed"])
    secret = made.pop("signing_secret")
    assert secret.startswith("whsec_")
    assert made["nightshift"]["state"] == "active"
    shown = tenant.http.get(f"/v1/webhook_endpoints/{made['id']}")
    assert shown.json() == made
    page = tenant.http.get("/v1/webhook_endpoints")
    assert page.json()["data"] == [made]
    assert secret not in shown.text + page.text
    rotated = tenant.http.post(f"/v1/webhook_endpoints/{made['id']}/rotate_secret").json()
    assert rotated["signing_secret"] not in {secret, None}
    assert len(rotated["nightshift"]["old_secrets_until"]) == 1


def test_the_same_key_is_one_endpoint(tenant: Tenant) -> None:
    headers = {"idempotency-key": "k"}
    answers = [
        tenant.http.post("/v1/webhook_endpoints", json={"url": URL}, headers=headers)
        for _ in range(2)
    ]
    assert [answer.status_code for answer in answers] == [201, 200]
    assert answers[0].json() == answers[1].json()
    other = tenant.http.post("/v1/webhook_endpoints", json={"url": f"{URL}/2"}, headers=headers)
    assert error(other, 422)["code"] == "idempotency_key_reused"


def test_openais_client_makes_changes_lists_rotates_tests_and_deletes(tenant: Tenant) -> None:
    client = official(tenant).webhooks
    made = client.create(name="mine", url=URL, event_types=["job.failed"])  # type: ignore[list-item]
    assert made.signing_secret.startswith("whsec_")
    assert client.update(made.id, name="ours").name == "ours"
    assert client.retrieve(made.id).event_types == ["job.failed"]
    assert [each.id for each in client.list()] == [made.id]
    rotated = client.rotate_secret(made.id, keep_old_secret_active_for_24_hours=True)
    assert rotated.signing_secret != made.signing_secret
    tested = client.test(made.id, event_type="job.failed")  # type: ignore[arg-type]
    assert tested.webhook_endpoint_id == made.id
    assert "job.failed" in client.event_types.list().data
    assert client.delete(made.id).deleted
    assert list(client.list()) == []


def test_what_happens_is_a_delivery_that_is_shown_and_sent_again(
    tenant: Tenant, fake_workers: FakeWorkers
) -> None:
    endpoint = make(tenant)["id"]
    job_id = tenant.submit()
    fake_workers.take(job_id).fail(code="model_unreadable", message="no model")
    path = f"/v1/webhook_endpoints/{endpoint}/deliveries"
    (delivery,) = tenant.http.get(path).json()["data"]
    assert (delivery["event_type"], delivery["about"]) == ("job.failed", job_id)
    assert (delivery["state"], delivery["tries"]) == ("pending", 0)
    again = tenant.http.post(f"{path}/{delivery['id']}/resend")
    assert (again.status_code, again.json()["id"]) == (201, delivery["id"])
    enabled = tenant.http.post(
        f"/v1/webhook_endpoints/{endpoint}/enable", json={"skip_waiting": True}
    )
    assert enabled.json()["nightshift"]["waiting"] == 0
    again = tenant.http.post(f"{path}/{delivery['id']}/resend")
    assert again.json()["id"] > delivery["id"]
    assert again.json()["event"] == delivery["event"]
    page = tenant.http.get(path, params={"limit": 1}).json()
    assert (page["has_more"], page["next"]) == (True, again.json()["id"])
    (rest,) = tenant.http.get(path, params={"after": page["next"]}).json()["data"]
    assert (rest["id"], rest["state"]) == (delivery["id"], "skipped")
    (skipped,) = tenant.http.get(path, params={"state": "skipped"}).json()["data"]
    assert skipped == tenant.http.get(f"{path}/{delivery['id']}").json()


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({}, "", "either url or email"),
        ({"url": "gopher://example.com"}, "url", "http or https"),
        ({"url": "http://127.0.0.1/"}, "url", "not a public address"),
        ({"url": "http://0x7f000001/"}, "url", "not a public address"),
        ({"url": "http://[fd00:ec2::254]/latest"}, "url", "not a public address"),
        ({"url": URL, "event_types": ["job.begun"]}, "event_types.0", "job.succeeded"),
        ({"url": URL, "colour": "red"}, "colour", "colour"),
        ({"email": "a@example.com"}, "email", "NIGHTSHIFT_SMTP_URL"),
    ],
)
def test_a_refusal_names_the_field(
    tenant: Tenant, body: dict[str, Any], param: str, words: str
) -> None:
    found = error(tenant.http.post("/v1/webhook_endpoints", json=body), 400)
    assert words in found["message"]
    assert (found["param"] or "") == param


def test_a_project_has_a_limit_and_sees_only_its_own(tenant: Tenant, stranger: Tenant) -> None:
    made = [make(tenant)["id"] for _ in range(20)]
    full = tenant.http.post("/v1/webhook_endpoints", json={"url": URL})
    assert error(full, 409)["code"] == "too_many_endpoints"
    path = f"/v1/webhook_endpoints/{made[0]}"
    for answer in (
        stranger.http.get(path),
        stranger.http.post(path, json={"name": "x"}),
        stranger.http.delete(path),
        stranger.http.post(f"{path}/enable"),
        stranger.http.post(f"{path}/test"),
        stranger.http.post(f"{path}/rotate_secret"),
        stranger.http.get(f"{path}/deliveries"),
        stranger.http.get(f"{path}/deliveries/1"),
        stranger.http.post(f"{path}/deliveries/1/resend"),
    ):
        error(answer, 404)
    assert tenant.http.get(path).status_code == 200
