"""The kinds of jobs, and the one registry of them.

A kind is a file here: its spec, checked field by field, the columns of its results, how many rows a
chunk has, and what it asks of a model. A spec is the request and the record: it is stored with the
job as it was accepted. Unknown fields are refused, so that a misspelt option is an error and not a
silent default.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Union, get_args

from pydantic import Discriminator, Tag, TypeAdapter

from jobs.formats import CorpusFormat, OutputFormat
from jobs.kinds.base import Corpus, IfEmpty, JobSpec, Output, Since, SqlQuery, Strict
from jobs.kinds.bulk_spec import (
    BulkSpec,
    DecodingOptions,
    LongTexts,
    Options,
    PairCorpus,
    WindowOptions,
)
from jobs.kinds.classify import ClassifyOptions, ClassifySpec, Explain
from jobs.kinds.embed import EmbedOptions, EmbedSpec, Pooling
from jobs.kinds.evaluate import EvaluateSpec
from jobs.kinds.finetune import (
    FROM_SCRATCH,
    Architecture,
    FinetuneSpec,
    Lora,
    TrainOptions,
)
from jobs.kinds.generate import GenerateOptions, GenerateSpec, PromptCorpus
from jobs.kinds.pipeline import PipelineOptions, PipelineSpec, PipelineTask
from jobs.kinds.promote import LabelFloors, Promote
from jobs.kinds.score import ScoreActivation, ScoreOptions, ScoreSpec
from jobs.kinds.text2text import Text2TextOptions, Text2TextSpec
from jobs.kinds.training_spec import (
    METRICS,
    DatasetSplit,
    LabelledCorpus,
    Machines,
    TrainingSpec,
)
from jobs.models.signatures import Task

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
    "DatasetSplit",
    "DecodingOptions",
    "EmbedOptions",
    "EmbedSpec",
    "EvaluateSpec",
    "Explain",
    "FinetuneSpec",
    "GenerateOptions",
    "GenerateSpec",
    "IfEmpty",
    "JobSpec",
    "LabelFloors",
    "LabelledCorpus",
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
    "ScoreActivation",
    "ScoreOptions",
    "ScoreSpec",
    "Since",
    "Spec",
    "SqlQuery",
    "Strict",
    "Task",
    "Text2TextOptions",
    "Text2TextSpec",
    "TrainOptions",
    "TrainingSpec",
    "WindowOptions",
    "bulk",
    "parse",
    "training",
]

AnyBulk = ClassifySpec | EmbedSpec | GenerateSpec | PipelineSpec | ScoreSpec | Text2TextSpec
AnyTraining = EvaluateSpec | FinetuneSpec
AnySpec = AnyBulk | AnyTraining
"""The kinds that there are; all else reads them from here."""

KINDS: dict[str, type[JobSpec]] = {
    spec.model_fields["kind"].default: spec for spec in get_args(AnySpec)
}
BULK = frozenset(kind for kind, spec in KINDS.items() if issubclass(spec, BulkSpec))
TRAINING = frozenset(KINDS) - BULK


def _kind(value: object) -> str:
    """The kind of a spec as it was sent; without one it is a classification."""
    found = value.get("kind", "classify") if isinstance(value, dict) else getattr(value, "kind", "")
    return str(found)


if TYPE_CHECKING:
    Spec = AnySpec
else:
    Spec = Annotated[
        Union[tuple(Annotated[spec, Tag(kind)] for kind, spec in KINDS.items())],  # noqa: UP007
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
