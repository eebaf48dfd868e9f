"""Events that webhook endpoints receive: their types, and their data, which is ids and never texts.

The events of one ``object_id`` reach an endpoint in the order in which they happened.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from jobs import numbers
from jobs.decisions import dependencies
from jobs.schedules.states import FireState
from jobs.states import JobState

Json = dict[str, Any]


class EventType(StrEnum):
    """What can happen, in the words of the wire."""

    JOB_SUCCEEDED = "job.succeeded"
    JOB_FAILED = "job.failed"
    JOB_CANCELLED = "job.cancelled"
    JOB_EXPIRED = "job.expired"
    JOB_DEPENDENCY_FAILED = "job.dependency_failed"
    GROUP_SUCCEEDED = "group.succeeded"
    GROUP_FAILED = "group.failed"
    GROUP_CANCELLED = "group.cancelled"
    GROUP_EXPIRED = "group.expired"
    FIRE_FAILED = "schedule.fire_failed"
    FIRE_SKIPPED = "schedule.fire_skipped"
    FIRE_MISSED = "schedule.fire_missed"
    MODEL_PROMOTED = "model.promoted"
    MODEL_REJECTED = "model.rejected"
    ENDPOINT_DISABLED = "webhook_endpoint.disabled"
    ENDPOINT_TEST = "webhook_endpoint.test"


OF_GROUPS = frozenset(each for each in EventType if each.startswith("group."))
OF_FIRES = {
    FireState.FAILED: EventType.FIRE_FAILED,
    FireState.SKIPPED: EventType.FIRE_SKIPPED,
    FireState.MISSED: EventType.FIRE_MISSED,
}
"""Fires that are events, by how they ended."""


@dataclass(frozen=True)
class Occurrence:
    """Something that has just happened."""

    type: EventType
    object_id: str
    data: Json
    id: str | None = None  # where it may be found more than once; ``None``: a random one


def job_ended(
    *, job_id: str, kind: str, state: JobState, error_code: str | None, group_id: str | None
) -> Occurrence:
    """A job has reached a final state."""
    needs_failed = error_code == dependencies.FAILED
    data = {
        "id": job_id,
        "object": "job",
        "kind": kind,
        "state": state.value,
        "error_code": error_code,
        "group": group_id,
        "links": {
            "job": f"/v1/jobs/{job_id}",
            **({"group": f"/v1/groups/{group_id}"} if group_id else {}),
        },
    }
    of_state = EventType(f"job.{state.value}")
    return Occurrence(EventType.JOB_DEPENDENCY_FAILED if needs_failed else of_state, job_id, data)


def group_ended(
    *, group_id: str, state: JobState, jobs: Mapping[JobState, int], ended_at: datetime
) -> Occurrence:
    """All jobs of a group have ended; a group whose jobs are retried ends once more."""
    data = {
        "id": group_id,
        "object": "group",
        "state": state.value,
        "jobs": {each.value: count for each, count in sorted(jobs.items())},
        "links": {"group": f"/v1/groups/{group_id}"},
    }
    key = hashlib.sha256(f"{group_id}\0{ended_at.astimezone(UTC).isoformat()}".encode())
    of_state = EventType(f"group.{state.value}")
    return Occurrence(of_state, group_id, data, id=f"evt_{key.hexdigest()[:24]}")


def fire_ended(
    *,
    fire_id: int,
    schedule_id: str,
    state: FireState,
    due: datetime,
    until: datetime | None = None,
    count: int = 1,
    group_id: str | None = None,
    jobs: Sequence[str] = (),
) -> Occurrence:
    """A fire has failed, was skipped or missed: its state is one of ``OF_FIRES``."""
    data = {
        "id": fire_id,
        "object": "fire",
        "schedule": schedule_id,
        "state": state.value,
        "fire_time": _iso(due),
        "until": None if until is None else _iso(until),
        "count": count,
        "group": group_id,
        "jobs": list(jobs),
        "links": {
            "schedule": f"/v1/schedules/{schedule_id}",
            "fires": f"/v1/schedules/{schedule_id}/fires",
            **({"group": f"/v1/groups/{group_id}"} if group_id else {}),
        },
    }
    return Occurrence(OF_FIRES[state], schedule_id, data)


def promotion_decided(*, name: str, job_id: str, decision: Mapping[str, Any]) -> Occurrence:
    """A version was promoted to an alias, or was not; ``decision`` as the registry records it."""
    kept = ("alias", "version", "incumbent", "metric", "value", "incumbent_value", "margin")
    data = {
        "id": f"{name}@{decision['version']}",
        "object": "model",
        "name": name,
        **numbers.storable({key: decision.get(key) for key in kept}),
        "job": job_id,
        "links": {
            "model": f"/v1/models/{name}@{decision['version']}",
            "promotions": f"/v1/models/{name}/promotions",
            "job": f"/v1/jobs/{job_id}",
        },
    }
    decided = EventType.MODEL_PROMOTED if decision["promoted"] else EventType.MODEL_REJECTED
    return Occurrence(decided, f"models/{name}", data)


def endpoint_disabled(endpoint_id: str) -> Occurrence:
    """Nothing is sent to an endpoint any more; the others learn of it."""
    return Occurrence(EventType.ENDPOINT_DISABLED, endpoint_id, _of_endpoint(endpoint_id))


def endpoint_test(endpoint_id: str, event_type: EventType) -> Occurrence:
    """A sample that its owner asked for."""
    return Occurrence(event_type, endpoint_id, {**_of_endpoint(endpoint_id), "test": True})


def body(*, event_id: str, event_type: str, at: datetime, data: Json, base_url: str) -> bytes:
    """The event as it is sent: the shape of OpenAI's events, with the links made whole."""
    base = base_url.rstrip("/")
    links = {name: f"{base}{path}" for name, path in data.get("links", {}).items()}
    event = {
        "id": event_id,
        "object": "event",
        "type": event_type,
        "created_at": int(at.timestamp()),
        "timestamp": _iso(at),
        "data": {**data, "links": links},
    }
    return json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode()


def _of_endpoint(endpoint_id: str) -> Json:
    return {
        "id": endpoint_id,
        "object": "webhook_endpoint",
        "links": {"webhook_endpoint": f"/v1/webhook_endpoints/{endpoint_id}"},
    }


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
