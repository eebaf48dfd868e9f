"""The Celery tasks: each reads a row of the ledger and does the work that is due, or nothing."""

from __future__ import annotations

from typing import Any

from celery import Task

from workers import context, outcomes
from workers.app import app
from workers.crashes import ChunkTask
from workers.outcomes import OutcomeTask


@app.task(name="plan", bind=True, base=OutcomeTask)
def plan(_: Task, job_id: str) -> Any:
    """Plan a job, if that step can be claimed."""
    from workers.bulk import planner  # noqa: PLC0415 - only planners need it

    return outcomes.raise_unless_done(planner.plan(job_id, context=context.get()))


@app.task(name="finalize", bind=True, base=OutcomeTask)
def finalize(_: Task, job_id: str) -> Any:
    """Write a job's outputs, if that step can be claimed."""
    from workers.bulk import finalizer  # noqa: PLC0415 - only planners need it

    return outcomes.raise_unless_done(finalizer.finalize(job_id, context=context.get()))


@app.task(name="chunk", bind=True, base=ChunkTask)
def chunk(_: Task, chunk_id: int) -> Any:
    """Compute a chunk, if it can be claimed."""
    from workers.bulk import chunk_worker  # noqa: PLC0415 - brings torch, which planners do without

    return outcomes.raise_unless_done(chunk_worker.run(chunk_id, context=context.get()))


@app.task(name="rank", bind=True, base=OutcomeTask)
def rank(_: Task, run_id: str, rank: int, incarnation: str) -> Any:
    """Run one rank of a run, if this agent can claim it."""
    from workers.gang import agent  # noqa: PLC0415 - only hosts need it

    outcome = agent.run(run_id, rank, incarnation=incarnation, context=context.get())
    return outcomes.raise_unless_done(outcome)
