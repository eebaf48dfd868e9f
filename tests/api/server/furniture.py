"""A project with one of everything that a path can name."""

from __future__ import annotations

from pathlib import Path

import httpx

from tests.api.server import test_schedules, test_webhooks
from tests.api.server.conftest import FakeWorkers
from tests.api.server.installation import Tenant
from tests.api.server.test_models import Trained


def furnish(tenant: Tenant, fake_workers: FakeWorkers, model: Path) -> dict[str, list[str]]:
    """Values of the parameters of paths: things of the tenant, with rows in the long tables.

    ``model``: a folder that there is not yet.
    """
    bulk, training = tenant.submit(), tenant.train()
    hands = fake_workers.take(bulk)
    hands.plan([2, 3, 4])
    hands.work(0, failed=1)
    gang = fake_workers.gang(training)
    gang.plan()
    gang.form()
    registered = Trained(tenant, model)
    first, version = (registered.register("news", job_id=training) for _ in range(2))
    aliased = tenant.http.put("/v1/models/news/aliases/champion", json={"version": first})
    assert aliased.is_success, aliased.text
    registered.decide("news", version, value=0.9, promoted=True)

    def made(answer: httpx.Response) -> str:
        assert answer.is_success, answer.text
        return str(answer.json()["id"])

    post, get = tenant.http.post, tenant.http.get
    group = made(post("/v1/groups", json={"jobs": {"one": tenant.spec()}}))
    schedule = made(post("/v1/schedules", json=test_schedules.body(tenant)))
    post(f"/v1/schedules/{schedule}/trigger").raise_for_status()
    hook = made(post("/v1/webhook_endpoints", json={"url": test_webhooks.URL}))
    post(f"/v1/webhook_endpoints/{hook}/test").raise_for_status()
    key = made(post("/v1/keys", json={"name": "another"}))
    decision = get("/v1/models/news/promotions").json()["data"][0]["id"]
    delivery = get(f"/v1/webhook_endpoints/{hook}/deliveries").json()["data"][0]["id"]
    return {
        "job_id": [bulk, training],
        "file_id": [tenant.upload()],
        "group_id": [group],
        "schedule": [schedule, "nightly"],
        "endpoint": [hook],
        "delivery": [str(delivery)],
        "model": ["news", f"news@{version}"],
        "name": ["news"],
        "version": [str(version)],
        "alias": ["champion"],
        "decision": [str(decision)],
        "path": ["config.json"],
        "pool": ["cpu"],
        "project": [tenant.project],
        "key_id": [key],
    }
