"""From the template of a schedule to the group of one fire."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from jobs.errors import BadSpec
from jobs.schedules import templates
from jobs.schedules.definition import Definition
from jobs.schedules.placeholders import Values

DAY = datetime(2026, 12, 1, 1, tzinfo=UTC)
VALUES = Values(
    schedule="nightly",
    fire_time=DAY,
    previous_fire_time=DAY,
    last_success=DAY,
    zone=ZoneInfo("Europe/Berlin"),
)
TRAIN = {
    "kind": "finetune",
    "corpus": {"uri": "s3://labelled/{fire_time:%Y-%m-%d}.jsonl"},
    "base": "/model",
    "model": "news",
}
LABEL = {
    "kind": "classify",
    "corpus": {"uri": "s3://texts/{fire_time:%Y-%m-%d}.jsonl"},
    "model": "{train.model}",
    "name": "{schedule} of {fire_time:%d.%m.}",
}


def definition(**jobs: dict[str, Any]) -> Definition:
    return Definition.model_validate({"timing": {"cron": "0 2 * * *"}, "jobs": jobs})


def test_placeholders_are_filled_in_in_every_member_and_names_of_members_stay() -> None:
    found = definition(label=LABEL, train=TRAIN)
    templates.check_placeholders(found)
    group = templates.group(found, VALUES)
    assert group.name == "nightly"
    assert group.member_names == ["label", "train"]
    assert list(group.members()) == ["train", "label"]
    label, train = (group.members()[name] for name in ("label", "train"))
    assert train.corpus.uri == "s3://labelled/2026-12-01.jsonl"
    assert label.corpus.uri == "s3://texts/2026-12-01.jsonl"
    assert (label.name, label.starts_from) == ("nightly of 01.12.", ("model", "{train.model}"))


@pytest.mark.parametrize(
    ("jobs", "param", "said"),
    [
        ({"train": {**TRAIN, "epochs": 3}}, "jobs.train.epochs", "no such field"),
        ({"train": {"kind": "dance"}}, "jobs.train.kind", "must be one of classify"),
        (
            {"a": {**LABEL, "model": "m", "depends_on": ["a"]}},
            "jobs",
            "wait for one another in a circle: a → a",
        ),
        ({"job_1": {**LABEL, "model": "m"}}, "jobs", "must not begin as an id does"),
    ],
)
def test_a_refusal_names_the_member_and_the_field(
    jobs: dict[str, Any], param: str, said: str
) -> None:
    with pytest.raises(BadSpec) as refused:
        templates.group(definition(**jobs), VALUES)
    assert refused.value.param == param
    assert said in refused.value.message


def test_a_bad_placeholder_is_found_with_its_member() -> None:
    bad = {**LABEL, "name": "{day}"}
    with pytest.raises(BadSpec, match=r"jobs\.label\.name: there is no placeholder '\{day\}'"):
        templates.check_placeholders(definition(train=TRAIN, label=bad))
