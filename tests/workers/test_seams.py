"""Each seam counts what passes it: tasks, renewals of leases."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
from celery import Celery
from prometheus_client import CollectorRegistry

from jobs.errors import LeaseLost
from jobs.monitoring import meters
from jobs.monitoring.catalogue import Source
from tests.support.waiting import wait_until
from workers import lease_renewer, outcomes
from workers.lease_renewer import LeaseRenewer
from workers.outcomes import DONE, Outcome, OutcomeTask, TaskState

SHORT = timedelta(seconds=0.3)


@pytest.fixture
def registry() -> Iterator[CollectorRegistry]:
    yield meters.begin(Source.POOL)
    meters.end()


def fails() -> Outcome:
    raise RuntimeError("a fault of ours")


@pytest.mark.parametrize(
    ("work", "state"),
    [
        (lambda: DONE, "done"),
        (lambda: Outcome(TaskState.FAILED, "why"), "failed"),
        (lambda: Outcome(TaskState.POSTPONED, "why"), "postponed"),
        (lambda: Outcome(TaskState.STOPPED, "why"), "stopped"),
        (fails, "raised"),
    ],
)
def test_a_task_is_counted_by_how_it_ended(
    registry: CollectorRegistry, work: Callable[[], Outcome], state: str
) -> None:
    app = Celery("test", set_as_current=False)

    def chunk() -> str:
        return outcomes.raise_unless_done(work())

    result = app.task(name="chunk", base=OutcomeTask)(chunk).apply()
    assert result.successful() == (state == "done")
    for each in ("done", "failed", "postponed", "stopped", "raised"):
        labels = {"task": "chunk", "state": each}
        count = registry.get_sample_value("nightshift_task_seconds_count", labels)
        assert count == (each == state)


def lost(registry: CollectorRegistry) -> float | None:
    return registry.get_sample_value("nightshift_leases_lost_total")


def unreachable() -> str | None:
    raise OSError("no answer")


@pytest.mark.parametrize(
    ("renew", "count"),
    [
        (lambda: lease_renewer.lost("it was taken over"), 1),
        (lambda: "the job is paused", 0),
        (unreachable, 1),
    ],
)
def test_a_lease_that_is_lost_is_counted_and_one_that_ends_with_its_job_is_not(
    registry: CollectorRegistry, renew: Callable[[], str | None], count: int
) -> None:
    with LeaseRenewer(renew, duration=SHORT, stall=timedelta(minutes=1)) as renewer:
        wait_until(lambda: _is_lost(renewer))
    assert lost(registry) == count


def _is_lost(renewer: LeaseRenewer) -> bool:
    try:
        renewer.beat()
    except LeaseLost:
        return True
    return False
