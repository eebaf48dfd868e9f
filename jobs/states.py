"""The states of jobs, chunks, runs and ranks, and every move between them that is allowed.

No other module computes a state. The database enforces the same sets with CHECKs, and the charts in
``docs/lifecycle.md`` are generated from these tables.
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


class JobStep(StrEnum):
    """What a planner does for a job."""

    PLAN = "plan"
    FINALIZE = "finalize"


class RunState(StrEnum):
    """Where one attempt at a training job is; the last four are final."""

    FORMING = "forming"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    LOST = "lost"
    PREEMPTED = "preempted"


class RankState(StrEnum):
    """Where one host's part of a run is."""

    PENDING = "pending"
    LEASED = "leased"
    ENDED = "ended"


FINAL = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.EXPIRED})
ACTIVE = frozenset(JobState) - FINAL
CLAIMABLE = frozenset({JobState.PLANNING, JobState.RUNNING})
"""States in which a job's chunks may be claimed."""

STEP_STATES = {
    JobStep.PLAN: (JobState.QUEUED, JobState.PLANNING),
    JobStep.FINALIZE: (JobState.FINALIZING, JobState.CANCELLING),
}
"""The states of a job in which a step is next."""

JOB_MOVES: dict[JobState, dict[JobState, str]] = {
    JobState.QUEUED: {
        JobState.PLANNING: "a planner claims it",
        JobState.PAUSED: "pause",
        JobState.CANCELLING: "cancel",
        JobState.FAILED: "cannot be planned, a job that it needs failed",
        JobState.EXPIRED: "its deadline passed",
    },
    JobState.PLANNING: {
        JobState.RUNNING: "every row is in a chunk",
        JobState.PAUSED: "pause",
        JobState.CANCELLING: "cancel, no rows to read",
        JobState.FAILED: "corpus or model unreadable, too many failed rows",
        JobState.EXPIRED: "its deadline passed",
    },
    JobState.RUNNING: {
        JobState.FINALIZING: "every chunk is done",
        JobState.SUCCEEDED: "its training run succeeded",
        JobState.PAUSED: "pause",
        JobState.CANCELLING: "cancel",
        JobState.FAILED: "model unusable, too many failed rows",
        JobState.EXPIRED: "its deadline passed",
    },
    JobState.FINALIZING: {
        JobState.SUCCEEDED: "counts add up, outputs written",
        JobState.CANCELLING: "cancel",
        JobState.FAILED: "too many failed rows, counts do not add up",
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
        JobState.CANCELLED: "no chunk is leased and no rank runs, what is done is kept",
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

LIVE_RUN = frozenset({RunState.FORMING, RunState.RUNNING})
"""States in which a run holds its hosts."""

RUN_MOVES: dict[RunState, dict[RunState, str]] = {
    RunState.FORMING: {
        RunState.RUNNING: "every rank has claimed its part",
        RunState.FAILED: "a rank found the job itself at fault",
        RunState.LOST: "a rank did not come, or died",
        RunState.PREEMPTED: "paused, cancelled, or its hosts are wanted",
    },
    RunState.RUNNING: {
        RunState.SUCCEEDED: "its result is committed under its fence",
        RunState.FAILED: "a rank found the job itself at fault",
        RunState.LOST: "a rank died, hung or went silent",
        RunState.PREEMPTED: "paused, cancelled, or its hosts are wanted; a checkpoint was made",
    },
    RunState.SUCCEEDED: {},
    RunState.FAILED: {},
    RunState.LOST: {},
    RunState.PREEMPTED: {},
}

RANK_MOVES: dict[RankState, dict[RankState, str]] = {
    RankState.PENDING: {
        RankState.LEASED: "its host claims it",
        RankState.ENDED: "its run ended, or it never came",
    },
    RankState.LEASED: {RankState.ENDED: "its processes ended, or its lease ran out"},
    RankState.ENDED: {},
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
