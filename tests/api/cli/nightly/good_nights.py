"""Facts of seven nights that went as they must, and the same with one thing changed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from api.cli.nightly.facts import Decision, Facts, Fire, Input, Job, Move, Run, Told
from api.cli.nightly.nights import NIGHTS, Course, Night

BEGIN = datetime(2026, 12, 1, 2, tzinfo=UTC)
TRAINS = timedelta(minutes=5)
LABELS = timedelta(minutes=6)
"""How long after its fire time a fine-tune ends, and the labelling of the same night begins."""

FIRST = Decision(
    job="job_first",
    promoted=True,
    reason="champion pointed nowhere",
    metric="loss",
    version=1,
    value=2.0,
    incumbent=None,
    incumbent_value=None,
    rows=24,
)


def due(night: Night) -> datetime:
    """The fire time of its fine-tune."""
    if night.course is Course.OVERLAPPING:
        return due(NIGHTS[night.number - 2]) + timedelta(minutes=2)
    return BEGIN + timedelta(minutes=15 * night.number)


def good() -> Facts:
    """Everything holds."""
    training = tuple(_training())
    decided = [fire.job.decision for fire in training if fire.job and fire.job.decision]
    ended = {fire.job.id: fire.ended_at for fire in training if fire.job}
    promoted = [each for each in decided if each.promoted]
    since = [BEGIN, *(ended[each.job] or BEGIN for each in promoted)]
    moves = tuple(
        Move(version=each.version, since=at, until=until, how="promotion", job=each.job)
        for each, at, until in zip([FIRST, *promoted], since, [*since[1:], None], strict=True)
    )
    labelling = tuple(_labelling(moves))
    return Facts(
        training=training,
        labelling=labelling,
        decisions=(FIRST, *decided),
        moves=moves,
        told=Told(
            killed={"control": 1, "host": 2},
            successors={"control": 3, "host": 4},
            waited="job_6 of an earlier fire still runs",
            verified={},
            events=(
                ("model.promoted", FIRST.job),
                *(("model.promoted" if d.promoted else "model.rejected", d.job) for d in decided),
                ("schedule.fire_skipped", "2"),
                ("schedule.fire_skipped", "102"),
            ),
        ),
    )


def _training() -> Iterator[Fire]:
    new: dict[str, str] = {}
    checked, version, champion, value = 0, 1, 1, 2.0
    for night in NIGHTS:
        if night.course is Course.EMPTY:
            found = Job(
                id=f"job_{night.number}",
                state="cancelled",
                model=f"topics@{champion}",
                inputs=(),
                runs=(),
                decision=None,
                rows=None,
                verified=None,
            )
            yield _fire(night.number, due(night), found, state="skipped", reason="no new rows")
            continue
        checked += night.checked_rows if night.course is not Course.OVERLAPPING else 0
        new |= dict.fromkeys(night.objects, f"of night {night.number}")
        if night.course is Course.REPAIRED:
            new |= {NIGHTS[night.number - 2].flipped or "": "corrected"}
        version += 1
        promoted = night.course is not Course.FLIPPED
        found = _fine_tune(night, new, checked=checked, version=version, champion=champion)
        assert found.decision is not None
        reached = value - 0.1 if promoted else value + 0.5
        decided = replace(
            found.decision, promoted=promoted, value=reached, incumbent_value=value, rows=checked
        )
        yield _fire(night.number, due(night), replace(found, decision=decided))
        if promoted:
            new, champion, value = {}, version, reached


def _fine_tune(
    night: Night, new: dict[str, str], *, checked: int, version: int, champion: int
) -> Job:
    rows = {name: count for each in NIGHTS for name, count in each.objects.items()}
    objects = (
        Input(split="train", name=name, version=v, rows=rows[name], since=None, until=None)
        for name, v in new.items()
    )
    query = Input(
        split="promotion",
        name="sql:checked",
        version="1",
        rows=checked,
        since="-infinity",
        until=due(night).isoformat(),
    )
    job_id = f"job_{night.number}"
    is_killed = night.course is Course.KILLED
    lost = (Run(state="lost", from_step=0, step=29),) if is_killed else ()
    last = Run(state="succeeded", from_step=20 if is_killed else 0, step=72)
    return Job(
        id=job_id,
        state="succeeded",
        model=f"topics@{champion}",
        inputs=(*objects, query),
        runs=(*lost, last),
        decision=replace(FIRST, job=job_id, version=version, incumbent=champion),
        rows=None,
        verified=None,
    )


def _labelling(moves: tuple[Move, ...]) -> Iterator[Fire]:
    since = "-infinity"
    for night in NIGHTS:
        at = BEGIN + timedelta(minutes=15 * night.number) + LABELS
        is_empty = night.course is Course.EMPTY
        query = Input(
            split="rows",
            name="sql:checked",
            version="1",
            rows=night.checked_rows,
            since=since,
            until=at.isoformat(),
        )
        champion = [move.version for move in moves if move.since <= at][-1]
        found = Job(
            id=f"job_{night.number}_labels",
            state="cancelled" if is_empty else "succeeded",
            model=f"topics@{champion}",
            inputs=(query,),
            runs=(),
            decision=None,
            rows=night.checked_rows,
            verified=None if is_empty else True,
        )
        number = 100 + night.number
        if is_empty:
            yield _fire(number, at, found, state="skipped", reason="no new rows")
        else:
            yield _fire(number, at, found)
            since = at.isoformat()


def _fire(
    number: int, at: datetime, job: Job, *, state: str = "succeeded", reason: str | None = None
) -> Fire:
    waits = at == due(NIGHTS[6])
    begins = due(NIGHTS[5]) + TRAINS if waits else at
    return Fire(
        id=number,
        fire_time=at,
        state=state,
        origin="calendar",
        reason=reason,
        made_at=at,
        submitted_at=begins,
        ended_at=begins + TRAINS,
        job=job,
    )


def job(fire: Fire) -> Job:
    """The job of a fire that has one."""
    assert fire.job is not None
    return fire.job


def training(found: Facts, number: int, **changes: Any) -> Facts:
    """The fire of a fine-tune changed."""
    fires = list(found.training)
    fires[number - 1] = replace(fires[number - 1], **changes)
    return replace(found, training=tuple(fires))


def fine_tune(found: Facts, number: int, **changes: Any) -> Facts:
    """The fine-tune of a night changed."""
    return training(found, number, job=replace(job(found.training[number - 1]), **changes))


def decision(found: Facts, number: int, **changes: Any) -> Facts:
    """The decision of a night changed."""
    before = job(found.training[number - 1]).decision
    assert before is not None
    return fine_tune(found, number, decision=replace(before, **changes))


def labels(found: Facts, number: int, **changes: Any) -> Facts:
    """The labelling of a night changed."""
    fires = list(found.labelling)
    changed = replace(job(fires[number - 1]), **changes)
    fires[number - 1] = replace(fires[number - 1], job=changed)
    return replace(found, labelling=tuple(fires))


def told(found: Facts, **changes: Any) -> Facts:
    """What was seen changed."""
    return replace(found, told=replace(found.told, **changes))
