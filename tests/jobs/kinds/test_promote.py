"""The gate and the label set in the spec of a fine-tune."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from pydantic import ValidationError

from jobs import kinds
from jobs.decisions.held_back import HeldBack
from jobs.kinds import FinetuneSpec

SPEC = {"kind": "finetune", "corpus": {"uri": "file:///a.csv"}, "model": "news", "base": "/m"}


def spec(**fields: Any) -> FinetuneSpec:
    found = kinds.parse({**SPEC, **fields})
    assert isinstance(found, FinetuneSpec)
    return found


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"promote": {"floors": {}}}, "floors need at least one of recall_drop"),
        ({"promote": {"floors": {"recall_drop": 2}}}, "less than or equal to 1"),
        ({"promote": {"newest": 0}}, "newest must be a share"),
        ({"promote": {"newest": 9, "corpus": {"uri": "file:///b.csv"}}}, "give one"),
        ({"promote": {"keep_rejected": 0}}, "greater than or equal to 1"),
        ({"promote": {"floors": {"f1": 0.5}}, "task": "generate"}, "for the task classify"),
        ({"labels": ["a", "b"], "task": "generate"}, "for the task classify"),
        ({"labels": ["a"]}, "labels must be at least two"),
        ({"labels": []}, "labels must be at least two"),
        ({"labels": ["a", ""]}, "a label must be a text of 1 to 1,000 characters"),
        ({"labels": ["a", "b", "a"]}, "labels must differ, and 'a' is there twice"),
        ({"labels": "news"}, "a version of the registry such as news@champion, not 'news'"),
        ({"labels": "hf:org/name"}, "a version of the registry"),
        ({"new_labels": "add"}, "give `labels` as well"),
    ],
)
def test_a_gate_or_a_label_set_that_cannot_be_right_is_refused(
    fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        spec(**fields)
    assert message in str(caught.value)


def test_a_stored_spec_is_read_again_as_it_was() -> None:
    given = spec(
        labels=["a", "b"],
        promote={"newest": "10%", "floors": {"recall_drop": 0.02}, "keep_rejected_for": "14d"},
    )
    again = kinds.parse(given.model_dump(mode="json"))
    assert again == given
    assert given.held_back == HeldBack(share=Fraction(1, 10))
    assert spec().held_back is None


def test_a_set_of_one_label_is_enough_where_a_row_has_any_number() -> None:
    assert spec(labels=["a"], multi_label=True).labels == ("a",)
