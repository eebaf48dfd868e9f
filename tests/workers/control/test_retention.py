"""Retention in control's turn: the leader marks what is due, in transactions that may be cut."""

from __future__ import annotations

from jobs.ledger import retention
from jobs.lookups import removals
from jobs.retention import Retention
from jobs.states import JobState
from tests.jobs.ledger.building import PROJECT
from tests.jobs.ledger.training import at_once
from tests.workers.control.plane import ControlPlane
from workers.control import retention as part


def ended(plane: ControlPlane) -> str:
    job_id = plane.ledger.running(5)
    plane.ledger.commit_all(job_id)
    plane.ledger.set(job_id, state=JobState.FINALIZING)
    plane.ledger.finish(job_id)
    return job_id


def set_policy(plane: ControlPlane, **periods: str) -> None:
    with plane.ledger.sessions.begin() as session:
        retention.set_project(session, PROJECT, Retention.model_validate(periods))


def removed(plane: ControlPlane, job_id: str) -> set[str]:
    with plane.ledger.sessions.begin() as session:
        return {piece.value for piece in removals.of_job(session, job_id)}


def test_a_turn_of_the_leader_marks_what_is_due(plane: ControlPlane) -> None:
    job_id = ended(plane)
    set_policy(plane, parts="0s", outputs="90d")
    plane.fresh_turns().turn(led_for=3_600.0)
    assert removed(plane, job_id) == {"parts"}
    set_policy(plane)


def test_several_processes_at_once_mark_each_piece_once(plane: ControlPlane) -> None:
    made = [ended(plane) for _ in range(20)]
    set_policy(plane, parts="0s", shards="0s")
    retain = [lambda: part.retain(plane.ledger.sessions, settings=plane.settings)] * 4
    at_once(retain)
    for job_id in made:
        assert removed(plane, job_id) == {"parts", "shards"}
        told = [event for event in plane.ledger.events(job_id) if event.type == "removed"]
        assert len(told) == 1
    set_policy(plane)
