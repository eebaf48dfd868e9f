"""What can stand in the way of a job: the causes, and one obstacle in words.

``jobs.decisions.waiting_reason`` finds them; ``jobs.decisions.why`` adds what to do about each.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Cause(StrEnum):
    """What kind of obstacle stands in the way; ``jobs.decisions.why`` says what to do about it."""

    PAUSED = "paused"
    DEPENDENCY = "dependency"  # it needs other jobs
    NO_CONTROL = "no_control"
    BROKER = "broker"
    NO_WORKER = "no_worker"
    BUSY = "busy"  # all slots of its pool compute other jobs
    IN_QUEUE = "in_queue"  # other jobs' chunks are in the queue before its own
    ON_THE_WAY = "on_the_way"  # nothing stands in the way: it moves within seconds
    FAILING = "failing"  # chunks failed and are tried again
    LOST_WORKER = "lost_worker"  # a worker, a planner or a host is silent
    ENDING = "ending"  # what is under way must end first
    NO_PLANNER = "no_planner"
    PLANNERS_BUSY = "planners_busy"
    STEP_FAILED = "step_failed"  # planning or finalizing failed and is tried again
    RUN_LOST = "run_lost"  # the last run was lost, and the next is not due yet
    NO_HOST = "no_host"
    TOO_FEW_HOSTS = "too_few_hosts"  # the pool can never form its gang
    HOSTS_BUSY = "hosts_busy"  # other jobs have its hosts, or get them first


@dataclass(frozen=True)
class Obstacle:
    """Something that stands in the way of a job, in words."""

    cause: Cause
    words: str
    job_id: str | None = None  # of the same project, which has what this one waits for
