"""What the specs of all kinds share: where rows come from, what is written, who runs the job."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from jobs import names
from jobs.decisions.dependencies import DependencyOn
from jobs.formats import CorpusFormat, OutputFormat
from jobs.models.signatures import Task

MOST_DEPENDENCIES = 100
"""Jobs that one job waits for."""


class Strict(BaseModel):
    """A frozen value that refuses unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*")
    @classmethod
    def _storable(cls, value: object) -> object:
        for leaf in _leaves(value):
            if isinstance(leaf, str) and "\0" in leaf:
                raise ValueError("a text must not contain the character NUL")
            if isinstance(leaf, float) and not math.isfinite(leaf):
                raise ValueError("a number must be finite")
        return value


def _leaves(value: object) -> Iterator[object]:
    """A value's texts and numbers, the names of fields included, however deep."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield name
            yield from _leaves(inner)
    elif isinstance(value, tuple | list):
        for inner in value:
            yield from _leaves(inner)
    else:
        yield value


def _only(name: str) -> dict[str, Any]:
    return {"required": [name], "properties": {name: {"type": "string"}}}


class Corpus(Strict):
    """Where the rows are and how to read them. Exactly one of ``file`` and ``uri``."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [_only("file"), _only("uri")]})

    file: str | None = Field(None, description="Id of an uploaded file, `file-...`.")
    uri: str | None = Field(
        None, description="`file:///...`, `s3://...` or `hf://datasets/org/name/path`."
    )
    format: CorpusFormat | None = Field(
        None, description="How the rows are written. Default: by the name's ending."
    )
    compression: Literal["gzip", "zstd", "none"] | None = Field(
        None, description="How the file is compressed. Default: by its first bytes."
    )
    encoding: str = Field("utf-8", description="Python codec name; a BOM is always honoured.")
    text_column: str | None = Field(
        None,
        description="The column with the text. Default: `text`, `content`, `sentence`, `body`, "
        "`document`, `title`, or the only column of text.",
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


class Dependency(Strict):
    """A job that must have ended before this one begins; also written `JOB`, or `JOB:end`."""

    job: str = Field(pattern=f"^{names.ID}$", description="The id of a job of this project.")
    on: DependencyOn = Field(
        DependencyOn.SUCCESS,
        description="`success`: that job must succeed, or this one fails. `end`: however it ends.",
    )

    @model_validator(mode="before")
    @classmethod
    def _written(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        job, colon, on = value.partition(":")
        return {"job": job, "on": on} if colon else {"job": job}


class JobSpec(Strict):
    """What every kind of job has."""

    strides: ClassVar[bool] = False
    """Whether a long text can be read in overlapping windows."""

    pool: str = Field("cpu", pattern=f"^{names.POOL}$", description="Which workers run it.")
    priority: int = Field(0, ge=-100, le=100, description="Higher goes first.")
    deadline_seconds: float | None = Field(
        None,
        gt=0,
        le=10 * 365 * 86_400,
        description="Expires when not finished this long after it was accepted.",
    )
    name: str | None = Field(None, max_length=200, description="For people.")
    depends_on: tuple[Dependency, ...] = Field(
        (),
        max_length=MOST_DEPENDENCIES,
        description="Jobs that must have succeeded before this one begins: `JOB`, or `JOB:end` for "
        "one that may end in any way.",
    )
    corpus: Corpus

    @property
    @abstractmethod
    def starts_from(self) -> tuple[str, str] | None:
        """The field that refers to an existing model, and the reference; ``None``: from scratch."""

    @property
    def registers(self) -> tuple[str, Task] | None:
        """The name and task of the model that the job registers; ``None``: it trains none."""
        return None

    @property
    def accelerate(self) -> Mapping[str, Any]:
        """Entries of an Accelerate config that the job brings."""
        return {}

    def corpora(self) -> Iterator[tuple[str, Corpus]]:
        """Every corpus that the spec names, with its path in the spec."""
        yield "corpus", self.corpus
