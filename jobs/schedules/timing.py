"""When a schedule fires, as its owner writes it: cron lines or an interval, and in which zone.

``calendar`` turns it into instants and ``words`` into a sentence; docs/schedules.md explains it.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from jobs.durations import Duration, written
from jobs.kinds.base import Strict
from jobs.moments import Day, LocalMoment
from jobs.schedules import cron, zones

MOST_LINES = 20
MOST_EXCEPT_DAYS = 1_000
SHORTEST_INTERVAL = timedelta(seconds=1)
LONGEST_JITTER = timedelta(days=1)
YEARS = range(1970, 3000)

CronLine = Annotated[str, AfterValidator(cron.checked)]
CronLines = Annotated[
    tuple[CronLine, ...],
    BeforeValidator(lambda value: (value,) if isinstance(value, str) else value),
    Field(max_length=MOST_LINES),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                {"type": "array", "items": {"type": "string"}, "maxItems": MOST_LINES},
            ],
            "examples": ["0 2 * * *"],
        }
    ),
]


class Timing(Strict):
    """When a schedule fires. Exactly one of ``cron`` and ``every``."""

    time_zone: str = Field("UTC", description="Zone of the IANA database, such as `Europe/Berlin`.")
    cron: CronLines = Field(
        (),
        description="A cron line of five fields, `@daily` or its kin, or a list of lines. Fires "
        "that several lines name are one.",
    )
    every: Duration | None = Field(
        None,
        description="An interval such as `15m`, counted in real time from `start`, or without it "
        "from 1970-01-01T00:00Z.",
    )
    offset: Duration = Field(timedelta(), description="How much later than that `every` fires.")
    start: LocalMoment | None = Field(
        None, description="No fire is earlier. Without an offset it is in `time_zone`."
    )
    end: LocalMoment | None = Field(
        None, description="No fire is later. Without an offset it is in `time_zone`."
    )
    max_fires: int | None = Field(
        None, ge=1, le=1_000_000_000, description="The schedule ends after this number of fires."
    )
    except_days: tuple[Day, ...] = Field(
        (),
        max_length=MOST_EXCEPT_DAYS,
        description="Days of the calendar, in `time_zone`, on which it does not fire.",
    )
    jitter: Duration = Field(
        timedelta(),
        description="A fire is let go up to this much later, always the same for a fire, and "
        "before the next fire is due.",
    )
    gap: Literal["shift", "skip"] = Field(
        "shift",
        description="A time that does not exist because clocks go forward: `shift` fires when "
        "they have gone forward.",
    )
    fold: Literal["first", "second", "both"] = Field(
        "first", description="Which of them, for a time that exists twice as clocks go back."
    )

    @property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.time_zone)

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        return zones.zone(value).key

    @field_validator("start", "end")
    @classmethod
    def _instant(cls, value: datetime | None, info: ValidationInfo) -> datetime | None:
        if value is None or "time_zone" not in info.data:
            return value
        if value.year not in YEARS:
            raise ValueError(f"must be in the years {YEARS[0]} to {YEARS[-1]}")
        if value.tzinfo is None:
            return zones.read(value, ZoneInfo(info.data["time_zone"])).first
        return value.astimezone(UTC)

    @field_validator("every")
    @classmethod
    def _not_too_short(cls, value: timedelta | None) -> timedelta | None:
        if value is not None and value < SHORTEST_INTERVAL:
            raise ValueError(f"must be at least {written(SHORTEST_INTERVAL)}")
        return value

    @field_validator("jitter")
    @classmethod
    def _not_too_long(cls, value: timedelta) -> timedelta:
        if value > LONGEST_JITTER:
            raise ValueError(f"must be at most {written(LONGEST_JITTER)}")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if bool(self.cron) == (self.every is not None):
            raise ValueError(
                "a schedule fires either by `cron` lines, such as '0 2 * * *', or `every` "
                "interval, such as '15m': give exactly one"
            )
        if self.offset and (self.every is None or self.offset >= self.every):
            raise ValueError("`offset` belongs to `every` and must be shorter than it")
        if self.start is not None and self.end is not None and self.end < self.start:
            raise ValueError("`end` must not be before `start`")
        return self
