"""The schemas of the parts of each kind."""

from __future__ import annotations

import pyarrow as pa

from jobs import kinds
from jobs.kinds import BulkSpec, ClassifySpec
from jobs.results.schemas import result_schema


def schema_of(kind: str, *, width: int | None = None) -> pa.Schema:
    """The columns of a job of this kind that names no options."""
    spec = kinds.KINDS[kind]
    assert issubclass(spec, BulkSpec)
    return result_schema(spec.columns, width=width)


CLASSIFY_SCHEMA = schema_of("classify")
EXPLAINED_SCHEMA = result_schema((*ClassifySpec.columns, ClassifySpec.explanation), width=None)
WRITTEN_SCHEMA = schema_of("generate")
PIPELINE_SCHEMA = schema_of("pipeline")


def embed_schema(width: int) -> pa.Schema:
    """The columns of an embed job with vectors of this length."""
    return schema_of("embed", width=width)
