"""One installation for all faults: what a test kills, it starts again, as a supervisor would."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from api.stack import ports
from jobs.states import JobState
from tests.support.installation import Installation, jsonl, sentences
from tests.support.installations import NewInstallation
from tests.support.tiny_models import tiny_classifier

ROWS = 1_000
CHUNK_ROWS = 5
CORPUS = jsonl(sentences(ROWS))

Answers = dict[int, str | None]


@pytest.fixture(scope="package")
def installation(new_installation: NewInstallation) -> Iterator[Installation]:
    with new_installation(
        tiny_classifier,
        lease_seconds=3,
        redispatch_seconds=3,
        shard_rows=500,
        api_port=ports.choose(),
    ).running("control", "planner", "pool") as installation:
        yield installation


@pytest.fixture(scope="package")
def undisturbed(installation: Installation) -> Answers:
    """The label of every row when nothing goes wrong."""
    job_id = installation.submit(CORPUS, chunk_rows=CHUNK_ROWS)
    assert installation.wait(job_id).job.state is JobState.SUCCEEDED
    return answers(installation, job_id)


def answers(installation: Installation, job_id: str) -> Answers:
    """Each row's label; fails on a row that has two results."""
    rows = installation.results(job_id)
    labels = {row["row"]: row["label"] for row in rows}
    assert len(labels) == len(rows)
    return labels


@pytest.fixture
def job(installation: Installation, undisturbed: Answers) -> str:  # noqa: ARG001 - it warms up
    """A job of 200 chunks with some of them done."""
    job_id = installation.submit(CORPUS, chunk_rows=CHUNK_ROWS)
    installation.wait_for_chunks(job_id, 20)
    return job_id


def assert_whole(installation: Installation, job_id: str, undisturbed: Answers) -> None:
    view = installation.wait(job_id)
    assert view.job.state is JobState.SUCCEEDED, installation.logs()
    assert installation.verify(job_id).problems == ()
    assert answers(installation, job_id) == undisturbed
