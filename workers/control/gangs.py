"""The parts of a turn that concern training: runs are judged and stopped, gangs formed."""

from __future__ import annotations

import structlog
from sqlalchemy.orm import Session

from jobs.database import Sessions
from jobs.decisions import gang_scheduling, run_verdict
from jobs.decisions.gang_scheduling import Formation
from jobs.decisions.run_verdict import RankFacts
from jobs.kinds import TRAINING
from jobs.ledger import hosts, ranks, runs
from jobs.lookups import clock
from jobs.queries import gangs as facts
from jobs.settings import Settings
from jobs.tables import Run
from workers.control.publisher import Publisher

log = structlog.get_logger()

FORGET_SECONDS = 600.0
PEER_FAILED = "another rank of the run failed"


def judge_runs(sessions: Sessions, *, settings: Settings, rescuing: bool) -> int:
    """End silent ranks, if this turn rescues, and runs whose ranks have ended."""
    with sessions.begin() as session:
        live = facts.live_runs(session)
        found = facts.ranks(session, [run.id for run in live])
    if rescuing:
        for run in live:
            _end_silent(sessions, run, found[run.id], settings=settings)
    return sum(_judge(sessions, run, settings=settings) for run in live)


def stop_runs(sessions: Sessions) -> int:
    """Ask runs to end whose job is not to run any more, or whose host goes away."""
    with sessions.begin() as session:
        return sum(
            runs.request_stop(session, run_id, how=how, reason=reason)
            for run_id, how, reason in facts.unwanted(session)
        )


def form_gangs(sessions: Sessions) -> int:
    """Reserve idle hosts for the jobs that are next; make room for those of higher priority."""
    with sessions.begin() as session:
        pools = facts.pools(session)
    return sum(_form_in_pool(sessions, pool=pool) for pool in pools)


def give_way(sessions: Sessions) -> int:
    """Stop runs on hosts that yield to a bulk pool which has work."""
    with sessions.begin() as session:
        return sum(
            runs.request_stop(
                session, run_id, how="checkpoint", reason="the bulk pool of its host has work"
            )
            for run_id in facts.yielding(session)
        )


def end_cancelled(sessions: Sessions) -> int:
    """End training jobs that were cancelled, once their ranks are gone."""
    with sessions.begin() as session:
        return runs.end_cancelled(session, kinds=sorted(TRAINING))


def dispatch_ranks(sessions: Sessions, publisher: Publisher, *, settings: Settings) -> int:
    """Send messages to the hosts of new gangs, and again where one was not acted on."""
    with sessions.begin() as session:
        messages = facts.undispatched_ranks(session, resend_after=settings.redispatch)
        for message in messages:
            ranks.mark_dispatched(session, message.run_id, message.rank)
    for message in messages:
        publisher.send_rank(message)
    return len(messages)


def forget_hosts(sessions: Sessions, publisher: Publisher) -> int:
    """Drop hosts from the record that have been silent for minutes, and their queues."""
    with sessions.begin() as session:
        names = hosts.forget_silent(session, seconds=FORGET_SECONDS)
    for name in names:
        publisher.drop_host_queue(name)
    return len(names)


def _end_silent(
    sessions: Sessions, run: Run, found: list[RankFacts], *, settings: Settings
) -> None:
    with sessions.begin() as session:
        now = clock.now(session)
        for rank in found:
            outcome = run_verdict.overdue(
                rank, now=now, formed_at=run.created_at, forming=settings.forming
            )
            if outcome is not None:
                hosts.doubt(session, rank.host)
                ranks.end_overdue(session, run.id, rank.rank, outcome)


def _judge(sessions: Sessions, run: Run, *, settings: Settings) -> int:
    with sessions.begin() as session:
        ranks_now = facts.ranks(session, [run.id])[run.id]
        current = facts.run(session, run.id)  # it may have been asked to stop meanwhile
        return _end(session, current, ranks_now, settings=settings)


def _end(session: Session, run: Run, found: list[RankFacts], *, settings: Settings) -> int:
    if run_verdict.has_failed_rank(found) and run.stop != "now":
        runs.request_stop(session, run.id, how="now", reason=PEER_FAILED)
        return 1
    verdict = run_verdict.judge(found, stop_reason=run.stop_reason)
    if verdict is None:
        return 0
    concluded = runs.conclude(
        session,
        run.id,
        verdict,
        most_faults=settings.train_faults,
        most_errors=settings.train_errors,
    )
    if concluded:  # else it has succeeded since its ranks were looked at
        fields = {"state": verdict.state, "reason": verdict.reason, "rank": verdict.rank}
        log.info("a run has ended", run=run.id, job_id=run.job_id, **fields)
    return int(concluded)


def _form_in_pool(sessions: Sessions, *, pool: str) -> int:
    with sessions.begin() as session:
        requests = facts.requests(session, pool=pool)
        there = facts.hosts(session, pool=pool)
        holdings = facts.holdings(session, pool=pool)
    formation = gang_scheduling.place_gangs(
        requests, idle=there.idle, alive=there.alive, holdings=holdings
    )
    did = 0
    for gang in formation.gangs:
        with sessions.begin() as session:
            did += runs.form(session, gang.job_id, gang.hosts) is not None
    return did + _make_room(sessions, formation, idle=len(there.idle), holdings=holdings)


def _make_room(
    sessions: Sessions, formation: Formation, *, idle: int, holdings: list[gang_scheduling.Holding]
) -> int:
    request = formation.blocked
    if request is None:
        return 0
    left = idle - sum(len(gang.hosts) for gang in formation.gangs)
    victims = gang_scheduling.preempt(request, idle=left, holdings=holdings)
    reason = f"its hosts are wanted by {request.job_id}, which has a higher priority"
    with sessions.begin() as session:
        return sum(
            runs.request_stop(session, run_id, how="checkpoint", reason=reason)
            for run_id in victims
        )
