"""What a user may ask for: the spec of each kind of job, checked field by field.

A spec is the request and the record: it is stored with the job as it was accepted. Unknown fields
are refused, so that a misspelt option is an error and not a silent default.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Discriminator, Tag, TypeAdapter

from jobs.formats import CorpusFormat, OutputFormat
from jobs.kinds.base import Corpus, JobSpec, Output, Strict
from jobs.kinds.bulk import (
    AnyBulk,
    BulkSpec,
    ClassifyOptions,
    ClassifySpec,
    EmbedOptions,
    EmbedSpec,
    Explain,
    GenerateOptions,
    GenerateSpec,
    LoadOptions,
    LongTexts,
    Options,
    PairCorpus,
    PipelineOptions,
    PipelineSpec,
    PipelineTask,
    Pooling,
    PromptCorpus,
    Text2TextOptions,
    Text2TextSpec,
    WindowOptions,
    WriteOptions,
)
from jobs.kinds.training import (
    FROM_SCRATCH,
    METRICS,
    AnyTraining,
    Architecture,
    EvaluateSpec,
    FinetuneSpec,
    LabelledCorpus,
    Lora,
    Machines,
    Promote,
    Task,
    TrainingSpec,
    TrainOptions,
)

__all__ = [
    "BULK",
    "FROM_SCRATCH",
    "KINDS",
    "METRICS",
    "TRAINING",
    "AnyBulk",
    "AnySpec",
    "AnyTraining",
    "Architecture",
    "BulkSpec",
    "ClassifyOptions",
    "ClassifySpec",
    "Corpus",
    "CorpusFormat",
    "EmbedOptions",
    "EmbedSpec",
    "EvaluateSpec",
    "Explain",
    "FinetuneSpec",
    "GenerateOptions",
    "GenerateSpec",
    "JobSpec",
    "LabelledCorpus",
    "LoadOptions",
    "LongTexts",
    "Lora",
    "Machines",
    "Options",
    "Output",
    "OutputFormat",
    "PairCorpus",
    "PipelineOptions",
    "PipelineSpec",
    "PipelineTask",
    "Pooling",
    "Promote",
    "PromptCorpus",
    "Spec",
    "Strict",
    "Task",
    "Text2TextOptions",
    "Text2TextSpec",
    "TrainOptions",
    "TrainingSpec",
    "WindowOptions",
    "WriteOptions",
    "bulk",
    "parse",
    "training",
]

KINDS: dict[str, type[JobSpec]] = {
    "classify": ClassifySpec,
    "embed": EmbedSpec,
    "evaluate": EvaluateSpec,
    "finetune": FinetuneSpec,
    "generate": GenerateSpec,
    "pipeline": PipelineSpec,
    "text2text": Text2TextSpec,
}
BULK = frozenset(kind for kind, spec in KINDS.items() if issubclass(spec, BulkSpec))
TRAINING = frozenset(KINDS) - BULK


def _kind(value: object) -> str:
    """The kind of a spec as it was sent; without one it is a classification."""
    found = value.get("kind", "classify") if isinstance(value, dict) else getattr(value, "kind", "")
    return str(found)


AnySpec = AnyBulk | AnyTraining
Spec = Annotated[
    Annotated[ClassifySpec, Tag("classify")]
    | Annotated[EmbedSpec, Tag("embed")]
    | Annotated[EvaluateSpec, Tag("evaluate")]
    | Annotated[FinetuneSpec, Tag("finetune")]
    | Annotated[GenerateSpec, Tag("generate")]
    | Annotated[PipelineSpec, Tag("pipeline")]
    | Annotated[Text2TextSpec, Tag("text2text")],
    Discriminator(
        _kind,
        custom_error_type="unknown_kind",
        custom_error_message=f"kind must be one of {', '.join(sorted(KINDS))}",
    ),
]
"""Any job's spec, told apart by ``kind``."""

_ANY: TypeAdapter[AnySpec] = TypeAdapter(Spec)


def parse(value: object) -> AnySpec:
    """A spec of whatever kind. Raises pydantic's ``ValidationError``."""
    return _ANY.validate_python(value)


def bulk(value: object) -> AnyBulk:
    """A stored spec of a bulk job."""
    found = parse(value)
    assert isinstance(found, BulkSpec)
    return found


def training(value: object) -> AnyTraining:
    """A stored spec of a job that trains or evaluates."""
    found = parse(value)
    assert isinstance(found, TrainingSpec)
    return found
