"""Holding a job's step, planning or finalizing, while a block of work runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import structlog

from jobs import database
from jobs.decisions import faults
from jobs.decisions.faults import Blame, Stage
from jobs.ledger import step_leases
from jobs.ledger.step_leases import StepLease
from jobs.queries import unclaimed as queries
from jobs.states import JobStep
from workers import draining, outcomes
from workers.context import Context
from workers.lease_renewer import LeaseRenewer
from workers.outcomes import DONE, Outcome, TaskState

log = structlog.get_logger()

PATIENCE = 20.0
"""Seconds that a claim or release waits for Postgres to come back."""

STAGES = {JobStep.PLAN: Stage.PLANNING, JobStep.FINALIZE: Stage.FINALIZING}
PROCESS_EXITS = (KeyboardInterrupt, SystemExit, GeneratorExit)
"""What is raised to end a process. Any other exception is a fault, a library's panic too."""


@dataclass
class HeldStep:
    """A step's lease, the thread that keeps it, and how the step ended."""

    lease: StepLease
    renewer: LeaseRenewer
    outcome: Outcome = DONE


@contextmanager
def holding(job_id: str, *, step: JobStep, context: Context) -> Iterator[HeldStep | None]:
    """The step's lease, kept and at the end given back; ``None`` if another holds it.

    What the block raises is judged by ``faults`` and goes no further: the step is tried again, or
    the job ends, and ``outcome`` says which.
    """
    duration = context.settings.lease_duration
    lease = database.patiently(
        context.sessions,
        lambda s: step_leases.claim(s, job_id, step=step, owner=context.owner, duration=duration),
        seconds=PATIENCE,
    )
    if lease is None:
        yield None
        return

    def renew() -> str | None:
        with context.sessions.begin() as session:
            ours = step_leases.renew(session, lease, duration=duration)
        return None if ours else "the step was taken over, or the job has moved on"

    stall = timedelta(seconds=context.settings.stall_seconds)
    held: HeldStep | None = None
    try:
        with LeaseRenewer(
            renew, duration=duration, stall=stall, release_reason=draining.overdue
        ) as renewer:
            held = HeldStep(lease, renewer)
            yield held
    except PROCESS_EXITS:
        _release(lease, context=context)
        raise
    except BaseException as error:  # noqa: BLE001 - panics of libraries are no Exceptions
        outcome = _judge(error, lease, step=step, context=context)
        if held is not None:
            held.outcome = outcome
    else:
        _release(lease, context=context)


def unclaimed(job_id: str, *, step: JobStep, context: Context) -> Outcome:
    """The outcome of a step that ``holding`` could not claim."""
    why = database.patiently(
        context.sessions,
        lambda session: queries.of_step(session, job_id, step=step),
        seconds=PATIENCE,
    )
    return outcomes.unclaimed(why)


def _judge(error: BaseException, lease: StepLease, *, step: JobStep, context: Context) -> Outcome:
    found = faults.diagnose(error, stage=STAGES[step])
    if found.blame is Blame.LEASE:
        log.info("a step stops", job_id=lease.job_id, step=step, reason=found.message)
    else:
        log.warning(
            "a step failed",
            job_id=lease.job_id,
            step=step,
            blame=found.blame,
            code=found.code,
            exc_info=found.blame is Blame.ENGINE,
            reason=found.message,
        )
    ended = database.patiently(
        context.sessions,
        lambda session: step_leases.release_after_fault(
            session, lease, found, limits=context.settings.limits
        ),
        seconds=PATIENCE,
    )
    if ended:
        return Outcome(TaskState.FAILED, f"failed the job: {found.message}")
    if found.blame is Blame.LEASE:
        return Outcome(TaskState.STOPPED, f"stopped: {found.message}")
    return Outcome(TaskState.POSTPONED, f"tried again later: {found.message}")


def _release(lease: StepLease, *, context: Context) -> None:
    database.patiently(
        context.sessions, lambda session: step_leases.release(session, lease), seconds=PATIENCE
    )
