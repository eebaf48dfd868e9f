"""Events for a browser: opened by a short-lived token, resumed by id, ended by 204."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from api.client import Client
from api.server import event_tokens
from jobs.errors import Unauthorized
from jobs.tables import ApiKey
from tests.api.server.conftest import FakeWorkers
from tests.api.server.installation import Installation, Tenant


@pytest.fixture
def browser(installation: Installation) -> Iterator[httpx.Client]:
    """What cannot set an ``Authorization`` header."""
    with httpx.Client(base_url=installation.url, timeout=30) as http:
        yield http


@pytest.fixture
def job_id(tenant: Tenant) -> str:
    """A job that has ended, so that its stream of events does."""
    job_id = tenant.submit()
    tenant.http.post(f"/v1/jobs/{job_id}/cancel")
    return job_id


@pytest.fixture
def ended(tenant: Tenant, fake_workers: FakeWorkers) -> str:
    job_id = tenant.submit()
    fake_workers.take(job_id).fail(code="corpus_empty", message="the corpus is empty")
    return job_id


def event_token(tenant: Tenant, job_id: str) -> str:
    answer = tenant.http.post(f"/v1/jobs/{job_id}/events/token")
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found["url"] == f"/v1/jobs/{job_id}/events?token={found['token']}"
    return str(found["token"])


def events(answer: httpx.Response) -> list[tuple[str, str | None]]:
    assert answer.status_code == 200, answer.text
    found = []
    for block in answer.text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if line[0] != ":")
        if "event" in fields:
            found.append((fields["event"], fields.get("id")))
    return found


def status_and_code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def test_a_token_opens_the_events_of_its_job(
    tenant: Tenant, browser: httpx.Client, ended: str
) -> None:
    url = tenant.http.post(f"/v1/jobs/{ended}/events/token").json()["url"]
    assert [kind for kind, _ in events(browser.get(url))][-2:] == ["state", "progress"]


def test_a_token_opens_nothing_else(tenant: Tenant, browser: httpx.Client, ended: str) -> None:
    opened = event_token(tenant, ended)
    other = tenant.submit()
    query = {"token": opened}
    assert status_and_code(browser.get(f"/v1/jobs/{other}/events", params=query)) == (
        401,
        "unauthorized",
    )
    results = browser.get(f"/v1/jobs/{ended}/results", params=query)
    assert status_and_code(results) == (401, "unauthorized")
    bearer = {"authorization": f"Bearer {opened}"}
    assert status_and_code(browser.get(f"/v1/jobs/{ended}", headers=bearer)) == (
        401,
        "unauthorized",
    )
    another = browser.post(f"/v1/jobs/{ended}/events/token", headers=bearer)
    assert status_and_code(another) == (401, "unauthorized")


def test_a_token_for_another_projects_job_is_not_given(stranger: Tenant, job_id: str) -> None:
    answer = stranger.http.post(f"/v1/jobs/{job_id}/events/token")
    assert status_and_code(answer) == (404, "not_found")


CLAIMS = ("project", "job", "expires_at")
"""What a token states, in the order in which it does."""


def changed(token: str, claim: str, value: Any) -> str:
    """The token with another claim under the same signature."""
    payload, _, signature = token.partition(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    claims[CLAIMS.index(claim)] = value
    again = base64.urlsafe_b64encode(json.dumps(claims, separators=(",", ":")).encode())
    return f"{again.decode().rstrip('=')}.{signature}"


@pytest.mark.parametrize(
    ("claim", "value"),
    [
        ("project", "another project"),
        ("job", "job_1"),
        ("expires_at", 2**40),
        ("expires_at", 1),
        ("expires_at", "soon"),
    ],
)
def test_a_changed_token_opens_nothing(
    tenant: Tenant, browser: httpx.Client, ended: str, claim: str, value: Any
) -> None:
    forged = changed(event_token(tenant, ended), claim, value)
    answer = browser.get(f"/v1/jobs/{ended}/events", params={"token": forged})
    assert status_and_code(answer) == (401, "unauthorized")


NO_TOKENS = ["", ".", "x", "a.b.c", "W10.W10", "e30.", "é.é", "." * 900]
"""``W10`` is ``[]`` and ``e30`` is ``{}``, in base64."""


@pytest.mark.parametrize("text", NO_TOKENS)
def test_what_is_no_token_opens_nothing(browser: httpx.Client, ended: str, text: str) -> None:
    answer = browser.get(f"/v1/jobs/{ended}/events", params={"token": text})
    assert status_and_code(answer) == (401, "unauthorized")


def test_an_expired_token_opens_nothing(
    installation: Installation, tenant: Tenant, ended: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_tokens, "LIFE", -event_tokens.LIFE)
    with installation.sessions() as sessions, sessions.begin() as session:
        old = event_tokens.issue(session, key=tenant.key, project_id=tenant.project, job_id=ended)
        with pytest.raises(Unauthorized, match="one of this job that has not expired"):
            event_tokens.rights(session, old.text, job_id=ended)


def test_a_token_ends_with_the_key_that_asked_for_it(
    installation: Installation, tenant: Tenant, browser: httpx.Client, ended: str
) -> None:
    query = {"token": event_token(tenant, ended)}
    with installation.sessions() as sessions, sessions.begin() as session:
        of_project = ApiKey.project_id == tenant.project
        session.execute(sa.update(ApiKey).where(of_project).values(revoked_at=sa.func.now()))
    answer = browser.get(f"/v1/jobs/{ended}/events", params=query)
    assert status_and_code(answer) == (401, "unauthorized")


def test_a_token_is_in_no_log(
    installation: Installation, tenant: Tenant, browser: httpx.Client, ended: str
) -> None:
    opened = event_token(tenant, ended)
    browser.get(f"/v1/jobs/{ended}/events", params={"token": opened})
    browser.get(f"/v1/jobs/{ended}/events", params={"token": f"{opened}x"})
    assert opened not in installation.log


def test_a_client_that_has_seen_the_last_event_gets_204(tenant: Tenant, ended: str) -> None:
    path = f"/v1/jobs/{ended}/events"
    kind, last = events(tenant.http.get(path))[-1]
    assert kind == "progress"
    assert last is not None
    assert last.endswith("-end")
    again = tenant.http.get(path, headers={"last-event-id": last})
    assert (again.status_code, again.content) == (204, b"")
    assert tenant.http.get(path, params={"last_event_id": last}).status_code == 204


def test_a_client_that_lost_its_connection_before_the_last_event_is_sent_it(
    tenant: Tenant, ended: str
) -> None:
    path = f"/v1/jobs/{ended}/events"
    (*_, (_, seen), end) = events(tenant.http.get(path))
    answer = tenant.http.get(path, headers={"last-event-id": str(seen)})
    assert events(answer) == [end]


def test_a_job_that_goes_on_after_its_end_has_a_stream_again(tenant: Tenant, ended: str) -> None:
    path = f"/v1/jobs/{ended}/events"
    last = str(events(tenant.http.get(path))[-1][1])
    tenant.http.post(f"/v1/jobs/{ended}/retry")
    with tenant.http.stream("GET", path, headers={"last-event-id": last}) as answer:
        assert answer.status_code == 200
        lines = answer.iter_lines()
        assert next(line for line in lines if line.startswith("event:")) == "event: state"


def test_the_stream_of_a_job_that_is_deleted_ends(tenant: Tenant, ended: str) -> None:
    path = f"/v1/jobs/{ended}/events"
    last = str(events(tenant.http.get(path))[-1][1])
    tenant.http.delete(f"/v1/jobs/{ended}")
    assert status_and_code(tenant.http.get(path, headers={"last-event-id": last})) == (
        404,
        "not_found",
    )


def test_the_client_meets_the_end_though_it_has_seen_the_last_event(
    tenant: Tenant, ended: str
) -> None:
    last = str(events(tenant.http.get(f"/v1/jobs/{ended}/events"))[-2][1])
    with Client(tenant.installation.url, tenant.key) as client:
        assert [event.type for event in client.watch(ended, after=last)] == ["progress"]
