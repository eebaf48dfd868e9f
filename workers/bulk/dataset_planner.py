"""Planning of a training job: its corpora are streamed once each and written down as shards.

Nothing is in the ledger before all is: a planner that dies leaves objects under its own fence that
nobody points at, and its successor starts afresh. Memory is bounded by one shard.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from jobs import database, datasets, kinds
from jobs.corpora import readers, resolve, values
from jobs.corpora import targets as target_values
from jobs.corpora.sources import Source
from jobs.corpora.targets import Targets
from jobs.datasets import Dataset, Split, SplitFacts
from jobs.decisions import signature_defaults, validation_split
from jobs.errors import CorpusFailure
from jobs.kinds import AnyTraining, ClassifyOptions, EvaluateSpec, FinetuneSpec, LabelledCorpus
from jobs.kinds import Task as TrainingTask
from jobs.ledger import plans
from jobs.ledger.plans import DataShard
from jobs.ledger.step_leases import StepLease
from jobs.models import compatibility, inspection, references
from jobs.models.inspection import ModelFacts
from jobs.models.signatures import Reading, RowForm, Signature
from jobs.results import parts
from jobs.settings import Settings
from workers.bulk.label_counts import Known, Tally
from workers.context import Context
from workers.lease_renewer import Keeper
from workers.step_lease import PATIENCE

UNNAMED_LABELS = ("LABEL_0", "LABEL_1")
"""What transformers calls the labels of a config that names none."""

LEAST_LABELS = {Targets.LABEL: 2, Targets.LABELS: 1}


@dataclass(frozen=True)
class _Opened:
    spec: AnyTraining
    project_id: str
    reference: str | None  # of the model to begin with; None: from scratch
    sources: dict[Split, tuple[LabelledCorpus, Source]]


def plan(held: StepLease, *, keeper: Keeper, context: Context) -> None:
    """Write the job's data and let it run. Raises ``JobFailure``, ``LeaseLost``, ``OSError``."""
    opened = _open(held, context=context)
    model = _inspect_model(opened, keeper=keeper, context=context)
    signature = signature_defaults.training_signature(opened.spec, model)
    _check_model(model, signature, spec=opened.spec)
    writing = _Writing(held, keeper=keeper, context=context)
    dataset = _dataset(opened, model, signature, writing=writing)
    database.patiently(
        context.sessions,
        lambda session: plans.complete_dataset(
            session,
            held,
            shards=writing.shards,
            dataset=dataset,
            model_digest=None if model is None else model.digest,
            reading=_reading(opened, model, dataset),
        ),
        seconds=PATIENCE,
    )


def _open(held: StepLease, *, context: Context) -> _Opened:
    with context.sessions.begin() as session:
        spec = kinds.training(held.spec)
        named = references.of_spec(spec)
        sources = {
            split: (
                corpus,
                resolve.source(
                    session,
                    context.store,
                    corpus,
                    project_id=held.project_id,
                    allowed=context.settings.allowed_inputs,
                ),
            )
            for split, corpus in datasets.corpora(spec).items()
        }
        return _Opened(
            spec=spec,
            project_id=held.project_id,
            reference=held.model_pinned or (None if named is None else named[1]),
            sources=sources,
        )


def _inspect_model(opened: _Opened, *, keeper: Keeper, context: Context) -> ModelFacts | None:
    if opened.reference is None:
        return None
    using = context.artefacts.using
    with using(opened.reference, project_id=opened.project_id, beat=keeper.beat) as folder:
        facts = inspection.inspect(folder)
    compatibility.check_reads_texts(facts)
    return facts


def _check_model(model: ModelFacts | None, signature: Signature, *, spec: AnyTraining) -> None:
    if isinstance(spec, EvaluateSpec) and signature.task is TrainingTask.CLASSIFY:
        assert model is not None
        compatibility.check(model, ClassifyOptions())


def _reading(opened: _Opened, model: ModelFacts | None, dataset: Dataset) -> Reading | None:
    """How an evaluated version was trained, and what the job has otherwise."""
    known = None if model is None else model.signature
    if not isinstance(opened.spec, EvaluateSpec) or known is None:
        return None
    assert dataset.signature is not None
    return Reading(
        model=opened.reference or "",
        trained=known,
        warnings=signature_defaults.differences(dataset.signature, known),
    )


def _dataset(
    opened: _Opened, model: ModelFacts | None, signature: Signature, *, writing: _Writing
) -> Dataset:
    spec = opened.spec
    targets = target_values.of(signature.task, multi_label=signature.multi_label)
    known = _labels_of_model(spec, model, task=signature.task)
    splits: dict[Split, SplitFacts] = {}
    forms: dict[Split, RowForm] = {}
    for split, (corpus, source) in opened.sources.items():
        tally = Tally(split, targets=targets, known=known)
        splits[split] = found = writing.split(split, corpus, source, tally=tally, targets=targets)
        forms[split] = tally.form
        if split is Split.TRAIN and found.labels is not None:
            _check_labels(found, targets)
            known = Known(found.labels, "the training corpus")
    if isinstance(spec, FinetuneSpec) and Split.VALIDATION not in splits:
        _check_share(spec, splits[Split.TRAIN])
    labels = next(iter(splits.values())).labels
    return Dataset(
        labels=None if labels is None else tuple(labels),
        splits=splits,
        signature=signature_defaults.with_row_forms(signature, spec, forms),
    )


def _labels_of_model(
    spec: AnyTraining, model: ModelFacts | None, *, task: TrainingTask
) -> Known | None:
    """What an evaluated classifier can answer; in a fine-tune the training rows say that."""
    if model is None or isinstance(spec, FinetuneSpec) or task is not TrainingTask.CLASSIFY:
        return None
    return Known(tuple(map(values.label, model.id2label or UNNAMED_LABELS)), "the model")


def _check_labels(train: SplitFacts, targets: Targets) -> None:
    labels, least = train.labels or {}, LEAST_LABELS[targets]
    if len(labels) >= least:
        return
    found = f"all {train.rows:,} have {next(iter(labels))[:100]!r}" if labels else "they have none"
    raise CorpusFailure(
        f"the training rows must have at least {least} different label"
        f"{'s' if least > 1 else ''}, and {found}",
        code="one_label",
    )


def _check_share(spec: FinetuneSpec, train: SplitFacts) -> None:
    counts = validation_split.strata(train.labels, rows=train.rows, multi_label=spec.multi_label)
    taken = sum(validation_split.validation_rows(counts, share=spec.validation_share).values())
    if 0 < taken < train.rows:
        return
    left = "validation" if taken == 0 else "train"
    raise CorpusFailure(
        f"validation_share {spec.validation_share} of {train.rows:,} rows leaves the split {left} "
        "empty: a label gives a row away only if it has another; hand in more rows, or a "
        "validation corpus",
        code="split_empty",
    )


class _Writing:
    """The shards of all splits as they are written, numbered through."""

    def __init__(self, held: StepLease, *, keeper: Keeper, context: Context) -> None:
        self._held = held
        self._beat = keeper.beat
        self._store = context.store
        self._settings = context.settings
        self.shards: list[DataShard] = []

    def split(
        self,
        split: Split,
        corpus: LabelledCorpus,
        source: Source,
        *,
        tally: Tally,
        targets: Targets,
    ) -> SplitFacts:
        """Stream a corpus into shards."""
        before, fingerprint = len(self.shards), source.fingerprint()
        limit = self._settings.max_row_bytes
        batches = readers.read(source, corpus, max_row_bytes=limit, targets=targets)
        for table in gathered(self._usable(batches, tally), settings=self._settings):
            self.shards.append(self._written(split, table))
        if source.fingerprint() != fingerprint:
            raise CorpusFailure(
                f"the {split} corpus changed while it was read; submit the job again when it is "
                "complete",
                code="corpus_changed",
            )
        return tally.facts(fingerprint=fingerprint, shards=len(self.shards) - before)

    def _usable(self, batches: Iterable[pa.RecordBatch], tally: Tally) -> Iterator[pa.Table]:
        for batch in batches:
            self._beat()
            yield tally.add(batch)

    def _written(self, split: Split, table: pa.Table) -> DataShard:
        key = datasets.shard_key(
            self._held.job_id, split, index=len(self.shards), fence=self._held.fence
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


def gathered(tables: Iterable[pa.Table], *, settings: Settings) -> Iterator[pa.Table]:
    """Tables joined up to a shard's rows or bytes, none empty."""
    waiting: list[pa.Table] = []
    rows = size = 0
    for table in tables:
        waiting.append(table)
        rows += table.num_rows
        size += table.nbytes
        while rows and (rows >= settings.shard_rows or size >= settings.shard_bytes):
            whole = pa.concat_tables(waiting)
            yield whole.slice(0, settings.shard_rows)
            rest = whole.slice(settings.shard_rows)
            waiting, rows, size = [rest], rest.num_rows, rest.nbytes
    if rows:
        yield pa.concat_tables(waiting)
