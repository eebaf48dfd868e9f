"""Conversations as training data, in every format; bad ones are error rows with a code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.corpora import message_lists, readers, sources
from jobs.corpora.targets import TargetKind
from jobs.errors import CorpusFailure
from jobs.kinds import LabelledCorpus

TALK: list[dict[str, Any]] = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello!"},
]
WEIGHED = [*TALK, {"role": "user", "content": "x"}, {**TALK[1], "weight": 0}]
BAD: dict[str, tuple[object, str]] = {
    "null": (None, "missing_text"),
    "a text": ("Hi", "bad_chat"),
    "an empty list": ([], "bad_chat"),
    "no answer": (TALK[:1], "bad_chat"),
    "an answer that is not learned": ([TALK[0], {**TALK[1], "weight": 0}], "bad_chat"),
    "no objects": (["Hi", "Hello!"], "bad_chat"),
    "a number as content": ([{"role": "user", "content": 5}, TALK[1]], "bad_chat"),
    "an image as content": (
        [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}, TALK[1]],
        "bad_chat",
    ),
    "no role": ([{"content": "Hi"}, TALK[1]], "bad_chat"),
    "another weight": ([TALK[0], {**TALK[1], "weight": 0.5}], "bad_chat"),
    "a weight of the user": ([{**TALK[0], "weight": 1}, TALK[1]], "bad_chat"),
}


def rows(
    path: Path, *, targets: TargetKind = TargetKind.COMPLETION, **corpus: Any
) -> list[dict[str, Any]]:
    source = sources.from_uri(path.as_uri(), allowed=[path.parent.as_uri()])
    spec = LabelledCorpus(uri=path.as_uri(), **corpus)
    batches = readers.read(source, spec, max_row_bytes=4_000, targets=targets)
    return [row for batch in batches for row in batch.to_pylist()]


def jsonl(path: Path, *values: object, column: str = "messages") -> Path:
    path.write_text("".join(json.dumps({column: value}) + "\n" for value in values))
    return path


def assert_talk(row: dict[str, Any], talk: list[dict[str, Any]]) -> None:
    assert row["error_code"] is None, row["error_message"]
    assert json.loads(row["text"]) == talk
    assert row["target"] == message_lists.CONVERSATION


def test_a_row_of_jsonl_is_a_conversation(tmp_path: Path) -> None:
    first, second = rows(jsonl(tmp_path / "a.jsonl", TALK, WEIGHED))
    assert_talk(first, TALK)
    assert_talk(second, WEIGHED)


@pytest.mark.parametrize("case", BAD)
def test_a_bad_conversation_is_an_error_row_and_harms_no_other(case: str, tmp_path: Path) -> None:
    value, code = BAD[case]
    bad, good = rows(jsonl(tmp_path / "a.jsonl", value, TALK))
    assert (bad["error_code"], bad["text"]) == (code, None)
    assert_talk(good, TALK)


def test_conversations_in_parquet_are_lists_of_structs_with_null_fields(tmp_path: Path) -> None:
    table = pa.Table.from_pylist([{"talk": TALK}, {"talk": WEIGHED}, {"talk": None}])
    pq.write_table(table, tmp_path / "a.parquet")
    first, second, third = rows(tmp_path / "a.parquet", messages_column="talk")
    assert_talk(first, TALK)
    assert_talk(second, WEIGHED)
    assert third["error_code"] == "missing_text"


def test_other_fields_of_a_message_in_parquet_can_have_any_type(tmp_path: Path) -> None:
    zone = pa.timestamp("us", "W. Europe Standard Time")
    kind = pa.struct({"role": pa.string(), "content": pa.string(), "when": zone})
    array = pa.array([[{**message, "when": None} for message in TALK], []], pa.list_(kind))
    pq.write_table(pa.table({"messages": array}), tmp_path / "a.parquet")
    first, second = rows(tmp_path / "a.parquet")
    assert_talk(first, TALK)
    assert second["error_code"] == "bad_chat"


def test_a_conversation_in_parquet_is_limited_like_any_row(tmp_path: Path) -> None:
    long = [TALK[0], {**TALK[1], "content": "x" * 5_000}]
    pq.write_table(pa.Table.from_pylist([{"messages": long}]), tmp_path / "a.parquet")
    assert [row["error_code"] for row in rows(tmp_path / "a.parquet")] == ["row_too_long"]


def test_a_cell_of_csv_holds_a_conversation_as_json(tmp_path: Path) -> None:
    cell = json.dumps(TALK).replace('"', '""')
    (tmp_path / "a.csv").write_text(f'id,messages\n1,"{cell}"\n2,Hi\n')
    good, bad = rows(tmp_path / "a.csv", id_column="id")
    assert_talk(good, TALK)
    assert (bad["id"], bad["error_code"]) == ("2", "bad_chat")


def test_a_named_text_column_takes_precedence_over_messages(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"messages": TALK, "text": "Hi"}))
    [row] = rows(tmp_path / "a.jsonl", text_column="text")
    assert (row["text"], row["target"]) == ("Hi", None)


def test_messages_are_only_for_generation(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", TALK)
    with pytest.raises(CorpusFailure, match="task generate"):
        rows(path, targets=TargetKind.LABEL, messages_column="messages")


def test_a_missing_messages_column_is_named(tmp_path: Path) -> None:
    with pytest.raises(CorpusFailure, match="messages_column"):
        rows(jsonl(tmp_path / "a.jsonl", TALK), messages_column="talk")
