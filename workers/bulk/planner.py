"""Planning of bulk jobs: one pass over the corpus writes shards, whose chunks can then be claimed.

``workers.bulk.dataset_planner`` plans the data of training jobs. Rows are read while a shard is
written; memory is bounded by that shard and the prefetched batches (promise P5). A planner that
dies is replaced by another one, which reads the corpus from the beginning and skips the rows that
the ledger has already.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import structlog

from jobs import database, inputs, kinds
from jobs.corpora.schemas import CORPUS_SCHEMA, SHARD_SCHEMA
from jobs.decisions import chunking
from jobs.decisions.chunking import ChunkLimits
from jobs.inputs import ROWS
from jobs.kinds import TRAINING, AnyBulk, Corpus, signature_defaults
from jobs.ledger import plans
from jobs.ledger.plans import PlannedShard, PlanProgress
from jobs.ledger.step_leases import StepLease
from jobs.models import inspection
from jobs.models.inspection import ModelFacts
from jobs.models.signatures import Reading
from jobs.progress import Beat
from jobs.results import parts
from jobs.settings import Settings
from jobs.states import JobStep
from workers.bulk import dataset_planner, job_inputs
from workers.context import Context
from workers.lease_renewer import LeaseRenewer
from workers.outcomes import Outcome
from workers.prefetch import prefetch
from workers.step_lease import holding, unclaimed

log = structlog.get_logger()

AHEAD = 32
"""Batches, of about a megabyte at most, that are prefetched while a shard is written."""


@dataclass(frozen=True)
class ShardDraft:
    """A shard before it is written."""

    index: int
    table: pa.Table  # SHARD_SCHEMA, with `target` where the corpus names a second column, and
    # `source` where it may have several objects
    chunk_rows: tuple[int, ...]

    @property
    def first_row(self) -> int:
        """Number of its first row in the corpus."""
        return int(self.table["row"][0].as_py())


def plan(job_id: str, *, context: Context) -> Outcome:
    """Plan all of the job, unless another process does."""
    with holding(job_id, step=JobStep.PLAN, context=context) as held:
        if held is None:
            return unclaimed(job_id, step=JobStep.PLAN, context=context)
        plan_kind = dataset_planner.plan if held.lease.kind in TRAINING else _plan
        plan_kind(held.lease, renewer=held.renewer, context=context)
        log.info("planned", job_id=job_id)
    return held.outcome


def _plan(lease: StepLease, *, renewer: LeaseRenewer, context: Context) -> None:
    spec = kinds.bulk(lease.spec)
    found = job_inputs.settle(lease, {ROWS: spec.corpus}, beat=renewer.beat, context=context)[ROWS]
    reader = job_inputs.reader(spec.corpus, found, beat=renewer.beat, context=context)
    if not found and job_inputs.end_if_empty(lease, {ROWS: reader}, rows=0, context=context):
        return
    facts = _inspect_model(lease, spec, renewer=renewer, context=context)
    with context.sessions.begin() as session:
        progress = plans.begin(
            session,
            lease,
            fingerprint=inputs.fingerprint(found, single=spec.corpus.is_single),
            model_digest=facts.digest,
            embedding_width=spec.embedding_width(facts),
            reading=_signature_use(lease, spec, facts),
        )
    limits = _limits(spec, settings=context.settings)
    batches = _with_heartbeat(reader.batches(), renewer.beat)
    with prefetch(batches, depth=AHEAD) as prefetched:
        drafts = shard_drafts(prefetched, limits=limits, progress=progress)
        _write_all(lease, drafts, already=progress.rows, corpus=spec.corpus, context=context)
    if job_inputs.end_if_empty(lease, {ROWS: reader}, rows=reader.rows, context=context):
        return
    read = {ROWS: reader.read}
    database.patiently(context.sessions, lambda s: plans.complete(s, lease, read=read), seconds=20)


def _write_all(
    lease: StepLease,
    drafts: Iterable[ShardDraft],
    *,
    already: int,
    corpus: Corpus,
    context: Context,
) -> None:
    """Write the shards; chunks can be claimed once it is certain that the job has enough rows."""
    rows = already
    waiting: list[PlannedShard] = []
    for draft in drafts:
        waiting.append(_write(lease, draft, context=context))
        rows += waiting[-1].rows
        if rows >= corpus.least_rows:
            for shard in waiting:
                _add(lease, shard, context=context)
            waiting.clear()


def _inspect_model(
    lease: StepLease, spec: AnyBulk, *, renewer: LeaseRenewer, context: Context
) -> ModelFacts:
    using, reference = context.artefacts.using, lease.model_pinned or spec.model
    with using(reference, project_id=lease.project_id, beat=renewer.beat) as folder:
        facts = inspection.inspect(folder)
    signature_defaults.with_defaults(spec.options, facts.signature).check(facts)
    return facts


def _signature_use(lease: StepLease, spec: AnyBulk, facts: ModelFacts) -> Reading | None:
    """What the model's signature means for the job; ``None``: it has none."""
    if facts.signature is None:
        return None
    return Reading(
        model=lease.model_pinned or spec.model,
        trained=facts.signature,
        warnings=signature_defaults.contradictions(
            spec.options,
            facts.signature,
            limit=facts.max_tokens,
            pairs=spec.reads_pairs,
        ),
    )


def _limits(spec: AnyBulk, *, settings: Settings) -> ChunkLimits:
    """An explicit chunk size is used as given; otherwise rows and bytes both bound a chunk."""
    return ChunkLimits(
        chunk_rows=spec.chunk_rows or spec.default_chunk_rows(settings),
        chunk_bytes=settings.shard_bytes if spec.chunk_rows else settings.chunk_bytes,
        shard_rows=settings.shard_rows,
        shard_bytes=settings.shard_bytes,
    )


def _write(lease: StepLease, draft: ShardDraft, *, context: Context) -> PlannedShard:
    key = parts.shard_key(lease.job_id, index=draft.index, fence=lease.fence)
    parts.write(context.store, key, draft.table)
    return PlannedShard(
        index=draft.index,
        object_key=key,
        first_row=draft.first_row,
        chunk_rows=draft.chunk_rows,
    )


def _add(lease: StepLease, shard: PlannedShard, *, context: Context) -> None:
    with context.sessions.begin() as session:
        plans.add_shard(session, lease, shard)


def _with_heartbeat(batches: Iterable[pa.RecordBatch], beat: Beat) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        beat()
        yield batch


def shard_drafts(
    batches: Iterable[pa.RecordBatch], *, limits: ChunkLimits, progress: PlanProgress
) -> Iterator[ShardDraft]:
    """Batches joined into shards, from the first row that no earlier planner has written."""
    index = progress.shards
    pending: list[pa.Table] = []
    rows = size = 0
    for table in _with_row_numbers(batches, skip=progress.rows):
        pending.append(table)
        rows += table.num_rows
        size += table.nbytes
        while rows and (rows >= limits.max_rows_of_shard(index) or size >= limits.shard_bytes):
            joined = pa.concat_tables(pending)
            shard = joined.slice(0, limits.max_rows_of_shard(index))
            yield _shard_draft(index, shard, limits=limits)
            rest = joined.slice(shard.num_rows)
            index += 1
            pending = [rest] if rest.num_rows else []
            rows, size = rest.num_rows, rest.nbytes
    if rows:
        yield _shard_draft(index, pa.concat_tables(pending), limits=limits)


def _with_row_numbers(batches: Iterable[pa.RecordBatch], *, skip: int) -> Iterator[pa.Table]:
    """Tables with a column of row numbers, without the first ``skip`` rows of the corpus."""
    first = 0
    for batch in batches:
        numbers = pa.arange(first, first + batch.num_rows)
        schema = SHARD_SCHEMA
        for name in batch.schema.names[len(CORPUS_SCHEMA) :]:
            schema = schema.append(batch.schema.field(name))
        table = pa.Table.from_arrays([numbers, *batch.columns], schema=schema)
        first += batch.num_rows
        if first > skip:
            yield table.slice(max(0, skip - (first - batch.num_rows)))


def _shard_draft(index: int, table: pa.Table, *, limits: ChunkLimits) -> ShardDraft:
    lengths = pc.fill_null(pc.binary_length(table["text"]), 0)
    if "target" in table.column_names:
        lengths = pc.add(lengths, pc.fill_null(pc.binary_length(table["target"]), 0))
    sizes = lengths.to_pylist()
    chunk_rows = chunking.cut(sizes, max_rows=limits.chunk_rows, max_bytes=limits.chunk_bytes)
    return ShardDraft(index=index, table=table, chunk_rows=tuple(chunk_rows))
