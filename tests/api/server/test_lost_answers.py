"""A create whose answer was lost makes one thing, and two creates that were meant make two.

The proxy loses answers of a real server; the official client repeats by itself, without a key.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import openai
import pytest
import sqlalchemy as sa

from api.server.creates import COUNT
from jobs.tables import File
from tests.api.server.installation import Tenant
from tests.support.lossy_proxy import LossyProxy
from tests.support.waiting import wait_until

LINES = b'{"text": "one"}\n'
WAITING = """
    SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid)
    WHERE NOT granted AND locktype = :type AND datname = current_database()
"""

Json = dict[str, Any]


@pytest.fixture
def proxy(tenant: Tenant) -> Iterator[LossyProxy]:
    with LossyProxy(tenant.installation.port).running() as proxy:
        yield proxy


@pytest.fixture
def official(tenant: Tenant, proxy: LossyProxy) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{proxy.url}/v1", api_key=tenant.key, max_retries=4) as client:
        yield client


def ids(tenant: Tenant, route: str) -> set[str]:
    return {each["id"] for each in tenant.http.get(route).json()["data"]}


def post(
    tenant: Tenant, count: int, body: Json, *, route: str = "/v1/jobs", url: str | None = None
) -> httpx.Response:
    """What the official client sends at its try ``count``."""
    headers = {"authorization": f"Bearer {tenant.key}", COUNT: str(count)}
    return httpx.post(
        f"{url or tenant.installation.url}{route}", json=body, headers=headers, timeout=60
    )


def body_of(tenant: Tenant, route: str) -> Json:
    spec = tenant.spec()
    return {
        "/v1/jobs": spec,
        "/v1/groups": {"jobs": {"a": spec}},
        "/v1/schedules": {
            "name": "nightly",
            "timing": {"cron": "0 2 * * *"},
            "jobs": [{"spec": spec}],
        },
        "/v1/webhook_endpoints": {"url": "https://example.com/hook"},
    }[route]


@pytest.mark.parametrize("lost", [1, 3])
def test_an_upload_whose_answers_are_lost_is_one_file(
    tenant: Tenant, proxy: LossyProxy, official: openai.OpenAI, lost: int
) -> None:
    proxy.answers_to_lose = lost
    file = official.files.create(file=("a.jsonl", LINES), purpose="batch")
    assert proxy.lost == lost
    assert ids(tenant, "/v1/files") == {file.id}
    assert official.files.content(file.id).read() == LINES
    meant = official.files.create(file=("a.jsonl", LINES), purpose="batch")
    assert ids(tenant, "/v1/files") == {file.id, meant.id}
    assert len({file.id, meant.id}) == 2


@pytest.mark.parametrize(
    "route", ["/v1/jobs", "/v1/groups", "/v1/schedules", "/v1/webhook_endpoints"]
)
def test_a_create_whose_answers_are_lost_makes_one_thing(
    tenant: Tenant, proxy: LossyProxy, official: openai.OpenAI, route: str
) -> None:
    body = body_of(tenant, route)
    proxy.answers_to_lose = 2
    made: Any = official.post(route.removeprefix("/v1"), body=body, cast_to=object)
    assert proxy.lost == 2
    assert ids(tenant, route) == {made["id"]}
    if route != "/v1/schedules":  # whose names are unique
        meant: Any = official.post(route.removeprefix("/v1"), body=body, cast_to=object)
        assert ids(tenant, route) == {made["id"], meant["id"]}
        assert made["id"] != meant["id"]


def test_a_trigger_whose_answer_is_lost_is_one_fire(
    tenant: Tenant, proxy: LossyProxy, official: openai.OpenAI
) -> None:
    schedule = tenant.http.post("/v1/schedules", json=body_of(tenant, "/v1/schedules")).json()
    path = f"/schedules/{schedule['id']}"
    proxy.answers_to_lose = 1
    fire: Any = official.post(f"{path}/trigger", body={}, cast_to=object)
    assert proxy.lost == 1
    assert ids(tenant, f"/v1{path}/fires") == {fire["id"]}


def test_eight_racing_retries_of_a_create_whose_answer_was_lost_have_its_job(
    tenant: Tenant, proxy: LossyProxy
) -> None:
    body = tenant.spec()
    proxy.answers_to_lose = 1
    with pytest.raises(httpx.TransportError):
        post(tenant, 0, body, url=proxy.url)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda count: post(tenant, count, body), range(1, 9)))
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.json()["id"] for answer in answers} == ids(tenant, "/v1/jobs")
    assert len(ids(tenant, "/v1/jobs")) == 1


def test_retries_wait_for_a_first_try_that_has_not_committed(tenant: Tenant) -> None:
    body = tenant.spec()
    with (
        tenant.installation.sessions() as sessions,
        tenant.installation.sessions() as others,
        ThreadPoolExecutor(3) as pool,
    ):

        def waiting(kind: str) -> int:
            with others.begin() as session:
                return int(session.scalar(sa.text(WAITING), {"type": kind}) or 0)

        with sessions.begin() as session:  # the first try needs a lock on the file
            session.scalar(
                sa.select(File).where(File.id == body["corpus"]["file"]).with_for_update()
            )
            first = pool.submit(post, tenant, 0, body)
            wait_until(lambda: waiting("transactionid") == 1, seconds=60)
            retries = [pool.submit(post, tenant, count, body) for count in (1, 2)]
            wait_until(lambda: waiting("advisory") == 2, seconds=60)
        answers = [each.result() for each in (first, *retries)]
    assert [answer.status_code for answer in answers] == [201, 200, 200]
    assert {answer.json()["id"] for answer in answers} == ids(tenant, "/v1/jobs")


def test_of_two_equal_creates_the_one_without_an_answer_is_repeated(
    tenant: Tenant, proxy: LossyProxy
) -> None:
    body = tenant.spec()
    proxy.answers_to_lose = 1
    with pytest.raises(httpx.TransportError):
        post(tenant, 0, body, url=proxy.url)
    (lost,) = ids(tenant, "/v1/jobs")
    other = post(tenant, 0, body).json()["id"]
    assert post(tenant, 1, body).json()["id"] == lost
    assert ids(tenant, "/v1/jobs") == {lost, other}


def test_the_first_try_is_found_after_a_restart(tenant: Tenant, proxy: LossyProxy) -> None:
    body = tenant.spec()
    proxy.answers_to_lose = 1
    with pytest.raises(httpx.TransportError):
        post(tenant, 0, body, url=proxy.url)
    tenant.installation.kill()
    tenant.installation.start()
    assert {post(tenant, 1, body).json()["id"]} == ids(tenant, "/v1/jobs")


def test_a_retry_after_its_client_named_the_job_is_of_another_create(tenant: Tenant) -> None:
    body = tenant.spec()
    first = post(tenant, 0, body).json()["id"]
    tenant.http.get(f"/v1/jobs/{first}", headers={COUNT: "0"})
    assert post(tenant, 1, body).json()["id"] != first


@pytest.mark.parametrize("count", ["", "-1", "one", "9" * 30, "1.5"])
def test_a_count_that_is_none_counts_nothing(tenant: Tenant, count: str) -> None:
    body = tenant.spec()
    for _ in range(2):
        assert tenant.http.post("/v1/jobs", json=body, headers={COUNT: count}).status_code == 201


def test_another_body_or_another_project_is_another_create(
    tenant: Tenant, stranger: Tenant
) -> None:
    body = {"url": "https://example.com/hook"}
    route = "/v1/webhook_endpoints"
    made = {
        post(tenant, 0, body, route=route).json()["id"],
        post(tenant, 1, {**body, "name": "other"}, route=route).json()["id"],
        post(stranger, 1, body, route=route).json()["id"],
    }
    assert len(made) == 3


def test_the_same_key_with_the_same_file_is_one_file(tenant: Tenant) -> None:
    def upload(data: bytes = LINES, *, purpose: str = "batch") -> httpx.Response:
        form: Mapping[str, Any] = {"file": ("a.jsonl", data)}
        headers = {"idempotency-key": "one"}
        return tenant.http.post("/v1/files", files=form, data={"purpose": purpose}, headers=headers)

    first, second = upload().json(), upload().json()
    assert first == second
    for other in (upload(b"{}\n"), upload(purpose="other")):
        assert other.status_code == 422
        assert other.json()["error"]["code"] == "idempotency_key_reused"
    assert ids(tenant, "/v1/files") == {first["id"]}
    assert tenant.http.delete(f"/v1/files/{first['id']}").is_success
    assert upload().json()["id"] != first["id"]
