"""Model references: each form has one meaning, and the allow-list decides on the text alone."""

from __future__ import annotations

import contextlib
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.errors import ModelFailure
from jobs.kinds import ClassifySpec, EvaluateSpec, FinetuneSpec
from jobs.models import references
from jobs.models.references import Folder, HubModel, Location, Reference, Registered

CORPUS = {"uri": "file:///corpus.jsonl"}


@pytest.mark.parametrize(
    ("reference", "meaning"),
    [
        ("news", Registered("news")),
        ("news@3", Registered("news", version=3)),
        ("news@champion", Registered("news", alias="champion")),
        ("News.v2_a-b@a1", Registered("News.v2_a-b", alias="a1")),
        ("hf:org/name", HubModel("org/name")),
        ("hf:org/name@refs/pr/1", HubModel("org/name", "refs/pr/1")),
        ("/models/mine", Folder(PurePosixPath("/models/mine"))),
        ("file:///models/my%20own", Folder(PurePosixPath("/models/my own"))),
        ("s3://bucket/models/mine/", Location("s3", ("bucket", "models", "mine"))),
        ("s3://bucket", Location("s3", ("bucket",))),
    ],
)
def test_each_form_means_one_thing(reference: str, meaning: Reference) -> None:
    assert references.parse(reference) == meaning


@pytest.mark.parametrize(
    "reference",
    [
        "",
        "news@",
        "news@0",
        "news@03",
        "news@Champion",
        "news@3@4",
        "news@٣",
        "news@1234567890",
        "org/name",
        "models/mine",
        "./mine",
        "-news",
        "news\n",
        "hf:",
        "hf:name",
        "http://host/model",
        "file://host/model",
        "s3://",
        "s3://bucket/../other",
    ],
)
def test_anything_else_is_refused_and_quoted(reference: str) -> None:
    with pytest.raises(ModelFailure) as caught:
        references.parse(reference)
    assert repr(reference) in caught.value.message


@given(st.text(max_size=40))
def test_every_text_is_a_reference_or_a_refusal(reference: str) -> None:
    with contextlib.suppress(ModelFailure):
        references.parse(reference)


@given(
    st.from_regex(references.NAME, fullmatch=True), st.from_regex(references.ALIAS, fullmatch=True)
)
def test_a_name_with_an_alias_is_read_back_as_it_was_written(name: str, alias: str) -> None:
    assert references.parse(f"{name}@{alias}") == Registered(name, alias=alias)


@pytest.mark.parametrize(
    ("reference", "allowed"),
    [
        ("news@3", []),
        ("/models/mine", ["/models"]),
        ("/models/mine", ["file:///models/"]),
        ("file:///models/mine", ["/models"]),
        ("s3://bucket/models/mine", ["s3://bucket/models/"]),
        ("s3://bucket/models", ["s3://bucket"]),
        ("s3://bucket/models", ["s3://"]),
        ("hf:org/name@main", ["hf:org/"]),
    ],
)
def test_a_reference_under_an_allowed_prefix_is_allowed(reference: str, allowed: list[str]) -> None:
    assert references.check_allowed(reference, allowed) == references.parse(reference)


@pytest.mark.parametrize(
    ("reference", "allowed"),
    [
        ("/models-2/mine", ["/models"]),
        ("/models/../etc", ["/models"]),
        ("file:///models/%2e%2e/etc", ["/models"]),
        ("s3://bucket-2/mine", ["s3://bucket"]),
        ("s3://bucket/models-2", ["s3://bucket/models"]),
        ("s3://bucket/models", ["hf:", "/"]),
        ("hf:other/name", ["hf:org/"]),
    ],
)
def test_a_reference_under_no_allowed_prefix_is_refused(reference: str, allowed: list[str]) -> None:
    with pytest.raises(ModelFailure) as caught:
        references.check_allowed(reference, allowed)
    assert caught.value.code == "model_refused"


def test_the_model_of_a_spec_comes_with_its_field() -> None:
    classify = ClassifySpec.model_validate({"corpus": CORPUS, "model": "news"})
    evaluate = EvaluateSpec.model_validate({"corpus": CORPUS, "model": "news@1"})
    tuned = FinetuneSpec.model_validate({"corpus": CORPUS, "model": "new", "base": "hf:a/b"})
    fresh = FinetuneSpec.model_validate(
        {"corpus": CORPUS, "model": "new", "architecture": "textcnn"}
    )
    assert classify.starts_from == ("model", "news")
    assert evaluate.starts_from == ("model", "news@1")
    assert tuned.starts_from == ("base", "hf:a/b")
    assert fresh.starts_from is None
