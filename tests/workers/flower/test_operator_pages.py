"""Buttons of our pages and Flower's own API, over a ledger without workers, behind a prefix."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from flower import urls
from tornado.routing import URLSpec
from tornado.web import RequestHandler

from jobs.ledger import chunks, workers
from jobs.queries import orders
from jobs.states import JobState
from tests.jobs.ledger.building import LEASE, Ledger
from tests.jobs.ledger.training import Training
from tests.support.installation import Installation
from tests.support.installations import NewInstallation
from tests.workers.flower import shown
from workers.flower import operator_handlers

WORKER = "cpu-7-ab@node7"
PREFIX = "/ops/flower"
USER = shown.LOGIN[0]


@pytest.fixture(scope="module")
def installation(new_installation: NewInstallation) -> Installation:
    return new_installation(Path("/models/news"))


@pytest.fixture(scope="module")
def ledger(installation: Installation) -> Iterator[Ledger]:
    ledger = Ledger(installation.settings.database_url)
    yield ledger
    ledger.engine.dispose()


@pytest.fixture(scope="module")
def client(installation: Installation) -> Iterator[httpx.Client]:
    variables = {"FLOWER_READ_ONLY": "false", "FLOWER_URL_PREFIX": PREFIX.strip("/")}
    with shown.flower(installation, **variables) as client:
        yield client


@pytest.fixture
def worker(ledger: Ledger) -> str:
    with ledger.sessions.begin() as session:
        workers.beat(session, name=WORKER, pool="cpu", slots=2, device="cpu")
    return WORKER


def press(client: httpx.Client, path: str, **fields: str) -> httpx.Response:
    """Post one of the forms that the page has, with what a person types in ``fields``."""
    page = client.get(path).text
    for form in re.findall(r"<form.*?</form>", page, re.DOTALL):
        hidden = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', form))
        if hidden.get("action") == fields["action"]:
            (address,) = re.findall(r'<form method="post" action="([^"]*)"', form)
            return post(client, address, hidden | fields)
    raise AssertionError(f"{path} has no button {fields['action']}")


def post(client: httpx.Client, address: str, fields: dict[str, str]) -> httpx.Response:
    return client.post(client.base_url.join(address), data=fields)


@pytest.mark.parametrize(
    ("action", "fields", "words"),
    [
        ("shut_down", {}, "shut down"),
        ("restart_pool", {}, "restart the pool"),
        ("grow", {"n": "3"}, "grow the pool by 3"),
        ("shrink", {"n": "1"}, "shrink the pool by 1"),
    ],
)
def test_a_button_of_a_workers_page_is_an_order_by_name(
    client: httpx.Client,
    ledger: Ledger,
    worker: str,
    action: str,
    fields: dict[str, str],
    words: str,
) -> None:
    answer = press(client, f"/pools/{worker}", action=action, **fields)
    assert answer.status_code == 303, answer.text
    assert answer.headers["location"] == f"{PREFIX}/pools/cpu-7-ab%40node7"
    with ledger.sessions.begin() as session:
        newest = orders.latest(session, worker, limit=1)[0]
    assert (newest.action, newest.asked_by, newest.state) == (action, USER, "waiting")
    page = client.get(f"/pools/{worker}").text
    assert words in page
    assert f"<td>{USER}</td>" in page


def test_a_page_of_a_host_has_no_buttons_for_a_pool(client: httpx.Client, ledger: Ledger) -> None:
    Training(ledger).host("alpha", worker="train-8-cd@node8")
    page = client.get("/pools/train-8-cd@node8").text
    assert 'value="shut_down"' in page
    assert 'value="grow"' not in page
    assert f'href="{PREFIX}/pools/train-8-cd%40node8"' in client.get("/pools").text
    answer = client.post("/api/worker/pool/grow/train-8-cd@node8")
    assert answer.status_code == 409
    assert "training host" in answer.text


def test_the_buttons_of_a_job_pause_resume_and_cancel_it(
    client: httpx.Client, ledger: Ledger
) -> None:
    job_id = ledger.running(10)
    path = f"/jobs/{job_id}"
    for action, state in (
        ("pause", JobState.PAUSED),
        ("resume", JobState.RUNNING),
        ("cancel", JobState.CANCELLING),
    ):
        answer = press(client, path, action=action)
        assert answer.status_code == 303, answer.text
        assert answer.headers["location"] == f"{PREFIX}{path}"
        assert ledger.job(job_id).state is state
        assert f"state {state}; by {USER}" in client.get(path).text
    with pytest.raises(AssertionError, match="no button cancel"):
        press(client, path, action="cancel")


def test_the_button_of_a_run_stops_it(client: httpx.Client, ledger: Ledger) -> None:
    training = Training(ledger)
    job_id = training.job()
    lease, _ = training.gang(job_id, 2)
    answer = press(client, f"/jobs/{job_id}", action="stop_run")
    assert answer.status_code == 303, answer.text
    stopped = training.run(lease.run_id)
    assert (stopped.stop, stopped.stop_reason) == (
        "checkpoint",
        f"{USER} stopped this run in Flower",
    )


@pytest.mark.parametrize("path", ["/jobs/{job}", "/pools/{worker}"])
@pytest.mark.parametrize("token", ["", "2|aaaa|bbbb|1"])
def test_a_form_without_our_token_is_refused(
    client: httpx.Client, ledger: Ledger, worker: str, path: str, token: str
) -> None:
    job_id = ledger.running(10)
    address = PREFIX + path.format(job=job_id, worker=worker)
    answer = post(client, address, {"action": "cancel", "_xsrf": token})
    assert answer.status_code == 403
    assert ledger.job(job_id).state is JobState.RUNNING


@pytest.mark.parametrize(
    "headers",
    [{"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Origin": "http://x.y"}],
)
def test_a_page_of_another_site_orders_nothing(
    client: httpx.Client, ledger: Ledger, worker: str, headers: dict[str, str]
) -> None:
    with ledger.sessions.begin() as session:
        before = len(orders.latest(session, worker, limit=1_000))
    answer = client.post(f"/api/worker/shutdown/{worker}", headers=headers)
    assert answer.status_code == 403
    with ledger.sessions.begin() as session:
        assert len(orders.latest(session, worker, limit=1_000)) == before


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/api/worker/shutdown/none", 404, "no worker"),
        ("/api/worker/pool/grow/cpu-7-ab@node7?n=0", 400, "from 1 to 64"),
        ("/api/worker/pool/grow/cpu-7-ab@node7?n=many", 400, "from 1 to 64"),
        ("/api/worker/pool/autoscale/cpu-7-ab@node7?min=1&max=2", 501, "demand"),
        ("/api/worker/queue/add-consumer/cpu-7-ab@node7?queue=x", 501, "queue of its pool"),
        ("/api/worker/queue/cancel-consumer/cpu-7-ab@node7?queue=x", 501, "queue of its pool"),
        ("/api/task/timeout/chunk", 501, "time limit"),
        ("/api/task/rate-limit/chunk", 501, "rate limit"),
        ("/api/task/apply/plan", 501, "API"),
        ("/api/task/async-apply/plan", 501, "API"),
        ("/api/task/send-task/plan", 501, "API"),
        ("/api/task/abort/any", 501, "revoke"),
        ("/api/task/revoke/any?terminate=true", 404, "knows no task"),
        ("/api/task/revoke/any", 404, "knows no task"),
    ],
)
def test_what_cannot_be_done_says_why(
    client: httpx.Client, worker: str, path: str, status: int, words: str
) -> None:
    assert worker
    answer = client.post(path)
    assert answer.status_code == status, answer.text
    assert words in answer.text
    assert httpx.post(str(client.base_url).rstrip("/") + path).status_code == 401


def test_every_address_of_flower_that_changes_something_is_ours() -> None:
    theirs = set()
    for each in urls.handlers:
        path, handler = (
            (each.regex.pattern.rstrip("$"), each.handler_class)
            if isinstance(each, URLSpec)
            else each[:2]
        )
        if any(
            getattr(handler, method) is not getattr(RequestHandler, method)
            for method in ("post", "put", "patch", "delete")
        ):
            theirs.add(path)
    ours = {*operator_handlers.WORKER_ORDERS, *operator_handlers.NOT_OFFERED}
    reading = {"/tasks/datatable", ".*"}  # a table that is read by POST, and what is not there
    assert theirs - reading == {*ours, "/api/task/revoke/(.+)"}


def test_a_chunk_that_another_worker_has_is_not_released_on_a_page(
    client: httpx.Client, ledger: Ledger
) -> None:
    job_id = ledger.running(10)
    with ledger.sessions.begin() as session:
        chunks.claim(session, ledger.only_chunk(job_id), owner=f"{WORKER}:1", duration=LEASE)
    token = re.findall(r'name="_xsrf" value="([^"]+)"', client.get(f"/jobs/{job_id}").text)[0]
    address = f"{PREFIX}/jobs/{job_id}"
    answer = post(client, address, {"action": "release", "task": "none", "_xsrf": token})
    assert answer.status_code == 404
    answer = post(client, address, {"action": "explode", "_xsrf": token})
    assert answer.status_code == 400
    assert "must be one of pause" in answer.text
