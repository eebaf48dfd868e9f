"""The Celery tasks: each reads a row of the ledger and does the work that is due, or nothing."""

from __future__ import annotations

from typing import Any

from celery import Task

from workers import context
from workers.app import app
from workers.crashes import ChunkTask


@app.task(name="plan", bind=True)
def plan(_: Task, job_id: str) -> None:
    """Plan a job, if it still wants planning."""
    from workers.bulk import planner  # noqa: PLC0415 - only planners need it

    planner.plan(job_id, context=context.get())


@app.task(name="finalize", bind=True)
def finalize(_: Task, job_id: str) -> None:
    """Write a job's outputs, if it still wants them."""
    from workers.bulk import finalizer  # noqa: PLC0415 - only planners need it

    finalizer.finalize(job_id, context=context.get())


@app.task(name="chunk", bind=True, base=ChunkTask)
def chunk(_: Task, chunk_id: int) -> Any:
    """Compute a chunk, if it can be claimed."""
    from workers.bulk import chunks  # noqa: PLC0415 - brings torch, which planners do without

    return chunks.run(chunk_id, context=context.get())


@app.task(name="rank", bind=True)
def rank(_: Task, run_id: str, rank: int, incarnation: str) -> Any:
    """Work as one rank of a run, if that is still wanted of this agent."""
    from workers.gang import agent  # noqa: PLC0415 - only hosts need it

    return agent.run(run_id, rank, incarnation=incarnation, context=context.get())
