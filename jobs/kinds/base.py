"""What the specs of all kinds share: where rows come from, what is written, who runs the job."""

from __future__ import annotations

import math
import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from jobs import globs, names
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


class Since(StrEnum):
    """Which objects of a corpus are new."""

    LAST_SUCCESS = "last_success"
    LAST_PROMOTED = "last_promoted"


class IfEmpty(StrEnum):
    """How a job goes on whose corpus has no rows."""

    FAIL = "fail"
    SKIP = "skip"
    RUN = "run"


OF_SEVERAL = ("sources", "tag", "sql", "since", "if_empty", "min_rows")
"""Fields of a corpus that are written down only where they are not at their defaults."""

PLACES = ("file", "uri", "sources", "tag", "sql")
"""Fields of which a corpus has exactly one: where its rows are."""


def _only(name: str) -> dict[str, Any]:
    kind = {"sources": "array", "sql": "object"}.get(name, "string")
    return {"required": [name], "properties": {name: {"type": kind}}}


class SqlQuery(Strict):
    """The rows of a SQL source of the installation, between two bounds."""

    source: str = Field(
        pattern=f"^{names.MODEL}$", description="The name of a SQL source of the installation."
    )
    since: str | None = Field(
        None,
        max_length=200,
        description="`:since` of its query. Default: where the source begins.",
    )
    until: str | None = Field(
        None,
        max_length=200,
        description="`:until` of its query. Default: the fire time, or when the job was accepted.",
    )


class Corpus(Strict):
    """Where the rows are and how to read them. Exactly one of the first fields is given."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [_only(name) for name in PLACES]})

    file: str | None = Field(None, description="Id of an uploaded file, `file-...`.")
    uri: str | None = Field(
        None,
        description="`file:///...`, `s3://...` or `hf://datasets/org/name/path`. With `*`, `?`, "
        "`[abc]` or `**` it is a pattern, with `/` at its end a prefix (not on the hub).",
    )
    sources: tuple[str, ...] | None = Field(
        None,
        min_length=1,
        max_length=1_000,
        description="Several of these, read in this order: ids of uploaded files, URIs, patterns.",
    )
    tag: str | None = Field(
        None,
        pattern=f"^{names.TAG}$",
        description="Every uploaded file with this tag, the oldest first.",
    )
    sql: SqlQuery | None = Field(None, description="The rows of a query that has a name.")
    since: Since | None = Field(
        None,
        description="Of a schedule's job. `last_success`: only objects that no job of the schedule "
        "(in a group: of this name) that succeeded, or is under way, has taken, by name and "
        "version; of a SQL source, rows behind those of the last such job that succeeded. "
        "`last_promoted`: the same since the version that `promote.alias` points to was trained.",
    )
    if_empty: IfEmpty = Field(
        IfEmpty.FAIL,
        description="Without rows the job fails; with `skip` it ends without a result, and with "
        "it the jobs that need its success, and the fire if it has no others; with `run` it goes "
        "on with the rows there are.",
    )
    min_rows: int = Field(
        1,
        ge=1,
        le=1_000_000_000,
        description="Fewer rows count as none. Of a corpus that is trained on: rows without error.",
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

    @field_validator("sources")
    @classmethod
    def _files_and_uris(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for each in value or ():
            if _is_id(each) and not re.fullmatch(names.ID, each):
                raise ValueError(
                    f"each of sources must be the id of an uploaded file or a URI, not {each!r}"
                )
        return value

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if sum(getattr(self, name) is not None for name in PLACES) != 1:
            raise ValueError(
                "a corpus is an uploaded `file` id, a `uri`, several `sources`, the files with a "
                "`tag`, or the rows of a `sql` source: give exactly one"
            )
        return self

    @model_validator(mode="after")
    def _sql_has_a_form(self) -> Self:
        if self.sql is not None and (self.format or self.compression or self.encoding != "utf-8"):
            raise ValueError(
                "the rows of a `sql` source are no file: leave format, compression and encoding out"
            )
        return self

    @property
    def named(self) -> tuple[str, ...]:
        """The ids of uploaded files and the URIs that it names, in the order of reading."""
        one = self.file if self.uri is None else self.uri
        return (self.sources or ()) if one is None else (one,)

    @property
    def files(self) -> tuple[str, ...]:
        """Of those the ids."""
        return () if self.uri is not None else tuple(each for each in self.named if _is_id(each))

    @property
    def uris(self) -> tuple[str, ...]:
        """Of those the URIs and patterns."""
        return tuple(each for each in self.named if each not in self.files)

    @property
    def is_single(self) -> bool:
        """Whether it names one object; else each row keeps the object that it comes from."""
        if self.uri is not None:
            return not globs.is_pattern(self.uri)
        return self.file is not None or self.sql is not None

    @property
    def least_rows(self) -> int:
        """Rows without which the job does not go on."""
        return 0 if self.if_empty is IfEmpty.RUN else self.min_rows

    @model_serializer(mode="wrap")
    def _as_given(self, serialized: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without what a corpus of one file has no use for, so that its spec stays as it was."""
        found: dict[str, Any] = serialized(self)
        return {
            name: value
            for name, value in found.items()
            if name not in OF_SEVERAL or value != type(self).model_fields[name].default
        }


def _is_id(named: str) -> bool:
    return "://" not in named


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

    @model_validator(mode="after")
    def _promotes_what_it_goes_back_to(self) -> Self:
        if getattr(self, "promote", None) is None and any(
            corpus.since is Since.LAST_PROMOTED for _, corpus in self.corpora()
        ):
            raise ValueError(
                "since `last_promoted` is for a fine-tune with `promote`: take last_success"
            )
        return self

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
