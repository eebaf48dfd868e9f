"""Facts judged: pure functions, each with one line on what to do."""

from __future__ import annotations

from collections.abc import Iterator

from jobs.decisions import phrases
from jobs.decisions.waiting_reason import CONTROL_SILENCE
from jobs.doctor.check_results import CheckResult, error, ok, warning
from jobs.doctor.facts import (
    ApiFacts,
    CrewFacts,
    FolderFacts,
    PoolFacts,
    PostgresFacts,
    RedisFacts,
)

LEAST_POSTGRES = 14
"""``range_agg``, by which the time of a job is added up."""
LEAST_REDIS = (7,)
"""The oldest that anyone still supports; tests run with Valkey 9."""

DOUBTFUL_SKEW, BROKEN_SKEW = 2.0, 300.0
"""Seconds between two clocks. Leases go by the clock of Postgres alone; S3 refuses signatures that
are some minutes off."""
DATE_SKEW = 3.0
"""The same of an HTTP date, which has whole seconds."""

FULL, SCARCE = 0.9, 2**30
"""A share of a limit, and free bytes of a disk, behind which work may stop."""
ROOMY = 10 * 2**30

_OTHERS = 0o077
"""The bits of a mode that let other accounts in."""


def postgres(facts: PostgresFacts) -> Iterator[CheckResult]:
    """Version, role and connections."""
    check = "postgres"
    if facts.major < LEAST_POSTGRES:
        yield error(
            check,
            f"{facts.version} is too old",
            f"upgrade it to PostgreSQL {LEAST_POSTGRES} or later",
        )
    elif facts.read_only:
        yield error(
            check,
            f"{facts.version} is a standby, which takes no writes",
            "name the primary in NIGHTSHIFT_DATABASE_URL",
        )
    elif facts.connections > FULL * facts.most_connections:
        yield warning(
            check,
            f"{facts.connections} of {facts.most_connections} connections are in use",
            "raise max_connections, or start fewer processes",
        )
    else:
        yield ok(check, f"{facts.version} answers")
    yield clock("postgres clock", facts.skew_seconds)


def migrations(facts: PostgresFacts) -> CheckResult:
    """Whether schema and code fit."""
    check, newest = "migrations", facts.revisions[0]
    migrate = "run `python -m jobs.database migrate`"
    if facts.revision is None:
        return error(check, "the database has no schema yet", migrate)
    if facts.revision == newest:
        return ok(check, f"the schema is at {newest}, the newest that this version knows")
    if facts.revision in facts.revisions:
        behind = phrases.counted(facts.revisions.index(facts.revision), "migration")
        return error(check, f"the schema is at {facts.revision}, {behind} behind", migrate)
    return warning(
        check,
        f"the schema is at {facts.revision}, which this version does not know: it is older",
        "upgrade Nightshift on this machine",
    )


def clock(check: str, skew: float, *, doubtful: float = DOUBTFUL_SKEW) -> CheckResult:
    """How far another clock is from this machine's."""
    advice = "let both machines keep time by NTP"
    ahead = "ahead of" if skew > 0 else "behind"
    if abs(skew) < doubtful:
        return ok(check, f"it differs from this machine's by less than {doubtful:.0f} s")
    sentence = f"it is {abs(skew):,.0f} s {ahead} this machine's"
    return (error if abs(skew) > BROKEN_SKEW else warning)(check, sentence, advice)


def redis(facts: RedisFacts) -> Iterator[CheckResult]:
    """Version, role, what it does when it is full, and what it keeps."""
    check = "redis"
    if facts.replica:
        yield error(
            check,
            f"{facts.name} is a replica, which takes no writes",
            "name the primary in NIGHTSHIFT_REDIS_URL",
        )
    elif facts.version < LEAST_REDIS:
        yield warning(
            check,
            f"{facts.name} is older than any that is supported",
            "upgrade it: tests run with Valkey 9",
        )
    else:
        yield ok(check, f"{facts.name} answers")
    yield _policy(facts)
    yield _persistence(facts)


def _policy(facts: RedisFacts) -> CheckResult:
    check = "redis policy"
    advice = "set `maxmemory-policy noeviction`"
    if facts.policy not in ("noeviction", ""):
        at = "once it has a limit of memory" if not facts.most_memory else "when it is full"
        return (error if facts.most_memory else warning)(
            check, f"{facts.policy}: it drops queues of messages {at}", advice
        )
    if facts.most_memory and facts.memory > FULL * facts.most_memory:
        return warning(
            check,
            f"{facts.memory / facts.most_memory:.0%} of its memory is in use: it soon refuses "
            "messages",
            "raise `maxmemory`, and see what else uses this server",
        )
    if not facts.policy:
        return warning(check, "it does not tell its policy", f"{advice}, if it is not set")
    return ok(check, "noeviction: it drops nothing")


def _persistence(facts: RedisFacts) -> CheckResult:
    check = "redis persistence"
    if facts.save_failed:
        return error(
            check,
            "its last snapshot failed, and it may refuse writes because of that",
            'make room on its disk, or set `save ""`: nothing that it holds is missed',
        )
    if facts.keeps:
        return ok(check, "it writes to disk, which costs time and is not needed")
    if facts.keeps is None:
        return ok(check, "it does not tell whether it writes to disk; it need not")
    return ok(check, "it keeps nothing on disk; what it loses is sent again")


def folder(facts: FolderFacts) -> Iterator[CheckResult]:
    """Permissions and free space."""
    check = facts.purpose
    if facts.problem:
        yield error(
            check,
            f"{facts.path} cannot be written: {facts.problem}",
            "let the account of the processes write there, or name another folder",
        )
        return
    mode = facts.mode or 0  # of one that is not there yet
    is_open = facts.private and bool(mode & _OTHERS)
    if is_open:
        yield warning(
            check,
            f"{facts.path} is open to other accounts (mode {mode:04o})",
            f"run `chmod 700 {facts.path}`",
        )
    free = _size(facts.free)
    advice = "make room, or name a folder on another disk"
    if facts.free < SCARCE:
        yield error(check, f"the disk of {facts.path} has {free} left", advice)
    elif facts.free < ROOMY:
        yield warning(check, f"the disk of {facts.path} has {free} left", advice)
    elif not is_open:
        yield ok(check, f"{facts.path} can be written; {free} are free")


def crew(facts: CrewFacts) -> Iterator[CheckResult]:
    """Control, planners, and the workers of each pool."""
    yield _control(facts)
    if facts.planners:
        yield ok("planners", f"{phrases.counted(facts.planners, 'planner')} alive")
    else:
        yield error(
            "planners", "no planner is alive", "start one: `python -m workers.processes planner`"
        )
    if not facts.pools and not facts.hosts:
        yield error(
            "workers",
            "no worker has ever been here",
            "start one: `python -m workers.processes pool`",
        )
    for pool in facts.pools:
        yield _pool(f"pool {pool.name}", pool, setting="NIGHTSHIFT_POOL", role="pool")
    for pool in facts.hosts:
        yield _pool(f"hosts {pool.name}", pool, setting="NIGHTSHIFT_HOST_POOL", role="host")
    yield from _accelerator(facts)


def _control(facts: CrewFacts) -> CheckResult:
    check, start = "control", "start one: `python -m workers.processes control`"
    if facts.control_turned_at is None:
        return error(check, "no control process has ever run", start)
    if facts.now - facts.control_turned_at > CONTROL_SILENCE:
        last = f"{facts.control_turned_at:%Y-%m-%d %H:%M:%S} UTC"
        return error(check, f"no control process has run since {last}", start)
    if facts.broker_error:
        return error(
            check,
            f"control does not reach the broker: {facts.broker_error}",
            "see what the checks of redis say, on the machine of control",
        )
    return ok(check, "a control process leads")


def _pool(check: str, facts: PoolFacts, *, setting: str, role: str) -> CheckResult:
    if facts.alive:
        devices = ", ".join(sorted(set(facts.devices)))
        alive = f"{facts.alive} alive with {phrases.counted(facts.slots, 'slot')} on {devices}"
        return ok(check, alive)
    last = f"{facts.last_heard:%Y-%m-%d %H:%M:%S} UTC"
    return warning(
        check,
        f"none is alive; the last was heard at {last}",
        f"start one: `{setting}={facts.name} python -m workers.processes {role}`",
    )


def _accelerator(facts: CrewFacts) -> Iterator[CheckResult]:
    """A device that no process uses: a driver or a container without it is the usual reason."""
    if not facts.accelerator_here:
        return
    used = {device for each in (*facts.pools, *facts.hosts) for device in each.devices}
    if any(device not in ("cpu", "none") for device in used):
        yield ok("device", f"workers and hosts use {', '.join(sorted(used))}")
    else:
        yield warning(
            "device",
            "this machine has an NVIDIA device, and no worker or host alive uses one",
            "give the worker the device (`--gpus all`, `NIGHTSHIFT_WORKER_DEVICES`), and see "
            "`nvidia-smi` and the build of torch",
        )


def api(facts: ApiFacts) -> Iterator[CheckResult]:
    """Whether it is ready, of this version, and takes the key."""
    check = "api"
    if not facts.ready:
        yield error(
            check,
            f"{facts.url} answers, and its database does not",
            "see what the check of postgres says, on the machine of the API",
        )
    elif facts.version != facts.own_version:
        yield warning(
            check,
            f"{facts.url} is version {facts.version}, this one is {facts.own_version}",
            "upgrade the older of the two",
        )
    else:
        yield ok(check, f"{facts.url} answers, version {facts.version}")
    if facts.key_valid is False:
        yield error(
            "api key",
            "the API does not know this key",
            "set NIGHTSHIFT_API_KEY to a valid one: `python -m jobs.database ensure-key` makes one",
        )
    elif facts.key_valid is None:
        yield warning("api key", "there is no key to try", "set NIGHTSHIFT_API_KEY")
    else:
        yield ok("api key", "it is valid")
    if facts.skew_seconds is not None:
        yield clock("api clock", facts.skew_seconds, doubtful=DATE_SKEW)


def _size(amount: int) -> str:
    return f"{amount / 2**30:,.1f} GiB"
