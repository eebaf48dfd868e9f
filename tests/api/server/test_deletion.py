"""Files and jobs are deleted by their owner, once nothing needs them, with all that is theirs."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from api.client import ApiError, Client
from tests.api.server.conftest import FakeWorkers
from tests.api.server.installation import Installation, Tenant
from tests.support.waiting import wait_until


def error(answer: httpx.Response, status: int) -> tuple[str, str]:
    assert answer.status_code == status, answer.text
    found = answer.json()["error"]
    return found["code"], found["message"]


def ended(tenant: Tenant, fake_workers: FakeWorkers) -> str:
    job_id = tenant.submit(output={"format": "jsonl"})
    hands = fake_workers.take(job_id)
    hands.plan([1])
    hands.work(0)
    hands.finish()
    return job_id


def left(installation: Installation, name: str) -> list[Path]:
    return [path for path in installation.objects.rglob("*") if name in str(path)]


def test_a_deleted_file_is_gone_and_its_bytes_soon_after(tenant: Tenant) -> None:
    file_id = tenant.upload()
    answer = tenant.http.delete(f"/v1/files/{file_id}")
    assert answer.json() == {"id": file_id, "object": "file", "deleted": True}
    for path in (f"/v1/files/{file_id}", f"/v1/files/{file_id}/content"):
        error(tenant.http.get(path), 404)
    error(tenant.http.delete(f"/v1/files/{file_id}"), 404)
    assert tenant.http.get("/v1/files").json()["data"] == []
    wait_until(lambda: not left(tenant.installation, file_id), seconds=60)


def test_a_file_in_use_is_not_deleted_and_the_answer_names_its_user(tenant: Tenant) -> None:
    file_id = tenant.upload()
    job_id = tenant.submit(corpus={"file": file_id})
    answer = tenant.http.delete(f"/v1/files/{file_id}")
    code, message = error(answer, 409)
    assert code == "file_in_use"
    assert f"{job_id}, which is queued, needs it" in message
    assert answer.headers["x-should-retry"] == "false"
    assert tenant.http.get(f"/v1/files/{file_id}/content").is_success


def test_a_deleted_job_is_gone_with_its_objects(tenant: Tenant, fake_workers: FakeWorkers) -> None:
    job_id = ended(tenant, fake_workers)
    assert left(tenant.installation, job_id)
    answer = tenant.http.delete(f"/v1/jobs/{job_id}")
    assert answer.json() == {"id": job_id, "object": "job", "deleted": True}
    for path in ("", "/events", "/chunks", "/results", "/output", "/verification"):
        error(tenant.http.get(f"/v1/jobs/{job_id}{path}"), 404)
    for action in ("cancel", "pause", "resume", "retry"):
        error(tenant.http.post(f"/v1/jobs/{job_id}/{action}"), 404)
    error(tenant.http.delete(f"/v1/jobs/{job_id}"), 404)
    assert tenant.http.get("/v1/jobs").json()["data"] == []
    wait_until(lambda: not left(tenant.installation, job_id), seconds=60)


def test_a_job_under_way_is_not_deleted(tenant: Tenant) -> None:
    job_id = tenant.submit()
    code, message = error(tenant.http.delete(f"/v1/jobs/{job_id}"), 409)
    assert (code, message) == (
        "job_not_ended",
        f"{job_id} is queued: delete it when it has ended, or cancel it first",
    )


def test_another_projects_id_looks_like_one_that_does_not_exist(
    tenant: Tenant, stranger: Tenant, fake_workers: FakeWorkers
) -> None:
    job_id, file_id = ended(tenant, fake_workers), tenant.upload()
    for path, unknown in ((f"/v1/jobs/{job_id}", "job_0"), (f"/v1/files/{file_id}", "file-0")):
        name = path.rpartition("/")[2]
        theirs = stranger.http.delete(path)
        none = stranger.http.delete(path.replace(name, unknown))
        assert error(theirs, 404) == (
            error(none, 404)[0],
            error(none, 404)[1].replace(unknown, name),
        )
        assert tenant.http.get(path).is_success


def test_who_deletes_while_paging_meets_every_job(
    tenant: Tenant, fake_workers: FakeWorkers
) -> None:
    made = {ended(tenant, fake_workers) for _ in range(4)}
    found: set[str] = set()
    page = tenant.http.get("/v1/jobs", params={"limit": 1}).json()
    while page["data"]:
        found.add(page["last_id"])
        assert tenant.http.delete(f"/v1/jobs/{page['last_id']}").is_success
        query = {"limit": 1, "after": page["last_id"]}
        page = tenant.http.get("/v1/jobs", params=query).json()
    assert found == made


def test_results_outlive_the_file_of_their_corpus_and_verification_says_what_it_needs(
    tenant: Tenant, fake_workers: FakeWorkers
) -> None:
    job_id = ended(tenant, fake_workers)
    file_id = tenant.job(job_id)["spec"]["corpus"]["file"]
    assert tenant.http.delete(f"/v1/files/{file_id}").is_success
    assert len(tenant.http.get(f"/v1/jobs/{job_id}/results").json()["data"]) == 1
    code, message = error(tenant.http.get(f"/v1/jobs/{job_id}/verification"), 404)
    assert code == "file_not_found"
    assert message.endswith(f"its corpus, the uploaded file {file_id}, was deleted")


def test_the_client_deletes_files_and_jobs(tenant: Tenant, fake_workers: FakeWorkers) -> None:
    job_id, file_id = ended(tenant, fake_workers), tenant.upload()
    with Client(tenant.installation.url, tenant.key) as client:
        assert client.delete_job(job_id)["deleted"]
        assert client.delete_file(file_id)["deleted"]
        with pytest.raises(ApiError, match=f"no job '{job_id}' in this project"):
            client.delete_job(job_id)


def test_a_deletion_whose_answer_was_lost_is_not_an_error(
    tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    file_id = tenant.upload()
    with Client(tenant.installation.url, tenant.key) as client:
        really = client._http.delete
        lost: list[httpx.Response] = []

        def delete(path: str) -> httpx.Response:
            answer = really(path)
            if not lost:
                lost.append(answer)
                raise httpx.ReadError("the connection broke")
            return answer

        monkeypatch.setattr(client._http, "delete", delete)
        assert client.delete_file(file_id) == {"id": file_id, "deleted": True}
    assert lost[0].is_success
