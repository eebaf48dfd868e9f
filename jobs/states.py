"""The states of jobs and chunks, and every move between them that is allowed.

Nobody else computes a state. The database enforces the same sets with CHECKs, and the chart in
``docs/lifecycle.md`` is generated from these tables.
"""

from __future__ import annotations

from enum import StrEnum

from jobs.errors import Conflict


class JobState(StrEnum):
    """Where a job is; the last four are final."""

    QUEUED = "queued"
    PLANNING = "planning"
    RUNNING = "running"
    FINALIZING = "finalizing"
    PAUSED = "paused"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


class ChunkState(StrEnum):
    """Where a chunk is; ``split`` chunks live on in their two halves."""

    PENDING = "pending"
    LEASED = "leased"
    DONE = "done"
    SPLIT = "split"


FINAL = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.EXPIRED})
ACTIVE = frozenset(JobState) - FINAL
CLAIMABLE = frozenset({JobState.PLANNING, JobState.RUNNING})
"""States in which a job's chunks may be claimed."""

JOB_MOVES: dict[JobState, dict[JobState, str]] = {
    JobState.QUEUED: {
        JobState.PLANNING: "a planner claims it",
        JobState.PAUSED: "pause",
        JobState.CANCELLING: "cancel",
        JobState.FAILED: "cannot be planned",
        JobState.EXPIRED: "its deadline passed",
    },
    JobState.PLANNING: {
        JobState.RUNNING: "every row is in a chunk",
        JobState.PAUSED: "pause",
        JobState.CANCELLING: "cancel",
        JobState.FAILED: "corpus or model unreadable",
        JobState.EXPIRED: "its deadline passed",
    },
    JobState.RUNNING: {
        JobState.FINALIZING: "every chunk is done",
        JobState.PAUSED: "pause",
        JobState.CANCELLING: "cancel",
        JobState.FAILED: "model unusable",
        JobState.EXPIRED: "its deadline passed",
    },
    JobState.FINALIZING: {
        JobState.SUCCEEDED: "counts add up, outputs written",
        JobState.CANCELLING: "cancel",
        JobState.FAILED: "counts do not add up",
        JobState.EXPIRED: "its deadline passed",
    },
    JobState.PAUSED: {
        JobState.QUEUED: "resume, not planned yet",
        JobState.PLANNING: "resume, partly planned",
        JobState.RUNNING: "resume",
        JobState.CANCELLING: "cancel",
        JobState.EXPIRED: "its deadline passed",
    },
    JobState.CANCELLING: {
        JobState.CANCELLED: "no chunk is leased, what is done is kept",
    },
    JobState.SUCCEEDED: {JobState.RUNNING: "retry of failed rows"},
    JobState.CANCELLED: {
        JobState.QUEUED: "retry, not planned yet",
        JobState.PLANNING: "retry, partly planned",
        JobState.RUNNING: "retry",
    },
    JobState.FAILED: {
        JobState.QUEUED: "retry, not planned yet",
        JobState.PLANNING: "retry, partly planned",
        JobState.RUNNING: "retry",
    },
    JobState.EXPIRED: {},
}

CHUNK_MOVES: dict[ChunkState, dict[ChunkState, str]] = {
    ChunkState.PENDING: {ChunkState.LEASED: "a worker claims it"},
    ChunkState.LEASED: {
        ChunkState.DONE: "its part is committed under its fence",
        ChunkState.PENDING: "released, or its lease ran out",
        ChunkState.SPLIT: "killed its worker twice",
    },
    ChunkState.DONE: {ChunkState.PENDING: "retry of its failed rows"},
    ChunkState.SPLIT: {},
}


def sources(target: JobState) -> frozenset[JobState]:
    """The states from which a job may move to ``target``."""
    return frozenset(state for state, moves in JOB_MOVES.items() if target in moves)


def check_move(state: JobState, target: JobState) -> None:
    """Raise ``Conflict`` unless a job in ``state`` may move to ``target``."""
    if target not in JOB_MOVES[state]:
        raise Conflict(
            f"a job that is {state} cannot become {target}; "
            f"it can become {', '.join(JOB_MOVES[state]) or 'nothing else'}",
            code="state_conflict",
        )


def resumed(*, planning_started: bool, planned: bool) -> JobState:
    """Where a paused, cancelled or failed job goes on."""
    if planned:
        return JobState.RUNNING
    return JobState.PLANNING if planning_started else JobState.QUEUED
