"""Corpora that attack the planner: each fails its own job, and the planner goes on (P5, P12)."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from jobs.states import JobState
from tests.support.hostile_parquet import HOSTILE
from tests.support.installation import Installation, jsonl
from tests.support.installations import NewInstallation
from tests.support.tiny_models import tiny_classifier

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits memory"),
]

MIB = 2**20


@pytest.fixture(scope="module")
def installation(new_installation: NewInstallation) -> Iterator[Installation]:
    with new_installation(tiny_classifier, decoder_memory_bytes=64 * MIB).running(
        "control", "planner"
    ) as installation:
        yield installation


def planners(installation: Installation) -> list[psutil.Process]:
    """The planner's parent and its pool process."""
    parent = psutil.Process(installation.processes[1].pid)
    return [parent, *parent.children(recursive=True)]


def peak(process: psutil.Process) -> int:
    """MiB."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) // 1024


def test_hostile_corpora_fail_their_own_jobs_and_cost_the_planner_nothing(
    installation: Installation,
) -> None:
    first = installation.submit(jsonl(["good", "bad"]))
    installation.wait(first, JobState.RUNNING)
    before = planners(installation)
    memory = sum(map(peak, before))
    names = ["a dictionary of one text", "a page of zstd", "a footer that lies"]
    hostile = [installation.submit(HOSTILE[name](), filename="a.parquet") for name in names]
    after = installation.submit(jsonl(["good", "bad"]))
    for job_id in hostile:
        job = installation.wait(job_id).job
        assert (job.state, job.error_code) == (JobState.FAILED, "corpus_too_large")
        assert "decoder_memory_bytes" in (job.error_message or "")
    assert installation.wait(after, JobState.RUNNING).job.rows_total == 2
    assert planners(installation) == before
    assert sum(map(peak, before)) - memory < 64
