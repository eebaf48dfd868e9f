"""What has happened in the seven nights, as the API tells it afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any
from urllib.parse import unquote

from api.cli.nightly.nights import NIGHTS, Night
from api.client import Answer, Client

TRAINING = "nightly"
LABELLING = "labels"
"""The two schedules."""

MODEL = "topics"
ALIAS = "champion"


@dataclass(frozen=True, kw_only=True)
class Input:
    """An object that a job has read, or the rows of a query between two bounds."""

    split: str  # train and promotion of a fine-tune; rows of bulk work
    name: str  # below the folder of what arrives; `sql:` and the name of a query
    version: str
    rows: int
    since: str | None  # null: of an object
    until: str | None


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Whether a version took the alias, and what both measured on the same rows."""

    job: str
    promoted: bool
    reason: str
    metric: str
    version: int
    value: float | None
    incumbent: int | None
    incumbent_value: float | None
    rows: int | None


@dataclass(frozen=True, kw_only=True)
class Run:
    """One attempt at a fine-tune."""

    state: str
    from_step: int
    step: int


@dataclass(frozen=True, kw_only=True)
class Job:
    """The job of a fire."""

    id: str
    state: str
    model: str | None  # `name@version` that it used; of a fine-tune its base
    inputs: tuple[Input, ...]
    runs: tuple[Run, ...]  # of a fine-tune, the oldest first
    decision: Decision | None
    rows: int | None  # of bulk work
    verified: bool | None  # what `jobs verify` said; null: it was not asked

    def took(self, split: str) -> dict[str, Input]:
        """What it has read for this purpose, by the name."""
        return {each.name: each for each in self.inputs if each.split == split}


@dataclass(frozen=True, kw_only=True)
class Fire:
    """One fire of a schedule."""

    id: int
    fire_time: datetime
    state: str
    origin: str
    reason: str | None
    made_at: datetime
    submitted_at: datetime | None
    ended_at: datetime | None
    job: Job | None


@dataclass(frozen=True, kw_only=True)
class Move:
    """What the alias pointed to for some time."""

    version: int | None
    since: datetime
    until: datetime | None
    how: str
    job: str | None


@dataclass(frozen=True, kw_only=True)
class Told:
    """What only the one who was there knows."""

    killed: Mapping[str, int]  # service -> process
    successors: Mapping[str, int]  # service -> the process after the night
    waited: str | None  # the reason that the overlapping fire gave; null: it did not wait
    verified: Mapping[str, bool]  # job -> what `jobs verify` said
    events: tuple[tuple[str, str], ...] = ()  # that the receiver got: type, fire or version


@dataclass(frozen=True, kw_only=True)
class Facts:
    """All of it. Fires are in the order of their times: the first is that of the first night."""

    training: tuple[Fire, ...]
    labelling: tuple[Fire, ...]
    decisions: tuple[Decision, ...]  # the oldest first; the first one is from before the nights
    moves: tuple[Move, ...]  # of the alias, the oldest first
    told: Told
    nights: tuple[Night, ...] = NIGHTS

    def fires(self, night: Night) -> tuple[Fire | None, Fire | None]:
        """The two fires of a night: training, labelling."""
        found = [dict(enumerate(fires, 1)) for fires in (self.training, self.labelling)]
        training, labelling = (by_number.get(night.number) for by_number in found)
        return training, labelling


def collect(client: Client, *, incoming: str, told: Told) -> Facts:
    """Ask the API. ``incoming``: the URI of the folder of what arrives."""
    decisions = {
        each["job_id"]: _decision(each) for each in reversed(list(client.models.promotions(MODEL)))
    }
    reader = _Reader(client=client, incoming=incoming, decisions=decisions, told=told)
    return Facts(
        training=reader.fires(TRAINING),
        labelling=reader.fires(LABELLING),
        decisions=tuple(decisions.values()),
        moves=tuple(map(_move, reversed(list(client.models.history(MODEL, ALIAS))))),
        told=told,
    )


def fires(client: Client, schedule: str) -> list[Answer]:
    """The fires of a schedule in the order of their times."""
    return sorted(client.schedules.fires(schedule), key=lambda fire: str(fire["fire_time"]))


@dataclass(frozen=True, kw_only=True)
class _Reader:
    client: Client
    incoming: str
    decisions: Mapping[str, Decision]
    told: Told

    def fires(self, schedule: str) -> tuple[Fire, ...]:
        return tuple(map(self._fire, fires(self.client, schedule)))

    def _fire(self, found: Answer) -> Fire:
        return Fire(
            id=found["id"],
            fire_time=datetime.fromisoformat(found["fire_time"]),
            state=found["state"],
            origin=found["origin"],
            reason=found["reason"],
            made_at=datetime.fromisoformat(found["made_at"]),
            submitted_at=_moment(found["submitted_at"]),
            ended_at=_moment(found["ended_at"]),
            job=next((self._job(each["id"]) for each in found["jobs"]), None),
        )

    def _job(self, job_id: str) -> Job:
        found = self.client.get(job_id)
        is_training = found["training"] is not None
        runs = reversed(list(self.client.runs(job_id))) if is_training else ()
        return Job(
            id=job_id,
            state=found["state"],
            model=found["model_pinned"],
            inputs=tuple(map(self._input, self.client.inputs(job_id))),
            runs=tuple(
                Run(state=run["state"], from_step=run["from_step"], step=run["step"])
                for run in runs
            ),
            decision=self.decisions.get(job_id),
            rows=None if is_training else found["rows"]["done"],
            verified=self.told.verified.get(job_id),
        )

    def _input(self, found: Answer) -> Input:
        query: Mapping[str, Any] = found["query"] or {}
        return Input(
            split=found["split"],
            name=unquote(found["name"]).removeprefix(unquote(self.incoming)),
            version=found["version"],
            rows=found["rows"] or 0,
            since=query.get("since"),
            until=query.get("until"),
        )


def _decision(found: Answer) -> Decision:
    names = [each.name for each in fields(Decision) if each.name != "job"]
    return Decision(job=found["job_id"], **{name: found[name] for name in names})


def _move(found: Answer) -> Move:
    return Move(
        version=found["version"],
        since=datetime.fromisoformat(found["since"]),
        until=_moment(found["until"]),
        how=found["how"],
        job=found["job_id"],
    )


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
