"""Targets of labelled corpora: which values are allowed, and what they become."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.corpora import readers, targets
from jobs.corpora.records import Broken
from jobs.corpora.schemas import CORPUS_SCHEMA, LABELLED_SCHEMA
from jobs.corpora.targets import TargetKind
from jobs.errors import CorpusFailure
from jobs.kinds import LabelledCorpus, PairCorpus, PromptCorpus, Task
from tests.jobs.corpora.labelled_corpora import (
    COMPLETION,
    FORMATS,
    LABEL,
    LABELS,
    PAIR,
    SETTINGS,
    TEXT,
    encoded,
    jsonl,
    pairs,
    read,
)
from tests.jobs.corpora.small_corpora import MAX_ROW_BYTES, Row, source


@pytest.mark.parametrize("kind", FORMATS)
def test_text_and_label_are_read_from_every_format(kind: str) -> None:
    data = encoded({"text": ["great", "坏"], "label": ["good", "差"]}, kind)
    assert pairs(read(data, f"a.{kind}")) == [("great", "good"), ("坏", "差")]


@pytest.mark.parametrize("kind", FORMATS)
def test_a_row_without_its_label_is_an_error_row_and_harms_no_other(kind: str) -> None:
    data = encoded({"text": ["a", "b", "", "d"], "label": ["x", "", "x", "y"]}, kind)
    rows = read(data, f"a.{kind}")
    expected = [("a", "x"), ("<missing_target>", None), ("<empty_text>", None), ("d", "y")]
    assert pairs(rows) == expected


@pytest.mark.parametrize("kind", FORMATS)
def test_ids_and_lines_are_read_like_in_any_corpus(kind: str) -> None:
    data = encoded({"n": ["7", "8"], "text": ["a", "b"], "label": ["x", ""]}, kind)
    rows = read(data, f"a.{kind}", id_column="n")
    assert [row["id"] for row in rows] == ["7", "8"]
    first = 2 if kind in ("csv", "tsv") else 1
    assert [row["line"] for row in rows] == [first, first + 1]


PARAMS = {PAIR: "pair_column", SETTINGS: "settings_column"}


def read_named(data: bytes, name: str, kind: TargetKind, column: str, **corpus: Any) -> list[Row]:
    """All rows of a corpus whose spec names a second column."""
    make = PairCorpus if kind is PAIR else PromptCorpus
    spec = make.model_validate({"file": "file-1", PARAMS[kind]: column, **corpus})
    batches = list(readers.read(source(data, name), spec, max_row_bytes=MAX_ROW_BYTES))
    assert all(batch.schema.equals(LABELLED_SCHEMA) for batch in batches)
    return [row for batch in batches for row in batch.to_pylist()]


@pytest.mark.parametrize("kind", FORMATS)
def test_a_second_text_is_read_with_the_first(kind: str) -> None:
    columns = {"premise": ["a", "坏", " ", "d"], "claim": ["x", "差", "y", ""], "n": ["1"] * 4}
    rows = read_named(encoded(columns, kind), f"a.{kind}", PAIR, "claim", text_column="premise")
    expected = [("a", "x"), ("坏", "差"), ("<empty_text>", None), ("<empty_text>", None)]
    assert pairs(rows) == expected


def test_a_row_without_its_second_text_is_an_error_row() -> None:
    data = jsonl({"text": "a", "with": "x"}, {"text": "b"}, {"text": "c", "with": None}, "d")
    missing = ("<missing_text>", None)
    assert pairs(read_named(data, "a.jsonl", PAIR, "with")) == [("a", "x")] + [missing] * 3
    data = jsonl({"text": "a", "with": "x"}, {"text": "b", "with": ["y"]})
    assert pairs(read_named(data, "a.jsonl", PAIR, "with"))[1] == ("<wrong_type>", None)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_row_has_its_own_settings_or_none(kind: str) -> None:
    columns = {"text": ["a", "b", "c"], "how": ['{"seed": 3}', "", "no json"]}
    rows = read_named(encoded(columns, kind), f"a.{kind}", SETTINGS, "how")
    assert pairs(rows) == [("a", '{"seed": 3}'), ("b", "{}"), ("c", "no json")]


def test_settings_in_jsonl_are_an_object_or_absent() -> None:
    data = jsonl({"text": "a", "how": {"seed": 3}}, {"text": "b"}, {"text": "c", "how": 7}, "d")
    rows = read_named(data, "a.jsonl", SETTINGS, "how")
    expected = [("a", '{"seed": 3}'), ("b", "{}"), ("<bad_settings>", None), ("d", "{}")]
    assert pairs(rows) == expected


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("second", PARAMS)
def test_a_named_second_column_must_exist(kind: str, second: TargetKind) -> None:
    data = encoded({"text": ["a"], "n": ["1"]}, kind)
    with pytest.raises(CorpusFailure, match=rf"'nowhere'; pass {PARAMS[second]} as one of them"):
        read_named(data, f"a.{kind}", second, "nowhere")
    with pytest.raises(CorpusFailure, match=f"the text and the {second} must be two columns"):
        read_named(data, f"a.{kind}", second, "text", text_column="text")
    with pytest.raises(CorpusFailure, match="plain text has no columns"):
        read_named(b"a", "a.txt", second, "n")


def test_settings_in_parquet_are_strings() -> None:
    data = encoded({"text": ["a"], "how": [{"seed": 3}]}, "parquet")
    with pytest.raises(CorpusFailure, match="must hold JSON objects as strings, not struct"):
        read_named(data, "a.parquet", SETTINGS, "how")


@pytest.mark.parametrize("kind", ["csv", "tsv"])
def test_several_labels_in_a_delimited_file_are_separated_by_bars(kind: str) -> None:
    data = encoded({"text": ["a", "b", "c"], "labels": ["x|y", "x", ""]}, kind)
    assert pairs(read(data, f"a.{kind}", LABELS)) == [
        ("a", '["x", "y"]'),
        ("b", '["x"]'),
        ("c", "[]"),
    ]


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_several_labels_are_an_array_that_can_be_empty(kind: str) -> None:
    columns = {"text": ["a", "b", "c"], "labels": [["x", "体育", "x"], [], None]}
    expected = [("a", '["x", "体育"]'), ("b", "[]"), ("<missing_target>", None)]
    assert pairs(read(encoded(columns, kind), f"a.{kind}", LABELS)) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("World", "World"),
        (" World ", " World "),
        (0, "0"),
        (True, "true"),
        (0.5, "0.5"),
        ("True", "true"),
        ("FALSE", "false"),
        ("tRUE", "tRUE"),
        (None, "missing_target"),
        (float("nan"), "missing_target"),
        ("", "missing_target"),
        (" \t", "missing_target"),
        (["x"], "wrong_type"),
        ({"x": 1}, "wrong_type"),
        (b"x", "wrong_type"),
        ("x" * 500, "x" * 500),
        ("x" * 501, "wrong_type"),
        ("a\0b", "wrong_type"),
    ],
)
def test_values_that_are_a_label(value: object, expected: str) -> None:
    target = targets.read(value, LABEL, column="label")
    assert (target.code if isinstance(target, Broken) else target) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (["a", "b"], ["a", "b"]),
        (["a", "b", "a"], ["a", "b"]),
        ([], []),
        ("", []),
        ("a|b", ["a", "b"]),
        (" a | b ", ["a", "b"]),
        ("a", ["a"]),
        ([1, True], ["1", "true"]),
        (3, ["3"]),
        (None, "missing_target"),
        ("a||b", "wrong_type"),
        ('["a", "b|c"]', ["a", "b|c"]),
        (' [ "a" ] ', ["a"]),
        ("[]", []),
        ("[1, 0.5, true]", ["1", "0.5", "true"]),
        ("True|b", ["true", "b"]),
        ("['a', 'b']", "wrong_type"),
        ('["a", "b"', ['["a", "b"']),
        ("[spam]", ["[spam]"]),
        ('["a", [1]]', "wrong_type"),
        ("[null]", "wrong_type"),
        ("[NaN]", "wrong_type"),
        ("[" * 100_000 + "]" * 100_000, "wrong_type"),
        (["a", None], "wrong_type"),
        (["a", ""], "wrong_type"),
        ([["a"]], "wrong_type"),
        ({"a": 1}, "wrong_type"),
        (["x" * 501], "wrong_type"),
    ],
)
def test_values_that_are_several_labels(value: object, expected: list[str] | str) -> None:
    target = targets.read(value, LABELS, column="labels")
    assert (target.code if isinstance(target, Broken) else targets.labels(target)) == expected


def test_a_text_to_generate_can_be_long() -> None:
    assert targets.read("x" * 10_000, TEXT, column="summary") == "x" * 10_000


@pytest.mark.parametrize(
    ("task", "multi_label", "kind"),
    [
        (Task.CLASSIFY, False, LABEL),
        (Task.CLASSIFY, True, LABELS),
        (Task.GENERATE, False, COMPLETION),
        (Task.TEXT2TEXT, False, TEXT),
    ],
)
def test_the_task_decides_the_kind_of_target(
    task: Task, *, multi_label: bool, kind: TargetKind
) -> None:
    assert targets.target_kind(task, multi_label=multi_label) is kind


def test_a_bare_string_among_labelled_rows_is_an_error_row() -> None:
    rows = read(jsonl({"text": "a", "label": "x"}, "b", {"text": "c"}), "a.jsonl")
    expected = [("a", "x"), ("<missing_target>", None), ("<missing_target>", None)]
    assert pairs(rows) == expected
    assert rows[2]["error_message"] == "the row has no 'label'"


def test_the_error_of_an_array_as_label_advises_multi_label() -> None:
    (rows,) = read(jsonl({"text": "a", "label": ["x"]}), "a.jsonl")
    expected = "'label' must be one string or number, not an array; several labels need multi_label"
    assert (rows["error_code"], rows["error_message"]) == ("wrong_type", expected)


def test_numbers_as_labels_are_the_same_text_in_json_and_parquet() -> None:
    columns = {"text": ["a", "b"], "label": [0, 1]}
    for kind in ("jsonl", "parquet"):
        assert pairs(read(encoded(columns, kind), f"a.{kind}")) == [("a", "0"), ("b", "1")]


@pytest.mark.parametrize(
    "kind",
    [
        pa.large_string(),
        pa.string_view(),
        pa.dictionary(pa.int8(), pa.string()),
    ],
)
def test_every_string_type_can_be_a_target(kind: pa.DataType) -> None:
    labels = pa.array(["x", None, "y"]).cast(kind)
    data = encoded({"text": ["a", "b", "c"], "label": labels}, "parquet")
    assert pairs(read(data, "a.parquet")) == [("a", "x"), ("<missing_target>", None), ("c", "y")]


@pytest.mark.parametrize(
    ("values", "wanted", "reason"),
    [
        ([["x"]], LABEL, "must hold strings or numbers, not list.*several labels need multi_label"),
        ([{"x": 1}], LABEL, "must hold strings or numbers, not struct"),
        ([b"x"], LABEL, "must hold strings or numbers, not binary"),
        ([[["x"]]], LABELS, "must hold strings or numbers, or lists of them, not list"),
    ],
)
def test_a_parquet_target_of_another_type_fails(
    values: list[Any], wanted: TargetKind, reason: str
) -> None:
    with pytest.raises(CorpusFailure, match=reason) as caught:
        read(encoded({"text": ["a"], "label": values}, "parquet"), "a.parquet", wanted)
    assert caught.value.code == "column_wrong_type"


def test_a_target_over_the_limit_is_a_row_too_long_in_parquet() -> None:
    data = encoded({"text": ["a", "b"], "summary": ["x" * 101, "y"]}, "parquet")
    rows = read(data, "a.parquet", TEXT, max_row_bytes=100)
    assert pairs(rows) == [("<row_too_long>", None), ("b", "y")]


def test_large_targets_come_in_batches_of_about_a_megabyte() -> None:
    summaries = [chr(97 + n % 26) * 300_000 for n in range(60)]
    columns = {"text": ["a"] * 60, "summary": summaries}
    for kind in ("csv", "parquet"):
        corpus_source = source(encoded(columns, kind), f"a.{kind}")
        spec = LabelledCorpus(file="f")
        batches = list(readers.read(corpus_source, spec, max_row_bytes=2**20, targets=TEXT))
        assert max(batch.nbytes for batch in batches) < 3 * 2**20
        assert sum(batch.num_rows for batch in batches) == 60


def test_a_target_that_is_not_unicode_spoils_only_its_own_row() -> None:
    raw = pa.array([b"x", b"\xff\xfe", b"y"], pa.binary())
    broken = pa.StringArray.from_buffers(3, *raw.buffers()[1:])
    data = {
        "parquet": encoded({"text": ["a", "b", "c"], "label": broken}, "parquet"),
        "csv": b"text,label\na,x\nb,\xff\xfe\nc,y\n",
        "jsonl": b'{"text":"a","label":"x"}\n{"text":"b","label":"\\ud800"}\n'
        b'{"text":"c","label":"y"}',
    }
    for kind, content in data.items():
        expected = [("a", "x"), ("<bad_encoding>", None), ("c", "y")]
        assert pairs(read(content, f"a.{kind}")) == expected


def test_a_labelled_corpus_read_without_targets_is_a_plain_one() -> None:
    spec = LabelledCorpus(file="f", target_column="nowhere")
    data = encoded({"text": ["a"], "label": ["x"]}, "csv")
    (batch,) = readers.read(source(data, "a.csv"), spec, max_row_bytes=100)
    assert batch.schema.equals(CORPUS_SCHEMA)


visible = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40).filter(
    lambda text: not text.isspace()
)
table = st.lists(st.tuples(visible, visible), min_size=1, max_size=30)


@settings(max_examples=60)
@given(table, st.sampled_from(FORMATS), st.sampled_from([1_000, 2**20]))
def test_pairs_of_texts_come_back(content: list[tuple[str, str]], kind: str, limit: int) -> None:
    columns = {"text": [text for text, _ in content], "target": [target for _, target in content]}
    rows = read(encoded(columns, kind), f"a.{kind}", TEXT, max_row_bytes=limit)
    assert pairs(rows) == content


@pytest.mark.parametrize("nested", [{"seed": {"a": 1}}, {"seed": [1]}, [1], True, 7])
def test_settings_that_are_not_a_flat_object_make_an_error_row(nested: Any) -> None:
    data = jsonl({"text": "a", "how": {}}, {"text": "b", "how": nested})
    expected = [("a", "{}"), ("<bad_settings>", None)]
    assert pairs(read_named(data, "a.jsonl", SETTINGS, "how")) == expected


def test_a_parquet_column_of_only_nulls_has_no_settings() -> None:
    data = encoded({"text": ["a", "b"], "how": [None, None]}, "parquet")
    assert pairs(read_named(data, "a.parquet", SETTINGS, "how")) == [("a", "{}"), ("b", "{}")]
