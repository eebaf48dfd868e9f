"""What every table stands on: the declarative base, names of constraints, types of columns."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import BigInteger, DateTime, Double, Enum, Index, MetaData, Text, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase

from jobs.decisions.alias_history import AliasChange
from jobs.orders import OrderAction, OrderState
from jobs.schedules.states import FireOrigin, FireState
from jobs.states import FINAL, ChunkState, JobState, RankState, RunState
from jobs.webhooks.states import DeliveryState

Json = dict[str, Any]


def _stored(states: type[StrEnum]) -> Enum:
    """A column of names that comes back as the enum; the sets are enforced by CHECKs of our own."""
    return Enum(
        states,
        native_enum=False,
        length=20,
        values_callable=lambda _: [each.value for each in states],
    )


class Base(DeclarativeBase):
    """The declarative base: names of constraints, types of columns."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy's own hook
        str: Text,
        int: BigInteger,
        float: Double,
        datetime: DateTime(timezone=True),
        Json: JSONB(none_as_null=True),
        JobState: _stored(JobState),
        ChunkState: _stored(ChunkState),
        RunState: _stored(RunState),
        RankState: _stored(RankState),
        FireState: _stored(FireState),
        FireOrigin: _stored(FireOrigin),
        AliasChange: _stored(AliasChange),
        DeliveryState: _stored(DeliveryState),
        OrderAction: _stored(OrderAction),
        OrderState: _stored(OrderState),
    }


def one_of(column: str, states: type[StrEnum]) -> str:
    """The CHECK that a column holds a member of the enum."""
    return f"{column} IN ({', '.join(repr(state.value) for state in states)})"


FINAL_STATES = ", ".join(repr(state.value) for state in sorted(FINAL))
"""A job's final states as SQL."""


def listing_and_purge() -> tuple[Index, Index]:
    """Of listings, and of what must be removed: neither grows with the tombstones."""
    return (
        Index(None, "project_id", "created_at", "id", postgresql_where=text("deleted_at IS NULL")),
        Index(None, "purge_at", postgresql_where=text("purge_at IS NOT NULL")),
    )
