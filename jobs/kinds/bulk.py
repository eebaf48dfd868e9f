"""Specs of bulk jobs: one result for every row of a corpus."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Literal, Self

from pydantic import Field, JsonValue, field_validator, model_validator

from jobs.decisions.failure_limit import FailureLimit
from jobs.kinds.base import Corpus, JobSpec, Output, Strict


class LongTexts(StrEnum):
    """What becomes of a text that is longer than the window."""

    TRUNCATE = "truncate"
    STRIDE = "stride"


class LoadOptions(Strict):
    """How a model is loaded, whatever it does."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="`auto`: float32 on CPU, bfloat16 where the accelerator has it."
    )


class WindowOptions(LoadOptions):
    """How texts are read by a model that answers with numbers."""

    long_texts: LongTexts = Field(
        LongTexts.TRUNCATE,
        description="`truncate` keeps the beginning and marks the row; `stride` averages over "
        "overlapping windows.",
    )
    stride: int = Field(64, ge=0, description="Tokens that neighbouring windows share.")
    max_tokens: int | None = Field(
        None,
        ge=8,
        description="Window in tokens. Default: as the model was trained, else what it can read, "
        "which is the upper bound.",
    )


class Explain(Strict):
    """Which rows' labels are explained, token by token."""

    rows: tuple[int, ...] = Field(
        (), max_length=10_000, description="These rows, by their place in the corpus from 0."
    )
    every: int | None = Field(
        None, ge=1, description="Every so manieth row: 1 is all of them, 100 one in a hundred."
    )
    below: float | None = Field(
        None, gt=0, le=1, description="Rows whose best score is below this."
    )
    steps: int = Field(
        32, ge=8, le=1_024, description="Of the integral; more are slower and more exact."
    )

    @model_validator(mode="after")
    def _chooses(self) -> Self:
        if not self.rows and self.every is None and self.below is None:
            raise ValueError("explain must say which rows: give rows, every or below")
        if any(row < 0 for row in self.rows):
            raise ValueError("explain.rows must be places in the corpus, from 0")
        return self


class ClassifyOptions(WindowOptions):
    """How to classify. With ``labels`` the model is an encoder and the nearest label wins."""

    labels: tuple[str, ...] | None = Field(
        None,
        description="Label texts: the label whose embedding is nearest to the row's (cosine). "
        "Without: the model's own head and id2label.",
    )
    hypothesis: str | None = Field(
        None,
        description="Zero-shot: a sentence with {} where a label stands, such as `This text is "
        "about {}.`. The model is one of natural language inference (NLI), and the label wins "
        "whose sentence follows most from the text.",
    )
    top_k: int = Field(1, ge=1, description="How many labels, best first.")
    all_scores: bool = Field(default=False, description="Every label with its score, best first.")
    multi_label: bool | None = Field(
        None,
        description="Every label whose sigmoid score reaches `threshold`. Default: as the model "
        "was trained, else what its config says (problem_type).",
    )
    threshold: float = Field(0.5, gt=0, lt=1, description="Of multi-label.")
    int8: bool = Field(
        default=False,
        description="On CPU: linear layers in integers of 8 bits. Faster, and some labels change; "
        "some rows are computed in float32 as well, and the job says how many labels agree.",
    )

    explain: Explain | None = Field(
        None,
        description="Say for some rows what each token had to do with the label (integrated "
        "gradients), in the column `explanation`.",
    )

    @model_validator(mode="after")
    def _explains_what_it_computes(self) -> Self:
        if self.explain is None:
            return self
        if self.hypothesis is not None:
            raise ValueError(
                "explain is for a model's own labels or for nearest ones: leave hypothesis out"
            )
        if self.int8:
            raise ValueError("explain needs gradients, which int8 has not: leave int8 out")
        if self.long_texts is LongTexts.STRIDE:
            raise ValueError("explain reads a long text's beginning: leave long_texts stride out")
        return self

    @model_validator(mode="after")
    def _hypothesis_has_its_place(self) -> Self:
        if self.hypothesis is None:
            return self
        if self.labels is None:
            raise ValueError("hypothesis needs labels, which stand in its {}")
        if self.hypothesis.count("{}") != 1:
            raise ValueError("hypothesis must have {} once, where a label stands")
        if self.long_texts is LongTexts.STRIDE:
            raise ValueError(
                "hypothesis reads a long text's beginning: leave long_texts stride out"
            )
        return self

    @model_validator(mode="after")
    def _int8_is_of_float32(self) -> Self:
        if self.int8 and self.dtype not in ("auto", "float32"):
            raise ValueError(f"int8 is made of float32: leave dtype {self.dtype} out, or int8")
        return self

    @field_validator("labels")
    @classmethod
    def _labels_differ(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value is not None and (len(value) < 2 or len(set(value)) != len(value)):  # noqa: PLR2004
            raise ValueError("labels must be at least two different texts")
        if value is not None and any(not label.strip() for label in value):
            raise ValueError("a label must not be empty")
        return value


class Pooling(StrEnum):
    """How a text's vector is made of its tokens' vectors."""

    MEAN = "mean"
    CLS = "cls"
    LAST = "lasttoken"
    MAX = "max"


class EmbedOptions(WindowOptions):
    """How to embed. What is left out is as the model's own files say."""

    pooling: Pooling | None = Field(
        None, description="Default: as the model's files say (`1_Pooling`), else `mean`."
    )
    normalize: bool | None = Field(
        None,
        description="To length one. Default: as the model's files say (`modules.json`), else not.",
    )
    dimensions: int | None = Field(
        None, ge=1, description="Only the first so many numbers (Matryoshka models)."
    )
    prompt: str | None = Field(
        None,
        description="Put before every text, such as `query: `. Default: as the model's files say; "
        "empty: none.",
    )


class WriteOptions(LoadOptions):
    """What every model that writes a text can be told."""

    max_new_tokens: int = Field(128, ge=1, le=32_768, description="The longest output.")
    stop: tuple[str, ...] = Field(
        (), max_length=16, description="The output ends before the first of these."
    )

    @field_validator("stop")
    @classmethod
    def _not_empty(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if any(not text for text in value):
            raise ValueError("a stop text must not be empty")
        if any("\ufffd" in text for text in value):
            raise ValueError("a stop text must not have U+FFFD, which stands for bytes of no text")
        return value


class RowSettings(Strict):
    """What a row of its own may ask of a job that generates; the rest is as the job says."""

    temperature: float | None = Field(None, ge=0, le=10)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=0)
    seed: int | None = Field(None, ge=0, lt=2**31)
    max_new_tokens: int | None = Field(None, ge=1, le=32_768)


class GenerateOptions(WriteOptions):
    """How a causal language model goes on; at temperature 0 the likeliest token is always next."""

    chat: bool | None = Field(
        None,
        description="Whether a row is a message to the assistant, put into the model's chat "
        "template. Default: as the model was trained, else if it has a template.",
    )
    system: str | None = Field(
        None, description="The system message of every chat. Default: as the model was trained."
    )
    temperature: float = Field(0.0, ge=0, le=10)
    top_p: float = Field(1.0, gt=0, le=1, description="Sample from the likeliest this much.")
    top_k: int = Field(0, ge=0, description="Sample from the likeliest so many; 0: from all.")
    repetition_penalty: float | None = Field(
        None, gt=0, le=10, description="1 is none. Default: as the model's files say."
    )
    seed: int = Field(0, ge=0, lt=2**31, description="Of sampling; each row draws on its own.")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.system is not None and self.chat is False:
            raise ValueError("a system message is for chats: leave `chat` out, or set it to true")
        if not self.temperature and (self.top_k or self.top_p < 1):
            raise ValueError("top_k and top_p are for sampling: set a temperature above 0")
        return self

    def of_row(self, settings: str) -> Self:
        """These options with those of a row, a JSON object with fields of ``RowSettings``.

        A row at temperature 0 leaves the job's ``top_p`` and ``top_k``. Raises pydantic's
        ``ValidationError``.
        """
        asked = RowSettings.model_validate_json(settings).model_dump(exclude_none=True)
        greedy = {} if asked.get("temperature") != 0 else {"top_p": 1.0, "top_k": 0}
        return type(self).model_validate(self.model_dump() | greedy | asked)


class Text2TextOptions(WriteOptions):
    """How an encoder with a decoder writes; one beam is always the likeliest token."""

    prompt: str | None = Field(
        None,
        description="Put before every text: `translate English to German: `. Default: as the "
        "model was trained, else none; empty: none.",
    )
    source_language: str | None = Field(
        None, description="As the model's tokenizer names it: `eng_Latn`, `en_XX`, `en`."
    )
    target_language: str | None = Field(None, description="The same, of what is written.")
    beams: int | None = Field(
        None,
        ge=1,
        le=64,
        description="Hypotheses that are followed at once. Default: as the model's files say.",
    )
    length_penalty: float | None = Field(
        None, ge=-10, le=10, description="Of beams: above 0, longer. Default: the same."
    )
    no_repeat_ngram: int | None = Field(
        None, ge=0, le=100, description="No sequence of so many tokens twice; 0: no such rule."
    )
    max_tokens: int | None = Field(
        None,
        ge=8,
        description="A longer text is cut. Default: as the model was trained, else what it can "
        "read, which is the upper bound.",
    )


class PipelineTask(StrEnum):
    """Tasks of the transformers library's pipelines, by its own names."""

    TOKEN_CLASSIFICATION = "token-classification"  # noqa: S105 - no password
    FILL_MASK = "fill-mask"
    IMAGE_CLASSIFICATION = "image-classification"
    ZERO_SHOT_IMAGE_CLASSIFICATION = "zero-shot-image-classification"
    OBJECT_DETECTION = "object-detection"
    AUDIO_CLASSIFICATION = "audio-classification"
    SPEECH_RECOGNITION = "automatic-speech-recognition"


class PipelineOptions(LoadOptions):
    """A pipeline of the transformers library, called as its documentation says."""

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
        if taken := CALL & value.keys():
            raise ValueError(
                f"parameters must not have {', '.join(sorted(taken))}: set batch_rows instead"
            )
        if code := FOREIGN_CODE & set(_names(value)):
            raise ValueError(
                f"parameters must not have {', '.join(sorted(code))}: it would run foreign code"
            )
        return value


CALL = frozenset({"batch_size", "num_workers"})
"""Parameters of a call that the engine gives itself."""

FOREIGN_CODE = frozenset({"trust_remote_code", "custom_generate"})


def _names(value: JsonValue) -> Iterator[str]:
    """The names of all fields, however deep."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield name
            yield from _names(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _names(inner)


class PairCorpus(Corpus):
    """A corpus whose rows may be pairs of texts."""

    pair_column: str | None = Field(
        None,
        description="A column with a second text: the model reads both together, as models of "
        "inference (NLI), of paraphrase or of relevance (cross-encoders) do.",
    )


class PromptCorpus(Corpus):
    """A corpus whose rows may have settings of their own."""

    settings_column: str | None = Field(
        None,
        description="A column with a row's own `temperature`, `top_p`, `top_k`, `seed` and "
        "`max_new_tokens`, any of them: a JSON object. What it leaves out is as the job says.",
    )


class BulkSpec(JobSpec):
    """What every kind of bulk job has."""

    corpus: Corpus
    model: str = Field(
        description="`name@version`, `name@alias`, `hf:org/name`, a folder or a URI."
    )
    output: Output = Output()
    chunk_rows: int | None = Field(
        None,
        ge=1,
        le=100_000,
        description="Rows per chunk; default by the installation's settings.",
    )
    max_failed: str | int | float | None = Field(
        None,
        description="Rows that may fail: a share, such as `0.1` or `10%`, or a whole number. With "
        "more the job fails as soon as that is certain. Default: all but one; `100%`: all.",
    )

    @field_validator("max_failed", mode="before")
    @classmethod
    def _share_or_count(cls, value: object) -> object:
        if isinstance(value, bool) or not isinstance(value, str | int | float | None):
            value = str(value)
        FailureLimit.parse(value)
        return value

    @property
    def explained(self) -> bool:
        """Whether results have a column that explains them."""
        return False


class ClassifySpec(BulkSpec):
    """One label, or several, for every row of a corpus."""

    kind: Literal["classify"] = "classify"
    corpus: PairCorpus
    classify: ClassifyOptions = ClassifyOptions()

    @model_validator(mode="after")
    def _pairs_are_for_a_head(self) -> Self:
        if self.corpus.pair_column is None:
            return self
        refused = {
            "labels": self.classify.labels is not None,
            "explain": self.classify.explain is not None,
            "long_texts stride": self.classify.long_texts is LongTexts.STRIDE,
        }
        for name, given in refused.items():
            if given:
                raise ValueError(f"pair_column is for a model's own labels: leave {name} out")
        return self

    @property
    def options(self) -> ClassifyOptions:
        """What this kind is told."""
        return self.classify

    @property
    def explained(self) -> bool:
        """Whether results have a column that explains them."""
        return self.classify.explain is not None


class EmbedSpec(BulkSpec):
    """A vector for every row of a corpus."""

    kind: Literal["embed"] = "embed"
    embed: EmbedOptions = EmbedOptions()

    @property
    def options(self) -> EmbedOptions:
        """What this kind is told."""
        return self.embed


class GenerateSpec(BulkSpec):
    """A text that goes on from every row of a corpus."""

    kind: Literal["generate"] = "generate"
    corpus: PromptCorpus
    generate: GenerateOptions = GenerateOptions()

    @property
    def options(self) -> GenerateOptions:
        """What this kind is told."""
        return self.generate


class Text2TextSpec(BulkSpec):
    """A text made of every row of a corpus: its translation, its summary."""

    kind: Literal["text2text"] = "text2text"
    text2text: Text2TextOptions = Text2TextOptions()

    @property
    def options(self) -> Text2TextOptions:
        """What this kind is told."""
        return self.text2text


class PipelineSpec(BulkSpec):
    """What a pipeline of the transformers library says of every row, as JSON."""

    kind: Literal["pipeline"] = "pipeline"
    pipeline: PipelineOptions = PipelineOptions()

    @property
    def options(self) -> PipelineOptions:
        """What this kind is told."""
        return self.pipeline


AnyBulk = ClassifySpec | EmbedSpec | GenerateSpec | Text2TextSpec | PipelineSpec
Options = ClassifyOptions | EmbedOptions | GenerateOptions | Text2TextOptions | PipelineOptions
