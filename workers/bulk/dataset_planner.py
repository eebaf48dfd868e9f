"""Planning of training jobs: one pass over each corpus writes the shards of its split.

The ledger records all shards in one transaction at the end. A planner that dies leaves objects
under its own fence, which no row points at, and its successor starts again. Memory is bounded by
one shard (promise P5).
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass

from jobs import database, kinds
from jobs.corpora import targets as target_values
from jobs.corpora import values
from jobs.corpora.targets import TargetKind
from jobs.decisions import validation_split
from jobs.decisions.held_back import HeldBack
from jobs.errors import CorpusFailure
from jobs.inputs import Input
from jobs.kinds import (
    AnyTraining,
    ClassifyOptions,
    DatasetSplit,
    EvaluateSpec,
    FinetuneSpec,
    Task,
    signature_defaults,
)
from jobs.kinds.datasets import Dataset, SplitFacts
from jobs.ledger import plans
from jobs.ledger.step_leases import StepLease
from jobs.models import compatibility, inspection
from jobs.models.inspection import ModelFacts
from jobs.models.signatures import Reading, RowForm, Signature
from workers.bulk import job_inputs, label_sets
from workers.bulk.label_counts import KnownLabels, LabelCounts
from workers.bulk.label_sets import FixedLabels
from workers.bulk.shard_writer import NoRows, ShardWriter
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
    labels: FixedLabels | None  # that the model knows; None: those of the training rows
    found: dict[str, tuple[Input, ...]]  # the objects of each corpus by its split


def plan(lease: StepLease, *, renewer: LeaseRenewer, context: Context) -> None:
    """Write the job's data and set it running, unless it ends without rows.

    Raises ``JobFailure``, ``LeaseLost``, ``OSError``.
    """
    with contextlib.suppress(NoRows):
        _plan(lease, renewer=renewer, context=context)


def _plan(lease: StepLease, *, renewer: LeaseRenewer, context: Context) -> None:
    inputs = _read_job(lease, renewer=renewer, context=context)
    _check_objects(lease, inputs, renewer=renewer, context=context)
    model = _inspect_model(inputs, renewer=renewer, context=context)
    signature = signature_defaults.training_signature(inputs.spec, model)
    _check_model(model, signature, spec=inputs.spec)
    writer = ShardWriter(lease, renewer=renewer, context=context)
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
            read={split: reader.read for split, reader in writer.readers.items()},
        ),
        seconds=PATIENCE,
    )


def _read_job(lease: StepLease, *, renewer: LeaseRenewer, context: Context) -> _JobInputs:
    spec = kinds.training(lease.spec)
    corpora = {str(split): corpus for split, corpus in spec.splits.items()}
    found = job_inputs.settle(lease, corpora, beat=renewer.beat, context=context)
    with context.sessions.begin() as session:
        labels = label_sets.read(session, spec, project_id=lease.project_id)
    return _JobInputs(
        spec=spec,
        project_id=lease.project_id,
        reference=lease.model_pinned or (spec.starts_from and spec.starts_from[1]),
        labels=labels,
        found=found,
    )


def _check_objects(
    lease: StepLease, inputs: _JobInputs, *, renewer: LeaseRenewer, context: Context
) -> None:
    """Before the model is loaded: raise ``NoRows`` or fail where a corpus has no object at all."""
    for split, corpus in inputs.spec.splits.items():
        if not inputs.found[split]:
            reader = job_inputs.reader(corpus, (), beat=renewer.beat, context=context)
            if job_inputs.end_if_empty(lease, {split: reader}, rows=0, context=context):
                raise NoRows


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
    inputs: _JobInputs, model: ModelFacts | None, signature: Signature, *, writer: ShardWriter
) -> Dataset:
    spec, fixed = inputs.spec, inputs.labels
    targets = target_values.target_kind(signature.task, multi_label=signature.multi_label)
    known = _labels_of_model(spec, model, task=signature.task)
    if fixed is not None and not fixed.grows:
        known = KnownLabels(fixed.labels, fixed.source)
    splits: dict[DatasetSplit, SplitFacts] = {}
    forms: dict[DatasetSplit, RowForm] = {}
    labels: tuple[str, ...] | None = None
    for split, corpus in spec.splits.items():
        counts = LabelCounts(split, targets=targets, known=known)
        found = inputs.found[split]
        facts = writer.write(split, corpus, found, counts=counts, targets=targets)
        splits[split], forms[split] = facts, counts.form
        if labels is None and facts.labels is not None:
            labels = tuple(facts.labels) if fixed is None else fixed.with_those_of(facts.labels)
        if split is DatasetSplit.TRAIN and isinstance(spec, FinetuneSpec):
            if spec.held_back is not None:
                splits |= _held_back(facts, spec.held_back, writer=writer, targets=targets)
                forms[DatasetSplit.PROMOTION] = counts.form
            if labels is not None:
                labels = _labels_to_learn(labels, splits, fixed, targets)
                known = KnownLabels(labels, fixed.source if fixed else "the training corpus")
    if isinstance(spec, FinetuneSpec) and DatasetSplit.VALIDATION not in splits:
        _check_validation_share(spec, splits[DatasetSplit.TRAIN])
    return Dataset(
        labels=labels,
        splits=splits,
        signature=signature_defaults.with_row_forms(signature, spec, forms),
        labels_of=None if fixed is None else fixed.version,
    )


def _held_back(
    train: SplitFacts, newest: HeldBack, *, writer: ShardWriter, targets: TargetKind
) -> dict[DatasetSplit, SplitFacts]:
    left, held = writer.hold_back(train, newest, targets=targets)
    return {DatasetSplit.TRAIN: left, DatasetSplit.PROMOTION: held}


def _labels_to_learn(
    labels: tuple[str, ...],
    splits: Mapping[DatasetSplit, SplitFacts],
    fixed: FixedLabels | None,
    targets: TargetKind,
) -> tuple[str, ...]:
    """The labels of the model. Raises ``CorpusFailure``.

    Without a label set they are those of the rows that are trained on.
    """
    if fixed is not None:
        return labels
    train = splits[DatasetSplit.TRAIN]
    _check_labels(train, targets)
    learnt = train.labels or {}
    for label in labels:
        if label not in learnt:
            raise CorpusFailure(
                f"the newest rows, which promote.newest holds back, have the label {label[:100]!r},"
                " which the rows before them lack: hold back fewer, or fix the label set with "
                "labels",
                code="unknown_label",
            )
    return tuple(learnt)


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
