"""The worker that holds a lease, in SQL; ``jobs.worker_names`` has the rule."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.orm import InstrumentedAttribute

from jobs import worker_names


def worker(owner: InstrumentedAttribute[str | None]) -> sa.ColumnElement[str]:
    """The name on record of the worker whose process is the owner of a chunk or a step."""
    return sa.func.split_part(owner, worker_names.PROCESS, 1)
