"""What projects and keys are, as those write them who make them."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from pydantic import AfterValidator, Field

from jobs import names
from jobs.durations import Duration
from jobs.kinds.base import Strict
from jobs.rights import Scope

MOST_KEYS = 100
"""Valid keys of one project."""

LONGEST_OVERLAP = timedelta(days=30)
HINT = len("ns_") + 8
"""Characters of a key by which people recognize it."""


def _some(value: tuple[Scope, ...]) -> tuple[Scope, ...]:
    return tuple(scope for scope in Scope if scope in value)


def _short(value: timedelta) -> timedelta:
    if value > LONGEST_OVERLAP:
        raise ValueError("must be at most 30 days")
    return value


def _positive(value: timedelta | None) -> timedelta | None:
    if value is not None and value <= timedelta():
        raise ValueError("must be longer than 0")
    return value


Name = Annotated[
    str, Field(max_length=100, pattern=f"^{names.PLAIN}$", description="For people; may be empty.")
]
Pool = Annotated[str, Field(pattern=f"^{names.POOL}$")]
Prefix = Annotated[str, Field(min_length=1, max_length=1_000, pattern=f"^{names.PLAIN}$")]
Life = Annotated[
    Duration | None,
    Field(description="How long it is valid; null: until it is revoked."),
    AfterValidator(_positive),
]


class Limits(Strict):
    """What a project may hold and use; null: as much as the installation has."""

    jobs_in_flight: int | None = Field(
        None, ge=0, le=2**31, description="Jobs that have not ended."
    )
    upload_bytes: int | None = Field(None, ge=0, lt=2**62, description="Of one uploaded file.")
    storage_bytes: int | None = Field(
        None, ge=0, lt=2**62, description="In the object store, as they were counted last."
    )
    pools: tuple[Pool, ...] | None = Field(None, max_length=100, description="Pools for its jobs.")
    models: tuple[Prefix, ...] | None = Field(
        None,
        max_length=100,
        description="Prefixes of model references, as in the setting `allowed_models`. Models of "
        "its registry need none.",
    )


class ProjectRequest(Strict):
    """A project to be made."""

    id: str = Field(pattern=f"^{names.PROJECT}$", description="What it is called everywhere.")
    name: Name = ""
    weight: float = Field(1.0, gt=0, le=1_000, description="Its share of a busy pool.")
    limits: Limits = Limits()


class ProjectChange(Strict):
    """What changes of a project; what is left out stays."""

    name: Name | None = None
    weight: float | None = Field(None, gt=0, le=1_000, description="Its share of a busy pool.")
    limits: Limits | None = Field(None, description="All of them: what is left out is no limit.")


class KeyRequest(Strict):
    """A key to be made."""

    name: Name = ""
    scopes: Annotated[tuple[Scope, ...], AfterValidator(_some)] = Field(
        (Scope.READ, Scope.SUBMIT), min_length=1, description="What it may do."
    )
    expires_in: Life = None
    project: str | None = Field(
        None,
        pattern=f"^{names.ID}$",
        description="The project that it acts for: the caller's own, or with `operate` any.",
    )


class KeyRotation(Strict):
    """How a key is replaced."""

    overlap: Annotated[Duration, AfterValidator(_short)] = Field(
        timedelta(days=1),
        description="How long the old key stays valid, at most 30 days; `0` for one that leaked.",
    )
    expires_in: Life = Field(
        None, description="How long the new key is valid; null: as long as the old one was to be."
    )
