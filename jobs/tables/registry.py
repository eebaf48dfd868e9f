"""The tables of the model registry: names, immutable versions, movable aliases, promotions."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from jobs.decisions.alias_history import AliasChange
from jobs.tables.base import Base, Json, one_of


class Model(Base):
    """A name under which versions are registered."""

    __tablename__ = "models"

    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    last_version: Mapped[int] = mapped_column(Integer)  # only grows: numbers are not used again
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class ModelVersion(Base):
    """An artefact that never changes, and where it comes from."""

    __tablename__ = "model_versions"

    project_id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column(Integer, primary_key=True)
    task: Mapped[str]  # classify, generate, text2text
    kind: Mapped[str]  # full, or adapter: LoRA weights on a base
    base: Mapped[str | None]  # reference it was trained from, pinned; null: from scratch
    files: Mapped[list[Json]] = mapped_column(JSONB)  # path, key, bytes, sha256 of each
    bytes: Mapped[int]
    sha256: Mapped[str]  # over paths and hashes of all files: the artefact's identity
    metrics: Mapped[Json]  # the evaluation: split -> report
    lineage: Mapped[Json]  # job, spec, corpora with hashes, base with digest, code version
    signature: Mapped[
        Json | None
    ]  # how it was trained to read rows (jobs.models.signatures.Signature);
    # null: registered before signatures were kept
    job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id"))  # null: uploaded by a person
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    deleted_at: Mapped[datetime | None]  # the row stays as a tombstone; null: it can be used
    purge_at: Mapped[datetime | None]  # when its objects are removed, or that is tried again; null:
    # there is nothing to remove

    __table_args__ = (
        ForeignKeyConstraint(
            ["project_id", "name"],
            ["models.project_id", "models.name"],
            name="fk_model_versions_model",
        ),
        CheckConstraint("version > 0", name="version_positive"),
        CheckConstraint("kind IN ('full', 'adapter')", name="kind"),
        CheckConstraint("purge_at IS NULL OR deleted_at IS NOT NULL", name="purge_of_deleted"),
        Index(None, "job_id", unique=True),  # a job registers once, however often it tries
        Index(None, "purge_at", postgresql_where=text("purge_at IS NOT NULL")),
    )


class ModelAlias(Base):
    """A name that points at one version and can be moved."""

    __tablename__ = "model_aliases"

    project_id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    alias: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column(Integer)
    moved_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (
        ForeignKeyConstraint(
            ["project_id", "name", "version"],
            ["model_versions.project_id", "model_versions.name", "model_versions.version"],
            name="fk_model_aliases_version",
        ),
    )


class AliasMove(Base):
    """One move of an alias: which version served from then on. Never changed."""

    __tablename__ = "alias_moves"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    project_id: Mapped[str]
    name: Mapped[str]
    alias: Mapped[str]
    version: Mapped[int | None] = mapped_column(Integer)  # null: the alias was forgotten
    previous: Mapped[int | None] = mapped_column(Integer)  # null: it pointed nowhere
    how: Mapped[AliasChange]
    job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id"))  # whose promotion it was;
    # null: a person moved it
    at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())

    __table_args__ = (
        ForeignKeyConstraint(
            ["project_id", "name", "version"],
            ["model_versions.project_id", "model_versions.name", "model_versions.version"],
            name="fk_alias_moves_version",
        ),
        CheckConstraint(one_of("how", AliasChange), name="how"),
        CheckConstraint("(how = 'removal') = (version IS NULL)", name="removal_iff_none"),
        Index(None, "project_id", "name", "alias", "id"),
    )


class Promotion(Base):
    """A decision about an alias, with both values of the metric."""

    __tablename__ = "promotions"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    project_id: Mapped[str]
    name: Mapped[str]
    alias: Mapped[str]
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    version: Mapped[int] = mapped_column(Integer)  # the candidate
    value: Mapped[float]  # of the candidate
    incumbent: Mapped[int | None] = mapped_column(Integer)  # null: the alias pointed nowhere
    incumbent_value: Mapped[float | None]  # null if and only if `incumbent` is
    metric: Mapped[str]
    margin: Mapped[float]
    promoted: Mapped[bool] = mapped_column(Boolean)
    reason: Mapped[str]  # in words
    split: Mapped[str | None]  # which rows decided: promotion, test, validation; null: this and the
    # columns below are of decisions since there are gates
    rows: Mapped[int | None]  # how many of them; null: not counted
    min_rows: Mapped[int] = mapped_column(server_default=text("0"))  # that the gate asked for
    floors: Mapped[Json | None]  # those that were checked; null: none were asked for
    reports: Mapped[Json | None]  # the evaluations of `candidate` and `incumbent`
    at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (
        ForeignKeyConstraint(
            ["project_id", "name", "version"],
            ["model_versions.project_id", "model_versions.name", "model_versions.version"],
            name="fk_promotions_version",
        ),
        CheckConstraint("(incumbent IS NULL) = (incumbent_value IS NULL)", name="incumbent_whole"),
        Index(None, "project_id", "name", "id"),
    )
