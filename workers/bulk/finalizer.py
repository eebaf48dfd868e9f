"""Finalization of bulk jobs: checks that every row has one result, writes manifest and single file.

Promise P2. A training job has no parts: it ends with the commit of its run's result
(``workers.gang.publish``).
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
from workers.lease_renewer import LeaseRenewer
from workers.outcomes import DONE, Outcome, TaskState
from workers.step_lease import PATIENCE, holding, unclaimed


def finalize(job_id: str, *, context: Context) -> Outcome:
    """Write the outputs and end the job, unless another process does."""
    with holding(job_id, step=JobStep.FINALIZE, context=context) as held:
        if held is None:
            return unclaimed(job_id, step=JobStep.FINALIZE, context=context)
        try:
            held.outcome = _finalize(held.lease, renewer=held.renewer, context=context)
        except PartDamaged as damage:
            integrity.record_damage(context.sessions, damage)
            raise
    return held.outcome


def _finalize(lease: StepLease, *, renewer: LeaseRenewer, context: Context) -> Outcome:
    with context.sessions.begin() as session:
        if finalization.fail_if_too_many_rows_failed(session, lease):
            return Outcome(TaskState.FAILED, "failed the job: more of its rows failed than may")
        finished_parts = list(chunks.done_parts(session, lease.job_id))
        histogram = job_queries.histogram(session, lease.job_id)
    problem = _coverage_gap(finished_parts, rows_total=lease.plan.rows_total)
    if problem and lease.state is JobState.FINALIZING:
        database.patiently(
            context.sessions,
            lambda session: finalization.fail_count_mismatch(session, lease, message=problem),
            seconds=PATIENCE,
        )
        return Outcome(TaskState.FAILED, f"failed the job: {problem}")
    _check_sizes(finished_parts, job_id=lease.job_id, context=context)
    output = _write(lease, finished_parts, histogram=histogram, renewer=renewer, context=context)
    finished = database.patiently(
        context.sessions,
        lambda session: finalization.finish(session, lease, output=output),
        seconds=PATIENCE,
    )
    if not finished:
        return Outcome(
            TaskState.POSTPONED, "tried again later: another chunk was committed meanwhile"
        )
    return DONE


def _coverage_gap(finished_parts: list[DonePart], *, rows_total: int | None) -> str | None:
    """The first place where the parts do not cover the corpus exactly once, in words."""
    expected = 0
    for part in finished_parts:
        if part.first_row > expected:
            return f"rows {expected} to {part.first_row - 1} have no part"
        if part.first_row < expected:
            return f"rows {part.first_row} to {expected - 1} have more than one part"
        expected += part.rows
    if expected != rows_total:
        return f"the parts hold {expected} rows, the corpus {rows_total}"
    return None


def _check_sizes(finished_parts: list[DonePart], *, job_id: str, context: Context) -> None:
    """Raise ``PartDamaged`` for a part that is gone or cut short; lists the folder once."""
    sizes = {each.key: each.bytes for each in context.store.listing(parts.folder(job_id))}
    for part in finished_parts:
        if sizes.get(part.key) != part.bytes:
            actual = f"has {sizes[part.key]}" if part.key in sizes else "is gone"
            raise PartDamaged(
                f"the part {part.key} must have {part.bytes} bytes, and {actual}; `nightshift jobs "
                "retry` computes its rows again",
                chunk_id=part.chunk_id,
                key=part.key,
            )


def _write(
    lease: StepLease,
    finished_parts: list[DonePart],
    *,
    histogram: dict[str, int],
    renewer: LeaseRenewer,
    context: Context,
) -> dict[str, Any]:
    spec = kinds.bulk(lease.spec)
    manifest_key = parts.output_key(lease.job_id, name="manifest", fence=lease.fence, suffix="json")
    schema = schemas.result_schema(
        spec.result_columns,
        width=lease.plan.embedding_width,
        with_source=not spec.corpus.is_single,
    )
    file = _write_file(lease, spec, finished_parts, schema=schema, renewer=renewer, context=context)
    totals = {
        "rows": sum(part.rows for part in finished_parts),
        "rows_failed": sum(part.rows_failed for part in finished_parts),
        "bytes": sum(part.bytes for part in finished_parts),
    }
    manifest = {
        "job": lease.job_id,
        "kind": lease.kind,
        "model": spec.model,
        "model_digest": lease.plan.model_digest,
        "corpus": lease.plan.corpus_fingerprint,
        "complete": lease.state is JobState.FINALIZING,
        **totals,
        "histogram": histogram,
        "parts": [_manifest_entry(part) for part in finished_parts],
    }
    outputs.write_manifest(context.store, manifest_key, manifest)
    return {
        "manifest": manifest_key,
        "format": spec.output.format,
        **file,
        **totals,
    }


def _write_file(
    lease: StepLease,
    spec: AnyBulk,
    finished_parts: list[DonePart],
    *,
    schema: pa.Schema,
    renewer: LeaseRenewer,
    context: Context,
) -> dict[str, Any]:
    if spec.output.format is None:
        return {"file": None}
    suffix = spec.output.format.value
    key = parts.output_key(lease.job_id, name="results", fence=lease.fence, suffix=suffix)
    tables = outputs.tables(
        context.store,
        finished_parts,
        schema=schema,
        keep_text=spec.output.keep_text,
        beat=renewer.beat,
    )
    file = outputs.write_file(context.store, key, tables, output_format=spec.output.format)
    return {"file": key, "file_bytes": file.bytes, "file_sha256": file.sha256}


def _manifest_entry(part: DonePart) -> dict[str, Any]:
    return {
        "key": part.key,
        "first_row": part.first_row,
        "rows": part.rows,
        "rows_failed": part.rows_failed,
        "bytes": part.bytes,
        "sha256": part.sha256,
    }
