"""A job that needs others begins when they have ended well, and never ends silently if they do not.

Promises P1 and P11 for chains of jobs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import ClassVar

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from hypothesis.stateful import run_state_machine_as_test as run_machine

from jobs.decisions.dependencies import Verdict, judge
from jobs.errors import BadSpec, Conflict, NotFound
from jobs.ledger import branches, controls, deletions, dependencies, registry
from jobs.lookups import dependencies as lookup
from jobs.queries import jobs as job_queries
from jobs.states import FINAL, JobState, JobStep
from jobs.tables import ModelVersion
from tests.jobs.ledger.building import OTHER, PROJECT, Ledger
from tests.jobs.ledger.chains import Chains

Operation = Callable[..., object]


@pytest.fixture
def chains(ledger: Ledger) -> Chains:
    return Chains(ledger)


def control(ledger: Ledger, operation: Operation, job_id: str) -> object:
    with ledger.sessions.begin() as session:
        return operation(session, job_id, project_id=PROJECT)


def reason(ledger: Ledger, job_id: str) -> str | None:
    with ledger.sessions.begin() as session:
        return job_queries.get(session, job_id, project_id=PROJECT).waiting_reason


def test_a_job_begins_when_all_that_it_needs_have_succeeded(ledger: Ledger, chains: Chains) -> None:
    first, second = ledger.accept(name="first"), ledger.accept()
    last = ledger.accept(depends_on=[first, second])
    assert f"first ({first}) (queued)" in (reason(ledger, last) or "")
    chains.succeed(first)
    assert chains.settle() == 0
    assert not chains.begins(last)
    assert first not in (reason(ledger, last) or "")
    chains.succeed(second)
    assert "no control process" in (reason(ledger, last) or "")
    assert chains.settle() == 1
    assert chains.begins(last)
    types = [event.type for event in ledger.events(last)]
    assert types == ["accepted", "released", "state"]


def test_a_chain_behind_a_failed_job_ends_and_says_which_failed(
    ledger: Ledger, chains: Chains
) -> None:
    first = ledger.accept(name="nightly")
    second = ledger.accept(depends_on=[first])
    third = ledger.accept(depends_on=[second])
    after = ledger.accept(depends_on=[f"{second}:end"])
    chains.fail(first)
    assert chains.settle() == 3
    job = ledger.job(second)
    assert (job.state, job.error_code) == (JobState.FAILED, "dependency_failed")
    assert f"nightly ({first}) (failed, corpus_unreadable)" in (job.error_message or "")
    assert ledger.job(third).error_code == "dependency_failed"
    assert chains.begins(after)


@pytest.mark.parametrize("end", ["cancelled", "expired"])
def test_a_job_that_was_cancelled_or_expired_fails_those_that_need_its_success(
    ledger: Ledger, chains: Chains, end: str
) -> None:
    first = ledger.accept(deadline_seconds=1000)
    last = ledger.accept(depends_on=[first])
    if end == "cancelled":
        control(ledger, controls.cancel, first)
        ledger.finish(first)
    else:
        ledger.set(first, expires_at=sa.func.now() - sa.text("interval '1 second'"))
        with ledger.sessions.begin() as session:
            controls.expire(session)
    chains.settle()
    assert f"({end})" in (ledger.job(last).error_message or "")


def test_a_job_that_needs_one_which_has_failed_already_is_accepted_and_fails(
    ledger: Ledger, chains: Chains
) -> None:
    first = ledger.accept()
    chains.fail(first)
    last = ledger.accept(depends_on=[first])
    chains.settle()
    assert ledger.job(last).error_code == "dependency_failed"


def test_a_job_that_waits_can_be_paused_cancelled_and_expire(
    ledger: Ledger, chains: Chains
) -> None:
    first = ledger.accept()
    paused, cancelled, expired = (
        ledger.accept(depends_on=[first], deadline_seconds=1000) for _ in range(3)
    )
    control(ledger, controls.pause, paused)
    control(ledger, controls.cancel, cancelled)
    ledger.set(expired, expires_at=sa.func.now() - sa.text("interval '1 second'"))
    with ledger.sessions.begin() as session:
        controls.expire(session)
    chains.succeed(first)
    chains.settle()
    assert ledger.claim_step(cancelled, step=JobStep.FINALIZE) is not None
    assert chains.state(expired) is JobState.EXPIRED
    assert chains.state(paused) is JobState.PAUSED
    control(ledger, controls.resume, paused)
    chains.settle()
    assert chains.begins(paused)


def test_a_job_that_was_cancelled_while_it_waited_waits_again_when_it_is_retried(
    ledger: Ledger, chains: Chains
) -> None:
    first = ledger.accept()
    last = ledger.accept(depends_on=[first])
    control(ledger, controls.cancel, last)
    ledger.finish(last)
    control(ledger, controls.retry, last)
    assert chains.settle() == 0
    assert not chains.begins(last)


def test_the_database_keeps_an_older_process_from_beginning_a_job_that_waits(
    ledger: Ledger,
) -> None:
    last = ledger.accept(depends_on=[ledger.accept()])
    with pytest.raises(sa.exc.IntegrityError, match="held_before_it_begins"):
        ledger.set(last, state=JobState.PLANNING)


def test_a_deleted_job_still_counts_as_it_ended(ledger: Ledger, chains: Chains) -> None:
    first, other = ledger.accept(), ledger.accept()
    last = ledger.accept(depends_on=[first, other])
    chains.succeed(first)
    control(ledger, deletions.delete_job, first)
    chains.succeed(other)
    chains.settle()
    assert chains.begins(last)


def test_a_job_elsewhere_or_deleted_cannot_be_needed(ledger: Ledger, chains: Chains) -> None:
    gone = ledger.accept()
    chains.succeed(gone)
    control(ledger, deletions.delete_job, gone)
    for job_id in (ledger.accept(project=OTHER), gone, "job_none"):
        with pytest.raises(NotFound) as refused:
            ledger.accept(depends_on=[ledger.accept(), job_id])
        assert (refused.value.code, refused.value.param) == ("job_not_found", "depends_on.1.job")


def test_a_job_that_is_needed_twice_is_refused(ledger: Ledger) -> None:
    first = ledger.accept()
    with pytest.raises(BadSpec, match="twice"):
        ledger.accept(depends_on=[first, f"{first}:end"])


# Retry and cancel.


def test_a_retry_of_the_failed_job_with_all_behind_it_does_no_more_than_that(
    ledger: Ledger, chains: Chains
) -> None:
    root = ledger.accept()
    left, right = ledger.accept(depends_on=[root]), ledger.accept(depends_on=[root])
    behind_left, behind_right = (ledger.accept(depends_on=[job]) for job in (left, right))
    chains.succeed(root)
    chains.settle()
    chains.fail(left)
    chains.succeed(right)
    chains.settle()
    chains.succeed(behind_right)
    with pytest.raises(Conflict, match="--with-dependents") as refused:
        control(ledger, controls.retry, behind_left)
    assert refused.value.code == "dependency_failed"
    assert control(ledger, branches.retry, left) == [left, behind_left]
    assert chains.settle() == 1  # left has all that it needs
    chains.succeed(left)
    chains.settle()
    chains.succeed(behind_left)
    assert [chains.state(job) for job in (right, behind_right)] == [JobState.SUCCEEDED] * 2


def test_a_retry_behind_a_job_that_runs_again_waits_for_it(ledger: Ledger, chains: Chains) -> None:
    first = ledger.accept()
    last = ledger.accept(depends_on=[first])
    chains.fail(first)
    chains.settle()
    control(ledger, controls.retry, first)
    control(ledger, controls.retry, last)
    assert chains.settle() == 0
    assert not chains.begins(last)
    chains.succeed(first)
    chains.settle()
    assert chains.begins(last)


def test_with_dependents_what_is_behind_a_job_that_succeeded_is_retried_alone(
    ledger: Ledger, chains: Chains
) -> None:
    first = ledger.accept()
    last = ledger.accept(depends_on=[first])
    chains.succeed(first)
    chains.settle()
    with pytest.raises(Conflict):
        control(ledger, branches.retry, first)
    chains.fail(last)
    assert control(ledger, branches.retry, first) == [last]


def test_a_cancel_with_dependents_leaves_none_behind_it_waiting(
    ledger: Ledger, chains: Chains
) -> None:
    first, other = ledger.accept(), ledger.accept()
    second = ledger.accept(depends_on=[first])
    third = ledger.accept(depends_on=[f"{second}:end"])
    assert control(ledger, branches.cancel, first) == [first, second, third]
    states = [chains.state(job) for job in (first, second, third, other)]
    assert states == [JobState.CANCELLING] * 3 + [JobState.QUEUED]
    with pytest.raises(NotFound), ledger.sessions.begin() as session:
        branches.cancel(session, first, project_id=OTHER)


def test_who_retries_a_branch_and_who_ends_it_come_one_after_the_other(
    ledger: Ledger, chains: Chains
) -> None:
    first = ledger.accept()
    last = ledger.accept(depends_on=[first])
    chains.fail(first)
    with ledger.sessions.begin() as session:
        branches.retry(session, first, project_id=PROJECT)
        with ledger.sessions.begin() as control_session:  # it saw the failure, and comes too late
            assert last in dependencies.due(control_session, limit=100)
            assert not dependencies.settle(control_session, last)
    chains.settle()
    assert chains.state(last) is JobState.QUEUED


# The model of a needed job.


def test_the_model_of_a_needed_job_is_pinned_when_it_is_known(
    ledger: Ledger, chains: Chains
) -> None:
    train, other = chains.finetune(), ledger.accept()
    label = ledger.accept(model=f"{{{train}.model}}", depends_on=[other])
    assert f"{train} (queued)" in (reason(ledger, label) or "")
    version = chains.register(train)
    assert chains.settle() == 1
    assert ledger.job(label).model_pinned == version
    assert not chains.begins(label)
    name, _, number = version.partition("@")
    with pytest.raises(Conflict, match=label), ledger.sessions.begin() as session:
        registry.delete_version(session, project_id=PROJECT, name=name, version=int(number))
    chains.succeed(other)
    chains.settle()
    held = ledger.claim_step(label)
    assert held is not None
    assert held.model_pinned == version


def test_a_version_that_is_gone_before_it_is_pinned_fails_the_job_as_any_other(
    ledger: Ledger, chains: Chains
) -> None:
    train = chains.finetune(model="gone")
    label = ledger.accept(model=f"{{{train}.model}}")
    version = chains.register(train, name="gone")
    number = int(version.partition("@")[2])
    with ledger.sessions.begin() as session, pytest.raises(Conflict, match=f"{label} uses it"):
        registry.delete_version(session, project_id=PROJECT, name="gone", version=number)
    with ledger.sessions.begin() as session:
        mine = sa.and_(ModelVersion.name == "gone", ModelVersion.version == number)
        session.execute(sa.update(ModelVersion).where(mine).values(deleted_at=sa.func.now()))
    chains.settle()
    job = ledger.job(label)
    assert (job.error_code, job.error_message) == ("model_not_found", f"{version} was deleted")


def test_a_job_that_registers_no_model_has_none_to_give(ledger: Ledger, chains: Chains) -> None:
    bulk, train = ledger.accept(), chains.finetune()
    with pytest.raises(BadSpec, match="registers no model"):
        ledger.accept(model=f"{{{bulk}.model}}")
    with pytest.raises(BadSpec, match="depend on its success"):
        ledger.accept(model=f"{{{train}.model}}", depends_on=[f"{train}:end"])
    with pytest.raises(BadSpec, match=r"is written \{JOB\.model\}"):
        ledger.accept(model="{train}")
    with pytest.raises(NotFound):
        ledger.accept(model="{job_none.model}")


def test_a_fine_tune_may_start_from_the_model_of_another(ledger: Ledger, chains: Chains) -> None:
    first = chains.finetune(model="base")
    second = chains.finetune(base=f"{{{first}.model}}")
    version = chains.register(first, name="base")
    chains.settle()
    assert ledger.job(second).model_pinned == version


# In any order.


class AnyOrder(RuleBasedStateMachine):
    """Users, workers and control, each acting on a graph of jobs whenever chance wants it."""

    ledger: ClassVar[Ledger]

    def __init__(self) -> None:
        super().__init__()
        self.chains = Chains(self.ledger)
        self.jobs: list[str] = []
        self.needs: dict[str, list[str]] = {}

    @precondition(lambda self: len(self.jobs) < 8)
    @rule(needs=st.lists(st.tuples(st.integers(0, 7), st.booleans()), max_size=3))
    def submit(self, needs: list[tuple[int, bool]]) -> None:
        chosen = {self.jobs[place % len(self.jobs)]: end for place, end in needs if self.jobs}
        depends_on = [f"{job}:end" if end else job for job, end in chosen.items()]
        job_id = self.ledger.accept(depends_on=depends_on)
        self.jobs.append(job_id)
        self.needs[job_id] = list(chosen)

    @precondition(lambda self: self.jobs)
    @rule(place=st.integers(0, 7), well=st.booleans())
    def end(self, *, place: int, well: bool) -> None:
        job_id = self._job(place)
        job = self.ledger.job(job_id)
        if job.state is JobState.CANCELLING:
            self.ledger.finish(job_id)
        elif job.state in (JobState.QUEUED, JobState.PLANNING) and not job.held:
            (self.chains.succeed if well else self.chains.fail)(job_id)

    @precondition(lambda self: self.jobs)
    @rule(
        place=st.integers(0, 7),
        operation=st.sampled_from(
            [
                controls.pause,
                controls.resume,
                controls.cancel,
                controls.retry,
                branches.cancel,
                branches.retry,
            ]
        ),
    )
    def act(self, *, place: int, operation: Operation) -> None:
        with contextlib.suppress(Conflict):
            control(self.ledger, operation, self._job(place))

    @rule()
    def settle(self) -> None:
        self.chains.settle()

    @invariant()
    def no_planner_begins_a_job_that_waits(self) -> None:
        for job_id in self.jobs:
            if self.ledger.job(job_id).held:
                assert not self.chains.begins(job_id)

    def teardown(self) -> None:
        """Left alone, with everybody alive, every job ends, and none waits for what has ended."""
        for _ in range(3 * len(self.jobs) + 1):
            for job_id in self.jobs:
                with contextlib.suppress(Conflict):
                    control(self.ledger, controls.resume, job_id)
            self.chains.settle()
            for place in range(len(self.jobs)):
                self.end(place=place, well=True)
        for job_id in self.jobs:
            with self.ledger.sessions.begin() as session:
                needs = lookup.needs(session, [job_id]).get(job_id, [])
            job = self.ledger.job(job_id)
            assert job.state in FINAL
            assert {need.job_id for need in needs} == set(self.needs[job_id])
            if job.error_code == "dependency_failed":
                assert job.held
            elif job.state is JobState.SUCCEEDED:
                assert not job.held
            assert judge(needs) is not Verdict.WAIT

    def _job(self, place: int) -> str:
        return self.jobs[place % len(self.jobs)]


def test_every_job_of_a_graph_ends_whatever_happens_in_whatever_order(ledger: Ledger) -> None:
    class OnThisLedger(AnyOrder):
        pass

    OnThisLedger.ledger = ledger
    run_machine(
        OnThisLedger,
        settings=settings(
            max_examples=6,
            stateful_step_count=20,
            phases=[Phase.generate],  # to shrink takes minutes on a real database
            suppress_health_check=list(HealthCheck),
        ),
    )
