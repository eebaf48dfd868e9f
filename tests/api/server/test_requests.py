"""What every request has in common: its id, and that unknown query fields are refused."""

from __future__ import annotations

import json
import secrets

import httpx
import pytest

from tests.api.server.conftest import FakeWorkers
from tests.api.server.installation import Tenant

FRESH = "req_"


def test_the_callers_request_id_is_given_back_and_stands_in_the_log(tenant: Tenant) -> None:
    given = f"trace:{secrets.token_hex(8)}"
    answer = tenant.http.get("/v1/jobs", headers={"x-request-id": given})
    assert answer.headers["x-request-id"] == given
    lines = [json.loads(line) for line in tenant.installation.log.splitlines() if given in line]
    assert [line["request_id"] for line in lines] == [given]


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, 'a"b', "a\tb", "é"])
def test_an_id_that_is_not_fit_for_a_log_is_replaced(tenant: Tenant, given: str) -> None:
    answer = tenant.http.get("/v1/jobs", headers=[(b"x-request-id", given.encode())])
    assert answer.headers["x-request-id"].startswith(FRESH)


def test_of_two_ids_neither_is_taken(tenant: Tenant) -> None:
    headers = [("x-request-id", "one"), ("x-request-id", "two")]
    assert tenant.http.get("/v1/jobs", headers=headers).headers["x-request-id"].startswith(FRESH)


def refused(answer: httpx.Response) -> tuple[str, str, str]:
    assert answer.status_code == 422, answer.text
    error = answer.json()["error"]
    return error["code"], error["param"], error["message"]


def test_an_unknown_query_field_is_named_with_those_that_there_are(tenant: Tenant) -> None:
    assert refused(tenant.http.get("/v1/jobs", params={"lmit": 5})) == (
        "unknown_parameter",
        "lmit",
        (
            "lmit: no such field in the query; there are after, group, kind, limit, name, order, "
            "since, state"
        ),
    )


def test_a_route_without_query_fields_says_so(tenant: Tenant) -> None:
    *_, message = refused(tenant.http.get("/v1/workers?verbose"))
    assert message == "verbose: no such field in the query; this route has none"


def test_fields_of_what_a_route_depends_on_are_known(tenant: Tenant) -> None:
    job_id = tenant.submit()
    *_, message = refused(tenant.http.get(f"/v1/jobs/{job_id}/events", params={"x": 1}))
    assert message.endswith("there are last_event_id, token")


@pytest.mark.parametrize("given", ["0.5", "0", "-1e3", "nan", "2026-11-30T06:00"])
def test_a_time_is_written_as_one_and_with_its_offset(tenant: Tenant, given: str) -> None:
    answer = tenant.http.get("/v1/jobs", params={"since": given})
    assert answer.status_code == 400
    assert "since: must" in answer.json()["error"]["message"]


@pytest.mark.parametrize("path", ["/v1/files", "/v1/jobs"])
def test_a_listing_reads_the_same_from_either_end(tenant: Tenant, path: str) -> None:
    for _ in range(5):
        tenant.submit()

    def pages(order: str) -> list[str]:
        found: list[str] = []
        query: dict[str, str | int] = {"limit": 2, "order": order}
        while True:
            page = tenant.http.get(path, params=query).json()
            found += [each["id"] for each in page["data"]]
            if not page["has_more"]:
                return found
            query["after"] = page["last_id"]

    newest, oldest = pages("desc"), pages("asc")
    assert len(newest) == 5
    assert oldest == newest[::-1]


def test_an_oldest_first_page_is_followed_by_what_came_meanwhile(tenant: Tenant) -> None:
    first, second = tenant.submit(), tenant.submit()
    page = tenant.http.get("/v1/jobs", params={"order": "asc", "limit": 1}).json()
    third = tenant.submit()
    query = {"order": "asc", "after": page["last_id"]}
    rest = tenant.http.get("/v1/jobs", params=query).json()
    assert [page["last_id"], *(each["id"] for each in rest["data"])] == [first, second, third]


def test_runs_read_the_same_from_either_end(tenant: Tenant, fake_workers: FakeWorkers) -> None:
    job_id = tenant.train()
    gang = fake_workers.gang(job_id)
    gang.plan()
    for _ in range(2):
        gang.form()
        gang.lose("it died")
    path = f"/v1/jobs/{job_id}/runs"
    page = tenant.http.get(path, params={"order": "asc", "limit": 1}).json()
    rest = tenant.http.get(path, params={"order": "asc", "after": page["next"]}).json()
    assert [each["number"] for each in page["data"] + rest["data"]] == [1, 2]


def test_files_of_one_purpose(tenant: Tenant) -> None:
    tenant.upload()
    files = {"file": ("a.jsonl", b"{}")}
    made = tenant.http.post("/v1/files", files=files, data={"purpose": "fine-tune"}).json()["id"]
    found = tenant.http.get("/v1/files", params={"purpose": "fine-tune"}).json()["data"]
    assert [each["id"] for each in found] == [made]
