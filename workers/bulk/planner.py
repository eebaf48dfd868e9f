"""Planning: a corpus is streamed once and written down as shards, whose chunks can then be claimed.

This module plans bulk jobs; ``workers.bulk.dataset_planner`` plans the data of training jobs.
Rows are read while a shard is written; memory is bounded by that shard and what is read ahead. A
planner that dies is replaced by another, which reads the corpus again from the beginning and passes
over what is in the ledger already.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import structlog

from jobs import database, kinds
from jobs.corpora import readers, resolve
from jobs.corpora.sources import Source
from jobs.decisions import chunking, signature_defaults
from jobs.decisions.chunking import ChunkLimits
from jobs.kinds import (
    TRAINING,
    AnyBulk,
    EmbedSpec,
    GenerateSpec,
    PairCorpus,
    PipelineSpec,
    Text2TextSpec,
)
from jobs.ledger import plans
from jobs.ledger.plans import PlannedShard, Progress
from jobs.ledger.step_leases import StepLease
from jobs.models import compatibility, inspection
from jobs.models.inspection import ModelFacts
from jobs.models.signatures import Reading
from jobs.results import parts
from jobs.results.schemas import SHARD_SCHEMA
from jobs.settings import Settings
from jobs.states import JobStep
from workers.bulk import dataset_planner
from workers.bulk.prefetch import ahead
from workers.context import Context
from workers.lease_renewer import Keeper
from workers.step_lease import holding

log = structlog.get_logger()

AHEAD = 32
"""Batches, of about a megabyte at most, that are read while a shard is written."""


@dataclass(frozen=True)
class Draft:
    """A shard before it is written."""

    index: int
    table: pa.Table  # SHARD_SCHEMA, with `target` where the corpus names a second column
    chunk_rows: tuple[int, ...]

    @property
    def first_row(self) -> int:
        """Place in the corpus of its first row."""
        return int(self.table["row"][0].as_py())


def plan(job_id: str, *, context: Context) -> bool:
    """Plan the job if nobody else does; ``True`` when it was planned to its end here."""
    with holding(job_id, step=JobStep.PLAN, context=context) as held:
        if held is None:
            return False
        plan_kind = dataset_planner.plan if held.lease.kind in TRAINING else _plan
        plan_kind(held.lease, keeper=held.keeper, context=context)
        log.info("planned", job_id=job_id)
        return True
    return False


def _plan(held: StepLease, *, keeper: Keeper, context: Context) -> None:
    spec = kinds.bulk(held.spec)
    source = _open(held, spec, context=context)
    facts = _inspect_model(held, spec, keeper=keeper, context=context)
    with context.sessions.begin() as session:
        progress = plans.begin(
            session,
            held,
            fingerprint=source.fingerprint(),
            model_digest=facts.digest,
            embedding_width=_embedding_width(facts, spec),
            reading=_reading(held, spec, facts),
        )
    batches = readers.read(source, spec.corpus, max_row_bytes=context.settings.max_row_bytes)
    limits = _limits(spec, settings=context.settings)
    with ahead(_beating(batches, keeper.beat), depth=AHEAD) as coming:
        for draft in drafts(coming, limits=limits, progress=progress):
            _write(held, draft, context=context)
    database.patiently(context.sessions, lambda s: plans.complete(s, held), seconds=20)


def _open(held: StepLease, spec: AnyBulk, *, context: Context) -> Source:
    with context.sessions.begin() as session:
        return resolve.source(
            session,
            context.store,
            spec.corpus,
            project_id=held.project_id,
            allowed=context.settings.allowed_inputs,
        )


def _inspect_model(
    held: StepLease, spec: AnyBulk, *, keeper: Keeper, context: Context
) -> ModelFacts:
    using, reference = context.artefacts.using, held.model_pinned or spec.model
    with using(reference, project_id=held.project_id, beat=keeper.beat) as folder:
        facts = inspection.inspect(folder)
    compatibility.check(facts, signature_defaults.with_defaults(spec.options, facts.signature))
    return facts


def _reading(held: StepLease, spec: AnyBulk, facts: ModelFacts) -> Reading | None:
    """What the model's signature means for the job; ``None``: it has none."""
    if facts.signature is None:
        return None
    return Reading(
        model=held.model_pinned or spec.model,
        trained=facts.signature,
        warnings=signature_defaults.contradictions(
            spec.options,
            facts.signature,
            limit=facts.max_tokens,
            pairs=isinstance(spec.corpus, PairCorpus) and spec.corpus.pair_column is not None,
        ),
    )


def _embedding_width(facts: ModelFacts, spec: AnyBulk) -> int | None:
    """Numbers in a vector of an embed job, which its columns depend on."""
    return compatibility.width(facts, spec.embed) if isinstance(spec, EmbedSpec) else None


def _limits(spec: AnyBulk, *, settings: Settings) -> ChunkLimits:
    """An explicit chunk size is taken as it is; otherwise rows and bytes both bound a chunk."""
    slow = isinstance(spec, GenerateSpec | Text2TextSpec | PipelineSpec)
    default = settings.written_chunk_rows if slow else settings.chunk_rows
    return ChunkLimits(
        chunk_rows=spec.chunk_rows or default,
        chunk_bytes=settings.shard_bytes if spec.chunk_rows else settings.chunk_bytes,
        shard_rows=settings.shard_rows,
        shard_bytes=settings.shard_bytes,
    )


def _write(held: StepLease, draft: Draft, *, context: Context) -> None:
    key = parts.shard_key(held.job_id, index=draft.index, fence=held.fence)
    parts.write(context.store, key, draft.table)
    shard = PlannedShard(
        index=draft.index,
        object_key=key,
        first_row=draft.first_row,
        chunk_rows=draft.chunk_rows,
    )
    with context.sessions.begin() as session:
        plans.add_shard(session, held, shard)


def _beating(
    batches: Iterable[pa.RecordBatch], beat: Callable[[], None]
) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        beat()
        yield batch


def drafts(
    batches: Iterable[pa.RecordBatch], *, limits: ChunkLimits, progress: Progress
) -> Iterator[Draft]:
    """Batches gathered into shards, numbered on from what an earlier planner has written."""
    index = progress.shards
    waiting: list[pa.Table] = []
    rows = size = 0
    for table in _numbered(batches, skip=progress.rows):
        waiting.append(table)
        rows += table.num_rows
        size += table.nbytes
        while rows and (rows >= limits.max_rows_of_shard(index) or size >= limits.shard_bytes):
            whole = pa.concat_tables(waiting)
            taken = whole.slice(0, limits.max_rows_of_shard(index))
            yield _draft(index, taken, limits=limits)
            rest = whole.slice(taken.num_rows)
            index += 1
            waiting = [rest] if rest.num_rows else []
            rows, size = rest.num_rows, rest.nbytes
    if rows:
        yield _draft(index, pa.concat_tables(waiting), limits=limits)


def _numbered(batches: Iterable[pa.RecordBatch], *, skip: int) -> Iterator[pa.Table]:
    """Rows with their place in the corpus, from place ``skip`` on."""
    first = 0
    for batch in batches:
        numbers = pa.arange(first, first + batch.num_rows)
        schema = SHARD_SCHEMA
        if "target" in batch.schema.names:
            schema = schema.append(batch.schema.field("target"))
        table = pa.Table.from_arrays([numbers, *batch.columns], schema=schema)
        first += batch.num_rows
        if first > skip:
            yield table.slice(max(0, skip - (first - batch.num_rows)))


def _draft(index: int, table: pa.Table, *, limits: ChunkLimits) -> Draft:
    lengths = pc.fill_null(pc.binary_length(table["text"]), 0)
    if "target" in table.column_names:
        lengths = pc.add(lengths, pc.fill_null(pc.binary_length(table["target"]), 0))
    sizes = lengths.to_pylist()
    chunk_rows = chunking.cut(sizes, max_rows=limits.chunk_rows, max_bytes=limits.chunk_bytes)
    return Draft(index=index, table=table, chunk_rows=tuple(chunk_rows))
