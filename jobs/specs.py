"""What a user may ask for: the spec of each kind of job, checked field by field.

A spec is the request and the record: it is stored with the job as it was accepted. Unknown fields
are refused, so that a misspelt option is an error and not a silent default.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator


class CorpusFormat(StrEnum):
    """How rows are written in a corpus."""

    JSONL = "jsonl"
    CSV = "csv"
    TSV = "tsv"
    PARQUET = "parquet"
    TEXT = "text"


class OutputFormat(StrEnum):
    """How results are written to a single file."""

    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"


class Strict(BaseModel):
    """A frozen value that refuses unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*")
    @classmethod
    def _storable(cls, value: object) -> object:
        texts = value if isinstance(value, tuple) else (value,)
        if any(isinstance(text, str) and "\0" in text for text in texts):
            raise ValueError("a text must not contain the character NUL")
        return value


class Corpus(Strict):
    """Where the rows are and how to read them. Exactly one of ``file`` and ``uri``."""

    file: str | None = Field(None, description="Id of an uploaded file, `file-...`.")
    uri: str | None = Field(
        None, description="`file:///...`, `s3://...` or `hf://datasets/org/name/path`."
    )
    format: CorpusFormat | None = Field(None, description="Default: by the name's ending.")
    compression: Literal["gzip", "zstd", "none"] | None = Field(
        None, description="Default: by the first bytes."
    )
    encoding: str = Field("utf-8", description="Python codec name; a BOM is always honoured.")
    text_column: str | None = Field(
        None,
        description="Default: `text`, `content`, `sentence`, `body`, `document`, `title`, "
        "or the only column of text.",
    )
    id_column: str | None = Field(None, description="A column copied to the result as `id`.")

    @field_validator("encoding")
    @classmethod
    def _known_codec(cls, value: str) -> str:
        try:
            "".encode(value)
        except LookupError:
            raise ValueError(
                f"encoding must be a Python codec name such as gb18030, not {value!r}"
            ) from None
        return value

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.file is None) == (self.uri is None):
            raise ValueError(
                "a corpus is either an uploaded `file` id or a `uri`: give exactly one"
            )
        return self


class Output(Strict):
    """What is written besides the parts and their manifest."""

    format: OutputFormat | None = Field(None, description="One single file as well.")
    postgres: bool = Field(
        default=False, description="Copy each result row into the table `result_rows` as well."
    )
    keep_text: bool = Field(default=False, description="Repeat each row's text in its result.")


class LongTexts(StrEnum):
    """What becomes of a text that is longer than the window."""

    TRUNCATE = "truncate"
    STRIDE = "stride"


class ClassifyOptions(Strict):
    """How to classify. With ``labels`` the model is an encoder and the nearest label wins."""

    labels: tuple[str, ...] | None = Field(
        None,
        description="Label texts: the label whose embedding is nearest to the row's (cosine). "
        "Without: the model's own head and id2label.",
    )
    top_k: int = Field(1, ge=1, description="How many labels, best first.")
    all_scores: bool = Field(default=False, description="Every label with its score, best first.")
    multi_label: bool | None = Field(
        None,
        description="Every label whose sigmoid score reaches `threshold`. Default: what the "
        "model's config says (problem_type).",
    )
    threshold: float = Field(0.5, gt=0, lt=1, description="Of multi-label.")
    long_texts: LongTexts = Field(
        LongTexts.TRUNCATE,
        description="`truncate` keeps the beginning and marks the row; `stride` averages the "
        "scores over overlapping windows.",
    )
    stride: int = Field(64, ge=0, description="Tokens that neighbouring windows share.")
    max_tokens: int | None = Field(
        None, ge=8, description="Window in tokens; default and upper bound: the model's own."
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="`auto`: float32 on CPU, bfloat16 where the accelerator has it."
    )

    @field_validator("labels")
    @classmethod
    def _labels_differ(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value is not None and (len(value) < 2 or len(set(value)) != len(value)):  # noqa: PLR2004
            raise ValueError("labels must be at least two different texts")
        if value is not None and any(not label.strip() for label in value):
            raise ValueError("a label must not be empty")
        return value


class JobSpec(Strict):
    """What every kind of job has."""

    pool: str = Field("cpu", pattern=r"^[a-z0-9_-]{1,40}$", description="Which workers run it.")
    priority: int = Field(0, ge=-100, le=100, description="Higher goes first.")
    deadline_seconds: float | None = Field(
        None,
        gt=0,
        le=10 * 365 * 86_400,
        description="Expires when not finished this long after it was accepted.",
    )
    name: str | None = Field(None, max_length=200, description="For people.")


class ClassifySpec(JobSpec):
    """One label, or several, for every row of a corpus."""

    kind: Literal["classify"] = "classify"
    corpus: Corpus
    model: str = Field(description="A folder on the workers, or `hf:org/name`.")
    classify: ClassifyOptions = ClassifyOptions()
    output: Output = Output()
    chunk_rows: int | None = Field(
        None,
        ge=1,
        le=100_000,
        description="Rows per chunk; default by the installation's settings.",
    )


Spec = ClassifySpec
"""Any job's spec: a union over ``kind`` once there is a second one."""
