"""The history of a job, and the notification that wakes control."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from jobs.tables import Event

CONTROL_CHANNEL = "nightshift_control"


def record(session: Session, *, job_id: str, type: str, **data: Any) -> None:  # noqa: A002
    """Append to the job's history, in the transaction of the change itself."""
    session.add(Event(job_id=job_id, type=type, data=data))


def wake_control(session: Session) -> None:
    """Wake control when this transaction commits; never per chunk: such commits queue up."""
    session.execute(sa.select(sa.func.pg_notify(CONTROL_CHANNEL, "")))
