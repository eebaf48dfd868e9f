"""Why a job is not moving, in words that say what to do (promise P11)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from jobs.states import JobState, RunState

CONTROL_SILENCE = timedelta(seconds=15)


@dataclass(frozen=True)
class JobFacts:
    """A job and its surroundings at one moment."""

    now: datetime
    state: JobState
    pool: str
    control_turned_at: datetime | None
    broker_error: str | None
    planners: int  # with a recent heartbeat
    slots: int  # of workers in the job's pool with a recent heartbeat
    pending: int  # chunks, as are the next three
    leased: int  # by workers that renew
    silent: int  # whose lease ran out
    failing: int  # pending after a failure
    last_error: str | None  # of one of the failing chunks
    busy_slots: int  # of the pool, with any job
    step_held: bool  # a planner works on the job now
    step_error: str | None  # why the last try at planning or finalizing failed
    step_not_before: datetime | None = None  # the next try; None: at once


@dataclass(frozen=True)
class GangFacts:
    """The hosts and the run of a training job."""

    min_hosts: int  # that the job needs
    not_before: datetime | None  # the next run, after a lost one
    run_error: str | None  # why that run was lost
    run: RunState | None  # state of the live run; None: there is none
    unclaimed: int  # ranks of the live run that have not begun
    stop_reason: str | None  # why the live run was asked to end
    hosts: int  # of the pool, with a recent heartbeat
    refusing: int  # of those, hosts that refuse to train beside a bulk pool
    giving_way: int  # of those, hosts that yield to a bulk pool with work
    idle: int  # of those
    ahead: int  # jobs of the pool that wait for hosts and go first


def reason(facts: JobFacts) -> str | None:
    """The first obstacle, or ``None`` for a job that moves or has ended."""
    match facts.state:
        case JobState.PAUSED:
            return "paused; resume it with `nightshift jobs resume`"
        case JobState.QUEUED:
            return _no_step(facts)
        case JobState.FINALIZING | JobState.CANCELLING if not facts.step_held:
            if facts.leased:
                return f"waiting for {facts.leased} chunks that are under way to end"
            return _silent(facts) or _no_step(facts)
        case JobState.PLANNING | JobState.RUNNING if not facts.leased:
            return _no_chunk_moves(facts)
    return None


def training_reason(facts: JobFacts, gang: GangFacts) -> str | None:
    """The same for a job that trains or evaluates, which moves while its run does."""
    match facts.state:
        case JobState.PAUSED if gang.run is not None:
            return f"its run makes a checkpoint and ends: {gang.stop_reason or 'paused'}"
        case JobState.PAUSED | JobState.QUEUED:
            return reason(facts)
        case JobState.PLANNING if not facts.step_held:
            return _no_step(facts)
        case JobState.CANCELLING:
            return _no_control(facts) or "waiting for its ranks to end"
        case JobState.RUNNING:
            return _no_run(facts, gang) if gang.run is None else _of_run(facts, gang)
    return None


def _no_run(facts: JobFacts, gang: GangFacts) -> str:
    return _no_control(facts) or _backing_off(facts, gang) or _no_hosts(facts, gang)


def _of_run(facts: JobFacts, gang: GangFacts) -> str | None:
    if gang.stop_reason is not None:
        return f"its run ends and will be taken up again: {gang.stop_reason}"
    if gang.run is RunState.FORMING:
        return _no_control(facts) or f"waiting for {gang.unclaimed} of its hosts to begin"
    return None


def _backing_off(facts: JobFacts, gang: GangFacts) -> str | None:
    if gang.not_before is None or gang.not_before <= facts.now:
        return None
    seconds = round((gang.not_before - facts.now).total_seconds())
    return f"the last run was lost and is taken up again in {seconds} s: {gang.run_error}"


def _no_hosts(facts: JobFacts, gang: GangFacts) -> str:
    pool = f"pool {facts.pool!r}"
    usable = gang.hosts - gang.refusing
    if gang.hosts == 0:
        return f"no training host of {pool} is alive; start one: `python -m workers.processes host`"
    if usable < gang.min_hosts:
        refusing = f", {gang.refusing} of which refuse to train" if gang.refusing else ""
        return (
            f"it needs {gang.min_hosts} hosts of {pool}, which has {gang.hosts}{refusing}: "
            "start more, or submit it with fewer machines"
        )
    if gang.giving_way and gang.idle < gang.min_hosts:
        return f"{gang.giving_way} hosts of {pool} yield to bulk work; it begins when that is done"
    if gang.ahead:
        return f"{gang.ahead} jobs of {pool} go first; {gang.idle} of {usable} hosts are idle"
    if gang.idle < gang.min_hosts:
        return f"it needs {gang.min_hosts} idle hosts of {pool}; {gang.idle} of {usable} are"
    return "its hosts are being reserved"


def _no_chunk_moves(facts: JobFacts) -> str | None:
    if facts.pending:
        return _no_worker(facts) or _no_control(facts) or _failing(facts) or _busy(facts)
    if facts.silent:
        return _silent(facts)
    if facts.state is JobState.RUNNING:
        return _no_control(facts) or "every chunk is done; its outputs are written next"
    return None if facts.step_held else _no_step(facts)


def _silent(facts: JobFacts) -> str | None:
    if facts.silent == 0:
        return None
    return _no_control(facts) or (
        f"the workers of {facts.silent} chunks went silent; the chunks will be taken back shortly"
    )


def _no_control(facts: JobFacts) -> str | None:
    last_turn = facts.control_turned_at
    if last_turn is None:
        return "no control process has ever run; start one: `python -m workers.processes control`"
    if facts.now - last_turn > CONTROL_SILENCE:
        return f"no control process has run since {last_turn:%Y-%m-%d %H:%M:%S} UTC; start one"
    if facts.broker_error:
        return f"the broker does not answer: {facts.broker_error}"
    return None


def _no_planner(facts: JobFacts) -> str | None:
    if facts.planners:
        return None
    return "no planner is alive; start one: `python -m workers.processes planner`"


def _no_step(facts: JobFacts) -> str:
    if facts.step_error:
        return f"the last try failed and will be repeated{_in_seconds(facts)}: {facts.step_error}"
    return _no_control(facts) or _no_planner(facts) or "waiting for a free planner"


def _in_seconds(facts: JobFacts) -> str:
    if facts.step_not_before is None or facts.step_not_before <= facts.now:
        return ""
    return f" in {round((facts.step_not_before - facts.now).total_seconds())} s"


def _no_worker(facts: JobFacts) -> str | None:
    if facts.slots:
        return None
    return f"no worker of pool {facts.pool!r} is alive; start one, or submit to another pool"


def _failing(facts: JobFacts) -> str | None:
    if facts.failing == 0:
        return None
    return f"{facts.failing} chunks failed and will be retried; the last error: {facts.last_error}"


def _busy(facts: JobFacts) -> str | None:
    if facts.busy_slots >= facts.slots:
        return (
            f"all {facts.slots} slots of pool {facts.pool!r} are busy with other jobs, "
            "of higher priority or of projects with a smaller share"
        )
    return "its chunks are on their way to a worker"
