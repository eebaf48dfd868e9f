"""Seeing a pool process die, and saying so at once instead of waiting for its lease to run out."""

from __future__ import annotations

import threading
from typing import Any

import structlog
from billiard.exceptions import WorkerLostError
from sqlalchemy.exc import SQLAlchemyError

from jobs.ledger import rescue
from jobs.monitoring import catalogue, meters
from workers import context, endings, outcomes, process_names, time_limits
from workers.outcomes import OutcomeRequest, OutcomeTask

log = structlog.get_logger()


class ChunkRequest(OutcomeRequest):
    """A chunk's message as the parent process sees it; knows which process took it."""

    def on_failure(self, exc_info: Any, *args: Any, **kwargs: Any) -> Any:
        """Report the death of the pool process."""
        result = super().on_failure(exc_info, *args, **kwargs)
        error = outcomes.raised(exc_info)
        died = isinstance(error, WorkerLostError) and not endings.reason(self.worker_pid)
        if died and self.worker_pid:
            meters.add(catalogue.PROCESS_DEATHS)
            thread = threading.Thread(  # the event loop must not wait for Postgres
                target=report, args=(self.args[0], self.worker_pid, str(error))
            )
            thread.start()
        return result


class ChunkTask(OutcomeTask):
    """Makes Celery use ``ChunkRequest``."""

    Request = f"{ChunkRequest.__module__}:{ChunkRequest.__qualname__}"


def report(chunk_id: int, pid: int, reason: str) -> None:
    """Count the crash against the chunk, if that process still holds it."""
    owner, phase = process_names.owner(pid), time_limits.last_phase(pid)
    try:
        with context.get().sessions.begin() as session:
            if phase is None:
                verdict = rescue.report_crash(session, chunk_id, owner=owner, reason=reason)
            else:
                verdict = rescue.report_load_death(
                    session,
                    chunk_id,
                    owner=owner,
                    phase=phase,
                    timed_out=any(stop in reason for stop in time_limits.Stop),
                    reason=reason,
                )
    except SQLAlchemyError as error:
        log.warning("a crash could not be reported, its lease will run out", error=str(error))
        return
    log.warning("a worker process died", chunk=chunk_id, pid=pid, verdict=verdict, reason=reason)
