"""Limits of projects: what is refused beyond them, and that they hold when many come at once."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from jobs.tables import StorageUsage
from tests.api.server.installation import Installation, Tenant, new_tenant

RACING = 6


@pytest.fixture
def operator(installation: Installation) -> Iterator[Tenant]:
    with new_tenant(installation) as made:
        yield made


def limit(operator: Tenant, tenant: Tenant, **limits: Any) -> None:
    answer = operator.http.patch(f"/v1/projects/{tenant.project}", json={"limits": limits})
    assert answer.status_code == 200, answer.text
    shown = tenant.http.get(f"/v1/projects/{tenant.project}").json()["limits"]
    assert {name: value for name, value in shown.items() if value is not None} == limits


def refused(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    return dict(answer.json()["error"])


def test_jobs_in_flight_are_exact_when_many_submit_at_once(
    operator: Tenant, tenant: Tenant
) -> None:
    limit(operator, tenant, jobs_in_flight=2)
    spec = tenant.spec()
    with ThreadPoolExecutor(RACING) as pool:
        answers = list(pool.map(lambda _: tenant.http.post("/v1/jobs", json=spec), range(RACING)))
    assert sorted(each.status_code for each in answers) == [201] * 2 + [429] * (RACING - 2)
    over = next(each for each in answers if each.status_code == 429)
    assert over.headers["retry-after"]
    assert refused(over, 429)["code"] == "quota_exceeded"
    assert refused(over, 429)["type"] == "rate_limit_error"


def test_a_group_is_accepted_as_a_whole_or_not_at_all(operator: Tenant, tenant: Tenant) -> None:
    limit(operator, tenant, jobs_in_flight=1)
    group = {"jobs": {"one": tenant.spec(), "two": tenant.spec()}}
    answer = tenant.http.post("/v1/groups", json=group)
    assert refused(answer, 429)["param"] == "jobs.two"
    assert tenant.http.get("/v1/jobs").json()["data"] == []
    limit(operator, tenant)
    assert tenant.http.post("/v1/groups", json=group).status_code == 201


def test_a_project_uses_its_own_pools_and_models_alone(operator: Tenant, tenant: Tenant) -> None:
    limit(operator, tenant, pools=["cpu"], models=["/models/"])
    pool = refused(tenant.http.post("/v1/jobs", json=tenant.spec(pool="gpu")), 403)
    assert (pool["code"], pool["param"]) == ("pool_not_allowed", "pool")
    model = refused(tenant.http.post("/v1/jobs", json=tenant.spec(model="hf:org/name")), 400)
    assert model["param"] == "model"
    tenant.submit()


def test_an_upload_is_as_large_as_the_project_may(
    installation: Installation, operator: Tenant, tenant: Tenant
) -> None:
    limit(operator, tenant, upload_bytes=20)
    tenant.upload(b'{"text": "one"}\n')
    long = tenant.http.post("/v1/files", files={"file": ("a.jsonl", b'{"text": "much longer"}\n')})
    assert refused(long, 413)["code"] == "too_large"
    limit(operator, tenant, storage_bytes=30)
    tenant.upload(b'{"text": "two"}\n')
    full = tenant.http.post("/v1/files", files={"file": ("a.jsonl", b"{}\n")})
    assert refused(full, 429)["code"] == "quota_exceeded"
    limit(operator, tenant, storage_bytes=100)
    tenant.upload(b'{"text": "six"}\n')
    with installation.sessions() as sessions, sessions.begin() as session:
        session.execute(
            sa.insert(StorageUsage).values(
                project_id=tenant.project, kind="parts", objects=1, bytes=100
            )
        )
    full = tenant.http.post("/v1/files", files={"file": ("a.jsonl", b"{}\n")})
    assert refused(full, 429)["code"] == "quota_exceeded"
