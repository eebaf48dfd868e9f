"""Labelled corpora: which column is the target, and what its values become."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.corpora import readers, targets
from jobs.corpora.records import Broken
from jobs.corpora.targets import Targets
from jobs.errors import CorpusFailure
from jobs.kinds import LabelledCorpus, PairCorpus, PromptCorpus, Task
from jobs.results.schemas import CORPUS_SCHEMA, LABELLED_SCHEMA
from tests.jobs.corpora.building import MAX_ROW_BYTES, Row, source

LABEL, LABELS, TEXT, COMPLETION, PAIR, SETTINGS, _ = Targets
FORMATS = ["jsonl", "csv", "tsv", "parquet"]


def read(
    data: bytes,
    name: str,
    kind: Targets = LABEL,
    *,
    max_row_bytes: int = MAX_ROW_BYTES,
    **corpus: Any,
) -> list[Row]:
    """All rows, after a check of what holds for every batch."""
    spec = LabelledCorpus.model_validate({"file": "file-1", **corpus})
    found: list[Row] = []
    of_file = source(data, name)
    for batch in readers.read(of_file, spec, max_row_bytes=max_row_bytes, targets=kind):
        batch.validate(full=True)
        assert batch.schema.equals(LABELLED_SCHEMA)
        found += batch.to_pylist()
    for row in found:
        bad = row["error_code"] is not None
        assert (row["text"] is None) == bad
        assert (row["target"] is None) == bad or kind is COMPLETION
    return found


def pairs(found: list[Row]) -> list[tuple[str, str | None]]:
    """Text and target, or the error code in angle brackets."""
    return [
        (row["text"], row["target"]) if row["text"] else (f"<{row['error_code']}>", None)
        for row in found
    ]


def written(columns: Mapping[str, Any], kind: str) -> bytes:
    """The columns in a format."""
    file = io.BytesIO()
    if kind == "parquet":
        pq.write_table(pa.table(columns), file)
        return file.getvalue()
    records = list(zip(*columns.values(), strict=True))
    if kind == "jsonl":
        return "\n".join(json.dumps(dict(zip(columns, r, strict=True))) for r in records).encode()
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter="," if kind == "csv" else "\t")
    writer.writerows([list(columns), *records])
    return text.getvalue().encode()


def jsonl(*rows: Any) -> bytes:
    return "\n".join(json.dumps(row) for row in rows).encode()


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_gives_text_and_label(kind: str) -> None:
    data = written({"text": ["great", "坏"], "label": ["good", "差"]}, kind)
    assert pairs(read(data, f"a.{kind}")) == [("great", "good"), ("坏", "差")]


@pytest.mark.parametrize("kind", FORMATS)
def test_a_row_without_its_label_is_an_error_row_and_harms_no_other(kind: str) -> None:
    data = written({"text": ["a", "b", "", "d"], "label": ["x", "", "x", "y"]}, kind)
    found = read(data, f"a.{kind}")
    expected = [("a", "x"), ("<missing_target>", None), ("<empty_text>", None), ("d", "y")]
    assert pairs(found) == expected


@pytest.mark.parametrize("kind", FORMATS)
def test_ids_and_lines_are_read_as_of_any_corpus(kind: str) -> None:
    data = written({"n": ["7", "8"], "text": ["a", "b"], "label": ["x", ""]}, kind)
    found = read(data, f"a.{kind}", id_column="n")
    assert [row["id"] for row in found] == ["7", "8"]
    first = 2 if kind in ("csv", "tsv") else 1
    assert [row["line"] for row in found] == [first, first + 1]


BESIDE = {PAIR: "pair_column", SETTINGS: "settings_column"}


def read_beside(data: bytes, name: str, kind: Targets, column: str, **corpus: Any) -> list[Row]:
    """All rows of a corpus whose spec names a column beside its texts."""
    make = PairCorpus if kind is PAIR else PromptCorpus
    spec = make.model_validate({"file": "file-1", BESIDE[kind]: column, **corpus})
    batches = list(readers.read(source(data, name), spec, max_row_bytes=MAX_ROW_BYTES))
    assert all(batch.schema.equals(LABELLED_SCHEMA) for batch in batches)
    return [row for batch in batches for row in batch.to_pylist()]


@pytest.mark.parametrize("kind", FORMATS)
def test_a_second_text_is_read_with_the_first(kind: str) -> None:
    columns = {"premise": ["a", "坏", " ", "d"], "claim": ["x", "差", "y", ""], "n": ["1"] * 4}
    found = read_beside(written(columns, kind), f"a.{kind}", PAIR, "claim", text_column="premise")
    expected = [("a", "x"), ("坏", "差"), ("<empty_text>", None), ("<empty_text>", None)]
    assert pairs(found) == expected


def test_a_row_without_its_second_text_is_an_error_row() -> None:
    data = jsonl({"text": "a", "with": "x"}, {"text": "b"}, {"text": "c", "with": None}, "d")
    missing = ("<missing_text>", None)
    assert pairs(read_beside(data, "a.jsonl", PAIR, "with")) == [("a", "x")] + [missing] * 3
    data = jsonl({"text": "a", "with": "x"}, {"text": "b", "with": ["y"]})
    assert pairs(read_beside(data, "a.jsonl", PAIR, "with"))[1] == ("<wrong_type>", None)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_row_may_have_settings_of_its_own_or_none(kind: str) -> None:
    columns = {"text": ["a", "b", "c"], "how": ['{"seed": 3}', "", "no json"]}
    found = read_beside(written(columns, kind), f"a.{kind}", SETTINGS, "how")
    assert pairs(found) == [("a", '{"seed": 3}'), ("b", "{}"), ("c", "no json")]


def test_settings_in_jsonl_are_an_object_or_absent() -> None:
    data = jsonl({"text": "a", "how": {"seed": 3}}, {"text": "b"}, {"text": "c", "how": 7}, "d")
    found = read_beside(data, "a.jsonl", SETTINGS, "how")
    expected = [("a", '{"seed": 3}'), ("b", "{}"), ("<bad_settings>", None), ("d", "{}")]
    assert pairs(found) == expected


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("beside", BESIDE)
def test_a_column_beside_the_texts_must_be_there(kind: str, beside: Targets) -> None:
    data = written({"text": ["a"], "n": ["1"]}, kind)
    with pytest.raises(CorpusFailure, match=rf"'nowhere'; pass {BESIDE[beside]} as one of them"):
        read_beside(data, f"a.{kind}", beside, "nowhere")
    with pytest.raises(CorpusFailure, match=f"the text and the {beside} must be two columns"):
        read_beside(data, f"a.{kind}", beside, "text", text_column="text")
    with pytest.raises(CorpusFailure, match="plain text has no columns"):
        read_beside(b"a", "a.txt", beside, "n")


def test_settings_in_parquet_are_strings() -> None:
    data = written({"text": ["a"], "how": [{"seed": 3}]}, "parquet")
    with pytest.raises(CorpusFailure, match="must hold JSON objects as strings, not struct"):
        read_beside(data, "a.parquet", SETTINGS, "how")


@pytest.mark.parametrize("kind", ["csv", "tsv"])
def test_several_labels_in_a_delimited_file_stand_between_bars(kind: str) -> None:
    data = written({"text": ["a", "b", "c"], "labels": ["x|y", "x", ""]}, kind)
    assert pairs(read(data, f"a.{kind}", LABELS)) == [
        ("a", '["x", "y"]'),
        ("b", '["x"]'),
        ("c", "[]"),
    ]


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_several_labels_are_an_array_and_may_be_none(kind: str) -> None:
    columns = {"text": ["a", "b", "c"], "labels": [["x", "体育", "x"], [], None]}
    expected = [("a", '["x", "体育"]'), ("b", "[]"), ("<missing_target>", None)]
    assert pairs(read(written(columns, kind), f"a.{kind}", LABELS)) == expected


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
def test_what_a_label_may_be(value: object, expected: str) -> None:
    found = targets.read(value, LABEL, column="label")
    assert (found.code if isinstance(found, Broken) else found) == expected


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
def test_what_several_labels_may_be(value: object, expected: list[str] | str) -> None:
    found = targets.read(value, LABELS, column="labels")
    assert (found.code if isinstance(found, Broken) else targets.labels(found)) == expected


def test_a_text_to_be_written_may_be_long() -> None:
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
def test_the_task_says_what_a_target_is(task: Task, multi_label: bool, kind: Targets) -> None:  # noqa: FBT001
    assert targets.of(task, multi_label=multi_label) is kind


Choice = tuple[list[str], Targets, dict[str, Any], tuple[str, str | None]]
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
def test_the_columns_are_chosen_alike_in_every_format(kind: str, choice: Choice) -> None:
    names, wanted, corpus, expected = choice
    data = written({name: [f"of {name}"] for name in names}, kind)
    text, target = expected
    (found,) = pairs(read(data, f"a.{kind}", wanted, **corpus))
    assert found == (f"of {text}", target and f"of {target}")


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(
    ("names", "corpus", "said"),
    [
        (["text", "a", "b"], {}, "pass target_column; columns found: 'text', 'a', 'b'"),
        (["text"], {}, "pass target_column"),
        (["text", "a"], {"target_column": "b"}, "no column 'b'; pass target_column"),
        (["a", "b"], {}, "pass text_column"),
        (["a", "b"], {"text_column": "a", "target_column": "a"}, "must be two columns"),
    ],
)
def test_columns_that_are_not_clear_fail_and_are_listed(
    kind: str, names: list[str], corpus: dict[str, Any], said: str
) -> None:
    with pytest.raises(CorpusFailure, match=said) as caught:
        read(written({name: ["x"] for name in names}, kind), f"a.{kind}", **corpus)
    assert caught.value.code == "column_missing"


def test_plain_text_has_no_labels() -> None:
    with pytest.raises(CorpusFailure, match="hand in JSONL, CSV, TSV or Parquet") as caught:
        read(b"a\nb\n", "a.txt")
    assert caught.value.code == "column_missing"


def test_plain_text_is_read_for_what_needs_no_target() -> None:
    assert pairs(read(b"a\nb\n", "a.txt", COMPLETION)) == [("a", None), ("b", None)]


def test_plain_text_has_no_target_column() -> None:
    with pytest.raises(CorpusFailure, match="none is named 'x'"):
        read(b"a\nb\n", "a.txt", COMPLETION, target_column="x")


def test_bare_strings_have_no_labels() -> None:
    with pytest.raises(CorpusFailure, match="nothing says what the label of a row is"):
        read(jsonl("a", "b"), "a.jsonl")
    assert pairs(read(jsonl("a", "b"), "a.jsonl", COMPLETION)) == [("a", None), ("b", None)]


def test_a_bare_string_among_labelled_rows_is_an_error_row() -> None:
    found = read(jsonl({"text": "a", "label": "x"}, "b", {"text": "c"}), "a.jsonl")
    expected = [("a", "x"), ("<missing_target>", None), ("<missing_target>", None)]
    assert pairs(found) == expected
    assert found[2]["error_message"] == "the row has no 'label'"


def test_a_label_of_another_type_says_how_to_hand_in_several() -> None:
    (found,) = read(jsonl({"text": "a", "label": ["x"]}), "a.jsonl")
    expected = "'label' must be one string or number, not an array; several labels need multi_label"
    assert (found["error_code"], found["error_message"]) == ("wrong_type", expected)


def test_labels_of_numbers_are_text_in_json_and_parquet_alike() -> None:
    columns = {"text": ["a", "b"], "label": [0, 1]}
    for kind in ("jsonl", "parquet"):
        assert pairs(read(written(columns, kind), f"a.{kind}")) == [("a", "0"), ("b", "1")]


@pytest.mark.parametrize(
    "kind",
    [
        pa.large_string(),
        pa.string_view(),
        pa.dictionary(pa.int8(), pa.string()),
    ],
)
def test_every_kind_of_string_column_is_a_target(kind: pa.DataType) -> None:
    labels = pa.array(["x", None, "y"]).cast(kind)
    data = written({"text": ["a", "b", "c"], "label": labels}, "parquet")
    assert pairs(read(data, "a.parquet")) == [("a", "x"), ("<missing_target>", None), ("c", "y")]


@pytest.mark.parametrize(
    ("values", "wanted", "said"),
    [
        ([["x"]], LABEL, "must hold strings or numbers, not list.*several labels need multi_label"),
        ([{"x": 1}], LABEL, "must hold strings or numbers, not struct"),
        ([b"x"], LABEL, "must hold strings or numbers, not binary"),
        ([[["x"]]], LABELS, "must hold strings or numbers, or lists of them, not list"),
    ],
)
def test_a_parquet_target_of_another_type_fails(
    values: list[Any], wanted: Targets, said: str
) -> None:
    with pytest.raises(CorpusFailure, match=said) as caught:
        read(written({"text": ["a"], "label": values}, "parquet"), "a.parquet", wanted)
    assert caught.value.code == "column_wrong_type"


def test_a_target_over_the_limit_is_a_row_too_long_in_parquet() -> None:
    data = written({"text": ["a", "b"], "summary": ["x" * 101, "y"]}, "parquet")
    found = read(data, "a.parquet", TEXT, max_row_bytes=100)
    assert pairs(found) == [("<row_too_long>", None), ("b", "y")]


def test_large_targets_come_in_batches_of_about_a_megabyte() -> None:
    summaries = [chr(97 + n % 26) * 300_000 for n in range(60)]
    columns = {"text": ["a"] * 60, "summary": summaries}
    for kind in ("csv", "parquet"):
        of_file = source(written(columns, kind), f"a.{kind}")
        spec = LabelledCorpus(file="f")
        batches = list(readers.read(of_file, spec, max_row_bytes=2**20, targets=TEXT))
        assert max(batch.nbytes for batch in batches) < 3 * 2**20
        assert sum(batch.num_rows for batch in batches) == 60


def test_a_target_that_is_no_unicode_hurts_only_its_own_row() -> None:
    raw = pa.array([b"x", b"\xff\xfe", b"y"], pa.binary())
    broken = pa.StringArray.from_buffers(3, *raw.buffers()[1:])
    data = {
        "parquet": written({"text": ["a", "b", "c"], "label": broken}, "parquet"),
        "csv": b"text,label\na,x\nb,\xff\xfe\nc,y\n",
        "jsonl": b'{"text":"a","label":"x"}\n{"text":"b","label":"\\ud800"}\n'
        b'{"text":"c","label":"y"}',
    }
    for kind, content in data.items():
        expected = [("a", "x"), ("<bad_encoding>", None), ("c", "y")]
        assert pairs(read(content, f"a.{kind}")) == expected


def test_a_labelled_corpus_that_is_read_without_targets_is_a_plain_one() -> None:
    spec = LabelledCorpus(file="f", target_column="nowhere")
    data = written({"text": ["a"], "label": ["x"]}, "csv")
    (batch,) = readers.read(source(data, "a.csv"), spec, max_row_bytes=100)
    assert batch.schema.equals(CORPUS_SCHEMA)


visible = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40).filter(
    lambda text: not text.isspace()
)
table = st.lists(st.tuples(visible, visible), min_size=1, max_size=30)


@settings(max_examples=60, deadline=None)
@given(table, st.sampled_from(FORMATS), st.sampled_from([1_000, 2**20]))
def test_pairs_of_texts_come_back(content: list[tuple[str, str]], kind: str, limit: int) -> None:
    columns = {"text": [text for text, _ in content], "target": [target for _, target in content]}
    found = read(written(columns, kind), f"a.{kind}", TEXT, max_row_bytes=limit)
    assert pairs(found) == content


@pytest.mark.parametrize("nested", [{"seed": {"a": 1}}, {"seed": [1]}, [1], True, 7])
def test_settings_that_are_no_plain_object_are_their_rows_error(nested: Any) -> None:
    data = jsonl({"text": "a", "how": {}}, {"text": "b", "how": nested})
    expected = [("a", "{}"), ("<bad_settings>", None)]
    assert pairs(read_beside(data, "a.jsonl", SETTINGS, "how")) == expected


def test_a_parquet_column_of_nothing_but_nulls_holds_no_settings() -> None:
    data = written({"text": ["a", "b"], "how": [None, None]}, "parquet")
    assert pairs(read_beside(data, "a.parquet", SETTINGS, "how")) == [("a", "{}"), ("b", "{}")]
