"""How long things are kept: the pieces of a job, and the policies that name a period for each.

There are four layers, and in each a period that is not given is that of the layer before: what is
built in, the installation (the setting ``retention``), the project, the job. docs/retention.md
explains them; ``jobs.decisions.retention`` decides by them.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    WithJsonSchema,
)

from jobs import durations, names
from jobs.states import JobState

FOREVER = timedelta.max
"""The period of what is never removed."""

WORD = "forever"
"""How that is written."""


class Piece(StrEnum):
    """What is removed of an ended job by itself; ``JOB`` is all of it.

    Of ``CHUNKS`` only the rows in Postgres go, into an object that has the same answers.
    """

    SHARDS = "shards"
    PARTS = "parts"
    OUTPUTS = "outputs"
    CHECKPOINTS = "checkpoints"
    CHUNKS = "chunks"
    ROWS = "rows"
    LOGS = "logs"
    JOB = "jobs"


OF_BULK = frozenset({Piece.SHARDS, Piece.PARTS, Piece.OUTPUTS, Piece.CHUNKS, Piece.ROWS, Piece.JOB})
OF_TRAINING = frozenset({Piece.SHARDS, Piece.CHECKPOINTS, Piece.LOGS, Piece.JOB})
"""The pieces that a job of each sort may have."""

NEEDED = frozenset({Piece.SHARDS, Piece.PARTS, Piece.ROWS})
"""Without one of these a job cannot be retried: it would not know its data or lose its results."""


def _read(value: object) -> object:
    if isinstance(value, timedelta):
        return value
    if isinstance(value, str) and value.strip().lower() == WORD:
        return FOREVER
    found = None
    if isinstance(value, str):
        found = durations.seconds(value)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        found = float(value)
    if found is None or not 0 <= found <= durations.LONGEST.total_seconds():
        raise ValueError(
            f"must be `{WORD}`, a duration of at most 10 years such as {durations.EXAMPLES}, or a "
            f"number of seconds, not {str(value)[:60]!r}"
        )
    return timedelta(seconds=found)


def written(period: timedelta) -> str:
    """A period as people write it."""
    return WORD if period == FOREVER else durations.written(period)


Period = Annotated[
    timedelta,
    BeforeValidator(_read),
    PlainSerializer(written, return_type=str, when_used="json"),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": f"^{names.DURATION}$", "examples": ["30d"]},
                {"type": "string", "const": WORD},
                {"type": "number", "minimum": 0, "maximum": durations.LONGEST.total_seconds()},
            ]
        }
    ),
]
"""A duration such as ``30d``, or ``forever``."""


class JobPeriods(BaseModel):
    """Periods of what an ended job has, each from its end; null: that of the layer before."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    shards: Period | None = Field(
        None,
        description="The corpus or the data set as planners wrote it down. Without it an ended job "
        "cannot be retried.",
    )
    parts: Period | None = Field(
        None,
        description="Results in the object store: pages of results and verification need them.",
    )
    outputs: Period | None = Field(None, description="The single file and the manifest.")
    checkpoints: Period | None = Field(
        None,
        description="Checkpoints of training that failed, was cancelled or expired: a retry goes "
        "on from them.",
    )
    succeeded_checkpoints: Period | None = Field(
        None, description="Checkpoints of training that succeeded. Built in: `0s`."
    )
    chunks: Period | None = Field(
        None,
        description="Chunks as rows of the database. Then they fold into objects: nothing is lost, "
        "and a retry makes rows of them again. Built in: `7d`.",
    )
    rows: Period | None = Field(
        None, description="Rows of `output.postgres` in the table `result_rows`."
    )
    logs: Period | None = Field(None, description="Log lines of training.")
    jobs: Period | None = Field(
        None, description="The whole job; versions that it registered stay."
    )


class Retention(JobPeriods):
    """The policy of a project, or of the installation."""

    files: Period | None = Field(
        None,
        description="Uploaded files, from their upload; one that something uses stays.",
    )
    fires: Period | None = Field(
        None,
        description="Ended fires of schedules whose jobs are deleted; the last one and the last "
        "one that succeeded stay.",
    )


class JobRetention(JobPeriods):
    """What one job has besides the policy of its project."""

    keep: bool = Field(
        default=False, description="Nothing of the job is removed or deleted while this is true."
    )


Periods = Mapping[str, timedelta]
"""A period for each field of ``Retention``."""

BUILT_IN: Periods = MappingProxyType(
    dict.fromkeys(Retention.model_fields, FOREVER)
    | {"succeeded_checkpoints": timedelta(), "chunks": timedelta(days=7)}
)


def effective(*layers: JobPeriods | None) -> Periods:
    """The periods that hold: of each field that of the last layer which gives one."""
    found = dict(BUILT_IN)
    for layer in layers:
        if layer is not None:
            given = {name: getattr(layer, name) for name in found if hasattr(layer, name)}
            found |= {name: period for name, period in given.items() if period is not None}
    return found


def of_piece(periods: Periods, piece: Piece, state: JobState) -> timedelta:
    """How long a piece of a job that ended in this state is kept."""
    if piece is Piece.CHECKPOINTS and state is JobState.SUCCEEDED:
        return periods["succeeded_checkpoints"]
    return periods[piece.value]


def dumped(policy: JobPeriods) -> dict[str, str]:
    """The periods that a policy gives, as they are stored."""
    kept = policy.model_dump(mode="json", exclude_none=True, exclude={"keep"})
    return {name: str(period) for name, period in kept.items()}


def in_words(periods: Periods) -> dict[str, str]:
    """Every period as people write it."""
    return {name: written(period) for name, period in periods.items()}
