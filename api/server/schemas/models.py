"""What the API answers about the model registry; the outer shape of a model is OpenAI's."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, Field

from jobs import tables
from jobs.decisions.alias_history import AliasChange
from jobs.kinds import Strict
from jobs.ledger.rollbacks import Rollback
from jobs.models.signatures import Signature
from jobs.numbers import finite
from jobs.queries.registry import Service, VersionView

Number = Annotated[float | None, BeforeValidator(finite)]


class ModelFile(BaseModel):
    """One file of a version."""

    path: str
    bytes: int
    sha256: str


class Version(BaseModel):
    """What Nightshift knows of a version besides OpenAI's fields."""

    name: str
    version: int
    aliases: list[str]
    task: str
    kind: Literal["full", "adapter"]
    base: str | None  # null: trained from scratch
    bytes: int
    sha256: str
    signature: Signature | None  # null: registered before signatures were kept
    job_id: str | None
    created_at: datetime
    deleted_at: datetime | None

    @classmethod
    def of(cls, view: VersionView) -> Self:
        """One version."""
        return cls.model_validate(_fields(view))


class VersionDetails(Version):
    """A version in full."""

    files: list[ModelFile]
    metrics: dict[str, Any]  # split -> report
    lineage: dict[str, Any]


class Model(BaseModel):
    """A version as OpenAI's client reads it; the id is `name@version`."""

    id: str
    object: Literal["model"] = "model"
    created: int  # seconds since 1970
    owned_by: str
    nightshift: Version

    @classmethod
    def of(cls, view: VersionView) -> Self:
        """One version, without its files, metrics and lineage."""
        return cls(**_outer(view), nightshift=Version.of(view))


class ModelDetails(Model):
    """A version in full, as OpenAI's client reads it."""

    nightshift: VersionDetails

    @classmethod
    def of(cls, view: VersionView) -> Self:
        """One version."""
        return cls(**_outer(view), nightshift=VersionDetails.of(view))


class ModelList(BaseModel):
    """Every version that can be used."""

    object: Literal["list"] = "list"
    data: list[Model]


class VersionPage(BaseModel):
    """One name's versions, newest first; ``next`` is the ``after`` of the next page."""

    object: Literal["list"] = "list"
    data: list[VersionDetails]
    has_more: bool
    next: int | None


class AliasTarget(Strict):
    """Where an alias should point."""

    version: int = Field(ge=1, lt=10**9, description="A version of the same name.")


class Alias(BaseModel):
    """Where an alias points."""

    object: Literal["model.alias"] = "model.alias"
    name: str
    alias: str
    version: int
    moved_at: datetime

    @classmethod
    def of(cls, alias: tables.ModelAlias) -> Self:
        """One alias."""
        return cls(
            name=alias.name, alias=alias.alias, version=alias.version, moved_at=alias.moved_at
        )


class RollbackRequest(Strict):
    """What an alias points to, as far as who rolls it back knows."""

    from_version: int | None = Field(
        None,
        ge=1,
        lt=10**9,
        description="Refused if the alias points to another version by now; a repeated request "
        "with the same one is one rollback.",
    )


class AliasRollback(BaseModel):
    """Where an alias points after a rollback."""

    object: Literal["model.alias.rollback"] = "model.alias.rollback"
    name: str
    alias: str
    version: int
    previous: int | None  # null: it pointed nowhere
    skipped: list[int]  # nearer versions that were deleted

    @classmethod
    def of(cls, done: Rollback, *, name: str, alias: str) -> Self:
        """One rollback."""
        return cls(
            name=name,
            alias=alias,
            version=done.version,
            previous=done.previous,
            skipped=list(done.skipped),
        )


class AliasService(BaseModel):
    """Which version an alias pointed to for some time, and what had moved it there."""

    id: int
    version: int | None  # null: it pointed nowhere
    previous: int | None
    how: AliasChange
    job_id: str | None  # of a promotion
    since: datetime
    until: datetime | None  # null: it points there now

    @classmethod
    def of(cls, service: Service) -> Self:
        """One move."""
        move = service.move
        return cls(
            id=move.id,
            version=move.version,
            previous=move.previous,
            how=move.how,
            job_id=move.job_id,
            since=move.at,
            until=service.until,
        )


class AliasHistoryPage(BaseModel):
    """What an alias pointed to, newest first; ``next`` is the ``after`` of the next page."""

    object: Literal["list"] = "list"
    data: list[AliasService]
    has_more: bool
    next: int | None


class Deleted(BaseModel):
    """What was deleted."""

    id: str
    object: str
    deleted: Literal[True] = True


class FloorCheck(BaseModel):
    """One floor for one label: a least value, or the most that it may lose."""

    label: str
    measure: str
    value: float | None
    least: float | None
    drop: float | None
    incumbent: float | None
    passed: bool


class FloorChecks(BaseModel):
    """The floors of a decision: counts, and the first checks, those that failed first."""

    checked: int
    broken: int
    checks: list[FloorCheck]
    unchecked: list[str]  # labels with too few rows


class PromotionDecision(BaseModel):
    """A decision about an alias, with both values; ``incumbent`` null: it pointed nowhere."""

    id: int
    alias: str
    promoted: bool
    reason: str
    metric: str
    margin: float
    version: int
    value: Number
    incumbent: int | None
    incumbent_value: Number
    split: str | None  # which rows decided
    rows: int | None
    min_rows: int
    floors: FloorChecks | None  # null: none were asked for
    job_id: str
    at: datetime

    @classmethod
    def of(cls, promotion: tables.Promotion) -> Self:
        """One decision."""
        return cls.model_validate(promotion, from_attributes=True)


class PromotionDetails(PromotionDecision):
    """A decision with both reports, without large tables; null: decided by an earlier version."""

    reports: dict[str, dict[str, Any] | None] | None


class PromotionPage(BaseModel):
    """Decisions, newest first; ``next`` is the ``after`` of the next page."""

    object: Literal["list"] = "list"
    data: list[PromotionDecision]
    has_more: bool
    next: int | None


def _outer(view: VersionView) -> dict[str, Any]:
    version = view.version
    return {
        "id": f"{version.name}@{version.version}",
        "created": int(version.created_at.timestamp()),
        "owned_by": version.project_id,
    }


def _fields(view: VersionView) -> dict[str, Any]:
    columns = {
        name: getattr(view.version, name)
        for name in VersionDetails.model_fields
        if name != "aliases"
    }
    return {**columns, "aliases": list(view.aliases)}
