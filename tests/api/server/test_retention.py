"""Routes of retention: policies of a project and of a job, and answers about what is gone."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from api.client import Client
from jobs.ledger import retention
from jobs.retention import Retention
from jobs.tables import Job
from tests.api.server.conftest import FakeWorkers
from tests.api.server.installation import Tenant


def ended(tenant: Tenant, fake_workers: FakeWorkers, *, failed: int = 0) -> str:
    job_id = tenant.submit(output={"format": "jsonl"}, max_failed=1.0)
    hands = fake_workers.take(job_id)
    hands.plan([2])
    hands.work(0, failed=failed)
    hands.finish()
    return job_id


def retain(tenant: Tenant) -> None:
    """As control does."""
    with tenant.installation.sessions() as sessions:
        for part in (retention.spread, retention.look, retention.drop_files):
            with sessions.begin() as session:
                part(session, defaults=Retention(), limit=1_000)


def put(tenant: Tenant, path: str, **body: Any) -> dict[str, Any]:
    answer = tenant.http.put(path, json=body)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def error(answer: httpx.Response, status: int) -> tuple[str, str]:
    assert answer.status_code == status, answer.text
    found = answer.json()["error"]
    return found["code"], found["message"]


def test_a_project_without_a_policy_keeps_everything_but_checkpoints(tenant: Tenant) -> None:
    found = tenant.http.get("/v1/retention").json()
    assert found["project"] == {}
    assert found["effective"].pop("succeeded_checkpoints") == "0s"
    assert found["effective"].pop("chunks") == "7d"
    assert set(found["effective"].values()) == {"forever"}


def test_a_policy_is_replaced_as_a_whole_and_is_the_projects_alone(
    tenant: Tenant, stranger: Tenant
) -> None:
    put(tenant, "/v1/retention", jobs="90d", files="forever")
    found = put(tenant, "/v1/retention", jobs=86_400, parts="36h")
    assert found["project"] == {"jobs": "1d", "parts": "1d12h"}
    assert tenant.http.get("/v1/retention").json() == found
    assert stranger.http.get("/v1/retention").json()["project"] == {}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"jobs": "soon"}, "jobs: must be `forever`, a duration of at most 10 years such as"),
        ({"jobs": -1}, "jobs: must be `forever`"),
        ({"job": "1d"}, "job: "),
        ({"keep": True}, "keep: "),
    ],
)
def test_what_is_no_policy_is_refused(tenant: Tenant, body: dict[str, Any], words: str) -> None:
    _, message = error(tenant.http.put("/v1/retention", json=body), 400)
    assert words in message


def test_what_a_job_loses_is_answered_with_what_happened(
    tenant: Tenant, fake_workers: FakeWorkers
) -> None:
    job_id = ended(tenant, fake_workers, failed=1)
    put(tenant, "/v1/retention", parts="0s", outputs="0s", jobs="30d")
    retain(tenant)
    for path, code in (
        ("results", "results_removed"),
        ("verification", "results_removed"),
        ("output", "output_removed"),
    ):
        found, message = error(tenant.http.get(f"/v1/jobs/{job_id}/{path}"), 404)
        assert found == code
        assert message.endswith(f"/v1/jobs/{job_id}/retention")
    code, message = error(tenant.http.post(f"/v1/jobs/{job_id}/retry"), 409)
    assert code == "job_removed_in_part"
    assert "its parts went on" in message
    found = tenant.http.get(f"/v1/jobs/{job_id}/retention").json()
    assert [each["piece"] for each in found["removed"]] == ["outputs", "parts"]
    assert [each["piece"] for each in found["goes"]] == ["chunks", "jobs"]
    job = tenant.job(job_id)
    assert job["rows"]["done"] == 2
    assert job["output"]["rows"] == 2


def test_a_job_that_is_kept_is_neither_removed_nor_deleted(
    tenant: Tenant, fake_workers: FakeWorkers
) -> None:
    job_id = ended(tenant, fake_workers)
    put(tenant, "/v1/retention", jobs="0s", files="0s")
    with Client(tenant.installation.url, tenant.key) as client:
        assert client.retention.keep(job_id)["keep"]
        retain(tenant)
        code, _ = error(tenant.http.delete(f"/v1/jobs/{job_id}"), 409)
        assert code == "job_kept"
        file_id = tenant.job(job_id)["spec"]["corpus"]["file"]
        assert tenant.http.get(f"/v1/files/{file_id}/content").is_success
        assert tenant.http.get(f"/v1/jobs/{job_id}/results").is_success
        assert not client.retention.keep(job_id, keep=False)["keep"]
    retain(tenant)
    error(tenant.http.get(f"/v1/jobs/{job_id}"), 404)


def test_periods_of_a_job_stay_when_it_is_kept_and_no_longer(
    tenant: Tenant, fake_workers: FakeWorkers
) -> None:
    job_id = ended(tenant, fake_workers)
    with Client(tenant.installation.url, tenant.key) as client:
        client.retention.set_job(job_id, {"parts": "2d"})
        for keep in (True, False):
            found = client.retention.keep(job_id, keep=keep)
            assert (found["own"], found["effective"]["parts"]) == ({"parts": "2d"}, "2d")


def test_another_projects_job_looks_like_one_that_does_not_exist(
    tenant: Tenant, stranger: Tenant, fake_workers: FakeWorkers
) -> None:
    path = f"/v1/jobs/{ended(tenant, fake_workers)}/retention"
    assert stranger.http.get(path).status_code == 404
    assert stranger.http.put(path, json={"keep": True}).status_code == 404
    with tenant.installation.sessions() as sessions, sessions.begin() as session:
        kept = sa.select(Job.id).where(Job.kept, Job.project_id == tenant.project)
        assert session.scalars(kept).all() == []


def test_usage_that_was_not_counted_yet_is_none(tenant: Tenant) -> None:
    found = tenant.http.get("/v1/storage").json()
    assert (found["objects"], found["bytes"], found["data"]) == (0, 0, [])


def test_a_file_that_a_schedule_names_is_in_use(tenant: Tenant) -> None:
    file_id = tenant.upload()
    spec = {"kind": "classify", "model": "/models/tiny", "corpus": {"file": file_id}}
    made = tenant.http.post(
        "/v1/schedules",
        json={"name": "weekly", "timing": {"every": "7d"}, "jobs": [{"spec": spec}]},
    )
    assert made.status_code == 201, made.text
    code, message = error(tenant.http.delete(f"/v1/files/{file_id}"), 409)
    assert (code, "the schedule weekly needs it" in message) == ("file_in_use", True)
    assert tenant.http.delete("/v1/schedules/weekly").is_success
    assert tenant.http.delete(f"/v1/files/{file_id}").is_success
