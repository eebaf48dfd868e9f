"""Why a job is not moving, in words that say what to do (promise P11).

A sentence states what is known and when it was last known: a worker that has died looks like one
that cannot be reached. Of another project's job nothing is said but that it is one (promise P9).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from jobs.decisions import dependencies, phrases
from jobs.decisions.dependencies import Need
from jobs.decisions.obstacles import Cause, Obstacle
from jobs.decisions.phrases import MOST_NAMED, OtherJob
from jobs.states import JobState, RunState

CONTROL_SILENCE = timedelta(seconds=15)


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


@dataclass(frozen=True)
class Situation:
    """A job that has not ended, with all that may stand in its way."""

    facts: JobFacts
    gang: GangFacts | None  # None: a job of bulk work

    @property
    def obstacles(self) -> list[Obstacle]:
        """What stands in the way; empty: it moves."""
        if self.gang is None:
            return obstacles(self.facts)
        return training_obstacles(self.facts, self.gang)

    @property
    def reason(self) -> str | None:
        """The same in words; ``None``: it moves."""
        return in_words(self.obstacles)


def reason(facts: JobFacts) -> str | None:
    """What stands in the way, in words; ``None`` for a job that moves or has ended."""
    return in_words(obstacles(facts))


def training_reason(facts: JobFacts, gang: GangFacts) -> str | None:
    """The same for a job that trains or evaluates."""
    return in_words(training_obstacles(facts, gang))


def in_words(found: Sequence[Obstacle]) -> str | None:
    """All of them in one sentence; ``None``: there are none."""
    return "; ".join(obstacle.words for obstacle in found) or None


def obstacles(facts: JobFacts) -> list[Obstacle]:
    """The first obstacle with what goes with it; none for a job that moves or has ended."""
    match facts.state:
        case JobState.PAUSED:
            return [_paused(facts)]
        case JobState.QUEUED:
            return [_held(facts)] if facts.held else _no_step(facts)
        case JobState.FINALIZING | JobState.CANCELLING if not facts.step_held:
            if facts.leased:
                words = f"{phrases.chunks(facts.leased)} under way must end first"
                return [Obstacle(Cause.ENDING, words)]
            return lost(facts) or _no_step(facts)
        case JobState.PLANNING | JobState.RUNNING if not facts.leased:
            return _no_chunk_moves(facts)
    return []


def training_obstacles(facts: JobFacts, gang: GangFacts) -> list[Obstacle]:
    """The same for a job that trains or evaluates, which moves while its run does."""
    match facts.state:
        case JobState.PAUSED if gang.run is not None:
            why = gang.stop_reason or "paused"
            return [Obstacle(Cause.ENDING, f"its run makes a checkpoint and ends: {why}")]
        case JobState.PAUSED | JobState.QUEUED:
            return obstacles(facts)
        case JobState.PLANNING if not facts.step_held:
            return _no_step(facts)
        case JobState.CANCELLING:
            return [
                _no_control(facts) or Obstacle(Cause.ENDING, "its ranks must end first"),
            ]
        case JobState.RUNNING:
            found = _no_run(facts, gang) if gang.run is None else _of_run(facts, gang)
            return [found] if found else []
    return []


def failing(facts: JobFacts) -> Obstacle | None:
    """Chunks that failed and are tried again, whether or not others move."""
    if facts.failing == 0:
        return None
    again = "are" if facts.failing > 1 else "is"
    return Obstacle(
        Cause.FAILING,
        f"{phrases.chunks(facts.failing)} failed and {again} tried again"
        f"{phrases.in_seconds(facts.retry_at, now=facts.now)}; the last error: {facts.last_error}",
    )


def _paused(facts: JobFacts) -> Obstacle:
    under_way = f", with {phrases.chunks(facts.leased)} still under way" if facts.leased else ""
    return Obstacle(Cause.PAUSED, f"paused{under_way}; resume it with `nightshift jobs resume`")


def _held(facts: JobFacts) -> Obstacle:
    if waits := dependencies.waits_for(facts.needs):
        waiting = (need for need in facts.needs if not need.is_met and not need.is_broken)
        first = next(waiting).job_id
        return Obstacle(Cause.DEPENDENCY, waits, first)
    return _no_control(facts) or Obstacle(
        Cause.ON_THE_WAY, "the jobs that it needs have ended; control sees to it next"
    )


def _no_chunk_moves(facts: JobFacts) -> list[Obstacle]:
    if facts.pending:
        obstacle = _no_worker(facts) or _no_control(facts)
        if obstacle or facts.failing < facts.pending:
            found = [*_given(obstacle or _busy(facts)), *lost(facts), *_given(failing(facts))]
            return list(dict.fromkeys(found)) or [_on_the_way(facts)]
        return [*_given(failing(facts)), *lost(facts)]
    if facts.lost:
        return lost(facts)
    if facts.state is JobState.RUNNING:
        next_ = Obstacle(Cause.ON_THE_WAY, "every chunk is done; its outputs are written next")
        return [_no_control(facts) or next_]
    return [] if facts.step_held else _no_step(facts)


def _no_control(facts: JobFacts) -> Obstacle | None:
    last_turn = facts.control_turned_at
    if last_turn is None:
        words = "no control process has ever run; start one: `python -m workers.processes control`"
        return Obstacle(Cause.NO_CONTROL, words)
    if facts.now - last_turn > CONTROL_SILENCE:
        words = f"no control process has run since {last_turn:%Y-%m-%d %H:%M:%S} UTC; start one"
        return Obstacle(Cause.NO_CONTROL, words)
    if facts.broker_error:
        return Obstacle(Cause.BROKER, f"the broker does not answer: {facts.broker_error}")
    return None


def _no_worker(facts: JobFacts) -> Obstacle | None:
    """True of a pool whose workers are dead, and of one whose workers drain: they leave no row."""
    if facts.slots:
        return None
    last = facts.last_heard
    heard = f" ({last.name} was last heard at {phrases.clock(last.at)})" if last else ""
    return Obstacle(
        Cause.NO_WORKER,
        f"no worker of pool {facts.pool!r} takes new work{heard}; "
        "start one, or submit to another pool",
    )


def _busy(facts: JobFacts) -> Obstacle | None:
    if facts.busy_slots < facts.slots or not facts.computed:
        return None
    equal = any(job.same_project and job.priority == facts.priority for job in facts.computed)
    return Obstacle(
        Cause.BUSY,
        f"{phrases.all_of(facts.slots, 'slot')} of pool {facts.pool!r} "
        f"{phrases.are(facts.slots)} busy with "
        f"{phrases.jobs(facts.computed, than=facts.priority)}"
        f"{'; jobs of one project and priority take turns, chunk by chunk' if equal else ''}",
        phrases.first_own(facts.computed),
    )


def _on_the_way(facts: JobFacts) -> Obstacle:
    if facts.sent:
        return Obstacle(Cause.ON_THE_WAY, "its chunks are on their way to a worker")
    if facts.queued:
        first = phrases.jobs(facts.queued, than=facts.priority)
        return Obstacle(
            Cause.IN_QUEUE,
            f"the queue of pool {facts.pool!r} has chunks of {first}; its own follow in turn",
            phrases.first_own(facts.queued),
        )
    return Obstacle(
        Cause.ON_THE_WAY, f"its chunks are sent to the queue of pool {facts.pool!r} next"
    )


def lost(facts: JobFacts) -> list[Obstacle]:
    """Chunks whose workers have died, or cannot be reached, and when they are taken back."""
    if not facts.lost:
        return []
    over = [lease for lease in facts.lost if lease.ends_at < facts.now]
    if len(over) == len(facts.lost) and (obstacle := _no_control(facts)):
        return [obstacle]
    named = [_lost_lease(lease, now=facts.now) for lease in facts.lost[:MOST_NAMED]]
    if (more := len(facts.lost) - MOST_NAMED) > 0:
        named.append(f"the same is true of {more} more workers")
    return [Obstacle(Cause.LOST_WORKER, words) for words in named]


def _lost_lease(lease: LostLease, *, now: datetime) -> str:
    of_chunks = f"{phrases.chunks(lease.chunks)} of worker {lease.worker}"
    if lease.heard_at:
        of_chunks += f", which was last heard at {phrases.clock(lease.heard_at)},"
    ends_at = phrases.clock(lease.ends_at)
    if lease.ends_at < now:
        return f"the lease on {of_chunks} ran out at {ends_at}: taken back next"
    are = "are" if lease.chunks > 1 else "is"
    return f"{of_chunks} {are} taken back if the lease runs out at {ends_at}"


def _no_step(facts: JobFacts) -> list[Obstacle]:
    error = facts.step_error
    if error and (seconds := phrases.in_seconds(facts.step_not_before, now=facts.now)):
        words = f"the last try failed and will be repeated{seconds}: {error}"
        return [Obstacle(Cause.STEP_FAILED, words)]
    obstacle = _step_lost(facts) or _no_control(facts) or _no_planner(facts)
    found = obstacle or Obstacle(Cause.ON_THE_WAY, "its message is on the way to a planner")
    failed = Obstacle(Cause.STEP_FAILED, f"the last try failed: {error}") if error else None
    return [found, *_given(failed)]


def _step_lost(facts: JobFacts) -> Obstacle | None:
    lease = facts.step_lost
    if lease is None or lease.ends_at < facts.now:
        return None
    heard = f", which was last heard at {phrases.clock(lease.heard_at)}" if lease.heard_at else ""
    return Obstacle(
        Cause.LOST_WORKER,
        f"it is with planner {lease.worker}{heard}; "
        f"another takes over if the lease runs out at {phrases.clock(lease.ends_at)}",
    )


def _no_planner(facts: JobFacts) -> Obstacle | None:
    if facts.planners == 0:
        words = "no planner takes new work; start one: `python -m workers.processes planner`"
        return Obstacle(Cause.NO_PLANNER, words)
    if len(facts.planning) < facts.planners:
        return None
    return Obstacle(
        Cause.PLANNERS_BUSY,
        f"no planner is free: {phrases.all_of(facts.planners, 'planner')} "
        f"{phrases.are(facts.planners)} busy with {phrases.jobs(facts.planning)}",
        phrases.first_own(facts.planning),
    )


def _no_run(facts: JobFacts, gang: GangFacts) -> Obstacle:
    return _no_control(facts) or _backing_off(facts, gang) or _no_hosts(facts, gang)


def _of_run(facts: JobFacts, gang: GangFacts) -> Obstacle | None:
    if gang.stop_reason is not None:
        words = f"its run ends and will be taken up again: {gang.stop_reason}"
        return Obstacle(Cause.ENDING, words)
    if gang.missing:
        hosts = phrases.listed(
            f"host {host.name} (last heard at {phrases.clock(host.at)})" for host in gang.missing
        )
        words = f"lost touch with {hosts} of its run; if that lasts, the run is taken up again"
        return Obstacle(Cause.LOST_WORKER, words)
    if gang.run is RunState.FORMING:
        words = f"{gang.unclaimed} of its hosts must begin first"
        return _no_control(facts) or Obstacle(Cause.ON_THE_WAY, words)
    return None


def _backing_off(facts: JobFacts, gang: GangFacts) -> Obstacle | None:
    seconds = phrases.in_seconds(gang.not_before, now=facts.now)
    if not seconds:
        return None
    words = f"the last run was lost and is taken up again{seconds}: {gang.run_error}"
    return Obstacle(Cause.RUN_LOST, words)


def _no_hosts(facts: JobFacts, gang: GangFacts) -> Obstacle:
    pool = f"pool {facts.pool!r}"
    usable = gang.hosts - gang.refusing
    if gang.hosts == 0:
        return Obstacle(Cause.NO_HOST, _no_host(gang, pool=pool))
    if usable < gang.min_hosts:
        return Obstacle(Cause.TOO_FEW_HOSTS, _too_few(gang, pool=pool))
    if gang.giving_way and gang.idle < gang.min_hosts:
        words = f"{gang.giving_way} hosts of {pool} yield to bulk work; it begins when that is done"
        return Obstacle(Cause.HOSTS_BUSY, words)
    if gang.ahead:
        first = phrases.jobs(gang.ahead, than=facts.priority)
        words = f"it gets hosts of {pool} after {first}; {gang.idle} of {usable} hosts are idle"
        return Obstacle(Cause.HOSTS_BUSY, words, phrases.first_own(gang.ahead))
    if gang.idle < gang.min_hosts:
        words = f"it needs {gang.min_hosts} idle hosts of {pool}; {gang.idle} of {usable} are"
        return Obstacle(Cause.HOSTS_BUSY, words)
    return Obstacle(Cause.ON_THE_WAY, "its hosts are being reserved")


def _no_host(gang: GangFacts, *, pool: str) -> str:
    none = f"no training host of {pool} is alive"
    if gang.draining:
        hosts, take = phrases.all_of(gang.draining, "training host"), phrases.takes(gang.draining)
        none = f"{hosts} of {pool} {phrases.are(gang.draining)} draining and {take} no new run"
    return f"{none}; start one: `python -m workers.processes host`"


def _too_few(gang: GangFacts, *, pool: str) -> str:
    refusing = f", {gang.refusing} of which refuse to train" if gang.refusing else ""
    draining = f", and {gang.draining} that {phrases.are(gang.draining)} draining"
    return (
        f"it needs {gang.min_hosts} hosts of {pool}, which has {gang.hosts}{refusing}"
        f"{draining if gang.draining else ''}: start more, or submit it with fewer machines"
    )


def _given(obstacle: Obstacle | None) -> list[Obstacle]:
    return [] if obstacle is None else [obstacle]
