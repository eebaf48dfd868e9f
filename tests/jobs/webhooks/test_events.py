"""What events say: ids and links, and never texts."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from jobs.schedules.states import FireState
from jobs.states import FINAL, JobState
from jobs.webhooks import answers, events
from jobs.webhooks.events import EventType, Occurrence

AT = datetime(2026, 12, 1, 2, tzinfo=UTC)


def job(state: JobState, *, error_code: str | None = None, group: str | None = None) -> Occurrence:
    return events.job_ended(
        job_id="job_1", kind="classify", state=state, error_code=error_code, group_id=group
    )


def sent(occurrence: Occurrence, base_url: str = "") -> Any:
    return json.loads(
        events.body(
            event_id="evt_1",
            event_type=occurrence.type,
            at=AT,
            data=occurrence.data,
            base_url=base_url,
        )
    )


@pytest.mark.parametrize("state", sorted(FINAL))
def test_every_end_of_a_job_has_a_type(state: JobState) -> None:
    assert job(state).type == f"job.{state}"


def test_a_job_that_ended_with_one_that_it_needs_has_a_type_of_its_own() -> None:
    found = job(JobState.FAILED, error_code="dependency_failed")
    assert found.type is EventType.JOB_DEPENDENCY_FAILED
    assert job(JobState.FAILED, error_code="model_unreadable").type is EventType.JOB_FAILED


def test_a_body_has_the_shape_of_openais_events() -> None:
    found = sent(job(JobState.SUCCEEDED, group="group_1"), "https://jobs.example.com")
    assert found == {
        "id": "evt_1",
        "object": "event",
        "type": "job.succeeded",
        "created_at": 1_796_090_400,
        "timestamp": "2026-12-01T02:00:00Z",
        "data": {
            "id": "job_1",
            "object": "job",
            "kind": "classify",
            "state": "succeeded",
            "error_code": None,
            "group": "group_1",
            "links": {
                "job": "https://jobs.example.com/v1/jobs/job_1",
                "group": "https://jobs.example.com/v1/groups/group_1",
            },
        },
    }


def test_without_a_public_url_links_are_paths() -> None:
    assert sent(job(JobState.FAILED))["data"]["links"] == {"job": "/v1/jobs/job_1"}


@pytest.mark.parametrize(
    ("state", "event_type"),
    [
        (FireState.FAILED, EventType.FIRE_FAILED),
        (FireState.SKIPPED, EventType.FIRE_SKIPPED),
        (FireState.MISSED, EventType.FIRE_MISSED),
        (FireState.SUCCEEDED, None),
        (FireState.CANCELLED, None),
        (FireState.SUBMITTED, None),
        (FireState.BUFFERED, None),
    ],
)
def test_fires_that_went_wrong_are_events(state: FireState, event_type: EventType | None) -> None:
    assert events.OF_FIRES.get(state) == event_type
    if event_type is None:
        return
    found = events.fire_ended(
        fire_id=7, schedule_id="sched_1", state=state, due=AT, group_id="group_1", jobs=["job_1"]
    )
    assert (found.type, found.object_id) == (event_type, "sched_1")
    assert found.data["fire_time"] == "2026-12-01T02:00:00Z"
    assert (found.data["group"], found.data["jobs"]) == ("group_1", ["job_1"])
    assert found.data["links"]["group"] == "/v1/groups/group_1"


def test_the_end_of_a_group_is_one_event_in_whichever_zone_it_is_read() -> None:
    zone = timezone(timedelta(hours=5))
    one, other = (
        events.group_ended(
            group_id="group_1",
            state=JobState.FAILED,
            jobs={JobState.FAILED: 1, JobState.SUCCEEDED: 2},
            ended_at=at,
        )
        for at in (AT, AT.astimezone(zone))
    )
    assert one == other
    assert one.id is not None
    assert one.type is EventType.GROUP_FAILED
    later = events.group_ended(
        group_id="group_1",
        state=JobState.FAILED,
        jobs={JobState.FAILED: 1},
        ended_at=AT + timedelta(seconds=1),
    )
    assert later.id != one.id


@pytest.mark.parametrize("promoted", [True, False])
def test_a_promotion_is_an_event_without_its_reason(*, promoted: bool) -> None:
    decision = {
        "alias": "champion",
        "version": 3,
        "value": float("nan"),
        "incumbent": 2,
        "incumbent_value": 0.9,
        "metric": "macro_f1",
        "margin": 0.0,
        "promoted": promoted,
        "reason": "a text",
    }
    found = events.promotion_decided(name="news", job_id="job_1", decision=decision)
    assert found.type == ("model.promoted" if promoted else "model.rejected")
    data = sent(found)["data"]
    assert data["id"] == "news@3"
    assert data["value"] is None
    assert "reason" not in data


@pytest.mark.parametrize(
    ("status", "reason", "gone"),
    [
        (200, None, False),
        (204, None, False),
        (302, "it answered 302 Found, a redirect, which is not followed", False),
        (410, "it answered 410 Gone", True),
        (404, "it answered 404 Not Found", False),
        (500, "it answered 500 Internal Server Error", False),
        (799, "it answered 799", False),
    ],
)
def test_what_an_answer_means(status: int, reason: str | None, *, gone: bool) -> None:
    failure = answers.judge(status)
    assert (failure and failure.reason) == reason
    assert (failure is not None and failure.gone) is gone
