"""An int8 job in a whole installation reports how many labels agree with float32."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from jobs.states import JobState
from tests.support.installation import Installation, jsonl, sentences
from tests.support.installations import NewInstallation
from tests.support.tiny_models import tiny_classifier

ROWS = 120
CHUNK_ROWS = 40


@pytest.fixture(scope="module")
def installation(new_installation: NewInstallation) -> Iterator[Installation]:
    with new_installation(tiny_classifier, worker_threads=1).running(
        "control", "planner", "pool"
    ) as installation:
        yield installation


def finished(installation: Installation, *, int8: bool) -> str:
    fields: dict[str, Any] = {"chunk_rows": CHUNK_ROWS, "classify": {"int8": int8}}
    job_id = installation.submit(jsonl(sentences(ROWS)), **fields)
    view = installation.wait(job_id, seconds=240)
    assert view.job.state is JobState.SUCCEEDED, installation.logs()
    return job_id


def test_an_int8_job_counts_the_rows_that_agree_with_float32(installation: Installation) -> None:
    fast, exact = (finished(installation, int8=int8) for int8 in (True, False))
    counts = installation.job(fast).counts
    assert counts.rows_checked >= ROWS // CHUNK_ROWS
    assert counts.rows_agreeing <= counts.rows_checked
    pairs = zip(installation.results(fast), installation.results(exact), strict=True)
    equal = sum(one["label"] == other["label"] for one, other in pairs)
    assert equal >= 0.8 * ROWS
    assert installation.verify(fast).problems == ()


def test_a_job_without_int8_checks_no_rows(installation: Installation) -> None:
    assert installation.job(finished(installation, int8=False)).counts.rows_checked == 0
