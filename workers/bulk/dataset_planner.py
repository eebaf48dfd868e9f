"""Planning of training jobs: one pass over each corpus writes the shards of its split.

The ledger records all shards in one transaction at the end. A planner that dies leaves objects
under its own fence, which no row points at, and its successor starts again. Memory is bounded by
one shard (promise P5).
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from jobs import database, kinds
from jobs.corpora import decoder, resolve, values
from jobs.corpora import targets as target_values
from jobs.corpora.decoder import Limits
from jobs.corpora.sources import Source
from jobs.corpora.targets import TargetKind
from jobs.decisions import validation_split
from jobs.errors import CorpusFailure
from jobs.kinds import (
    AnyTraining,
    ClassifyOptions,
    DatasetSplit,
    EvaluateSpec,
    FinetuneSpec,
    LabelledCorpus,
    Task,
    datasets,
    signature_defaults,
)
from jobs.kinds.datasets import Dataset, SplitFacts
from jobs.ledger import plans
from jobs.ledger.plans import DataShard
from jobs.ledger.step_leases import StepLease
from jobs.models import compatibility, inspection
from jobs.models.inspection import ModelFacts
from jobs.models.signatures import Reading, RowForm, Signature
from jobs.results import parts
from jobs.settings import Settings
from workers.bulk.label_counts import KnownLabels, LabelCounts
from workers.context import Context
from workers.lease_renewer import LeaseRenewer
from workers.step_lease import PATIENCE

UNNAMED_LABELS = ("LABEL_0", "LABEL_1")
"""Names that transformers gives to the labels of a config without ``id2label``."""

MIN_LABELS = {TargetKind.LABEL: 2, TargetKind.LABELS: 1}


@dataclass(frozen=True)
class _JobInputs:
    spec: AnyTraining
    project_id: str
    reference: str | None  # the base model's or the evaluated model's; None: from scratch
    sources: dict[DatasetSplit, tuple[LabelledCorpus, Source]]


def plan(lease: StepLease, *, renewer: LeaseRenewer, context: Context) -> None:
    """Write the job's data and set it running.

    Raises ``JobFailure``, ``LeaseLost``, ``OSError``.
    """
    inputs = _read_job(lease, context=context)
    model = _inspect_model(inputs, renewer=renewer, context=context)
    signature = signature_defaults.training_signature(inputs.spec, model)
    _check_model(model, signature, spec=inputs.spec)
    writer = _ShardWriter(lease, renewer=renewer, context=context)
    dataset = _dataset(inputs, model, signature, writer=writer)
    database.patiently(
        context.sessions,
        lambda session: plans.complete_dataset(
            session,
            lease,
            shards=writer.shards,
            dataset=dataset,
            model_digest=None if model is None else model.digest,
            reading=_signature_use(inputs, model, dataset),
        ),
        seconds=PATIENCE,
    )


def _read_job(lease: StepLease, *, context: Context) -> _JobInputs:
    with context.sessions.begin() as session:
        spec = kinds.training(lease.spec)
        sources = {
            split: (
                corpus,
                resolve.source(
                    session,
                    context.store,
                    corpus,
                    project_id=lease.project_id,
                    settings=context.settings,
                ),
            )
            for split, corpus in spec.splits.items()
        }
        return _JobInputs(
            spec=spec,
            project_id=lease.project_id,
            reference=lease.model_pinned or (spec.starts_from and spec.starts_from[1]),
            sources=sources,
        )


def _inspect_model(
    inputs: _JobInputs, *, renewer: LeaseRenewer, context: Context
) -> ModelFacts | None:
    if inputs.reference is None:
        return None
    using = context.artefacts.using
    with using(inputs.reference, project_id=inputs.project_id, beat=renewer.beat) as folder:
        facts = inspection.inspect(folder)
    compatibility.check_reads_texts(facts)
    return facts


def _check_model(model: ModelFacts | None, signature: Signature, *, spec: AnyTraining) -> None:
    match spec:
        case FinetuneSpec():
            return  # a fine-tune for labels makes a classification head of its own
        case EvaluateSpec():
            if signature.task is Task.CLASSIFY:
                assert model is not None
                ClassifyOptions().check(model)


def _signature_use(
    inputs: _JobInputs, model: ModelFacts | None, dataset: Dataset
) -> Reading | None:
    """The signature of an evaluated version, and where the job differs from it (promise P13)."""
    trained = None if model is None else model.signature
    match inputs.spec:
        case FinetuneSpec():
            return None
        case EvaluateSpec():
            if trained is None:
                return None
            assert dataset.signature is not None
            return Reading(
                model=inputs.reference or "",
                trained=trained,
                warnings=signature_defaults.differences(dataset.signature, trained),
            )


def _dataset(
    inputs: _JobInputs, model: ModelFacts | None, signature: Signature, *, writer: _ShardWriter
) -> Dataset:
    spec = inputs.spec
    targets = target_values.target_kind(signature.task, multi_label=signature.multi_label)
    known = _labels_of_model(spec, model, task=signature.task)
    splits: dict[DatasetSplit, SplitFacts] = {}
    forms: dict[DatasetSplit, RowForm] = {}
    for split, (corpus, source) in inputs.sources.items():
        counts = LabelCounts(split, targets=targets, known=known)
        splits[split] = facts = writer.write(split, corpus, source, counts=counts, targets=targets)
        forms[split] = counts.form
        if split is DatasetSplit.TRAIN and facts.labels is not None:
            _check_labels(facts, targets)
            known = KnownLabels(facts.labels, "the training corpus")
    if isinstance(spec, FinetuneSpec) and DatasetSplit.VALIDATION not in splits:
        _check_validation_share(spec, splits[DatasetSplit.TRAIN])
    labels = next(iter(splits.values())).labels
    return Dataset(
        labels=None if labels is None else tuple(labels),
        splits=splits,
        signature=signature_defaults.with_row_forms(signature, spec, forms),
    )


def _labels_of_model(
    spec: AnyTraining, model: ModelFacts | None, *, task: Task
) -> KnownLabels | None:
    """The labels of an evaluated classifier; those of a fine-tune come from the training rows."""
    match spec:
        case FinetuneSpec():
            return None
        case EvaluateSpec():
            if model is None or task is not Task.CLASSIFY:
                return None
            names = tuple(map(values.label_name, model.id2label or UNNAMED_LABELS))
            return KnownLabels(names, "the model")


def _check_labels(train: SplitFacts, targets: TargetKind) -> None:
    labels, minimum = train.labels or {}, MIN_LABELS[targets]
    if len(labels) >= minimum:
        return
    given = f"all {train.rows:,} have {next(iter(labels))[:100]!r}" if labels else "they have none"
    raise CorpusFailure(
        f"the training rows must have at least {minimum} different label"
        f"{'s' if minimum > 1 else ''}, and {given}",
        code="one_label",
    )


def _check_validation_share(spec: FinetuneSpec, train: SplitFacts) -> None:
    counts = validation_split.strata(train.labels, rows=train.rows, multi_label=spec.multi_label)
    validation_rows = sum(
        validation_split.validation_rows(counts, share=spec.validation_share).values()
    )
    if 0 < validation_rows < train.rows:
        return
    empty = "validation" if validation_rows == 0 else "train"
    raise CorpusFailure(
        f"validation_share {spec.validation_share} of {train.rows:,} rows leaves the split {empty} "
        "empty: a label gives a row away only if it has another; hand in more rows, or a "
        "validation corpus",
        code="split_empty",
    )


class _ShardWriter:
    """Writes the shards of all splits under one numbering."""

    def __init__(self, lease: StepLease, *, renewer: LeaseRenewer, context: Context) -> None:
        self._lease = lease
        self._beat = renewer.beat
        self._store = context.store
        self._settings = context.settings
        self.shards: list[DataShard] = []

    def write(
        self,
        split: DatasetSplit,
        corpus: LabelledCorpus,
        source: Source,
        *,
        counts: LabelCounts,
        targets: TargetKind,
    ) -> SplitFacts:
        """Write a corpus as shards. Raises ``CorpusFailure``."""
        first_shard, fingerprint = len(self.shards), source.fingerprint()
        limits = Limits.of(self._settings)
        batches = decoder.read(source, corpus, limits=limits, targets=targets)
        for table in joined_to_shards(self._usable(batches, counts), settings=self._settings):
            self.shards.append(self._write_shard(split, table))
        if source.fingerprint() != fingerprint:
            raise CorpusFailure(
                f"the {split} corpus changed while it was read; submit the job again when it is "
                "complete",
                code="corpus_changed",
            )
        return counts.facts(fingerprint=fingerprint, shards=len(self.shards) - first_shard)

    def _usable(self, batches: Iterable[pa.RecordBatch], counts: LabelCounts) -> Iterator[pa.Table]:
        for batch in batches:
            self._beat()
            yield counts.add(batch)

    def _write_shard(self, split: DatasetSplit, table: pa.Table) -> DataShard:
        key = datasets.shard_key(
            self._lease.job_id, split, index=len(self.shards), fence=self._lease.fence
        )
        buffer = io.BytesIO()
        pq.write_table(table, buffer, row_group_size=parts.ROW_GROUP, compression="zstd")
        self._store.put(key, buffer.getvalue())
        return DataShard(
            split=split,
            object_key=key,
            sha256=hashlib.sha256(buffer.getbuffer()).hexdigest(),
            first_row=int(table["row"][0].as_py()),
            rows=table.num_rows,
        )


def joined_to_shards(tables: Iterable[pa.Table], *, settings: Settings) -> Iterator[pa.Table]:
    """Tables joined to shards of the configured rows or bytes; none is empty."""
    pending: list[pa.Table] = []
    rows = size = 0
    for table in tables:
        pending.append(table)
        rows += table.num_rows
        size += table.nbytes
        while rows and (rows >= settings.shard_rows or size >= settings.shard_bytes):
            joined = pa.concat_tables(pending)
            yield joined.slice(0, settings.shard_rows)
            rest = joined.slice(settings.shard_rows)
            pending, rows, size = [rest], rest.num_rows, rest.nbytes
    if rows:
        yield pa.concat_tables(pending)
