"""What the processes of an installation tell Prometheus equals what the ledger holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest
import sqlalchemy as sa
from prometheus_client.parser import text_string_to_metric_families

from api.stack import ports
from jobs.states import ChunkState, JobState
from jobs.tables import Chunk
from tests.support.installation import KEY, Installation, jsonl, sentences
from tests.support.installations import NewInstallation
from tests.support.tiny_models import tiny_classifier
from tests.support.waiting import wait_until

ROWS = 60
CORPUS = jsonl(sentences(ROWS)) + b'not JSON\n{"text": 5}\n'
ASKED = 7


@dataclass
class Scraped:
    """The figures of one page."""

    text: str

    def __getitem__(self, name: str) -> dict[frozenset[tuple[str, str]], float]:
        return {
            frozenset(sample.labels.items()): sample.value
            for family in text_string_to_metric_families(self.text)
            for sample in family.samples
            if sample.name == name
        }

    def sum(self, name: str, **labels: str) -> float:
        """Over all series with these labels."""
        found = self[name].items()
        return sum(value for each, value in found if labels.items() <= set(each))


@dataclass
class Monitored:
    """An installation that has done a job, and where its processes answer."""

    installation: Installation
    ports: dict[str, int]
    job_id: str

    def scrape(self, role: str, path: str = "/metrics") -> Scraped:
        answer = httpx.get(f"http://127.0.0.1:{self.ports[role]}{path}", trust_env=False)
        assert answer.status_code == 200
        return Scraped(answer.text)

    def chunks(self) -> list[Chunk]:
        done = sa.select(Chunk).where(Chunk.job_id == self.job_id, Chunk.state == ChunkState.DONE)
        with self.installation.sessions.begin() as session:
            return list(session.scalars(done))


@pytest.fixture(scope="module")
def monitored(new_installation: NewInstallation) -> Iterator[Monitored]:
    roles = ("control", "planner", "pool")
    chosen = dict(zip(("api", *roles), ports.several(4), strict=True))
    installation = new_installation(tiny_classifier, api_port=ports.choose(), worker_processes=2)
    with installation.running():
        installation.start("api.server", NIGHTSHIFT_METRICS_PORT=str(chosen["api"]))
        for role in roles:
            installation.start_role(role, NIGHTSHIFT_METRICS_PORT=str(chosen[role]))
        job_id = installation.submit(CORPUS, chunk_rows=5)
        assert installation.wait(job_id).job.state is JobState.SUCCEEDED, installation.logs()
        yield Monitored(installation, chosen, job_id)


def test_rows_tokens_and_errors_of_the_processes_of_a_pool(monitored: Monitored) -> None:
    chunks, pool = monitored.chunks(), monitored.scrape("pool")
    errors = Counter[str]()
    for chunk in chunks:
        errors.update({code: each["rows"] for code, each in (chunk.errors or {}).items()})
    of_job = {"pool": "cpu", "kind": "classify"}
    assert errors == {"bad_json": 1, "wrong_type": 1}
    assert pool.sum("nightshift_rows_total", outcome="ok", **of_job) == ROWS
    assert pool.sum("nightshift_rows_total", outcome="error", **of_job) == 2
    tokens = sum(chunk.tokens or 0 for chunk in chunks)
    assert pool.sum("nightshift_tokens_total", **of_job) == tokens
    for code, count in errors.items():
        assert pool.sum("nightshift_error_rows_total", code=code) == count
    assert pool.sum("nightshift_error_rows_total") == 2
    assert pool.sum("nightshift_device_tokens_total", what="text") > 0


def test_the_time_of_every_stage_of_a_chunk(monitored: Monitored) -> None:
    pool, count = monitored.scrape("pool"), len(monitored.chunks())
    for stage in ("wait", "claim", "read", "write", "commit"):
        assert pool.sum("nightshift_chunk_stage_seconds_count", stage=stage) == count, stage
    for stage in ("load", "compute", "tokenize"):
        assert 0 < pool.sum("nightshift_chunk_stage_seconds_count", stage=stage) <= count, stage
    assert pool.sum("nightshift_chunk_stage_seconds_sum", stage="compute") > 0
    assert pool.sum("nightshift_task_seconds_count", task="chunk", state="done") == count
    loaded = pool.sum("nightshift_engine_uses_total", outcome="loaded")
    assert 1 <= loaded <= 2  # once in each process that had a chunk
    assert pool.sum("nightshift_engines_loaded") == loaded
    assert pool.sum("nightshift_device_memory_bytes", device="cpu") > 10 * 2**20


def test_what_planner_and_control_did(monitored: Monitored) -> None:
    planner, control = monitored.scrape("planner"), monitored.scrape("control")
    for task in ("plan", "finalize"):
        assert planner.sum("nightshift_task_seconds_count", task=task, state="done") == 1
    assert control.sum("nightshift_control_leads") == 1
    sent = control.sum("nightshift_control_moves_total", part="dispatch_chunks")
    assert sent >= len(monitored.chunks())
    assert control.sum("nightshift_control_moves_total", part="begin_finalizing") == 1
    assert control.sum("nightshift_control_part_failures_total") == 0
    assert set(control["nightshift_queue_messages"]) >= {frozenset({("queue", "pool.cpu")})}


def test_requests_are_counted_by_the_template_of_their_route(monitored: Monitored) -> None:
    url = f"http://127.0.0.1:{monitored.installation.settings.api_port}"
    with httpx.Client(base_url=url, headers={"authorization": f"Bearer {KEY}"}) as http:
        wait_until(lambda: http.get("/readyz").status_code == 200)
        for _ in range(ASKED):
            assert http.get(f"/v1/jobs/{monitored.job_id}").status_code == 200
        assert http.get("/v1/jobs/job_none").status_code == 404
        assert http.get("/v1/retention").status_code == 200
        refused = http.get("/v1/files", headers={"authorization": "Bearer unknown"})
        assert refused.status_code == 401  # before a route was reached
        assert http.get("/nothing/here").status_code == 404
        assert http.request("BREW", "/v1/jobs").status_code == 405
    api = monitored.scrape("api")
    counted = "nightshift_http_requests_total"
    route = "/v1/jobs/{job_id}"
    assert api.sum(counted, method="GET", route=route, status="200") == ASKED
    assert api.sum(counted, method="GET", route=route, status="404") == 1
    assert api.sum(counted, route="/v1/retention", status="200") == 1
    assert api.sum(counted, route="/v1/files", status="401") == 1
    assert api.sum(counted, route="none", status="404") == 1
    assert api.sum(counted, method="other", status="405") == 1
    assert api.sum("nightshift_http_request_seconds_count", route=route) == ASKED + 1


def test_facts_of_the_ledger_have_one_address(monitored: Monitored) -> None:
    ledger = monitored.scrape("api", "/metrics/ledger")
    ended = {"state": "succeeded", "kind": "classify"}
    assert ledger.sum("nightshift_ledger_up") == 1
    assert ledger.sum("nightshift_jobs_ended_last_hour", **ended) == 1
    assert ledger.sum("nightshift_jobs") == 0
    assert ledger.sum("nightshift_workers", pool="cpu", state="heard") == 1
    assert ledger.sum("nightshift_pool_slots", pool="cpu") == 2
    assert ledger.sum("nightshift_control_turn_age_seconds") < 15
    for role in monitored.ports:
        assert not monitored.scrape(role)["nightshift_jobs_ended_last_hour"]


def test_no_label_holds_an_id_or_a_path(monitored: Monitored) -> None:
    pages = [monitored.scrape(role).text for role in monitored.ports]
    pages.append(monitored.scrape("api", "/metrics/ledger").text)
    for page in pages:
        assert monitored.job_id not in page
        assert str(monitored.installation.home) not in page
        assert page.count("\n") < 3_000
