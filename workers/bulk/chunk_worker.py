"""One chunk: claim, work, commit (promises P2, P3 and P4).

``jobs.decisions.faults`` classifies each fault. A fault of a row makes an error row. A fault of the
job fails the job. After a transient fault the chunk is released and tried again, up to a limit. The
parent process, or control after the lease has expired, counts a crash.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta

import pyarrow as pa
import structlog
from sqlalchemy.orm import Session

from jobs import database
from jobs.decisions import faults
from jobs.decisions.faults import Blame, Diagnosis, Stage
from jobs.errors import Damaged, ModelFailure
from jobs.ledger import chunks, orders
from jobs.ledger.chunks import ChunkLease, PartRecord
from jobs.monitoring.catalogue import ChunkStage
from jobs.progress import Beat, MeteredBeat, WorkMeter
from jobs.queries import unclaimed
from jobs.queries.unclaimed import Unclaimed
from jobs.results import parts
from jobs.results.schemas import result_schema
from jobs.row_codes import RowCode
from jobs.states import JobState
from workers import draining, heartbeat, lease_renewer, outcomes, time_limits
from workers.bulk import chunk_metrics, result_table
from workers.bulk.chunk_metrics import StageTimes
from workers.context import Context
from workers.inference import row_isolation
from workers.inference.batching.tokenization import PairedText, RowText
from workers.inference.engine import Answer, Engine, RowError
from workers.inference.engine_cache import EngineCache
from workers.lease_renewer import LeaseRenewer
from workers.outcomes import DONE, Outcome, TaskState
from workers.step_lease import PROCESS_EXITS

log = structlog.get_logger()


CLAIM_PATIENCE = 10.0
COMMIT_PATIENCE = 120.0
"""Seconds that a finished chunk waits for Postgres: the fence makes a late commit safe."""

REPORT = timedelta(seconds=5)
"""Time between two reports of how much of a chunk is done, which come with renewals."""

DEVICE_FAILED = 71
"""Exit status of a process that lost its accelerator (EX_OSERR)."""

_WORKABLE_STATES = (JobState.PLANNING, JobState.RUNNING, JobState.PAUSED)


def run(chunk_id: int, *, context: Context) -> Outcome:
    """Claim the chunk and run it; the outcome is for the log and for Flower."""
    times = StageTimes()
    with times.timed(ChunkStage.CLAIM):
        lease = database.patiently(
            context.sessions,
            lambda s: chunks.claim(
                s, chunk_id, owner=context.owner, duration=context.settings.lease_duration
            ),
            seconds=CLAIM_PATIENCE,
        )
    if lease is None:
        return _unclaimed(chunk_id, context=context)
    outcome = _run_claimed(lease, times=times, context=context)
    log.info("chunk ended", job_id=lease.job_id, chunk=lease.chunk_id, outcome=outcome.words)
    return outcome


def _unclaimed(chunk_id: int, *, context: Context) -> Outcome:
    return outcomes.unclaimed(_why_not_ours(chunk_id, context=context))


def _why_not_ours(chunk_id: int, *, context: Context) -> Unclaimed:
    return database.patiently(
        context.sessions,
        lambda session: unclaimed.of_chunk(session, chunk_id),
        seconds=CLAIM_PATIENCE,
    )


def _run_claimed(lease: ChunkLease, *, times: StageTimes, context: Context) -> Outcome:
    try:
        _work(lease, times=times, context=context)
    except PROCESS_EXITS:
        _release(lease, context=context)
        raise
    except BaseException as error:  # a panic of a Rust library is no Exception
        diagnosis = faults.diagnose(error, stage=Stage.CHUNK)
        if diagnosis.blame is Blame.ENGINE:
            log.exception("a chunk failed", job_id=lease.job_id, chunk=lease.chunk_id)
        outcome = _release_after_fault(lease, diagnosis, context=context)
        if error.__cause__ is not None and row_isolation.is_of_device(error.__cause__):
            log.exception("the device failed, this process ends itself", chunk=lease.chunk_id)
            os._exit(DEVICE_FAILED)  # the lease is released: no chunk counts a crash
        return outcome
    return DONE


def _release_after_fault(lease: ChunkLease, diagnosis: Diagnosis, *, context: Context) -> Outcome:
    """Release the chunk or fail its job.

    If Postgres stays away for longer than the patience, the lease runs out instead.
    """
    recorded = diagnosis
    if diagnosis.blame is not Blame.LEASE:
        rows = f"rows {lease.first_row} to {lease.first_row + lease.rows - 1}"
        message = f"{diagnosis.message} ({rows}, on worker {context.owner})"
        recorded = dataclasses.replace(diagnosis, message=message)
    job_failed = database.patiently(
        context.sessions,
        lambda session: chunks.release_after_fault(
            session, lease, recorded, limits=context.settings.limits
        ),
        seconds=COMMIT_PATIENCE,
    )
    if job_failed:
        return Outcome(TaskState.FAILED, f"failed the job: {diagnosis.message}")
    if diagnosis.blame is Blame.LEASE:
        why = _why_not_ours(lease.chunk_id, context=context)
        return outcomes.stopped(why, diagnosis.message)
    return Outcome(TaskState.POSTPONED, f"released: {diagnosis.message}")


def _work(lease: ChunkLease, *, times: StageTimes, context: Context) -> None:
    stall = timedelta(seconds=context.settings.stall_seconds)
    meter = WorkMeter()
    with LeaseRenewer(
        _renewal(lease, meter, context=context),
        duration=context.settings.lease_duration,
        stall=stall,
        every=min(REPORT, context.settings.lease_duration / 3),
        release_reason=draining.overdue,
    ) as renewer:
        with times.timed(ChunkStage.READ):
            rows = parts.read_rows(
                context.store, lease.shard_key, offset=lease.offset, rows=lease.rows
            )
            good = _good_results(lease, context=context)
        beat = MeteredBeat(renewer.beat, meter)
        results, seconds = _compute_missing(
            lease, rows, good=good, beat=beat, times=times, context=context
        )
        with times.timed(ChunkStage.WRITE):
            table = result_table.table(
                rows,
                results,
                schema=result_schema(
                    lease.spec.result_columns,
                    width=lease.embedding_width,
                    with_source=not lease.spec.corpus.is_single,
                ),
                earlier=good,
                keep_text=lease.spec.output.keep_text,
            )
            part = _write(lease, table, results, seconds=seconds, context=context)
        part = dataclasses.replace(part, elapsed_seconds=meter.seconds)
        renewer.beat()
        with times.timed(ChunkStage.COMMIT):
            _commit(lease, part, table, context=context)
    computed = table.num_rows - len(good)
    settings = context.settings
    chunk_metrics.count(lease, part, computed=computed, times=times, meter=meter, settings=settings)


def _renewal(lease: ChunkLease, meter: WorkMeter, *, context: Context) -> Callable[[], str | None]:
    def renew() -> str | None:
        with context.sessions.begin() as session:
            state = chunks.renew(
                session, lease, duration=context.settings.lease_duration, work=meter
            )
            if state is None:
                return _why_lost(session, lease)
        return None if state in _WORKABLE_STATES else f"the job is {state}"

    return renew


def _why_lost(session: Session, lease: ChunkLease) -> str:
    released_by = orders.releaser(session, lease.chunk_id, fence=lease.fence)
    if released_by is not None:
        return f"{released_by} released the chunk in Flower"
    return lease_renewer.lost(f"chunk {lease.chunk_id} was taken over from fence {lease.fence}")


def _good_results(lease: ChunkLease, *, context: Context) -> dict[int, dict[str, object]]:
    """On a retry, the results of the earlier part that are no errors, by row number."""
    if lease.retried_part is None:
        return {}
    try:
        earlier = parts.read_object(context.store, lease.retried_part, sha256=lease.retried_sha256)
    except Damaged as damage:
        log.warning("all rows are computed again", chunk=lease.chunk_id, reason=damage.message)
        return {}
    return {row["row"]: row for row in earlier.to_pylist() if row["error_code"] is None}


def _compute_missing(
    lease: ChunkLease,
    rows: pa.Table,
    *,
    good: dict[int, dict[str, object]],
    beat: MeteredBeat,
    times: StageTimes,
    context: Context,
) -> tuple[Mapping[int, Answer | RowError], float]:
    """Results of the rows that have a text and no good result yet, and the engine's seconds."""
    missing = {row: item for row, item in _items(rows) if row not in good}
    if lease.condemned:
        message = f"this row ends its worker; the last time: {lease.last_error}"
        return dict.fromkeys(missing, RowError(RowCode.ROW_CRASHED_WORKER, message)), 0.0
    if not missing:
        return {}, 0.0
    with times.timed(ChunkStage.LOAD):
        engine = _engine(lease, beat=beat, context=context)
    beat.meter.begin()
    started = time.perf_counter()
    with times.timed(ChunkStage.COMPUTE):
        results = _infer(lease, engine, missing, beat=beat)
    return results, time.perf_counter() - started


def _items(rows: pa.Table) -> Iterator[tuple[int, RowText]]:
    """The rows that the corpus reader could read."""
    texts = rows["text"].to_pylist()
    items = texts
    if "target" in rows.column_names:
        items = map(PairedText, texts, rows["target"].to_pylist())
    for row, text, item in zip(rows["row"].to_pylist(), texts, items, strict=True):
        if text is not None:
            yield row, item


def _infer(
    lease: ChunkLease, engine: Engine, items: dict[int, RowText], *, beat: Beat
) -> Mapping[int, Answer | RowError]:
    try:
        return engine.answer(items, beat=beat)
    except row_isolation.DeviceFailed:
        log.exception("the device failed, this process ends itself", chunk=lease.chunk_id)
        os._exit(DEVICE_FAILED)  # the parent sees the death and counts it against the chunk


def _engine(lease: ChunkLease, *, beat: Beat, context: Context) -> Engine:
    """The engine of the job's model; the model's files are needed only until it is loaded."""
    using = context.artefacts.using(lease.model, project_id=lease.project_id, beat=beat)
    with using as folder, time_limits.loading(folder):
        engine = _engine_cache(context).engine(
            folder, lease.spec.options, model=str(lease.model), kind=lease.spec.kind
        )
    if engine.digest != lease.model_digest:
        raise ModelFailure(
            f"{lease.model} is not the model that the job was planned with; "
            "submit a new job to use the changed one",
            code="model_changed",
        )
    return engine


@functools.cache
def _engine_cache(context: Context) -> EngineCache:
    return EngineCache(context.settings, changed=functools.partial(heartbeat.show_engines, context))


def _write(
    lease: ChunkLease,
    table: pa.Table,
    results: Mapping[int, Answer | RowError],
    *,
    seconds: float,
    context: Context,
) -> PartRecord:
    checked, agreeing = result_table.agreement(results)
    key = parts.part_key(
        lease.job_id, first_row=lease.first_row, chunk_id=lease.chunk_id, fence=lease.fence
    )
    written = parts.write(context.store, key, table)
    return PartRecord(
        key=key,
        bytes=written.bytes,
        sha256=written.sha256,
        rows=table.num_rows,
        rows_failed=table.num_rows - table["error_code"].null_count,
        tokens=result_table.tokens(table),
        engine_seconds=seconds,
        histogram=result_table.histogram(table),
        rows_checked=checked,
        rows_agreeing=agreeing,
        errors=result_table.errors(table),
        quality=result_table.quality(results),
        profile=result_table.profile(table),
    )


def _commit(lease: ChunkLease, part: PartRecord, table: pa.Table, *, context: Context) -> None:
    def work(session: Session) -> None:
        results = (
            result_table.result_rows(lease.job_id, table) if lease.spec.output.postgres else ()
        )
        chunks.commit(session, lease, part, results=results)

    database.patiently(context.sessions, work, seconds=COMMIT_PATIENCE)


def _release(lease: ChunkLease, *, context: Context) -> None:
    database.patiently(
        context.sessions, lambda session: chunks.release(session, lease), seconds=COMMIT_PATIENCE
    )
