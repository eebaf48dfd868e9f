from __future__ import annotations

import gzip
import json
from typing import Any

import pytest

from jobs.errors import CorpusFailure
from tests.jobs.corpora.small_corpora import brief, rows, texts

GOOD = b'{"text": "good"}\n'


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b'{"text": "x"}', "x"),
        (b'{"text": "x"}\r', "x"),
        (b'  {"text": "x"}\t', "x"),
        (b'"a bare string"', "a bare string"),
        ('{"text": "中文 😀"}'.encode(), "中文 😀"),
        (rb'{"text": "\ud83d\ude00"}', "😀"),
        (rb'{"text": "a\u0000b"}', "a\0b"),
        (b'{"text": "a\\nb"}', "a\nb"),
        (b'{"text": "first", "text": "last"}', "last"),
        (b"{", "<bad_json>"),
        (b"hello", "<bad_json>"),
        (b'{"text": "x"} extra', "<bad_json>"),
        (b'{"text": "raw \x01"}', "<bad_json>"),
        (b'{"text": "x"}\x00', "<bad_json>"),
        (b"[" * 100_000, "<bad_json>"),
        (b"1" * 5000, "<bad_json>"),
        ("\ufeff{}".encode(), "<bad_json>"),
        (b"[1]", "<not_an_object>"),
        (b"1", "<not_an_object>"),
        (b"1.5", "<not_an_object>"),
        (b"true", "<not_an_object>"),
        (b"null", "<not_an_object>"),
        (b"NaN", "<not_an_object>"),
        (b"{}", "<missing_text>"),
        (b'{"other": "x"}', "<missing_text>"),
        (b'{"text": null}', "<missing_text>"),
        (b'{"text": 1}', "<wrong_type>"),
        (b'{"text": ["x"]}', "<wrong_type>"),
        (b'{"text": {"x": 1}}', "<wrong_type>"),
        (b'{"text": false}', "<wrong_type>"),
        (b'{"text": ""}', "<empty_text>"),
        ('{"text": " \\t\\n\u3000"}'.encode(), "<empty_text>"),
        (b'""', "<empty_text>"),
        (rb'{"text": "half \ud83d"}', "<bad_encoding>"),
        (b'{"text": "\xff"}', "<bad_encoding>"),
        (b'{"text": "' + b"x" * 2**20 + b'"}', "<row_too_long>"),
    ],
)
def test_a_line_becomes_its_row_and_spares_its_neighbours(line: bytes, expected: str) -> None:
    result = rows(GOOD + b"\n" + line + b"\n" + GOOD, "a.jsonl")
    assert brief(result) == [(1, "good"), (3, expected), (4, "good")]


def test_the_last_line_needs_no_line_end() -> None:
    assert texts(b'"a"\n"b"', "a.jsonl") == ["a", "b"]


def test_the_error_of_bad_json_says_where_and_why() -> None:
    bad = rows(GOOD + b'{"text" "x"}\n', "a.jsonl")[1]
    assert bad["error_message"] == "line 2: Expecting ':' delimiter at column 9"


def test_messages_do_not_repeat_the_text() -> None:
    secret = "secret" * 500
    for line in (f'{{"text": ["{secret}"]}}', f'{{"{secret}": 1}}', f'["{secret}"]', secret):
        bad = rows(GOOD + line.encode(), "a.jsonl")[1]
        assert "secret" not in bad["error_message"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ('"a"', "a"),
        ("7", "7"),
        ("1.5", "1.5"),
        ("true", "true"),
        ("null", None),
        ('{"a": ["中"]}', '{"a": ["中"]}'),
        (r'"half \ud83d"', "half ?"),
        (r'["half \ud83d"]', '["half ?"]'),
    ],
)
def test_ids_of_any_type_become_text(value: str, expected: str | None) -> None:
    line = f'{{"id": {value}, "text": "x"}}'.encode()
    assert rows(line, "a.jsonl", id_column="id")[0]["id"] == expected


def test_an_error_row_keeps_its_id() -> None:
    assert rows(GOOD + b'{"id": 7}', "a.jsonl", id_column="id")[1]["id"] == "7"


def test_without_an_id_column_ids_are_null() -> None:
    assert rows(b'{"id": 7, "text": "x"}', "a.jsonl")[0]["id"] is None


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"title": "no", "Text": "yes"}, "yes"),
        ({"title": "no", "body": "yes"}, "yes"),
        ({"CONTENT": "yes", "review": "no"}, "yes"),
        ({"review": "yes", "stars": 5}, "yes"),
        ({"review": "yes", "label": None}, "yes"),
    ],
)
def test_the_text_column_is_the_usual_one_or_the_only_one(
    row: dict[str, object], expected: str
) -> None:
    assert texts(json.dumps(row).encode(), "a.jsonl") == [expected]


def test_the_id_column_does_not_compete_with_the_text() -> None:
    line = b'{"key": "k", "review": "yes"}'
    assert rows(line, "a.jsonl", id_column="key")[0]["text"] == "yes"


@pytest.mark.parametrize(
    ("corpus", "reason"),
    [
        ({}, "pass text_column; columns found: 'a', 'b'"),
        ({"text_column": "c"}, "pass text_column as one of them; columns found: 'a', 'b'"),
        ({"text_column": "a", "id_column": "c"}, "pass id_column"),
    ],
)
def test_a_missing_column_fails_and_lists_the_keys(corpus: dict[str, Any], reason: str) -> None:
    with pytest.raises(CorpusFailure, match=reason) as caught:
        rows(b'{"a": "x", "b": "y"}\n', "a.jsonl", **corpus)
    assert caught.value.code == "column_missing"


def test_a_column_first_seen_in_row_1000_is_found_and_in_row_1001_is_not() -> None:
    late = b'{"late": "x", "n": 1}\n'
    other = b'\n{"a": "x", "b": "y"}\n'
    assert texts(other * 999 + late, "a.jsonl", text_column="late")[-1] == "x"
    with pytest.raises(CorpusFailure):
        texts(other * 1000 + late, "a.jsonl", text_column="late")


def test_bad_rows_alone_are_error_rows() -> None:
    assert texts(b"oops\n{}x\n", "a.jsonl") == ["<bad_json>", "<bad_json>"]


@pytest.mark.parametrize(
    "data",
    [
        b'[{"text": "a"}, {"text": "b"}]',
        b'[\n  {\n    "text": "a"\n  }\n]',
        b'{\n  "text": "a"\n}',
        b"plain words\n" * 1000,
    ],
)
def test_a_json_document_is_refused_with_advice(data: bytes) -> None:
    with pytest.raises(CorpusFailure, match="not JSONL") as caught:
        rows(data, "a.json")
    assert caught.value.code == "corpus_unreadable"


OBJECTS = [{"text": f"text {n}", "tags": ["x", "y"]} for n in range(5)]
LINES = [json.dumps(each) for each in OBJECTS]
MANY = LINES * 500
DOCUMENTS = {
    "array over lines": "[\n" + ",\n".join(LINES) + "\n]\n",
    "array over many lines": "[\n" + ",\n".join(MANY) + "\n]\n",
    "last object is followed by the bracket": "[\n" + ",\n".join(LINES) + "]",
    "first object follows the bracket": "[" + ",\n".join(LINES) + "]",
    "commas before": "[ " + "\n, ".join(LINES) + "\n]",
    "indented": json.dumps(OBJECTS, indent=2),
    "indented, many": json.dumps(OBJECTS * 500, indent=2),
    "indented with brackets in one line": json.dumps(OBJECTS, indent=2).replace("[\n  {", "[{", 1),
    "one object over lines": json.dumps(OBJECTS[0], indent=1),
    "one object begun on its first line": '{"text": "a",\n "n": 1}\n',
    "objects over lines": "\n".join(json.dumps(each, indent=2) for each in OBJECTS),
    "object with an array of rows": '{"data": [\n' + ",\n".join(LINES) + "\n]}",
    "commas behind all but the last": ",\n".join(LINES),
    "commas behind every line": ",\n".join([*LINES, ""]),
    "many commas": ",\n".join(MANY),
    "one comma": LINES[0] + ",",
    "commas, and some bad lines": ",\n".join([*LINES, "oops", *LINES]),
    "array of strings": '[\n"a",\n"b"\n]',
    "array of two": '[\n{"text": "a"},\n{"text": "b"}\n]',
    "array of one": '[\n{"text": "a"}\n]',
    "empty array": "[\n]",
    "cut short": json.dumps(OBJECTS, indent=2)[:60],
    "its first object is broken": '[\n{"text" "a"},\n' + ",\n".join(LINES) + "\n]",
    "long objects": "[\n" + ",\n".join(json.dumps({"text": "x" * 2**19}) for _ in range(4)) + "]",
    "white space before": "\n\n  [  \n\n" + ",\n\n".join(LINES) + "\n]",
}


@pytest.mark.parametrize("document", DOCUMENTS.values(), ids=DOCUMENTS)
def test_a_document_over_several_lines_is_refused_whatever_its_last_line_is(document: str) -> None:
    for data in (document.encode(), gzip.compress(document.encode()), document.encode("utf-16")):
        with pytest.raises(CorpusFailure, match=r"not JSONL.*jq -c '\.\[\]'") as caught:
            rows(data, "a.json")
        assert caught.value.code == "corpus_unreadable"


def test_an_array_on_a_line_over_the_limit_is_refused() -> None:
    data = json.dumps(OBJECTS * 50).encode()
    with pytest.raises(CorpusFailure, match="not JSONL"):
        rows(data, "a.json", max_row_bytes=1000)
    with pytest.raises(CorpusFailure, match="not JSONL"):
        rows(b"[\n" + data[1:-1] + b"\n]", "a.json", max_row_bytes=1000)


@pytest.mark.parametrize("bad", ["[", "{", "]", "[1,", '{"text": "x",', LINES[0] + ",", "[oops]"])
@pytest.mark.parametrize("place", [0, 2, 5])
def test_a_bad_line_among_good_ones_is_an_error_row(bad: str, place: int) -> None:
    lines = [*LINES[:place], bad, *LINES[place:]]
    found = texts("\n".join(lines).encode(), "a.jsonl")
    assert found.index("<bad_json>") == place
    assert [text for text in found if text != "<bad_json>"] == [each["text"] for each in OBJECTS]


def test_one_row_over_the_limit_is_an_error_row() -> None:
    data = json.dumps({"text": "x" * 1000}).encode()
    assert texts(data, "a.jsonl") != ["<row_too_long>"]
    result = rows(data, "a.jsonl", max_row_bytes=500)
    assert brief(result) == [(1, "<row_too_long>")]


def test_an_id_that_is_nested_too_deep_makes_an_error_row() -> None:
    deep = ["[" * depth + "]" * depth for depth in range(700, 1001, 10)]
    lines = [f'{{"text": "x", "id": {each}}}' for each in deep]
    result = rows("\n".join(["{}", *lines]).encode(), "a.jsonl", id_column="id", text_column="text")
    assert {row["error_code"] for row in result[1:]} <= {None, "bad_json"}
    assert result[1]["id"] == deep[0]


def test_many_columns_are_not_all_listed() -> None:
    line = json.dumps({f"column {n}": "x" for n in range(5000)}).encode()
    with pytest.raises(CorpusFailure) as caught:
        rows(line, "a.jsonl")
    assert len(caught.value.message) < 1000
