"""Control lets jobs go that wait for others, in its own turn."""

from __future__ import annotations

from jobs.states import JobState
from tests.jobs.ledger.chains import Chains
from tests.workers.control.plane import ControlPlane, arguments
from workers.app import PLAN_QUEUE


def test_control_plans_a_job_when_what_it_needs_has_succeeded(plane: ControlPlane) -> None:
    ledger, chains = plane.ledger, Chains(plane.ledger)
    first = ledger.accept()
    last = ledger.accept(depends_on=[first])

    def planned() -> list[str]:
        return [arguments(message)[0] for message in plane.messages(PLAN_QUEUE)]

    plane.turn()
    assert planned() == [first]
    chains.succeed(first)
    plane.redis.flushall()
    plane.fresh_turns().turn(led_for=3_600)
    plane.fresh_turns().turn(led_for=3_600)
    assert planned() == [last]


def test_a_turn_ends_a_job_whose_need_failed(plane: ControlPlane) -> None:
    chains = Chains(plane.ledger)
    first = plane.ledger.accept()
    last = plane.ledger.accept(depends_on=[first])
    chains.fail(first)
    plane.fresh_turns().turn(led_for=3_600)
    assert plane.ledger.job(last).state is JobState.FAILED
    assert plane.ledger.job(last).error_code == "dependency_failed"
