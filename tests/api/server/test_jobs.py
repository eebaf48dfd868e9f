"""Submitting, listing and controlling jobs over HTTP."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.api.server.conftest import FakeWorkers
from tests.api.server.installation import Tenant


def _error(answer: httpx.Response) -> dict[str, str]:
    return dict(answer.json()["error"])


def test_a_submitted_job_is_queued_and_says_why_it_waits(tenant: Tenant) -> None:
    job = tenant.job(tenant.submit(name="mine", priority=3))
    assert (job["object"], job["kind"], job["state"]) == ("job", "classify", "queued")
    assert (job["name"], job["model"], job["priority"]) == ("mine", "/models/tiny", 3)
    assert job["rows"] == {"total": None, "planned": 0, "done": 0, "under_way": 0, "failed": 0}
    assert "no control process" in job["waiting_reason"]
    assert job["created_at"].endswith("Z")


def test_the_same_key_and_spec_is_the_same_job(tenant: Tenant) -> None:
    spec, headers = tenant.spec(), {"idempotency-key": "once"}
    first = tenant.http.post("/v1/jobs", json=spec, headers=headers)
    again = tenant.http.post("/v1/jobs", json=spec, headers=headers)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["id"] == again.json()["id"]


def test_the_same_key_sent_eight_times_at_once_makes_one_job(tenant: Tenant) -> None:
    spec, headers = tenant.spec(), {"idempotency-key": "crowd"}

    def submit(_: int) -> httpx.Response:
        return tenant.http.post("/v1/jobs", json=spec, headers=headers)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(submit, range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] * 7 + [201]
    assert len({answer.json()["id"] for answer in answers}) == 1


def test_the_same_key_with_another_spec_is_refused(tenant: Tenant) -> None:
    headers = {"idempotency-key": "reused"}
    tenant.http.post("/v1/jobs", json=tenant.spec(), headers=headers)
    answer = tenant.http.post("/v1/jobs", json=tenant.spec(priority=9), headers=headers)
    assert answer.status_code == 422
    assert _error(answer)["code"] == "idempotency_key_reused"


def test_two_projects_may_use_the_same_key(tenant: Tenant, stranger: Tenant) -> None:
    headers = {"idempotency-key": "shared"}
    mine = tenant.http.post("/v1/jobs", json=tenant.spec(), headers=headers)
    theirs = stranger.http.post("/v1/jobs", json=stranger.spec(), headers=headers)
    assert (mine.status_code, theirs.status_code) == (201, 201)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ""),
        ("GET", "/why"),
        ("GET", "/events"),
        ("GET", "/chunks"),
        ("GET", "/results"),
        ("GET", "/output"),
        ("GET", "/verification"),
        ("POST", "/cancel"),
        ("POST", "/pause"),
        ("POST", "/resume"),
        ("POST", "/retry"),
    ],
)
def test_another_projects_job_looks_like_none(
    tenant: Tenant, stranger: Tenant, method: str, path: str
) -> None:
    job_id = tenant.submit()
    theirs = stranger.http.request(method, f"/v1/jobs/{job_id}{path}")
    none = stranger.http.request(method, f"/v1/jobs/job_{'0' * 24}{path}")
    assert theirs.status_code == none.status_code == 404
    assert theirs.text.replace(job_id, "ID") == none.text.replace(f"job_{'0' * 24}", "ID")
    assert tenant.job(job_id)["state"] == "queued"


def test_another_projects_jobs_are_not_listed(tenant: Tenant, stranger: Tenant) -> None:
    job_id = tenant.submit()
    assert stranger.http.get("/v1/jobs").json()["data"] == []
    assert stranger.http.get("/v1/jobs", params={"after": job_id}).status_code == 404


def test_pages_of_jobs_show_each_job_once_newest_first(tenant: Tenant) -> None:
    submitted = [tenant.submit() for _ in range(5)]
    seen: list[str] = []
    query: dict[str, str] = {"limit": "2"}
    while True:
        page = tenant.http.get("/v1/jobs", params=query).json()
        seen += [job["id"] for job in page["data"]]
        if not page["has_more"]:
            break
        query["after"] = page["last_id"]
    assert seen == submitted[::-1]


def test_jobs_are_listed_by_state(tenant: Tenant) -> None:
    queued, paused = tenant.submit(), tenant.submit()
    tenant.http.post(f"/v1/jobs/{paused}/pause")
    page = tenant.http.get("/v1/jobs", params={"state": "queued"}).json()
    assert [job["id"] for job in page["data"]] == [queued]


def test_pause_and_resume_move_the_job_and_may_be_repeated(tenant: Tenant) -> None:
    job_id = tenant.submit()
    states = [
        tenant.http.post(f"/v1/jobs/{job_id}/{action}").json()["state"]
        for action in ("pause", "pause", "resume", "resume")
    ]
    assert states == ["paused", "paused", "queued", "queued"]


def test_a_cancelled_job_cannot_be_paused(tenant: Tenant) -> None:
    job_id = tenant.submit()
    assert tenant.http.post(f"/v1/jobs/{job_id}/cancel").json()["state"] == "cancelling"
    answer = tenant.http.post(f"/v1/jobs/{job_id}/pause")
    assert answer.status_code == 409
    assert _error(answer)["code"] == "state_conflict"
    assert "cancelling" in _error(answer)["message"]


def test_a_job_that_has_not_ended_cannot_be_retried(tenant: Tenant) -> None:
    answer = tenant.http.post(f"/v1/jobs/{tenant.submit()}/retry")
    assert answer.status_code == 409
    assert "when it has ended" in _error(answer)["message"]


def test_a_failed_job_tells_its_error(tenant: Tenant, fake_workers: FakeWorkers) -> None:
    job_id = tenant.submit()
    fake_workers.take(job_id).fail(code="corpus_empty", message="the corpus has no rows")
    job = tenant.job(job_id)
    assert job["state"] == "failed"
    assert job["error"] == {"code": "corpus_empty", "message": "the corpus has no rows"}


def test_workers_are_listed(tenant: Tenant) -> None:
    assert tenant.http.get("/v1/workers").json() == {
        "object": "list",
        "data": [],
        "has_more": False,
    }


def test_a_worker_shows_what_it_has_loaded_and_how_rows_share_batches(
    tenant: Tenant, fake_workers: FakeWorkers
) -> None:
    loaded = {"model": "/models/tiny", "kind": "classify", "sharing": "each row alone"}
    fake_workers.worker("cpu-1@here", slot=0, engines=[])
    fake_workers.worker("cpu-1@here", slot=1, engines=[loaded])
    (worker,) = tenant.http.get("/v1/workers").json()["data"]
    assert worker["engines"] == [loaded]
    fake_workers.worker("cpu-1@here", slot=1, engines=[])
    assert tenant.http.get("/v1/workers").json()["data"][0]["engines"] == []


def test_messages_that_workers_refused_are_listed(
    tenant: Tenant, fake_workers: FakeWorkers
) -> None:
    fake_workers.refuse("abc")
    fake_workers.refuse("abc")
    (found,) = tenant.http.get("/v1/workers/refused-messages").json()["data"]
    assert (found["digest"], found["queue"], found["times"]) == ("abc", "pool.cpu", 2)
    assert (found["reason"], found["message"]) == ("unsigned", "it has no signature")
    assert (found["deaths"], found["quarantined"]) == (0, False)
