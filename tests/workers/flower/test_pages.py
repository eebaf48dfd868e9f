"""Our tabs in a real Flower, over a ledger without workers."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from api.stack import ports
from jobs.ledger import chunks, telemetry, workers
from tests.jobs.ledger.building import LEASE, Ledger
from tests.jobs.ledger.training import Training
from tests.support.installation import Installation
from tests.support.installations import NewInstallation
from tests.workers.flower.shown import flower

SCRIPT = "<script>alert('news & mail')</script>"
PATHS = ("/jobs", "/pools", "/queues", "/tasks", "/workers", "/broker")
WORKER = "cpu-7-ab@node7"


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
    with flower(installation) as client:
        yield client


def text(client: httpx.Client, path: str, **parameters: str) -> str:
    """The page, without its tags and line breaks."""
    answer = client.get(path, params=parameters)
    assert answer.status_code == 200, answer.text
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", answer.text))


@pytest.mark.parametrize("path", PATHS)
def test_every_tab_wants_a_login_and_has_the_whole_menu(client: httpx.Client, path: str) -> None:
    assert httpx.get(client.base_url.join(path)).status_code == 401
    page = client.get(path)
    assert page.status_code == 200
    for other in PATHS:
        assert f'href="{other}"' in page.text


def test_a_job_is_listed_with_why_it_waits(client: httpx.Client, ledger: Ledger) -> None:
    job_id = ledger.accept(name="waits", model="/models/mail")
    page = text(client, "/jobs", text=job_id)
    assert "waits" in page
    assert "queued" in page
    assert "control" in page  # which is not there, and that is why


def test_what_users_wrote_is_escaped(client: httpx.Client, ledger: Ledger) -> None:
    job_id = ledger.accept(name=SCRIPT, model="/models/<b>")
    for path in (f"/jobs?text={job_id}", f"/jobs/{job_id}"):
        page = client.get(path).text
        assert SCRIPT not in page
        assert "&lt;script&gt;alert(" in page
        assert "<b>" not in page
    assert "<i>" not in client.get("/jobs", params={"text": '"><i>'}).text


def test_the_listing_is_paged(client: httpx.Client, ledger: Ledger) -> None:
    made = [ledger.accept(name=f"paged {number}") for number in range(27)]
    first = client.get("/jobs", params={"text": "paged"}).text
    assert made[-1] in first
    assert made[0] not in first
    (older,) = re.findall(r'href="([^"]+)" rel="next"', first)
    second = client.get(older.replace("&amp;", "&")).text
    assert made[0] in second
    assert made[-1] not in second


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/jobs?state=red", 400, "state must be one of queued"),
        ("/jobs?colour=red", 400, "is none of text"),
        ("/jobs?after=job_no", 404, "to list after"),
        ("/jobs/job_0123", 404, "no job"),
        ("/jobs/%3Cscript%3E", 404, "not found"),
    ],
)
def test_what_cannot_be_shown_says_why(
    client: httpx.Client, path: str, status: int, words: str
) -> None:
    answer = client.get(path)
    assert answer.status_code == status
    assert words in answer.text
    assert "<script>" not in answer.text.replace('<script src="', "")


def test_the_page_of_a_bulk_job_shows_its_chunks(client: httpx.Client, ledger: Ledger) -> None:
    job_id = ledger.running(10, 10, 10, name="bulk", pool="green")
    first, second, _ = ledger.live(job_id)
    with ledger.sessions.begin() as session:
        workers.beat(session, name=WORKER, pool="green", slots=2, device="cpu")
        chunks.claim(session, first.id, owner=f"{WORKER}:12", duration=LEASE)
    ledger.crash(ledger.claimed(second.id))
    page = text(client, f"/jobs/{job_id}")
    assert "0 of 30 rows" in page
    assert f"1 with {WORKER}" in page
    assert "chunk 1, rows 0 to 9" in page
    assert "2, rows 10 to 19" in page  # which failed
    assert "killed" in page
    assert "state running" in page  # of its history
    pools = text(client, "/pools")
    assert "green · node7 · cpu" in pools
    assert "1 of 2" in pools
    assert "chunk 1, rows 0 to 9 · classify" in pools


def test_the_page_of_a_training_job_shows_runs_and_loss(
    client: httpx.Client, ledger: Ledger
) -> None:
    training = Training(ledger)
    job_id = training.job(name="nightly", model="news")
    lease, _ = training.gang(job_id, 2)
    with ledger.sessions.begin() as session:
        telemetry.add_points(session, lease, [(0, {"loss": 0.25})])
    page = text(client, f"/jobs/{job_id}")
    assert "Run 1 running" in page
    assert "loss 0.25 0 1" in page
    assert "finetune · news" in page
    assert "rank 0 of 2 · run 1 · finetune · news" in text(client, "/pools")


def test_the_queues_tab_has_what_the_ledger_has(client: httpx.Client, ledger: Ledger) -> None:
    ledger.running(1, 1, 1, 1, pool="violet")
    assert "pool.violet 1 4 0 0 32 -" in text(client, "/queues")


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize(
    "path",
    [
        *("/jobs", "/pools", "/api/worker/shutdown/any", "/api/worker/pool/restart/any"),
        *("/api/worker/pool/grow/any", "/api/task/revoke/any", "/api/task/async-apply/plan"),
        *("/api/task/send-task/plan", "/api/task/abort/any", "/api/task/timeout/plan"),
        *("/api/worker/queue/add-consumer/any", "/no/such/page"),
    ],
)
def test_nothing_can_be_changed(client: httpx.Client, method: str, path: str) -> None:
    assert client.request(method, path).status_code == 403


def test_our_pages_run_no_script_of_others(client: httpx.Client) -> None:
    answer = client.get("/jobs")
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert not re.search(r"<script(?! src=)", answer.text)
    assert not re.search(r" on\w+=| style=", answer.text)
    for found in re.findall(r'(?:src|href)="(/[^"]+\.(?:js|css|ico)[^"]*)"', answer.text):
        assert client.get(found).status_code == 200, found


def test_everything_lies_below_a_prefix(installation: Installation, ledger: Ledger) -> None:
    job_id = ledger.accept(name="below")
    with flower(installation, FLOWER_URL_PREFIX="ops/flower") as client:
        page = client.get("/jobs")
        assert f'href="/ops/flower/jobs/{job_id}"' in page.text
        links = re.findall(r'(?:src|href|action)="([^"#]+)"', page.text)
        assert links
        assert all(link.startswith("/ops/flower/") for link in links)
        for path in (*PATHS, f"/jobs/{job_id}", "/nightshift/refresh.js"):
            assert client.get(path).status_code == 200, path
        assert httpx.get(str(client.base_url).replace("/ops/flower", "/jobs")).status_code == 404


def test_without_postgres_our_tabs_say_so_and_flowers_go_on(installation: Installation) -> None:
    away = f"postgresql://nightshift@127.0.0.1:{ports.choose()}/nightshift"
    with flower(installation, NIGHTSHIFT_DATABASE_URL=away) as client:
        for path in ("/jobs", "/pools", "/queues"):
            answer = client.get(path)
            assert answer.status_code == 503
            assert "Postgres does not answer" in answer.text
        assert client.get("/tasks").status_code == 200


@pytest.mark.parametrize(
    ("options", "login", "words"),
    [
        ((), "", "needs a login"),
        (("--auth=.*@example.com",), "", "--auth_provider"),
        (("--read_only=False",), "", "needs a login"),
        (("--read_only=False",), "user:", "user:password"),
    ],
)
def test_it_does_not_start_open(
    installation: Installation, options: tuple[str, ...], login: str, words: str
) -> None:
    started = subprocess.run(
        [sys.executable, "-m", "workers.processes", "flower", "--port=0", *options],
        env={**installation.env, "NIGHTSHIFT_FLOWER_BASIC_AUTH": login},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert started.returncode == 2
    assert words in started.stderr
