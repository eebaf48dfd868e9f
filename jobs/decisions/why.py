"""Why a job does not move, how one moves that does, and where its time went (promise P11).

Each finding says what is so and what to do next, with a command. What stands in the way is decided
by ``jobs.decisions.waiting_reason`` alone. A snapshot holds no text of a row, so none is repeated.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from jobs.decisions import phrases, waiting_reason
from jobs.decisions.obstacles import Cause, Obstacle
from jobs.decisions.time_spent import TimePart
from jobs.decisions.waiting_reason import Situation
from jobs.states import JobState

TOO_MANY_FAILED_ROWS = "too_many_failed_rows"
"""The code of a job whose message has an example of a failed row, which is not repeated here."""


_WORKER = "NIGHTSHIFT_POOL={pool} python -m workers.processes pool"
_HOST = "NIGHTSHIFT_HOST_POOL={pool} python -m workers.processes host"


@dataclass(frozen=True)
class Pause:
    """When a job was paused, and by which key, as its id, or login of Flower."""

    at: datetime
    by: str | None


@dataclass(frozen=True)
class QueuePlace:
    """Where a job stands among those of its pool that wait for slots, by priority and age."""

    number: int  # from 1
    of: int


@dataclass(frozen=True)
class PausedSchedule:
    """The schedule that submitted a job, and lets nothing more go."""

    name: str
    note: str | None


@dataclass(frozen=True)
class JobSnapshot:
    """One job at one moment."""

    job_id: str
    state: JobState
    trains: bool  # or evaluates; else it is bulk work
    pool: str
    situation: Situation | None  # None: it has ended
    error_code: str | None = None
    error_message: str | None = None
    rows_done: int = 0
    rows_total: int | None = None
    rows_failed: int = 0
    failed_codes: Mapping[str, int] = field(default_factory=dict)  # code -> rows
    rate: float | None = None  # rows, or steps of training, a second
    loading: int = 0  # chunks whose workers read the rows or load the model
    steps: int = 0  # of training
    steps_total: int | None = None
    pause: Pause | None = None
    place: QueuePlace | None = None  # None: it does not wait for a slot
    schedule: PausedSchedule | None = None
    time: Mapping[TimePart, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Finding:
    """What is so, and what to do next."""

    cause: str
    sentence: str
    advice: str
    command: str


@dataclass(frozen=True)
class TimeFinding:
    """A part of a job's time, and what makes it shorter."""

    part: TimePart
    seconds: float
    sentence: str
    advice: str
    command: str


@dataclass(frozen=True)
class Explanation:
    """The answer to ``nightshift jobs why``."""

    moves: bool
    findings: Sequence[Finding]  # at least one
    time: Sequence[TimeFinding]


def explain(job: JobSnapshot) -> Explanation:
    """Every obstacle, or how the job moves or ended; then where its time went."""
    obstacles = job.situation.obstacles if job.situation else []
    findings = [_of_obstacle(job, obstacle) for obstacle in obstacles] or _at_work(job)
    return Explanation(
        moves=job.situation is not None and not obstacles,
        findings=[*findings, *_in_queue(job), *_beside(job, obstacles), *_of_schedule(job)],
        time=[_time(job, part) for part in TimePart if job.time.get(part, 0) > 0],
    )


def _of_obstacle(job: JobSnapshot, obstacle: Obstacle) -> Finding:
    sentence = obstacle.words
    if obstacle.cause is Cause.PAUSED and job.pause:
        by = f" by {_asker(job.pause.by)}" if job.pause.by else ""
        sentence += f" (since {job.pause.at:%Y-%m-%d %H:%M:%S} UTC{by})"
    advice, command = _next(job, obstacle)
    return Finding(obstacle.cause, sentence, advice, command)


def _asker(name: str) -> str:
    """A key stands by the first digits of its hash, and else a login of Flower."""
    return f"the key {name}" if re.fullmatch("[0-9a-f]{8}", name) else name


def _next(job: JobSnapshot, obstacle: Obstacle) -> tuple[str, str]:
    """What to do about it: advice and a command."""
    if obstacle.job_id and obstacle.cause is Cause.DEPENDENCY:
        return "see why that job has not ended", _why(obstacle.job_id)
    if obstacle.job_id:
        return "see what that job does, pause it, or give it more room", _why(obstacle.job_id)
    if obstacle.cause is Cause.LOST_WORKER and job.trains:
        return "see which hosts are alive", "nightshift hosts list"
    advice, command = _NEXT[obstacle.cause]
    return advice, command.format(job=job.job_id, pool=job.pool)


_NEXT: dict[Cause, tuple[str, str]] = {
    Cause.PAUSED: ("let it go on", "nightshift jobs resume {job}"),
    Cause.DEPENDENCY: ("see which jobs it needs", "nightshift jobs show {job}"),
    Cause.NO_CONTROL: ("start a control process", "python -m workers.processes control"),
    Cause.BROKER: ("check it, on the machine of control", "nightshift doctor"),
    Cause.NO_WORKER: ("start a worker of its pool", _WORKER),
    Cause.BUSY: ("start another worker of its pool", _WORKER),
    Cause.IN_QUEUE: ("start another worker of its pool", _WORKER),
    Cause.ON_THE_WAY: ("wait: it goes on within seconds", "nightshift jobs watch {job}"),
    Cause.FAILING: (
        "see which chunks failed, on which worker, and mend what the error names",
        "nightshift jobs chunks {job}",
    ),
    Cause.LOST_WORKER: (
        "see which workers are alive; what that one held is taken back by itself",
        "nightshift workers list",
    ),
    Cause.ENDING: ("wait until that has ended", "nightshift jobs watch {job}"),
    Cause.NO_PLANNER: ("start a planner", "python -m workers.processes planner"),
    Cause.PLANNERS_BUSY: ("start another planner", "python -m workers.processes planner"),
    Cause.STEP_FAILED: (
        "mend what the error names; the next try comes by itself",
        "nightshift jobs events {job}",
    ),
    Cause.RUN_LOST: (
        "read the log of the lost run; the next one resumes from the last checkpoint",
        "nightshift jobs logs {job}",
    ),
    Cause.NO_HOST: ("start a training host of its pool", _HOST),
    Cause.TOO_FEW_HOSTS: ("see which hosts there are", "nightshift hosts list"),
    Cause.HOSTS_BUSY: ("see what its hosts do", "nightshift hosts list"),
}


def _at_work(job: JobSnapshot) -> list[Finding]:
    """How a job that nothing stands in the way of moves, or how it ended."""
    if job.situation is None:
        return _ended(job)
    facts, watch = job.situation.facts, f"nightshift jobs watch {job.job_id}"
    computed = max(0, facts.leased - job.loading)
    found = []
    if job.trains and job.situation.gang and job.situation.gang.run:
        sentence = f"its run is under way{_steps(job)}"
        found.append(Finding("training", sentence, "watch it", watch))
    elif job.state in (JobState.PLANNING, JobState.RUNNING) and facts.leased:
        if computed:
            sentence = f"{phrases.chunks(computed)} {phrases.are(computed)} computed{_rows(job)}"
            found.append(Finding("computing", sentence, "watch it", watch))
        if job.loading:
            sentence = f"the model is loaded for {phrases.chunks(min(job.loading, facts.leased))}"
            advice = "wait: a worker loads a model once and keeps it for the chunks that follow"
            found.append(Finding("loading", sentence, advice, "nightshift workers list"))
    if not found:
        cause, sentence = _of_step(job)
        found.append(Finding(cause, sentence, "watch it", watch))
    return found


def _of_step(job: JobSnapshot) -> tuple[str, str]:
    match job.state:
        case JobState.QUEUED | JobState.PLANNING:
            return "planning", "a planner reads its corpus"
        case JobState.FINALIZING | JobState.CANCELLING:
            return "writing", f"a planner writes its outputs{_rows(job)}"
    return "moving", "it moves"


def _beside(job: JobSnapshot, obstacles: Sequence[Obstacle]) -> list[Finding]:
    """What goes wrong beside the first obstacle, or while the job moves."""
    found: list[Obstacle] = []
    if job.situation and not job.trains and job.state in (JobState.PLANNING, JobState.RUNNING):
        facts = job.situation.facts
        failing = waiting_reason.failing(facts)
        found = [*([failing] if failing else []), *waiting_reason.lost(facts)]
    findings = [_of_obstacle(job, each) for each in found if each not in obstacles]
    if job.rows_failed and not job.trains and job.error_code != TOO_MANY_FAILED_ROWS:
        findings.append(_failed_rows(job))
    return findings


def _in_queue(job: JobSnapshot) -> list[Finding]:
    if job.place is None or job.place.of == 1:
        return []
    return [
        Finding(
            "place",
            f"of {job.place.of:,} jobs that wait for slots of pool {job.pool!r} it is number "
            f"{job.place.number:,}, by priority and age",
            "submit what is urgent with a higher priority: jobs of one priority take turns",
            "nightshift jobs list --state running",
        )
    ]


def _failed_rows(job: JobSnapshot) -> Finding:
    sentence = f"{phrases.counted(job.rows_failed, 'row')} failed{_codes(job)}"
    if job.situation is None:
        advice = "do them again; a row that is bad in the corpus fails again"
        return Finding("failed_rows", sentence, advice, f"nightshift jobs retry {job.job_id}")
    advice = "see an example of each code"
    return Finding("failed_rows", sentence, advice, f"nightshift jobs show {job.job_id}")


def _of_schedule(job: JobSnapshot) -> list[Finding]:
    if job.schedule is None:
        return []
    note = f": {job.schedule.note}" if job.schedule.note else ""
    return [
        Finding(
            "schedule",
            f"the schedule {job.schedule.name}, which submitted it, is paused{note}",
            "let the schedule go on",
            f"nightshift schedules resume {job.schedule.name}",
        )
    ]


def _ended(job: JobSnapshot) -> list[Finding]:
    retry = f"nightshift jobs retry {job.job_id}"
    match job.state:
        case JobState.SUCCEEDED if job.trains:
            found = ("it succeeded", "read how good the model is", "report")
        case JobState.SUCCEEDED:
            found = (f"it succeeded{_rows(job)}", "read its results", "results")
        case JobState.FAILED if job.trains:
            return [
                _finding(job, _failure(job), "read the end of its log, then retry it", "logs"),
            ]
        case JobState.FAILED:
            advice = "mend what the error names, then do again what is missing"
            return [Finding("failed", _failure(job), advice, retry)]
        case JobState.CANCELLED:
            advice = "do what was not done"
            return [Finding("cancelled", f"it was cancelled{_rows(job)}", advice, retry)]
        case _:
            found = (
                f"its deadline passed{_rows(job)}",
                "look at its spec, and submit it again with a longer `deadline_seconds`",
                "show",
            )
    return [_finding(job, *found)]


def _finding(job: JobSnapshot, sentence: str, advice: str, verb: str) -> Finding:
    return Finding(job.state, sentence, advice, f"nightshift jobs {verb} {job.job_id}")


def _failure(job: JobSnapshot) -> str:
    if job.error_code == TOO_MANY_FAILED_ROWS:
        failed = phrases.counted(job.rows_failed, "row")
        return f"it failed: {failed} failed{_codes(job)}, more than it allows ({job.error_code})"
    return f"it failed: {job.error_message} ({job.error_code})"


def _codes(job: JobSnapshot) -> str:
    most = sorted(job.failed_codes.items(), key=lambda item: -item[1])[:5]
    return f" ({', '.join(f'{code} {rows:,}' for code, rows in most)})" if most else ""


def _rows(job: JobSnapshot) -> str:
    if job.trains or (job.rows_total is None and not job.rows_done):
        return ""
    total = "" if job.rows_total is None else f" of {job.rows_total:,}"
    rate = f", {job.rate:,.1f} a second" if job.rate else ""
    return f"; {job.rows_done:,}{total} rows are done{rate}"


def _steps(job: JobSnapshot) -> str:
    total = "" if job.steps_total is None else f" of {job.steps_total:,}"
    return f": step {job.steps:,}{total}" if job.steps or total else ""


def _time(job: JobSnapshot, part: TimePart) -> TimeFinding:
    sentence, advice, command = (_TRAINING_TIME if job.trains else {}).get(part) or _TIME[part]
    command = command.format(job=job.job_id, pool=job.pool)
    return TimeFinding(part, job.time[part], sentence, advice, command)


_EVENTS = "nightshift jobs events {job}"
_TIME: dict[TimePart, tuple[str, str, str]] = {
    TimePart.OTHER_JOBS: (
        "it waited for jobs that it needs",
        "see where the time of those went",
        "nightshift jobs show {job}",
    ),
    TimePart.PLANNER: (
        "it waited for a planner",
        "start another planner",
        "python -m workers.processes planner",
    ),
    TimePart.PLANNING: (
        "its corpus was read, and no chunk was computed yet",
        "see which objects it read",
        "nightshift jobs inputs {job}",
    ),
    TimePart.WORKER: (
        "it waited for a worker, or for another try",
        "start more workers of its pool, or submit it with a higher priority",
        _WORKER,
    ),
    TimePart.RUNNING: (
        "its chunks ran; how that time was divided is not on record",
        "see when it began and ended",
        _EVENTS,
    ),
    TimePart.LOADING: (
        "its model was loaded, and no row was computed",
        "see which workers have it loaded: those begin at once",
        "nightshift workers list",
    ),
    TimePart.COMPUTING: (
        "its rows were computed",
        "start more workers of its pool: they share the chunks",
        "nightshift jobs chunks {job}",
    ),
    TimePart.WRITING: (
        "its results were written",
        "see how many parts it has; a single output file is written at the end, by one process",
        "nightshift jobs chunks {job}",
    ),
    TimePart.PAUSED: ("it was paused", "see when", _EVENTS),
    TimePart.ENDED: ("it had ended, before it was retried", "see when", _EVENTS),
}
_TRAINING_TIME: dict[TimePart, tuple[str, str, str]] = {
    TimePart.WORKER: (
        "it waited for hosts, or for another run",
        "start more training hosts of its pool",
        _HOST,
    ),
    TimePart.LOADING: (
        "its hosts began, and read rows and model",
        "see each run",
        "nightshift jobs runs {job}",
    ),
    TimePart.COMPUTING: (
        "it trained or evaluated",
        "see how fast each run went",
        "nightshift jobs runs {job}",
    ),
    TimePart.WRITING: (
        "after the last step its model was evaluated and stored",
        "see its report",
        "nightshift jobs report {job}",
    ),
}


def _why(job_id: str) -> str:
    return f"nightshift jobs why {job_id}"
