"""One turn of control: what there is to do, and the parts that do it.

Each part is a small transaction that returns how many things it did.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, MutableMapping
from datetime import timedelta

import structlog

from jobs.database import Sessions
from jobs.decisions import dispatch_window, fair_share
from jobs.ledger import controls, dependencies, dispatch_marks, findings, workers
from jobs.ledger.dispatch_marks import Sent, SentStep
from jobs.ledger.rescue import rescue_expired
from jobs.lookups import clock
from jobs.queries import capacity, dispatch, failed_rows, pending_work
from jobs.queries.pending_work import Wanted
from jobs.settings import Settings
from jobs.states import JobStep
from workers.control.publisher import Publisher
from workers.control.served import ServedCounts

log = structlog.get_logger()

FORGET_SECONDS = 600.0


def look(sessions: Sessions) -> Wanted:
    """What there is to do."""
    with sessions.begin() as session:
        return pending_work.look(session)


def expire(sessions: Sessions) -> int:
    """End jobs whose deadline has passed."""
    with sessions.begin() as session:
        return controls.expire(session)


def settle(sessions: Sessions, *, limit: int = 100) -> int:
    """Let jobs go whose needs are met, and end those whose needs cannot be met any more."""
    with sessions.begin() as session:
        due = dependencies.due(session, limit=limit)
    return sum(_settle(sessions, job_id) for job_id in due)


def _settle(sessions: Sessions, job_id: str) -> bool:
    """In a transaction of its own: the job's row is locked in it."""
    with sessions.begin() as session:
        return dependencies.settle(session, job_id)


def rescue(sessions: Sessions) -> int:
    """Take chunks back from workers that went silent."""
    with sessions.begin() as session:
        rescued = rescue_expired(session)
    if rescued.chunks:
        log.warning("chunks taken back from silent workers", **dataclasses.asdict(rescued))
    return rescued.chunks


def fail_jobs_over_their_limit(sessions: Sessions) -> int:
    """End the jobs of which more rows failed than ``max_failed`` allows."""
    with sessions.begin() as session:
        suspects = failed_rows.suspects(session)
    return sum(_fail_over_limit(sessions, job_id) for job_id in suspects)


def _fail_over_limit(sessions: Sessions, job_id: str) -> bool:
    """In a transaction of its own: the job's row is locked in it."""
    with sessions.begin() as session:
        ended = findings.fail_if_too_many_rows_failed(session, job_id)
    if ended:
        log.warning("a job ends: too many of its rows failed", job_id=job_id)
    return ended


def begin_finalizing(sessions: Sessions, *, limit: int = 100) -> int:
    """Move jobs on whose last chunk is done."""
    with sessions.begin() as session:
        computed = dispatch.computed(session, limit=limit)
        return sum(dispatch_marks.begin_finalizing(session, job_id) for job_id in computed)


def forget_workers(sessions: Sessions) -> int:
    """Drop workers from the record that have been silent for minutes."""
    with sessions.begin() as session:
        return workers.forget_silent(session, seconds=FORGET_SECONDS)


def dispatch_steps(sessions: Sessions, publisher: Publisher, *, settings: Settings) -> int:
    """Send messages for jobs that want planning or finalizing."""
    queued = publisher.queued_steps()
    sent: list[SentStep] = []
    with sessions.begin() as session:
        now = clock.now(session)
        wait = settings.redispatch if queued else min(settings.redispatch, dispatch_window.SETTLING)
        free = max(0, settings.dispatch_window - queued)
        for step in (JobStep.FINALIZE, JobStep.PLAN):
            candidates = dispatch.step_candidates(
                session,
                step=step,
                limit=settings.dispatch_window,
                resend_before=now - wait,
            )
            sent += [
                dispatch_marks.mark_step(session, job_id, step=step)
                for job_id in fair_share.share_out(candidates, free=free - len(sent))
            ]
    for each in sent:
        publisher.send_step(each)
    return len(sent)


def dispatch_chunks(
    sessions: Sessions,
    publisher: Publisher,
    *,
    settings: Settings,
    served: MutableMapping[str, ServedCounts],
) -> int:
    """Top up every pool's queue to its window; ``served`` by pool."""
    with sessions.begin() as session:
        pools = dispatch.pools(session)
        slots = capacity.slots_by_pool(session)
    return sum(
        _top_up(
            sessions,
            publisher,
            pool=pool,
            size=max(settings.dispatch_window, 2 * slots.get(pool, 0)),
            redispatch=settings.redispatch,
            served=served.setdefault(pool, ServedCounts()),
        )
        for pool in pools
    )


def _top_up(
    sessions: Sessions,
    publisher: Publisher,
    *,
    pool: str,
    size: int,
    redispatch: timedelta,
    served: ServedCounts,
) -> int:
    queued = publisher.queued_chunks(pool)
    with sessions.begin() as session:
        if queued >= size and not dispatch.may_be_out_of_turn(session, pool=pool):
            return 0
        candidates = served.counted(dispatch.candidates(session, pool=pool, limit=size))
        recall = fair_share.is_out_of_turn(candidates, queued=queued)
        if recall:
            dispatch_marks.unmark_chunks(session, pool=pool)
            candidates = served.recalled(candidates)
        window = dispatch_window.open_window(
            now=clock.now(session),
            size=size,
            queued=0 if recall else queued,
            outstanding=sum(job.sent for job in candidates),
            redispatch=redispatch,
        )
        if window.resend_before:
            candidates = served.counted(
                dispatch.candidates(
                    session, pool=pool, limit=size, resend_before=window.resend_before
                )
            )
        order = fair_share.share_out(candidates, free=window.free)
        marked = dispatch_marks.mark_chunks(
            session, Counter(order), resend_before=window.resend_before
        )
    served.sent(order)
    if recall:
        publisher.empty_pool_queue(pool)
        log.debug("a queue is filled again: a job goes before what was in it", pool=pool)
    sent = _in_order(order, marked)
    publisher.send_chunks(pool, sent)
    return max(0, len(sent) - queued) if recall else len(sent)


def _in_order(order: Iterable[str], marked: Mapping[str, list[Sent]]) -> list[Sent]:
    """Chunks in the order of the grants; another process may have taken some meanwhile."""
    chunks = {job_id: iter(sent) for job_id, sent in marked.items()}
    found = (next(chunks[job_id], None) for job_id in order)
    return [sent for sent in found if sent is not None]
