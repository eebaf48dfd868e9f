"""Promise P1: what the API has accepted survives the API."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from api.client import Client
from tests.faults.conftest import CHUNK_ROWS, CORPUS, Answers, assert_whole
from tests.support.installation import KEY, Installation, Process
from tests.support.servers import Server
from tests.support.waiting import wait_until


@pytest.fixture
def client(installation: Installation) -> Iterator[Client]:
    with Client(f"http://127.0.0.1:{installation.settings.api_port}", KEY) as client:
        yield client


@pytest.fixture
def api(installation: Installation, client: Client) -> Iterator[Process]:
    process = installation.start("api.server")
    client.ping()
    yield process
    process.stop()


def test_a_killed_api_costs_nothing(
    installation: Installation, client: Client, api: Process, undisturbed: Answers, tmp_path: Path
) -> None:
    spec = _spec(client, installation, tmp_path)
    job = client.submit(spec)
    installation.wait_for_chunks(job["id"], 20)
    api.kill()
    again = installation.start("api.server")
    assert client.wait(job["id"])["state"] == "succeeded"
    assert_whole(installation, job["id"], undisturbed)
    again.stop()


@pytest.mark.usefixtures("undisturbed")
def test_a_submit_repeated_over_a_killed_api_is_one_job(
    installation: Installation, client: Client, api: Process, tmp_path: Path
) -> None:
    spec = _spec(client, installation, tmp_path)
    first = client.submit(spec, idempotency_key="one")
    api.kill()
    again = installation.start("api.server")
    assert client.submit(spec, idempotency_key="one")["id"] == first["id"]
    again.stop()


def test_a_job_is_accepted_while_the_broker_is_away_and_says_why_it_waits(
    installation: Installation,
    client: Client,
    api: Process,  # noqa: ARG001 - it runs
    valkey: Server,
    undisturbed: Answers,
    tmp_path: Path,
) -> None:
    spec = _spec(client, installation, tmp_path)
    valkey.kill()
    job = client.submit(spec)
    wait_until(
        lambda: "broker does not answer" in (client.get(job["id"])["waiting_reason"] or ""),
        seconds=30,
    )
    valkey.start()
    assert_whole(installation, job["id"], undisturbed)


def _spec(client: Client, installation: Installation, folder: Path) -> dict[str, object]:
    corpus = folder / "corpus.jsonl"
    corpus.write_bytes(CORPUS)
    return {
        "kind": "classify",
        "corpus": {"file": client.upload(corpus)["id"]},
        "model": str(installation.model),
        "chunk_rows": CHUNK_ROWS,
    }
