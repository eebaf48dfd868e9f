"""``pipeline``: a pipeline of the transformers library over every row of a corpus.

It finds entities, fills masks, classifies images, transcribes speech; a row's answer is JSON.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import ClassVar, Literal

from pydantic import Field, JsonValue, field_validator

from jobs.errors import ModelFailure
from jobs.kinds.bulk_spec import BulkSpec, Options
from jobs.kinds.result_columns import TOKENS, TRUNCATED, Column, ColumnType
from jobs.models import compatibility
from jobs.models.inspection import ModelFacts
from jobs.settings import Settings


class PipelineTask(StrEnum):
    """Tasks of the transformers library's pipelines, by its own names."""

    TOKEN_CLASSIFICATION = "token-classification"  # noqa: S105 - no password
    FILL_MASK = "fill-mask"
    IMAGE_CLASSIFICATION = "image-classification"
    ZERO_SHOT_IMAGE_CLASSIFICATION = "zero-shot-image-classification"
    OBJECT_DETECTION = "object-detection"
    AUDIO_CLASSIFICATION = "audio-classification"
    SPEECH_RECOGNITION = "automatic-speech-recognition"


AUDIO_HEADS = (
    "ASTForAudioClassification",
    "HubertForSequenceClassification",
    "SEWForSequenceClassification",
    "Wav2Vec2BertForSequenceClassification",
    "Wav2Vec2ConformerForSequenceClassification",
    "Wav2Vec2ForSequenceClassification",
    "WavLMForSequenceClassification",
)
SPEECH_WRITERS = ("WhisperForConditionalGeneration",)
PIPELINES: dict[PipelineTask, tuple[str, ...]] = {
    PipelineTask.TOKEN_CLASSIFICATION: ("ForTokenClassification",),
    PipelineTask.FILL_MASK: ("ForMaskedLM",),
    PipelineTask.IMAGE_CLASSIFICATION: ("ForImageClassification",),
    PipelineTask.ZERO_SHOT_IMAGE_CLASSIFICATION: ("CLIPModel", "SiglipModel", "Siglip2Model"),
    PipelineTask.OBJECT_DETECTION: ("ForObjectDetection",),
    PipelineTask.AUDIO_CLASSIFICATION: ("ForAudioClassification", *AUDIO_HEADS),
    PipelineTask.SPEECH_RECOGNITION: ("ForCTC", "ForSpeechSeq2Seq", *SPEECH_WRITERS),
}
"""Endings of the architectures that were made for each task."""

READS_TEXTS = frozenset({PipelineTask.TOKEN_CLASSIFICATION, PipelineTask.FILL_MASK})
"""Tasks whose rows are texts; those of the others name files."""

WRITES_TEXTS = frozenset(
    {PipelineTask.ZERO_SHOT_IMAGE_CLASSIFICATION, PipelineTask.SPEECH_RECOGNITION}
)
"""Tasks that need a tokenizer beside what reads their files."""

PARAMETERS: dict[PipelineTask, frozenset[str]] = {
    PipelineTask.TOKEN_CLASSIFICATION: frozenset(
        {"aggregation_strategy", "delimiter", "ignore_labels", "is_split_into_words", "stride"}
    ),
    PipelineTask.FILL_MASK: frozenset({"targets", "tokenizer_kwargs", "top_k"}),
    PipelineTask.IMAGE_CLASSIFICATION: frozenset({"function_to_apply", "top_k"}),
    PipelineTask.ZERO_SHOT_IMAGE_CLASSIFICATION: frozenset(
        {"candidate_labels", "hypothesis_template", "tokenizer_kwargs"}
    ),
    PipelineTask.OBJECT_DETECTION: frozenset({"threshold"}),
    PipelineTask.AUDIO_CLASSIFICATION: frozenset({"function_to_apply", "top_k"}),
    PipelineTask.SPEECH_RECOGNITION: frozenset(
        {
            "chunk_length_s",
            "decoder_kwargs",
            "generate_kwargs",
            "return_language",
            "return_timestamps",
            "stride_length_s",
        }
    ),
}
"""What each task's pipeline may be called with.

The library's pipelines take more: some pass over a name that they do not know, and by others
(``images``) a job would read a file that the allow-list keeps from it.
"""

RESERVED_PARAMETERS = frozenset({"batch_size", "num_workers"})
"""Parameters of a call that the engine sets itself."""

REMOTE_CODE_PARAMETERS = frozenset({"trust_remote_code", "custom_generate"})


class PipelineOptions(Options):
    """A pipeline of the transformers library, called as its documentation says."""

    kind: ClassVar[str] = "pipeline"

    task: PipelineTask | None = Field(
        None, description="Default: what the model's architecture was made for."
    )
    parameters: dict[str, JsonValue] = Field(
        {},
        description="What the pipeline is called with, such as "
        '`{"aggregation_strategy": "simple"}` or `{"candidate_labels": ["cat", "dog"]}`.',
    )
    batch_rows: int | None = Field(
        None,
        ge=1,
        le=4_096,
        description="Rows that go through the model at once. Default: 1 on a CPU, else 16.",
    )

    def __hash__(self) -> int:
        """Options tell loaded models apart."""
        return hash(self.model_dump_json())

    @field_validator("parameters")
    @classmethod
    def _of_the_call(cls, value: dict[str, JsonValue]) -> dict[str, JsonValue]:
        if taken := RESERVED_PARAMETERS & value.keys():
            raise ValueError(
                f"parameters must not have {', '.join(sorted(taken))}: set batch_rows instead"
            )
        if code := REMOTE_CODE_PARAMETERS & set(_names(value)):
            raise ValueError(
                f"parameters must not have {', '.join(sorted(code))}: it would run foreign code"
            )
        return value

    @property
    def reads_texts(self) -> bool:
        """That depends on the task, which depends on the model: ``check_model`` looks."""
        return False

    def check_model(self, facts: ModelFacts) -> None:
        """An architecture for the task, and whatever reads its rows."""
        task = self.task_of(facts)
        if facts.architectures and not _is_made_for(facts, task):
            raise ModelFailure(
                f"{task} needs a model of another architecture (...{', ...'.join(PIPELINES[task])})"
                f"; this one is {compatibility.named(facts)}",
                code="model_no_pipeline",
            )
        if task in READS_TEXTS | WRITES_TEXTS:
            compatibility.check_reads_texts(facts)
        if task not in READS_TEXTS and not facts.has_preprocessor:
            raise ModelFailure(
                f"{task} needs a preprocessor_config.json in the model's folder, which says how "
                "its images or sounds are read",
                code="model_no_preprocessor",
            )
        self._check_parameters(task)

    def task_of(self, facts: ModelFacts) -> PipelineTask:
        """The pipeline's task: the option, or else what the model's architecture was made for."""
        if self.task is not None:
            return self.task
        for task in PIPELINES:
            if _is_made_for(facts, task) and (task in READS_TEXTS or facts.has_preprocessor):
                return task
        raise ModelFailure(
            f"no pipeline is known for this model ({compatibility.named(facts)}): classify, embed, "
            "generate and text2text are kinds of their own; pipeline.task may be "
            f"{', '.join(PipelineTask)}",
            code="model_no_pipeline",
        )

    def _check_parameters(self, task: PipelineTask) -> None:
        if unknown := self.parameters.keys() - PARAMETERS[task]:
            raise ModelFailure(
                f"pipeline.parameters of {task} may be {', '.join(sorted(PARAMETERS[task]))}, not "
                f"{', '.join(sorted(unknown))}",
                code="pipeline_refused",
            )
        candidates = self.parameters.get("candidate_labels")
        if task is PipelineTask.ZERO_SHOT_IMAGE_CLASSIFICATION and not candidates:
            raise ModelFailure(
                f"{task} needs pipeline.parameters.candidate_labels, a list of texts",
                code="pipeline_refused",
            )


class PipelineSpec(BulkSpec):
    """Find entities, fill masks, classify images, transcribe speech: one row, one answer as JSON.

    Of images and sounds each row is a URI that the workers may read.
    """

    columns: ClassVar[tuple[Column, ...]] = (
        Column("output", ColumnType.TEXT),  # JSON
        TOKENS,  # null too where the row names a file
        TRUNCATED,
    )

    kind: Literal["pipeline"] = "pipeline"
    pipeline: PipelineOptions = PipelineOptions()

    def default_chunk_rows(self, settings: Settings) -> int:
        """Fewer than where a row is one forward pass over a text."""
        return settings.written_chunk_rows


def _is_made_for(facts: ModelFacts, task: PipelineTask) -> bool:
    return any(name.endswith(PIPELINES[task]) for name in facts.architectures)


def _names(value: JsonValue) -> Iterator[str]:
    """The names of all fields, however deep."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield name
            yield from _names(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _names(inner)
