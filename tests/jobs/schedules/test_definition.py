"""What a schedule submits: one spec, or specs by name, and how both are stored and shown."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from jobs.schedules import definition as definitions
from jobs.schedules.definition import Definition, ScheduleChange

TIMING = {"cron": ["0 2 * * *"]}
SPEC = {"kind": "classify"}


def made(jobs: object) -> Definition:
    return Definition.model_validate({"timing": TIMING, "jobs": jobs})


def test_specs_by_name_keep_their_order_and_are_shown_as_they_were_given() -> None:
    jobs = {"train": SPEC, "a": SPEC, "label": SPEC}
    found = made(jobs)
    assert found.is_group
    stored = found.dumped()
    assert [job["name"] for job in stored["jobs"]] == ["train", "a", "label"]
    shown = definitions.shown(stored)
    assert shown["jobs"] == jobs
    assert list(shown["jobs"]) == list(jobs)
    assert Definition.model_validate(shown) == Definition.model_validate(stored) == found


def test_one_spec_is_no_group_and_stays_as_it_was() -> None:
    found = made([{"spec": SPEC}])
    assert not found.is_group
    assert definitions.shown(found.dumped())["jobs"] == [{"name": None, "spec": SPEC}]


def test_one_job_with_a_name_is_a_group() -> None:
    assert made({"train": SPEC}).is_group
    assert made([{"name": "train", "spec": SPEC}]) == made({"train": SPEC})


@pytest.mark.parametrize(
    ("jobs", "path"),
    [
        ([], ("jobs",)),
        ({}, ("jobs",)),
        ([{"spec": SPEC}] * 2, ("jobs",)),
        ([{"name": "a", "spec": SPEC}, {"spec": SPEC}], ("jobs",)),
        ([{"name": "a", "spec": SPEC}] * 2, ("jobs",)),
        ({"a b": SPEC}, ("jobs", 0, "name")),
        ({"train": "classify"}, ("jobs", 0, "spec")),
        ({f"m{number}": SPEC for number in range(257)}, ("jobs",)),
        ("classify", ("jobs",)),
    ],
)
def test_what_is_neither_is_refused(jobs: object, path: tuple[Any, ...]) -> None:
    with pytest.raises(ValidationError) as refused:
        made(jobs)
    assert refused.value.errors()[0]["loc"] == path


def test_a_change_replaces_what_is_submitted_as_a_whole() -> None:
    before = made({"train": SPEC, "label": SPEC}).dumped()
    change = ScheduleChange.model_validate({"jobs": {"other": SPEC}}).fields()
    after = Definition.model_validate(definitions.patched(before, change))
    assert [job.name for job in after.jobs] == ["other"]
    kept = definitions.patched(before, ScheduleChange.model_validate({"name": "x"}).fields())
    assert kept["jobs"] == before["jobs"]
