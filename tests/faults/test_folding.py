"""A job whose chunks are folded answers as before, and its retry computes only what is missing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from api.client import Client
from jobs.queries import chunks
from jobs.states import JobState
from tests.support.installation import KEY, Installation, sentences
from tests.support.waiting import wait_until

ROWS, CHUNK_ROWS = 120, 5
BAD = (0, 7, 60, 61, 119)


@pytest.fixture
def client(installation: Installation) -> Iterator[Client]:
    process = installation.start("api.server")
    with Client(f"http://127.0.0.1:{installation.settings.api_port}", KEY) as client:
        client.ping()
        yield client
    process.stop()


def corpus() -> bytes:
    """Some rows have no text."""
    rows = [{"text": text} for text in sentences(ROWS)]
    for bad in BAD:
        rows[bad] = {"other": "words"}
    return "".join(f"{json.dumps(row)}\n" for row in rows).encode()


def answers(client: Client, installation: Installation, job_id: str) -> dict[str, Any]:
    """All that is asked of an ended job, but what moves by itself."""
    job = client.get(job_id)
    job["usage"]["seconds"] = round(job["usage"]["seconds"], 6)  # a sum in another order
    return {
        "job": job,
        "chunks": list(client.chunks(job_id)),
        "results": list(client.results(job_id)),
        "verification": installation.verify(job_id),
    }


def fold(client: Client, installation: Installation, job_id: str) -> None:
    client.retention.set_job(job_id, {"chunks": "0s"})
    wait_until(lambda: not parts(installation, job_id), seconds=60)
    client.retention.set_job(job_id, {})


def parts(installation: Installation, job_id: str) -> set[str]:
    """Keys of the parts of chunks that are rows."""
    with installation.sessions.begin() as session:
        return {part.key for part in chunks.done_parts(session, job_id)}


def test_a_folded_job_answers_as_before_and_is_retried_even_if_its_object_is_torn(
    installation: Installation, client: Client
) -> None:
    job_id = installation.submit(corpus(), chunk_rows=CHUNK_ROWS)
    assert installation.wait(job_id).job.state is JobState.SUCCEEDED, installation.logs()
    before, as_rows = answers(client, installation, job_id), parts(installation, job_id)
    assert before["job"]["rows"]["failed"] == len(BAD)
    assert before["verification"].ok
    fold(client, installation, job_id)
    assert answers(client, installation, job_id) == before
    client.retry(job_id)
    assert client.wait(job_id)["state"] == "succeeded"
    again = parts(installation, job_id)
    assert len(again - as_rows) == len({bad // CHUNK_ROWS for bad in BAD})
    after = answers(client, installation, job_id)
    assert after["results"] == before["results"]
    assert after["verification"] == before["verification"]
    fold(client, installation, job_id)
    for key in list(installation.store.keys(f"jobs/{job_id}/chunks")):
        installation.store.put(key, b"torn")
    torn = installation.verify(job_id)
    assert (torn.ok, torn.missing) == (False, ROWS)
    assert any(f"rows 0 to {ROWS - 1}" in problem for problem in torn.problems)
    client.retry(job_id)
    assert client.wait(job_id)["state"] == "succeeded"
    assert list(client.results(job_id)) == before["results"]
    assert installation.verify(job_id).ok


def test_a_cancelled_job_goes_on_where_it_was_when_it_was_folded(
    installation: Installation, client: Client
) -> None:
    job_id = installation.submit(corpus() * 4, chunk_rows=CHUNK_ROWS)
    installation.wait_for_chunks(job_id, 5)
    client.cancel(job_id)
    assert client.wait(job_id)["state"] == "cancelled"
    before, as_rows = answers(client, installation, job_id), parts(installation, job_id)
    fold(client, installation, job_id)
    assert answers(client, installation, job_id) == before
    client.retry(job_id)
    assert client.wait(job_id)["state"] == "succeeded"
    assert installation.verify(job_id).ok
    if before["job"]["rows"]["failed"] == 0:
        assert as_rows <= parts(installation, job_id), "what was done stays"
