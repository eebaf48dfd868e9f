"""Fires whose results differ from those of earlier fires are flagged, and hold promotions back."""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from jobs.ledger import chunks, dispatch_marks, registry
from jobs.lookups import held_promotions
from jobs.schedules.states import FireState
from jobs.tables import Fire, Job, Schedule
from tests.jobs.ledger.building import PROJECT, Ledger, part_of
from tests.jobs.ledger.scheduling import HOUR, SPEC, TRAIN, Clockwork

USUAL = {"good": 150, "bad": 50}
OTHER = {"good": 20, "bad": 180}


@pytest.fixture
def clock(ledger: Ledger) -> Iterator[Clockwork]:
    yield Clockwork(ledger)
    with ledger.sessions.begin() as session:
        session.execute(sa.update(Schedule).values(next_due=None, next_at=None))
        session.execute(sa.update(Fire).values(to_follow=False))


def night(
    clock: Clockwork, schedule: str, labels: dict[str, int], *, failed: int = 0, **profile: Any
) -> Fire:
    """The next fire, whose job gave these labels."""
    clock.move_to(clock.now + HOUR)
    compute(clock, clock.jobs(schedule)[-1], labels, failed=failed, **profile)
    clock.turn()
    return clock.fires(schedule)[-1]


def compute(
    clock: Clockwork, job: Job, labels: dict[str, int], *, failed: int = 0, **profile: Any
) -> None:
    """The job gives these labels; two chunks have half of the rows each."""
    clock.ledger.plan(job.id, [100, 100])
    for chunk in clock.ledger.live(job.id):
        lease = clock.ledger.claimed(chunk.id)
        half = {label: rows // 2 for label, rows in labels.items()}
        part = dataclasses.replace(
            part_of(lease, failed=failed // 2), histogram=half, profile=profile
        )
        with clock.ledger.sessions.begin() as session:
            chunks.commit(session, lease, part)
    with clock.ledger.sessions.begin() as session:
        dispatch_marks.begin_finalizing(session, job.id)
    clock.ledger.finish(job.id)


def alias(clock: Clockwork) -> str:
    """A model with an alias; its name."""
    name = f"m{secrets.token_hex(4)}"
    with clock.ledger.sessions.begin() as session:
        registry.register(
            session,
            project_id=PROJECT,
            name=name,
            task="classify",
            kind="full",
            base=None,
            files=[],
            metrics={},
            lineage={},
            job_id=None,
        )
        registry.set_alias(session, project_id=PROJECT, name=name, alias="champion", version=1)
    return name


def held(clock: Clockwork, name: str, *, job_id: str = "job_of_a_user") -> str | None:
    with clock.ledger.sessions.begin() as session:
        return held_promotions.reason(
            session, project_id=PROJECT, name=name, alias="champion", job_id=job_id
        )


def test_a_fire_whose_labels_shift_is_flagged_with_the_measure(clock: Clockwork) -> None:
    schedule = clock.create(drift={"threshold": 0.2, "against": 2})
    first = night(clock, schedule, USUAL)
    assert first.drift is not None
    assert (first.drift["drifted"], first.drift["words"]) == (False, "there is no earlier one")
    assert not (night(clock, schedule, USUAL).drift or {})["drifted"]
    shifted = night(clock, schedule, OTHER).drift
    assert shifted is not None
    assert (shifted["drifted"], shifted["against"], shifted["holds"]) == (True, 2, None)
    assert set(shifted["measures"]) == {"labels", "errors"}
    assert shifted["words"].startswith("labels PSI")
    assert not (night(clock, schedule, {"good": 85, "bad": 115}).drift or {})["drifted"]


def test_scores_lengths_and_failed_rows_are_compared_as_well(clock: Clockwork) -> None:
    schedule = clock.create(drift={})
    usual: dict[str, Any] = {
        "scores": {"bins": {"0.9": 100}, "total": 92.0},
        "lengths": {"bins": {"16": 100}, "total": 2000.0},
    }
    night(clock, schedule, USUAL, **usual)
    other: dict[str, Any] = {
        "scores": {"bins": {"0.5": 100}, "total": 51.0},
        "lengths": {"bins": {"128": 100}, "total": 15000.0},
    }
    found = night(clock, schedule, USUAL, failed=60, **other).drift
    assert found is not None
    assert found["drifted"]
    measures = found["measures"]
    assert (measures["scores"]["before"], measures["scores"]["now"]) == (0.92, 0.51)
    assert (measures["lengths"]["before"], measures["lengths"]["now"]) == (20.0, 150.0)
    assert (measures["errors"]["before"], measures["errors"]["now"]) == (0.0, 0.3)


def test_without_the_policy_nothing_is_kept_and_too_few_rows_are_not_compared(
    clock: Clockwork,
) -> None:
    plain = night(clock, clock.create(), USUAL)
    assert (plain.state, plain.profile, plain.drift) == (FireState.SUCCEEDED, None, None)
    schedule = clock.create(drift={"min_rows": 500})
    night(clock, schedule, USUAL)
    found = night(clock, schedule, OTHER).drift
    assert found is not None
    assert found["words"] == "fewer than 500 rows cannot be compared"


def test_a_drifted_fire_holds_promotions_until_the_next_one_or_an_edit(clock: Clockwork) -> None:
    name = alias(clock)
    schedule = clock.create(
        name=f"labels-{name}",
        spec={"model": f"{name}@champion"},
        drift={"hold_promotion": True},
    )
    night(clock, schedule, USUAL)
    assert held(clock, name) is None
    fire = night(clock, schedule, OTHER)
    reason = held(clock, name)
    assert reason is not None
    assert reason.startswith(f"the fire of {fire.due:%Y-%m-%dT%H:%M:%SZ} of labels-{name} drifted")
    assert held(clock, alias(clock)) is None
    clock.edit(schedule, policy={"drift": {"hold_promotion": False}})
    assert held(clock, name) is None
    clock.edit(schedule, policy={"drift": {"hold_promotion": True}})
    assert held(clock, name) is not None
    night(clock, schedule, {"good": 90, "bad": 110})
    assert held(clock, name) is None
    night(clock, schedule, {"new": 200})
    assert held(clock, name) is not None
    clock.delete(schedule)
    assert held(clock, name) is None


def nightly(clock: Clockwork, name: str, **policy: Any) -> str:
    """Labels by the champion; one fine-tune that needs them, and one that does not."""
    train = {**TRAIN, "promote": {"alias": "champion"}}
    jobs = {
        "label": {**SPEC, "model": f"{name}@champion"},
        "between": {**SPEC, "depends_on": ["label:end"]},
        "behind": {**train, "model": f"{name}-behind", "depends_on": ["between"]},
        "beside": {**train, "model": f"{name}-beside"},
    }
    return clock.create(jobs=jobs, drift={"hold_promotion": True, **policy})


def labelled(clock: Clockwork, schedule: str, labels: dict[str, int]) -> dict[str, Job]:
    """The next fire, whose first bulk job gave these labels; the other one gives the usual ones."""
    clock.move_to(clock.now + HOUR)
    compute(clock, clock.members(schedule)["label"], labels)
    clock.settle()
    compute(clock, clock.members(schedule)["between"], USUAL)
    clock.settle()
    return clock.members(schedule)


def end(clock: Clockwork, found: dict[str, Job], *, failed: bool = False) -> None:
    clock.end(found["behind"])
    clock.end(found["beside"], failed=failed)
    clock.turn()


def test_members_of_a_group_are_each_compared_with_their_like(clock: Clockwork) -> None:
    schedule = nightly(clock, alias(clock))
    end(clock, labelled(clock, schedule, USUAL), failed=True)
    end(clock, labelled(clock, schedule, OTHER))
    first, second = (fire.drift or {} for fire in clock.fires(schedule))
    assert not first["drifted"]
    assert second["drifted"]
    members = second["members"]
    assert (members["label"]["drifted"], members["between"]["drifted"]) == (True, False)
    assert (members["label"]["against"], members["between"]["against"]) == (1, 1)
    assert second["words"] == f"label: {members['label']['words']}"


def test_a_drifted_member_holds_the_promotion_of_what_needs_it_in_the_same_fire(
    clock: Clockwork,
) -> None:
    name = alias(clock)
    schedule = nightly(clock, name)
    end(clock, labelled(clock, schedule, USUAL))
    found = labelled(clock, schedule, OTHER)
    (_, fire) = clock.fires(schedule)
    assert (fire.drift, held(clock, name)) == (None, None)
    reason = held(clock, f"{name}-behind", job_id=found["behind"].id)
    assert reason is not None
    assert reason.startswith(f"label of the fire of {fire.due:%Y-%m-%dT%H:%M:%SZ} of ")
    assert "drifted: labels PSI" in reason
    assert held(clock, f"{name}-beside", job_id=found["beside"].id) is None
    clock.edit(schedule, policy={"drift": {"hold_promotion": False}})
    assert held(clock, f"{name}-behind", job_id=found["behind"].id) is None
    clock.edit(schedule, policy={"drift": {"hold_promotion": True}})
    end(clock, found)
    of_alias = held(clock, name)
    assert of_alias is not None
    assert "drifted: label: labels PSI" in of_alias
    assert held(clock, f"{name}-behind") is None
