"""Which columns hold text and target: the given ones, else the usual ones, in every format."""

from __future__ import annotations

from typing import Any

import pytest

from jobs.corpora.targets import TargetKind
from jobs.errors import CorpusFailure
from tests.jobs.corpora.labelled_corpora import (
    COMPLETION,
    FORMATS,
    LABEL,
    TEXT,
    encoded,
    jsonl,
    pairs,
    read,
)

Choice = tuple[list[str], TargetKind, dict[str, Any], tuple[str, str | None]]
CHOICES: list[Choice] = [
    (["text", "label"], LABEL, {}, ("text", "label")),
    (["Label", "Text"], LABEL, {}, ("Text", "Label")),
    (["label", "text", "labels"], LABEL, {}, ("text", "label")),
    (["text", "stars"], LABEL, {}, ("text", "stars")),
    (["review", "label"], LABEL, {}, ("review", "label")),
    (["id", "text", "topic"], LABEL, {"id_column": "id"}, ("text", "topic")),
    (["title", "text"], LABEL, {"target_column": "title"}, ("text", "title")),
    (["label", "text"], LABEL, {"text_column": "label"}, ("label", "text")),
    (["en", "zh"], TEXT, {"target_column": "zh"}, ("en", "zh")),
    (["en", "zh"], TEXT, {"text_column": "en"}, ("en", "zh")),
    (["text", "label", "summary"], TEXT, {}, ("text", "summary")),
    (["text", "label", "summary"], LABEL, {}, ("text", "label")),
    (["prompt", "completion"], COMPLETION, {}, ("prompt", "completion")),
    (["text", "source"], COMPLETION, {}, ("text", None)),
    (["text", "label"], COMPLETION, {}, ("text", None)),
    (["text", "answer"], COMPLETION, {"target_column": "answer"}, ("text", "answer")),
]


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("choice", CHOICES)
def test_the_same_columns_are_chosen_in_every_format(kind: str, choice: Choice) -> None:
    names, kind_of_target, corpus, expected = choice
    data = encoded({name: [f"of {name}"] for name in names}, kind)
    text, target = expected
    (pair,) = pairs(read(data, f"a.{kind}", kind_of_target, **corpus))
    assert pair == (f"of {text}", target and f"of {target}")


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(
    ("names", "corpus", "reason"),
    [
        (["text", "a", "b"], {}, "pass target_column; columns found: 'text', 'a', 'b'"),
        (["text"], {}, "pass target_column"),
        (["text", "a"], {"target_column": "b"}, "no column 'b'; pass target_column"),
        (["a", "b"], {}, "pass text_column"),
        (["a", "b"], {"text_column": "a", "target_column": "a"}, "must be two columns"),
    ],
)
def test_unclear_columns_fail_and_are_listed(
    kind: str, names: list[str], corpus: dict[str, Any], reason: str
) -> None:
    with pytest.raises(CorpusFailure, match=reason) as caught:
        read(encoded({name: ["x"] for name in names}, kind), f"a.{kind}", **corpus)
    assert caught.value.code == "column_missing"


def test_plain_text_has_no_labels() -> None:
    with pytest.raises(CorpusFailure, match="use JSONL, CSV, TSV or Parquet") as caught:
        read(b"a\nb\n", "a.txt")
    assert caught.value.code == "column_missing"


def test_plain_text_is_read_if_no_target_is_needed() -> None:
    assert pairs(read(b"a\nb\n", "a.txt", COMPLETION)) == [("a", None), ("b", None)]


def test_plain_text_has_no_target_column() -> None:
    with pytest.raises(CorpusFailure, match="none is named 'x'"):
        read(b"a\nb\n", "a.txt", COMPLETION, target_column="x")


def test_bare_strings_have_no_labels() -> None:
    with pytest.raises(CorpusFailure, match="so none has a label"):
        read(jsonl("a", "b"), "a.jsonl")
    assert pairs(read(jsonl("a", "b"), "a.jsonl", COMPLETION)) == [("a", None), ("b", None)]
