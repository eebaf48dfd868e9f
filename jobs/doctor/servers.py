"""Checks of Postgres, of what the ledger says about processes, and of Redis."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs import database
from jobs.doctor import judgement
from jobs.doctor.check_results import CheckResult, error, warning
from jobs.doctor.facts import CrewFacts, PoolFacts, PostgresFacts, RedisFacts
from jobs.doctor.resp import CommandRefused, RespConnection
from jobs.lookups import predicates
from jobs.queries import capacity, hosts, server
from jobs.settings import Settings

T = TypeVar("T")

NVIDIA = Path("/dev/nvidiactl")
"""There where the driver of an NVIDIA device is loaded, and a container was given it."""

_ADVICE = (  # a part of what libpq says, and what to do
    ("password authentication failed", "correct the user and password in NIGHTSHIFT_DATABASE_URL"),
    ("no password supplied", "put the password into NIGHTSHIFT_DATABASE_URL"),
    ("does not exist", "make that database or role, or correct NIGHTSHIFT_DATABASE_URL"),
    ("too many connections", "raise max_connections, or start fewer processes"),
    ("SSL", "correct `sslmode` in NIGHTSHIFT_DATABASE_URL"),
)
_UNREACHABLE = "start Postgres, or correct host and port in NIGHTSHIFT_DATABASE_URL"
_LOG_IN = ("WRONGPASS", "NOAUTH", "invalid password", "AUTH")


def postgres(settings: Settings) -> list[CheckResult]:
    """Whether it answers, its version, its clock, and that of the schema."""
    before = time.time()
    try:
        found = _ask(settings, server.look)
    except (sa.exc.SQLAlchemyError, ValueError) as failure:
        return [error("postgres", _reason(failure), _advice(str(failure)))]
    here = (before + time.time()) / 2
    facts = PostgresFacts(
        version=found.version,
        major=found.number // 10_000,
        read_only=found.read_only,
        skew_seconds=found.now.timestamp() - here,
        connections=found.connections,
        most_connections=found.most_connections,
        revision=found.revision,
        revisions=database.revisions(),
    )
    return [*judgement.postgres(facts), judgement.migrations(facts)]


def crew(settings: Settings) -> list[CheckResult]:
    """Control, planners and workers, as they were last heard by the ledger."""
    try:
        return list(judgement.crew(_ask(settings, _crew)))
    except (sa.exc.SQLAlchemyError, ValueError):
        advice = "see what the checks of postgres and migrations say"
        return [error("workers", "the ledger cannot be read", advice)]


def redis(settings: Settings, *, seconds: float) -> list[CheckResult]:
    """Whether it answers, its version, and what it does when it is full."""
    try:
        with RespConnection(settings.redis_url, seconds=seconds) as connection:
            return list(judgement.redis(_redis(connection)))
    except CommandRefused as refused:
        return [_refused(str(refused))]
    except ValueError as failure:
        return [warning("redis", str(failure), "see NIGHTSHIFT_REDIS_URL")]
    except OSError as failure:
        advice = "start Redis or Valkey, or correct host and port in NIGHTSHIFT_REDIS_URL"
        return [error("redis", f"it does not answer: {failure}", advice)]


def _refused(words: str) -> CheckResult:
    if words.startswith("NOPERM"):
        advice = "let this user run INFO, or look at `maxmemory-policy` yourself"
        return warning("redis", f"it does not let this user ask: {words}", advice)
    if any(part in words for part in _LOG_IN):
        return error(
            "redis",
            f"it does not let this user in: {words}",
            "correct the user and password in NIGHTSHIFT_REDIS_URL",
        )
    return error("redis", f"it refuses: {words}", "see its log, and NIGHTSHIFT_REDIS_URL")


def _ask(settings: Settings, question: Callable[[Session], T]) -> T:
    """One transaction on an engine of its own."""
    engine = database.connect(settings.database_url, pool_size=1, name="nightshift-doctor")
    try:
        with database.sessions(engine).begin() as session:
            return question(session)
    finally:
        engine.dispose()


def _reason(failure: Exception) -> str:
    cause = getattr(failure, "orig", None) or failure
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return f"it cannot be used: {lines[0] if lines else type(cause).__name__}"


def _advice(words: str) -> str:
    return next((advice for part, advice in _ADVICE if part in words), _UNREACHABLE)


def _crew(session: Session) -> CrewFacts:
    around, now = capacity.look(session), server.look(session).now
    workers = [
        (worker.pool, worker.beat_at, worker.slots, worker.device)
        for worker in capacity.workers(session)
        if worker.pool != capacity.PLANNERS
    ]
    agents = [
        (view.host.pool, view.host.beat_at, 1, view.host.device)
        for view in hosts.listing(session, project_id="")
    ]
    return CrewFacts(
        now=now,
        control_turned_at=around.control_turned_at,
        broker_error=around.broker_error,
        planners=around.slots(capacity.PLANNERS),
        pools=list(_pools(workers, alive_after=now - predicates.SILENCE)),
        hosts=list(_pools(agents, alive_after=now - predicates.SILENCE)),
        accelerator_here=NVIDIA.exists(),
    )


_Member = tuple[str, datetime, int, str]
"""Pool, last heartbeat, slots, device."""


def _pools(members: list[_Member], *, alive_after: datetime) -> Iterator[PoolFacts]:
    by_pool: dict[str, list[_Member]] = defaultdict(list)
    for member in members:
        by_pool[member[0]].append(member)
    for name, found in sorted(by_pool.items()):
        alive = [member for member in found if member[1] > alive_after]
        yield PoolFacts(
            name=name,
            alive=len(alive),
            slots=sum(member[2] for member in alive),
            devices=[member[3] for member in alive],
            last_heard=max(member[1] for member in found),
        )


def _redis(connection: RespConnection) -> RedisFacts:
    about = connection.info("server")
    memory = connection.info("memory")
    persistence = connection.info("persistence")
    is_valkey = "valkey_version" in about
    version = about.get("valkey_version") or about.get("redis_version", "0")
    return RedisFacts(
        name=f"{'Valkey' if is_valkey else 'Redis'} {version}",
        version=tuple(int(part) for part in version.split(".") if part.isdecimal()),
        replica=connection.info("replication").get("role") == "slave",
        memory=int(memory.get("used_memory", 0)),
        most_memory=int(memory.get("maxmemory", 0)),
        policy=memory.get("maxmemory_policy", ""),
        keeps=persistence.get("aof_enabled") == "1" or _snapshots(connection),
        save_failed=persistence.get("rdb_last_bgsave_status", "ok") != "ok",
    )


def _snapshots(connection: RespConnection) -> bool | None:
    """Whether it writes snapshots; ``None``: it does not tell, as many managed ones do not."""
    try:
        answer = connection.ask("CONFIG", "GET", "save")
    except CommandRefused:
        return None
    return bool(answer[1]) if isinstance(answer, list) and len(answer) > 1 else None
