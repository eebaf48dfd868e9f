"""The audit trail: what is in it, what is not, and that it is committed with what it is about."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import httpx
import sqlalchemy as sa

from jobs.ledger import audit
from jobs.tables import AuditEntry
from tests.api.server.installation import Installation, Tenant

BROKEN = """
CREATE FUNCTION refuse_entry() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.project_id = '{project}' THEN RAISE EXCEPTION 'no entry'; END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER refuse_entry BEFORE INSERT ON audit_entries
    FOR EACH ROW EXECUTE FUNCTION refuse_entry();
"""
WHOLE = "DROP TRIGGER refuse_entry ON audit_entries; DROP FUNCTION refuse_entry();"


def trail(tenant: Tenant, **query: Any) -> list[dict[str, Any]]:
    answer = tenant.http.get("/v1/audit", params=query)
    assert answer.status_code == 200, answer.text
    return list(answer.json()["data"])


def done(entries: list[dict[str, Any]]) -> list[tuple[str, str | None, int]]:
    return [
        (f"{each['method']} {each['route']}", each["object"], each["status"]) for each in entries
    ]


def test_what_changes_something_is_recorded_with_who_and_where(tenant: Tenant) -> None:
    file_id = tenant.upload()
    job_id = tenant.submit(corpus={"file": file_id})
    cancelled = tenant.http.post(f"/v1/jobs/{job_id}/cancel", headers={"x-request-id": "mine"})
    tenant.http.get(f"/v1/jobs/{job_id}")
    tenant.http.delete("/v1/jobs/job_none")
    entries = trail(tenant, order="asc")
    assert done(entries) == [
        ("POST /v1/files", file_id, 200),
        ("POST /v1/jobs", job_id, 201),
        ("POST /v1/jobs/{job_id}/cancel", job_id, cancelled.status_code),
        ("DELETE /v1/jobs/{job_id}", "job_none", 404),
    ]
    key = tenant.http.get("/v1/keys/current").json()["id"]
    assert {(each["key"], each["address"]) for each in entries} == {(key, "127.0.0.1")}
    assert entries[2]["request_id"] == "mine"


def test_a_repeated_and_a_refused_submit_are_recorded_as_they_were_answered(
    tenant: Tenant,
) -> None:
    spec, headers = tenant.spec(), {"idempotency-key": "k"}
    answers = [tenant.http.post("/v1/jobs", json=spec, headers=headers) for _ in range(2)]
    other = tenant.http.post("/v1/jobs", json={**spec, "name": "other"}, headers=headers)
    bad = tenant.http.post("/v1/jobs", json={"kind": "classify"})
    job_id = answers[0].json()["id"]
    assert done(trail(tenant, order="asc"))[1:] == [
        ("POST /v1/jobs", job_id, 201),
        ("POST /v1/jobs", job_id, 200),
        ("POST /v1/jobs", None, other.status_code),
        ("POST /v1/jobs", None, bad.status_code),
    ]


def test_a_missing_scope_is_recorded_and_an_unknown_key_is_not(
    installation: Installation, tenant: Tenant
) -> None:
    made = tenant.http.post("/v1/keys", json={"scopes": ["submit"]}).json()
    for key in (made["key"], "ns_unknown"):
        headers = {"authorization": f"Bearer {key}"}
        assert not httpx.get(f"{installation.url}/v1/jobs", headers=headers).is_success
    first, *_ = trail(tenant)
    assert (first["key"], first["route"], first["status"]) == (made["id"], "/v1/jobs", 403)
    assert done(trail(tenant, key=made["id"])) == [("GET /v1/jobs", None, 403)]
    assert done(trail(tenant, object=made["id"])) == [("POST /v1/keys", made["id"], 201)]
    assert made["key"] not in tenant.http.get("/v1/audit").text


def test_what_cannot_be_recorded_is_not_done(installation: Installation, tenant: Tenant) -> None:
    spec = tenant.spec()
    with _broken(installation, tenant):
        answer = tenant.http.post("/v1/jobs", json=spec)
    assert answer.status_code >= 500
    assert tenant.http.get("/v1/jobs").json()["data"] == []
    assert tenant.submit() == tenant.http.get("/v1/jobs").json()["data"][0]["id"]


@contextmanager
def _broken(installation: Installation, tenant: Tenant) -> Iterator[None]:
    with installation.sessions() as sessions:
        with sessions.begin() as session:
            session.execute(sa.text(BROKEN.format(project=tenant.project)))
        try:
            yield
        finally:
            with sessions.begin() as session:
                session.execute(sa.text(WHOLE))


def test_a_trail_is_paged_and_of_one_project(tenant: Tenant, stranger: Tenant) -> None:
    files = [tenant.upload(f'{{"text": "{number}"}}\n'.encode()) for number in range(3)]
    stranger.upload()
    page = tenant.http.get("/v1/audit", params={"limit": 2}).json()
    assert [each["object"] for each in page["data"]] == [files[2], files[1]]
    assert page["has_more"]
    (rest,) = trail(tenant, limit=2, after=page["next"])
    assert rest["object"] == files[0]
    assert trail(tenant, since="2100-01-01T00:00:00Z") == []
    assert trail(tenant, until="2020-01-01T00:00:00Z") == []
    assert len(trail(stranger, project=tenant.project)) == 3  # its key operates the installation


def test_entries_go_when_they_are_old_enough(installation: Installation, tenant: Tenant) -> None:
    old, new = tenant.upload(b'{"text": "a"}\n'), tenant.upload(b'{"text": "b"}\n')
    with installation.sessions() as sessions, sessions.begin() as session:
        session.execute(
            sa.update(AuditEntry)
            .where(AuditEntry.object == old)
            .values(at=sa.func.now() - timedelta(days=500))
        )
        assert audit.prune(session, kept=timedelta(days=400)) == 1
    assert [each["object"] for each in trail(tenant)] == [new]
