"""Promise P11 over HTTP: four causes, made with real processes, are found by ``jobs why``."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from api.client import Client
from jobs.states import JobState
from tests.faults.conftest import CHUNK_ROWS, CORPUS, Answers
from tests.support import deadly
from tests.support.installation import KEY, Installation, jsonl, sentences
from tests.support.waiting import wait_until

Why = dict[str, Any]


@pytest.fixture
def client(installation: Installation, undisturbed: Answers) -> Iterator[Client]:  # noqa: ARG001 - it warms up
    api = installation.start("api.server")
    with Client(f"http://127.0.0.1:{installation.settings.api_port}", KEY) as client:
        client.ping()
        yield client
    api.stop()


def causes(found: Why) -> set[str]:
    return {finding["cause"] for finding in found["findings"]}


def until(client: Client, job_id: str, cause: str) -> dict[str, str]:
    """The finding of this cause, once it is the answer."""
    wait_until(lambda: cause in causes(client.why(job_id)), seconds=60, every=0.1)
    found = client.why(job_id)
    return next((each for each in found["findings"] if each["cause"] == cause), {})


def test_four_causes_are_named_with_what_to_do_and_then_the_time_is_told(
    installation: Installation, client: Client
) -> None:
    paused = installation.submit(CORPUS, chunk_rows=CHUNK_ROWS)
    client.pause(paused)
    assert until(client, paused, "paused")["command"] == f"nightshift jobs resume {paused}"

    failing = installation.submit(jsonl(sentences(20)), chunk_rows=5)
    parts = installation.home / "objects" / "jobs" / failing / "parts"
    parts.parent.mkdir(parents=True, exist_ok=True)
    parts.write_text("a file where the folder of parts should be")
    assert "failed and " in until(client, failing, "failing")["sentence"]
    parts.unlink()
    assert installation.wait(failing).job.state is JobState.SUCCEEDED

    installation.stop_role("pool")
    alone = installation.submit(jsonl(sentences(5)), chunk_rows=5)
    assert "no worker of pool 'cpu'" in until(client, alone, "no_worker")["sentence"]

    client.resume(paused)
    installation.start_role("pool")
    ended = installation.wait(paused)
    assert ended.job.state is JobState.SUCCEEDED
    assert installation.wait(alone).job.state is JobState.SUCCEEDED
    found = client.why(paused)
    assert {"paused", "computing"} <= {part["part"] for part in found["time"]}
    assert ended.job.finished_at is not None
    lasted = (ended.job.finished_at - ended.job.created_at).total_seconds()
    assert found["seconds"] == pytest.approx(lasted, abs=0.01)


def test_a_job_behind_an_older_one_names_it(
    installation: Installation, client: Client, tmp_path: Path
) -> None:
    """The only slot of the pool is with the older one for as long as a file is there."""
    gate = tmp_path / "held"
    gate.touch()
    worker = installation.start_role(
        "pool",
        NIGHTSHIFT_POOL="narrow",
        NIGHTSHIFT_WORKER_PROCESSES="1",
        PYTHONPATH=os.pathsep.join([str(Path(deadly.__file__).parent), *sys.path]),
        **{deadly.HELD_WHILE: str(gate)},
    )
    older = installation.submit(jsonl([deadly.HELD]), pool="narrow", name="the older one")
    wait_until(lambda: installation.leased(older), seconds=60)
    younger = installation.submit(jsonl(sentences(5)), chunk_rows=5, pool="narrow")
    found = until(client, younger, "busy")
    assert f"{older} (the older one)" in found["sentence"]
    assert found["command"] == f"nightshift jobs why {older}"
    gate.unlink()
    assert installation.wait(older).job.state is JobState.SUCCEEDED
    assert installation.wait(younger).job.state is JobState.SUCCEEDED
    worker.stop()
