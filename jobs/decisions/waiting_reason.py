"""Why a job is not moving, in words that say what to do (promise P11).

A sentence states what is known and when it was last known: a worker that has died looks like one
that cannot be reached. Of another project's job nothing is said but that it is one (promise P9).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from jobs.decisions import dependencies
from jobs.decisions.dependencies import Need
from jobs.states import JobState, RunState

CONTROL_SILENCE = timedelta(seconds=15)

MOST_NAMED = 3
"""Jobs or workers that one sentence names."""


@dataclass(frozen=True)
class OtherJob:
    """A job that has what this one waits for."""

    job_id: str
    name: str | None
    priority: int
    same_project: bool


@dataclass(frozen=True)
class LostLease:
    """A lease on this job's work whose holder has missed heartbeats, or did not renew it."""

    worker: str
    heard_at: datetime | None  # its last heartbeat; None: it beats, but has not renewed the lease
    chunks: int
    ends_at: datetime


@dataclass(frozen=True)
class LastHeard:
    """The last heartbeat in a pool or on a host."""

    name: str
    at: datetime


@dataclass(frozen=True)
class JobFacts:
    """A job and its surroundings at one moment. A worker is there if it beat lately."""

    now: datetime
    state: JobState
    priority: int
    pool: str
    control_turned_at: datetime | None
    broker_error: str | None

    slots: int  # of the workers of the pool
    last_heard: LastHeard | None  # in the pool, however long ago; None: nothing is on record
    busy_slots: int  # of the pool, with any job
    computed: Sequence[OtherJob]  # jobs whose chunks those slots compute
    queued: Sequence[OtherJob]  # jobs, but this one, with chunks in the queue of the pool

    pending: int  # chunks
    sent: int  # of those, chunks with a message in the queue
    failing: int  # of those, chunks that wait after a failure
    retry_at: datetime | None  # when the first of those is tried again
    last_error: str | None  # of one of those
    leased: int  # chunks, by workers that are there
    lost: Sequence[LostLease]  # on the other leased chunks

    planners: int
    planning: Sequence[OtherJob]  # whose steps the planners do
    step_held: bool  # by a planner that is there
    step_lost: LostLease | None
    step_error: str | None  # why the last try at planning or finalizing failed
    step_not_before: datetime | None = None  # the next try; None: at once
    held: bool = False  # it waits for jobs that it needs
    needs: Sequence[Need] = ()


@dataclass(frozen=True)
class GangFacts:
    """The hosts and the run of a training job."""

    min_hosts: int  # that the job needs
    not_before: datetime | None  # the next run, after a lost one
    run_error: str | None  # why that run was lost
    run: RunState | None  # state of the live run; None: there is none
    unclaimed: int  # ranks of the live run that have not begun
    stop_reason: str | None  # why the live run was asked to end
    missing: Sequence[LastHeard]  # hosts of the live run that have missed heartbeats
    hosts: int  # of the pool, with a recent heartbeat, that are not draining
    draining: int  # of the pool, with a recent heartbeat, that take no new run
    refusing: int  # of ``hosts``, those that refuse to train beside a bulk pool
    giving_way: int  # of ``hosts``, those that yield to a bulk pool with work
    idle: int  # of ``hosts``
    ahead: Sequence[OtherJob]  # jobs of the pool that wait for hosts and get them first


def reason(facts: JobFacts) -> str | None:
    """The first obstacle, or ``None`` for a job that moves or has ended."""
    match facts.state:
        case JobState.PAUSED:
            return _paused(facts)
        case JobState.QUEUED:
            return _held(facts) if facts.held else _no_step(facts)
        case JobState.FINALIZING | JobState.CANCELLING if not facts.step_held:
            if facts.leased:
                return f"{_chunks(facts.leased)} under way must end first"
            return _lost(facts) or _no_step(facts)
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
            return _no_control(facts) or "its ranks must end first"
        case JobState.RUNNING:
            return _no_run(facts, gang) if gang.run is None else _of_run(facts, gang)
    return None


def _paused(facts: JobFacts) -> str:
    under_way = f", with {_chunks(facts.leased)} still under way" if facts.leased else ""
    return f"paused{under_way}; resume it with `nightshift jobs resume`"


def _held(facts: JobFacts) -> str:
    waits = dependencies.waits_for(facts.needs)
    return (
        waits or _no_control(facts) or "the jobs that it needs have ended; control sees to it next"
    )


def _no_chunk_moves(facts: JobFacts) -> str | None:
    if facts.pending:
        obstacle = _no_worker(facts) or _no_control(facts)
        if obstacle or facts.failing < facts.pending:
            found = (obstacle or _busy(facts), _lost(facts), _failing(facts))
            return _joined(found) or _on_the_way(facts)
        return _joined((_failing(facts), _lost(facts)))
    if facts.lost:
        return _lost(facts)
    if facts.state is JobState.RUNNING:
        return _no_control(facts) or "every chunk is done; its outputs are written next"
    return None if facts.step_held else _no_step(facts)


def _no_control(facts: JobFacts) -> str | None:
    last_turn = facts.control_turned_at
    if last_turn is None:
        return "no control process has ever run; start one: `python -m workers.processes control`"
    if facts.now - last_turn > CONTROL_SILENCE:
        return f"no control process has run since {last_turn:%Y-%m-%d %H:%M:%S} UTC; start one"
    if facts.broker_error:
        return f"the broker does not answer: {facts.broker_error}"
    return None


def _no_worker(facts: JobFacts) -> str | None:
    """True of a pool whose workers are dead, and of one whose workers drain: they leave no row."""
    if facts.slots:
        return None
    last = facts.last_heard
    heard = f" ({last.name} was last heard at {_clock(last.at)})" if last else ""
    return (
        f"no worker of pool {facts.pool!r} takes new work{heard}; "
        "start one, or submit to another pool"
    )


def _busy(facts: JobFacts) -> str | None:
    if facts.busy_slots < facts.slots or not facts.computed:
        return None
    equal = any(job.same_project and job.priority == facts.priority for job in facts.computed)
    return (
        f"{_all(facts.slots, 'slot')} of pool {facts.pool!r} {_are(facts.slots)} busy with "
        f"{_names(facts.computed, than=facts.priority)}"
        f"{'; jobs of one project and priority take turns, chunk by chunk' if equal else ''}"
    )


def _on_the_way(facts: JobFacts) -> str:
    if facts.sent:
        return "its chunks are on their way to a worker"
    if facts.queued:
        first = _names(facts.queued, than=facts.priority)
        return f"the queue of pool {facts.pool!r} has chunks of {first}; its own follow in turn"
    return f"its chunks are sent to the queue of pool {facts.pool!r} next"


def _failing(facts: JobFacts) -> str | None:
    if facts.failing == 0:
        return None
    again = "are" if facts.failing > 1 else "is"
    return (
        f"{_chunks(facts.failing)} failed and {again} tried again"
        f"{_in_seconds(facts.retry_at, now=facts.now)}; the last error: {facts.last_error}"
    )


def _lost(facts: JobFacts) -> str | None:
    """Chunks whose workers have died, or cannot be reached, and when they are taken back."""
    if not facts.lost:
        return None
    over = [lease for lease in facts.lost if lease.ends_at < facts.now]
    if len(over) == len(facts.lost) and (obstacle := _no_control(facts)):
        return obstacle
    named = [_lost_lease(lease, now=facts.now) for lease in facts.lost[:MOST_NAMED]]
    more = len(facts.lost) - MOST_NAMED
    return _joined([*named, f"the same is true of {more} more workers" if more > 0 else None])


def _lost_lease(lease: LostLease, *, now: datetime) -> str:
    of_chunks = f"{_chunks(lease.chunks)} of worker {lease.worker}"
    if lease.heard_at:
        of_chunks += f", which was last heard at {_clock(lease.heard_at)},"
    if lease.ends_at < now:
        return f"the lease on {of_chunks} ran out at {_clock(lease.ends_at)}: taken back next"
    are = "are" if lease.chunks > 1 else "is"
    return f"{of_chunks} {are} taken back if the lease runs out at {_clock(lease.ends_at)}"


def _no_step(facts: JobFacts) -> str:
    error = f"the last try failed: {facts.step_error}" if facts.step_error else None
    if error and (seconds := _in_seconds(facts.step_not_before, now=facts.now)):
        return f"the last try failed and will be repeated{seconds}: {facts.step_error}"
    obstacle = _step_lost(facts) or _no_control(facts) or _no_planner(facts)
    return _joined((obstacle or "its message is on the way to a planner", error)) or ""


def _step_lost(facts: JobFacts) -> str | None:
    lease = facts.step_lost
    if lease is None or lease.ends_at < facts.now:
        return None
    heard = f", which was last heard at {_clock(lease.heard_at)}" if lease.heard_at else ""
    return (
        f"it is with planner {lease.worker}{heard}; "
        f"another takes over if the lease runs out at {_clock(lease.ends_at)}"
    )


def _no_planner(facts: JobFacts) -> str | None:
    if facts.planners == 0:
        return "no planner takes new work; start one: `python -m workers.processes planner`"
    if len(facts.planning) < facts.planners:
        return None
    return (
        f"no planner is free: {_all(facts.planners, 'planner')} {_are(facts.planners)} "
        f"busy with {_names(facts.planning)}"
    )


def _no_run(facts: JobFacts, gang: GangFacts) -> str:
    return _no_control(facts) or _backing_off(facts, gang) or _no_hosts(facts, gang)


def _of_run(facts: JobFacts, gang: GangFacts) -> str | None:
    if gang.stop_reason is not None:
        return f"its run ends and will be taken up again: {gang.stop_reason}"
    if gang.missing:
        hosts = _listed(
            f"host {host.name} (last heard at {_clock(host.at)})" for host in gang.missing
        )
        return f"lost touch with {hosts} of its run; if that lasts, the run is taken up again"
    if gang.run is RunState.FORMING:
        return _no_control(facts) or f"{gang.unclaimed} of its hosts must begin first"
    return None


def _backing_off(facts: JobFacts, gang: GangFacts) -> str | None:
    seconds = _in_seconds(gang.not_before, now=facts.now)
    return seconds and f"the last run was lost and is taken up again{seconds}: {gang.run_error}"


def _no_hosts(facts: JobFacts, gang: GangFacts) -> str:
    pool = f"pool {facts.pool!r}"
    usable = gang.hosts - gang.refusing
    if gang.hosts == 0:
        none = f"no training host of {pool} is alive"
        if gang.draining:
            hosts, take = _all(gang.draining, "training host"), _takes(gang.draining)
            none = f"{hosts} of {pool} {_are(gang.draining)} draining and {take} no new run"
        return f"{none}; start one: `python -m workers.processes host`"
    if usable < gang.min_hosts:
        refusing = f", {gang.refusing} of which refuse to train" if gang.refusing else ""
        draining = f", and {gang.draining} that {_are(gang.draining)} draining"
        return (
            f"it needs {gang.min_hosts} hosts of {pool}, which has {gang.hosts}{refusing}"
            f"{draining if gang.draining else ''}: start more, or submit it with fewer machines"
        )
    if gang.giving_way and gang.idle < gang.min_hosts:
        return f"{gang.giving_way} hosts of {pool} yield to bulk work; it begins when that is done"
    if gang.ahead:
        first = _names(gang.ahead, than=facts.priority)
        return f"it gets hosts of {pool} after {first}; {gang.idle} of {usable} hosts are idle"
    if gang.idle < gang.min_hosts:
        return f"it needs {gang.min_hosts} idle hosts of {pool}; {gang.idle} of {usable} are"
    return "its hosts are being reserved"


def _names(jobs: Sequence[OtherJob], *, than: int | None = None) -> str:
    """The jobs by id and name, with how their priority compares; another project's by number."""
    ours = [job for job in jobs if job.same_project]
    theirs = len(jobs) - len(ours)
    named = [_name(job, than=than) for job in ours[:MOST_NAMED]]
    if (more := len(ours) - MOST_NAMED) > 0:
        named.append(f"{more} more")
    if theirs:
        named.append("a job of another project" if theirs == 1 else f"{theirs} of other projects")
    return _listed(named)


def _name(job: OtherJob, *, than: int | None) -> str:
    name = f"{job.job_id} ({job.name})" if job.name else job.job_id
    if than is None or job.priority == than:
        return name
    higher = "higher" if job.priority > than else "lower"
    return f"{name} of {higher} priority ({job.priority}, this job has {than})"


def _joined(sentences: Iterable[str | None]) -> str | None:
    return "; ".join(filter(None, sentences)) or None


def _listed(words: Iterable[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


def _clock(at: datetime) -> str:
    return f"{at:%H:%M:%S} UTC"


def _in_seconds(at: datetime | None, *, now: datetime) -> str:
    """``" in 5 s"`` before that time; empty once it has come."""
    return "" if at is None or at <= now else f" in {round((at - now).total_seconds())} s"


def _chunks(count: int) -> str:
    return f"{count} chunk" if count == 1 else f"{count} chunks"


def _all(count: int, noun: str) -> str:
    return f"the only {noun}" if count == 1 else f"all {count} {noun}s"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _takes(count: int) -> str:
    return "takes" if count == 1 else "take"
