"""Groups are checked as a whole before any job of them is accepted."""

from __future__ import annotations

from typing import Any

import pydantic
import pytest

from jobs.kinds.groups import GroupSpec

CORPUS = {"uri": "file:///corpus.jsonl"}
LABEL: dict[str, Any] = {"kind": "classify", "model": "/model", "corpus": CORPUS}
TRAIN: dict[str, Any] = {"kind": "finetune", "model": "news", "base": "/model", "corpus": CORPUS}


def group(**jobs: dict[str, Any]) -> GroupSpec:
    return GroupSpec.model_validate({"jobs": jobs})


def sweep(grid: dict[str, Any], **fields: Any) -> GroupSpec:
    return GroupSpec.model_validate({"sweep": {"job": {**TRAIN, **fields}, "grid": grid}})


def test_members_come_behind_those_that_they_need_and_keep_their_written_order() -> None:
    spec = group(
        last=LABEL | {"depends_on": ["middle:end", "job_elsewhere"]},
        middle=LABEL | {"model": "{train.model}"},
        train=TRAIN,
    )
    assert list(spec.members()) == ["train", "middle", "last"]
    assert spec.member_names == ["last", "middle", "train"]


def test_a_circle_is_refused_with_the_names_in_it() -> None:
    with pytest.raises(pydantic.ValidationError, match="a circle") as refused:
        group(
            a=LABEL | {"depends_on": ["b"]},
            b=TRAIN | {"base": "{c.model}"},
            c=TRAIN | {"depends_on": ["a"]},
            d=LABEL | {"depends_on": ["a"]},
        )
    assert any(
        f"{one} → {two} → {three} → {one}" in str(refused.value)
        for one, two, three in (("a", "b", "c"), ("b", "c", "a"), ("c", "a", "b"))
    )
    with pytest.raises(pydantic.ValidationError, match="a → a"):
        group(a=LABEL | {"depends_on": ["a"]})


@pytest.mark.parametrize("name", ["", "-a", "a b", "a" * 41, "job_1"])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(pydantic.ValidationError):
        group(**{name: LABEL})


@pytest.mark.parametrize(
    "fields",
    [{}, {"jobs": {}}, {"jobs": {"a": LABEL}, "sweep": {"job": TRAIN, "grid": {"seed": [1]}}}],
)
def test_a_group_is_either_jobs_or_a_sweep(fields: dict[str, Any]) -> None:
    with pytest.raises(pydantic.ValidationError):
        GroupSpec.model_validate(fields)


def test_every_combination_of_a_grid_is_a_member_with_its_options_in_its_name() -> None:
    spec = sweep({"learning_rate": [1e-5, 3e-5], "lora.r": [4, 8]}, name="nightly")
    members = spec.members()
    assert list(members) == ["1", "2", "3", "4"]
    found = [member.model_dump() for member in members.values()]
    assert [(each["train"]["learning_rate"], each["lora"]["r"]) for each in found] == [
        (1e-5, 4),
        (1e-5, 8),
        (3e-5, 4),
        (3e-5, 8),
    ]
    assert found[1]["name"] == "nightly learning_rate=1e-05 r=8"
    assert spec.sweep is not None
    assert list(spec.sweep.grid) == ["train.learning_rate", "lora.r"]


@pytest.mark.parametrize(
    ("grid", "why"),
    [
        ({"learning_rate": [1e-5, 20]}, "learning_rate=20: train.learning_rate: Input should be"),
        ({"learnin_rate": [1e-5]}, "learnin_rate: Extra inputs are not permitted"),
        ({"learning_rate": []}, "at least one"),
        ({"learning_rate": [1, 1]}, "different values"),
        ({"learning_rate": [1], "train.learning_rate": [2]}, "an option twice"),
        ({"corpus.uri": ["a", "b"]}, "cannot vary 'corpus.uri'"),
        (
            {"seed": list(range(20)), "epochs": list(range(1, 20))},
            "at most 256 combinations, not 380",
        ),
        ({"architecture": ["lstm"]}, "give exactly one"),
        ({}, "at least 1 item"),
    ],
)
def test_a_grid_that_makes_no_jobs_is_refused(grid: dict[str, Any], why: str) -> None:
    with pytest.raises(pydantic.ValidationError) as refused:
        sweep(grid)
    assert why in str(refused.value)
