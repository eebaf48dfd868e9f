"""Rows written by the standard writers are read back, and arbitrary bytes do no harm."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.corpora import readers, values
from jobs.corpora.sources import Source
from jobs.corpora.targets import TargetKind, labels
from jobs.errors import CorpusFailure
from jobs.kinds import Corpus, CorpusFormat, LabelledCorpus
from tests.jobs.corpora.small_corpora import Row, rows, source

any_text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60)
visible = any_text.filter(lambda text: not text.isspace())
table = st.lists(st.tuples(visible, any_text), min_size=1, max_size=30)
limits = st.sampled_from([500, 1000, 2**20])  # a small limit cuts the stream into many blocks
quick = settings(max_examples=150)


def pairs(rows: list[Row]) -> list[tuple[Any, Any]]:
    return [(row["text"], row["id"]) for row in rows]


@quick
@given(content=table, escaped=st.booleans(), limit=limits)
def test_json_comes_back(*, content: list[tuple[str, str]], escaped: bool, limit: int) -> None:
    lines = [json.dumps({"text": t, "id": i}, ensure_ascii=escaped) for t, i in content]
    data = "\n".join(lines).encode()
    if max(map(len, data.split(b"\n"))) <= limit:
        assert pairs(rows(data, "a.jsonl", max_row_bytes=limit, id_column="id")) == content


@quick
@given(table, st.sampled_from(["\n", "\r\n"]), st.sampled_from(["csv", "tsv"]), limits)
def test_csv_comes_back(content: list[tuple[str, str]], ending: str, kind: str, limit: int) -> None:
    file = io.StringIO(newline="")
    delimiter = "," if kind == "csv" else "\t"
    writer = csv.writer(file, delimiter=delimiter, lineterminator=ending, quoting=csv.QUOTE_ALL)
    writer.writerows([("text", "id"), *content])
    result = rows(file.getvalue().encode(), f"a.{kind}", max_row_bytes=limit, id_column="id")
    assert pairs(result) == content


@quick
@given(table, limits, st.integers(1, 5))
def test_parquet_comes_back(content: list[tuple[str, str]], limit: int, group: int) -> None:
    file = io.BytesIO()
    columns = {"text": [text for text, _ in content], "id": [row_id for _, row_id in content]}
    pq.write_table(pa.table(columns), file, row_group_size=group)
    result = rows(file.getvalue(), "a.parquet", max_row_bytes=limit, id_column="id")
    assert pairs(result) == content


cells = {
    "strings": any_text,
    "integers": st.integers(-(2**63), 2**63 - 1),
    "floats": st.floats(allow_nan=False),
    "truth values": st.booleans(),
}
typed = st.sampled_from([*cells.values()]).flatmap(lambda kind: st.lists(kind, min_size=1))


def in_csv(value: object) -> str:
    """As the writers of pandas and of Python write it."""
    return value if isinstance(value, str) else repr(value)


def files(names: str, content: list[tuple[str, Any]]) -> dict[str, bytes]:
    """Two columns, the first of texts, in every format that keeps them."""
    columns = dict(zip(names.split(), zip(*content, strict=True), strict=True))
    parquet, table = io.BytesIO(), io.StringIO(newline="")
    pq.write_table(pa.table({name: list(column) for name, column in columns.items()}), parquet)
    writer = csv.writer(table, quoting=csv.QUOTE_ALL)
    writer.writerows([names.split(), *((text, in_csv(other)) for text, other in content)])
    lines = [json.dumps(dict(zip(columns, row, strict=True))) for row in content]
    return {
        "a.jsonl": "\n".join(lines).encode(),
        "a.csv": table.getvalue().encode(),
        "a.parquet": parquet.getvalue(),
    }


@quick
@given(st.data(), typed)
def test_the_same_labels_are_read_from_every_format(data: st.DataObject, column: list[Any]) -> None:
    content = [(data.draw(visible), value) for value in column]
    spec = LabelledCorpus(file="f", text_column="text", target_column="label")
    found = [
        [
            (row["text"], row["target"], row["error_code"])
            for batch in readers.read(
                source(written, name), spec, max_row_bytes=2**20, targets=TargetKind.LABEL
            )
            for row in batch.to_pylist()
        ]
        for name, written in files("text label", content).items()
    ]
    assert found[0] == found[1] == found[2]


@quick
@given(st.data(), st.sampled_from([*cells]))
def test_the_same_ids_are_read_from_every_format(data: st.DataObject, kind: str) -> None:
    if kind == "truth values":  # as ids they are texts in a CSV file
        return
    column = data.draw(st.lists(cells[kind], min_size=1))
    content = [(data.draw(visible), value) for value in column]
    found = [
        pairs(rows(written, name, id_column="id"))
        for name, written in files("text id", content).items()
    ]
    assert found[0] == found[1] == found[2]


names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)


@quick
@given(st.lists(st.lists(names.filter(str.strip)), min_size=1))
def test_the_same_lists_of_labels_are_read_from_every_format(column: list[list[str]]) -> None:
    """In a CSV file they are JSON, as Nightshift's own results are."""
    spec = LabelledCorpus(file="f", text_column="text", target_column="labels")
    kind = pa.list_(pa.string())
    made = files("text labels", [("x", json.dumps(each)) for each in column])
    parquet = io.BytesIO()
    table = pa.table({"text": ["x"] * len(column), "labels": pa.array(column, kind)})
    pq.write_table(table, parquet)
    lines = [json.dumps({"text": "x", "labels": each}) for each in column]
    made |= {"a.jsonl": "\n".join(lines).encode(), "a.parquet": parquet.getvalue()}
    for name, written in made.items():
        batches = readers.read(
            source(written, name), spec, max_row_bytes=2**20, targets=TargetKind.LABELS
        )
        found = [target for batch in batches for target in batch["target"].to_pylist()]
        assert [labels(target) for target in found] == [
            list(dict.fromkeys(map(values.label_name, each))) for each in column
        ]


@quick
@given(st.lists(st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]))))
def test_text_comes_back(lines: list[str]) -> None:
    kept = [line for line in lines if line and not line.isspace()]
    if kept:
        result = rows("\n".join(lines).encode(), "a.txt")
        assert [row["text"] for row in result] == kept


def outcome(data: bytes, name: str, **corpus: Any) -> object:
    try:
        return rows(data, name, **corpus)
    except CorpusFailure as failure:
        return failure.code, failure.message


pieces = st.sampled_from(
    [b'"', b'""', b",", b"\n", b"\r", b"\0", b"\t", b"text", b"\xff", b"{", b"}", b":", b"\\ud800"]
)
hostile = st.binary(max_size=200) | st.lists(pieces | st.binary(max_size=3)).map(b"".join)
encodings = st.sampled_from(["utf-8", "utf-16-le", "gb18030", "latin-1", "iso2022_jp", "utf-7"])


@settings(max_examples=400)
@given(hostile, st.sampled_from(CorpusFormat), encodings, st.sampled_from([7, 50, 2**20]))
def test_arbitrary_bytes_give_the_same_rows_twice(
    data: bytes, kind: CorpusFormat, encoding: str, limit: int
) -> None:
    if kind in (CorpusFormat.CSV, CorpusFormat.TSV):
        data = "text\n".encode(encoding) + data
    given_ = {"format": kind, "encoding": encoding, "max_row_bytes": limit}
    assert outcome(data, "a", **given_) == outcome(data, "a", **given_)


@settings(max_examples=200)
@given(st.lists(pieces | st.binary(max_size=3)).map(b"".join), st.sampled_from([7, 20, 100]))
def test_line_numbers_of_csv_rows_increase(data: bytes, limit: int) -> None:
    result = outcome(b"text\n" + data + b"\nend\n", "a.csv", max_row_bytes=limit)
    if isinstance(result, list):
        lines = [row["line"] for row in result]
        assert lines == sorted(set(lines))
        assert lines[-1] <= data.count(b"\n") + 3


class Trickle(io.BytesIO):
    """A file that gives a few bytes at a time."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(min(size or 0, 3))


@quick
@given(hostile, st.sampled_from(["csv", "jsonl", "txt"]))
def test_rows_do_not_depend_on_the_sizes_of_reads(data: bytes, kind: str) -> None:
    data = (b"text\n" if kind == "csv" else b'{"text": "a"}\n') + data + b"\nend"
    trickle = Source(name=f"a.{kind}", fingerprint=lambda: "", open=lambda: Trickle(data))
    cut = readers.read(trickle, Corpus(file="f", compression="none"), max_row_bytes=2**20)
    found = [row for batch in cut for row in batch.to_pylist()]
    assert found == rows(data, f"a.{kind}", compression="none")
