"""The table of what jobs need other jobs for."""

from __future__ import annotations

from sqlalchemy import Boolean, CheckConstraint, ForeignKeyConstraint, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from jobs.tables.base import Base


class JobDependency(Base):
    """That a job waits for another one of its project; written when the job is accepted."""

    __tablename__ = "job_dependencies"

    project_id: Mapped[str]
    job_id: Mapped[str] = mapped_column(primary_key=True)
    needs_job_id: Mapped[str] = mapped_column(primary_key=True)
    on: Mapped[str]  # success, or end: however the needed job ends
    gives_model: Mapped[bool] = mapped_column(  # the job's model is the version that the needed
        Boolean,
        server_default=text("false"),  # one registers
    )

    __table_args__ = (
        ForeignKeyConstraint(
            ["project_id", "job_id"],
            ["jobs.project_id", "jobs.id"],
            name="fk_job_dependencies_job_id",
        ),
        ForeignKeyConstraint(
            ["project_id", "needs_job_id"],
            ["jobs.project_id", "jobs.id"],
            name="fk_job_dependencies_needs_job_id",
        ),
        CheckConstraint("\"on\" IN ('success', 'end')", name="on"),
        CheckConstraint("job_id <> needs_job_id", name="another_job"),
        CheckConstraint("NOT gives_model OR \"on\" = 'success'", name="model_of_success"),
        Index(None, "needs_job_id"),
    )
