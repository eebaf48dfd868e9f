"""Finalizing a bulk job: manifest and single file are written, and the counts must add up.

A training job has no parts: it ends with the commit of its run's result.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from jobs import database, kinds
from jobs.errors import PartDamaged
from jobs.kinds import AnyBulk
from jobs.ledger import finalization
from jobs.ledger.step_leases import StepLease
from jobs.queries import chunks
from jobs.queries import jobs as job_queries
from jobs.queries.chunks import DonePart
from jobs.results import integrity, outputs, parts, schemas
from jobs.states import JobState, JobStep
from workers.context import Context
from workers.lease_renewer import Keeper
from workers.step_lease import PATIENCE, holding


def finalize(job_id: str, *, context: Context) -> bool:
    """Write the outputs if nobody else does; ``True`` when the job ended here."""
    with holding(job_id, step=JobStep.FINALIZE, context=context) as held:
        if held is None:
            return False
        try:
            return _finalize(held.lease, keeper=held.keeper, context=context)
        except PartDamaged as damage:
            integrity.record(context.sessions, damage)
            raise
    return False


def _finalize(held: StepLease, *, keeper: Keeper, context: Context) -> bool:
    with context.sessions.begin() as session:
        if finalization.end_failed(session, held):
            return True
        done = list(chunks.done_parts(session, held.job_id))
        histogram = job_queries.histogram(session, held.job_id)
    problem = _gap(done, rows_total=held.plan.rows_total)
    if problem and held.state is JobState.FINALIZING:
        database.patiently(
            context.sessions,
            lambda session: finalization.fail(session, held, message=problem),
            seconds=PATIENCE,
        )
        return True
    _check_sizes(done, job_id=held.job_id, context=context)
    output = _write(held, done, histogram=histogram, keeper=keeper, context=context)
    return database.patiently(
        context.sessions,
        lambda session: finalization.finish(session, held, output=output),
        seconds=PATIENCE,
    )


def _gap(done: list[DonePart], *, rows_total: int | None) -> str | None:
    """Where the parts fail to cover the corpus exactly, in words."""
    expected = 0
    for part in done:
        if part.first_row > expected:
            return f"rows {expected} to {part.first_row - 1} have no part"
        if part.first_row < expected:
            return f"rows {part.first_row} to {expected - 1} have more than one part"
        expected += part.rows
    if expected != rows_total:
        return f"the parts hold {expected} rows, the corpus {rows_total}"
    return None


def _check_sizes(done: list[DonePart], *, job_id: str, context: Context) -> None:
    """Raise ``PartDamaged`` for a part that is gone or cut short, by one listing of all."""
    sizes = {each.key: each.bytes for each in context.store.listing(parts.folder(job_id))}
    for part in done:
        if sizes.get(part.key) != part.bytes:
            found = f"has {sizes[part.key]}" if part.key in sizes else "is gone"
            raise PartDamaged(
                f"the part {part.key} must have {part.bytes} bytes, and {found}; `nightshift jobs "
                "retry` computes its rows anew",
                chunk_id=part.chunk_id,
                key=part.key,
            )


def _write(
    held: StepLease,
    done: list[DonePart],
    *,
    histogram: dict[str, int],
    keeper: Keeper,
    context: Context,
) -> dict[str, Any]:
    spec = kinds.bulk(held.spec)
    manifest_key = parts.output_key(held.job_id, name="manifest", fence=held.fence, ending="json")
    schema = schemas.result_schema(
        held.kind, width=held.plan.embedding_width, explained=spec.explained
    )
    file = _write_file(held, spec, done, schema=schema, keeper=keeper, context=context)
    totals = {
        "rows": sum(part.rows for part in done),
        "rows_failed": sum(part.rows_failed for part in done),
        "bytes": sum(part.bytes for part in done),
    }
    manifest = {
        "job": held.job_id,
        "kind": held.kind,
        "model": spec.model,
        "model_digest": held.plan.model_digest,
        "corpus": held.plan.corpus_fingerprint,
        "complete": held.state is JobState.FINALIZING,
        **totals,
        "histogram": histogram,
        "parts": [_entry(part) for part in done],
    }
    outputs.write_manifest(context.store, manifest_key, manifest)
    return {
        "manifest": manifest_key,
        "format": spec.output.format,
        **file,
        **totals,
    }


def _write_file(
    held: StepLease,
    spec: AnyBulk,
    done: list[DonePart],
    *,
    schema: pa.Schema,
    keeper: Keeper,
    context: Context,
) -> dict[str, Any]:
    if spec.output.format is None:
        return {"file": None}
    ending = outputs.ENDINGS[spec.output.format]
    key = parts.output_key(held.job_id, name="results", fence=held.fence, ending=ending)
    tables = outputs.tables(
        context.store, done, schema=schema, keep_text=spec.output.keep_text, beat=keeper.beat
    )
    file = outputs.write_file(context.store, key, tables, output_format=spec.output.format)
    return {"file": key, "file_bytes": file.bytes, "file_sha256": file.sha256}


def _entry(part: DonePart) -> dict[str, Any]:
    return {
        "key": part.key,
        "first_row": part.first_row,
        "rows": part.rows,
        "rows_failed": part.rows_failed,
        "bytes": part.bytes,
        "sha256": part.sha256,
    }
