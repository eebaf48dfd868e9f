"""One chunk: claim, work, commit.

Faults are told apart by whose they are (``jobs.decisions.faults``). The row's: it becomes an error
row. The job's: it fails. What may pass: the chunk is given back and tried again, up to a bound. A
crash is counted by others, when this process has died.
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
from jobs.ledger import chunks
from jobs.ledger.chunks import ChunkLease, Part
from jobs.results import parts
from jobs.results.schemas import RowCode, result_schema
from jobs.states import JobState
from workers import heartbeat, time_limits
from workers.bulk import result_table
from workers.context import Context
from workers.inference import row_isolation
from workers.inference.batching.tokenization import Coupled, Item
from workers.inference.engine import Answer, Engine, RowError
from workers.inference.engine_cache import Shelf
from workers.lease_renewer import Keeper
from workers.step_lease import ENDINGS

log = structlog.get_logger()

Beat = Callable[[], None]

CLAIM_PATIENCE = 10.0
COMMIT_PATIENCE = 120.0
"""Seconds that a finished chunk waits for Postgres: the fence makes a late commit safe."""

DEVICE_FAILED = 71
"""Exit status of a process that lost its accelerator (EX_OSERR)."""

_GOES_ON = (JobState.PLANNING, JobState.RUNNING, JobState.PAUSED)


def run(chunk_id: int, *, context: Context) -> str:
    """Do the chunk, if it is to be had; what came of it, in a word for the log and for Flower."""
    held = database.patiently(
        context.sessions,
        lambda s: chunks.claim(s, chunk_id, owner=context.owner, lease=context.settings.lease),
        seconds=CLAIM_PATIENCE,
    )
    if held is None:
        return "not to be had"
    outcome = _outcome(held, context=context)
    log.info("chunk ended", job_id=held.job_id, chunk=held.chunk_id, outcome=outcome)
    return outcome


def _outcome(held: ChunkLease, *, context: Context) -> str:
    try:
        _work(held, context=context)
    except ENDINGS:
        _release(held, context=context)
        raise
    except BaseException as error:  # panics of libraries are no Exceptions
        found = faults.diagnose(error, stage=Stage.CHUNK)
        if found.blame is Blame.ENGINE:
            log.exception("a chunk failed", job_id=held.job_id, chunk=held.chunk_id)
        ended = _given_up(held, found, context=context)
        if error.__cause__ is not None and row_isolation.is_of_device(error.__cause__):
            log.exception("the device failed, this process ends itself", chunk=held.chunk_id)
            os._exit(DEVICE_FAILED)  # without a lease: no chunk counts a crash for it
        return ended
    return "done"


def _given_up(held: ChunkLease, found: Diagnosis, *, context: Context) -> str:
    """What became of the chunk; while Postgres is away for long, its lease runs out."""
    named = found
    if found.blame is not Blame.LEASE:
        rows = f"rows {held.first_row} to {held.first_row + held.rows - 1}"
        message = f"{found.message} ({rows}, on worker {context.owner})"
        named = dataclasses.replace(found, message=message)
    ended = database.patiently(
        context.sessions,
        lambda session: chunks.give_up(session, held, named, limits=context.settings.limits),
        seconds=COMMIT_PATIENCE,
    )
    what = "stopped" if found.blame is Blame.LEASE else "given back"
    return f"{'failed the job' if ended else what}: {found.message}"


def _work(held: ChunkLease, *, context: Context) -> None:
    stall = timedelta(seconds=context.settings.stall_seconds)
    with Keeper(_renewing(held, context), lease=context.settings.lease, stall=stall) as keeper:
        rows = parts.read_rows(context.store, held.shard_key, offset=held.offset, rows=held.rows)
        kept = _kept(held, context=context)
        results, seconds = _results(held, rows, kept=kept, beat=keeper.beat, context=context)
        table = result_table.table(
            rows,
            results,
            schema=result_schema(
                held.spec.kind, width=held.embedding_width, explained=held.spec.explained
            ),
            kept=kept,
            keep_text=held.spec.output.keep_text,
        )
        part = _write(held, table, results, seconds=seconds, context=context)
        keeper.beat()
        _commit(held, part, table, context=context)


def _renewing(held: ChunkLease, context: Context) -> Callable[[], str | None]:
    def renew() -> str | None:
        with context.sessions.begin() as session:
            state = chunks.renew(session, held, lease=context.settings.lease)
        if state is None:
            return f"chunk {held.chunk_id} was taken over from fence {held.fence}"
        return None if state in _GOES_ON else f"the job is {state}"

    return renew


def _kept(held: ChunkLease, *, context: Context) -> dict[int, dict[str, object]]:
    """On a retry: the good results of the earlier part, by row."""
    if held.retried_part is None:
        return {}
    try:
        earlier = parts.read_object(context.store, held.retried_part, sha256=held.retried_sha256)
    except Damaged as damage:
        log.warning("all rows are computed anew", chunk=held.chunk_id, reason=damage.message)
        return {}
    return {row["row"]: row for row in earlier.to_pylist() if row["error_code"] is None}


def _results(
    held: ChunkLease,
    rows: pa.Table,
    *,
    kept: dict[int, dict[str, object]],
    beat: Beat,
    context: Context,
) -> tuple[Mapping[int, Answer | RowError], float]:
    """Results by row, for the rows that have a text and no result yet; the engine's seconds."""
    wanted = {row: item for row, item in _items(rows) if row not in kept}
    if held.condemned:
        message = f"this row ends its worker; the last time: {held.last_error}"
        return dict.fromkeys(wanted, RowError(RowCode.ROW_CRASHED_WORKER, message)), 0.0
    if not wanted:
        return {}, 0.0
    engine = _engine(held, beat=beat, context=context)
    begun = time.perf_counter()
    found = _infer(held, engine, wanted, beat=beat)
    return found, time.perf_counter() - begun


def _items(rows: pa.Table) -> Iterator[tuple[int, Item]]:
    """The rows that are not bad from the start."""
    texts = rows["text"].to_pylist()
    items = texts
    if "target" in rows.column_names:
        items = map(Coupled, texts, rows["target"].to_pylist())
    for row, text, item in zip(rows["row"].to_pylist(), texts, items, strict=True):
        if text is not None:
            yield row, item


def _infer(
    held: ChunkLease, engine: Engine, texts: dict[int, Item], *, beat: Beat
) -> Mapping[int, Answer | RowError]:
    try:
        return engine.answer(texts, beat=beat)
    except row_isolation.DeviceFailed:
        log.exception("the device failed, this process ends itself", chunk=held.chunk_id)
        os._exit(DEVICE_FAILED)  # its death is seen, and counted against the chunk


def _engine(held: ChunkLease, *, beat: Beat, context: Context) -> Engine:
    """The job's model from the shelf; its files are needed only until it is loaded."""
    using = context.artefacts.using(held.model, project_id=held.project_id, beat=beat)
    with using as folder, time_limits.loading(folder):
        engine = _shelf(context).engine(
            folder, held.spec.options, model=str(held.model), kind=held.spec.kind
        )
    if engine.digest != held.model_digest:
        raise ModelFailure(
            f"{held.model} is not the model that the job was planned with; "
            "submit a new job to use the changed one",
            code="model_changed",
        )
    return engine


@functools.cache
def _shelf(context: Context) -> Shelf:
    return Shelf(context.settings, changed=functools.partial(heartbeat.show_engines, context))


def _write(
    held: ChunkLease,
    table: pa.Table,
    results: Mapping[int, Answer | RowError],
    *,
    seconds: float,
    context: Context,
) -> Part:
    checked, agreeing = result_table.agreement(results)
    key = parts.part_key(
        held.job_id, first_row=held.first_row, chunk_id=held.chunk_id, fence=held.fence
    )
    written = parts.write(context.store, key, table)
    return Part(
        key=key,
        bytes=written.bytes,
        sha256=written.sha256,
        rows=table.num_rows,
        rows_failed=table.num_rows - table["error_code"].null_count,
        tokens=result_table.tokens(table),
        seconds=seconds,
        histogram=result_table.histogram(table),
        rows_checked=checked,
        rows_agreeing=agreeing,
        errors=result_table.errors(table),
        quality=result_table.quality(results),
    )


def _commit(held: ChunkLease, part: Part, table: pa.Table, *, context: Context) -> None:
    def work(session: Session) -> None:
        results = result_table.result_rows(held.job_id, table) if held.spec.output.postgres else ()
        chunks.commit(session, held, part, results=results)

    database.patiently(context.sessions, work, seconds=COMMIT_PATIENCE)


def _release(held: ChunkLease, *, context: Context) -> None:
    database.patiently(
        context.sessions, lambda session: chunks.release(session, held), seconds=COMMIT_PATIENCE
    )
