"""What a job is about, as its messages and listings name it."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from jobs.kinds import FinetuneSpec
from jobs.message_words import Subject
from jobs.tables import Job

FINETUNE = FinetuneSpec.model_fields["kind"].default


def model() -> sa.ColumnElement[str | None]:
    """The model that a job uses, as ``name@version`` where it is known; that a fine-tune makes."""
    asked = Job.spec["model"].astext
    return sa.case((Job.kind == FINETUNE, asked), else_=sa.func.coalesce(Job.model_pinned, asked))


def columns() -> tuple[sa.ColumnElement[Any], ...]:
    """The fields of ``Subject``, in their order."""
    return (Job.id.label("job_id"), Job.kind.label("kind"), model().label("model"))


def of(row: Any) -> Subject:
    """The subject in a row that has ``columns``."""
    return Subject(job_id=row.job_id, kind=row.kind, model=row.model)
