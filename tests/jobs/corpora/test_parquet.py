from __future__ import annotations

import datetime as dt
import io
import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.corpora import arrow_values, readers
from jobs.corpora.sources import Source
from jobs.errors import CorpusFailure
from jobs.kinds import Corpus
from tests.jobs.corpora.small_corpora import brief, rows, source, texts
from tests.jobs.corpora.test_text_stream import Flaky


def parquet(columns: dict[str, Any], **options: Any) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    "kind",
    [
        pa.string(),
        pa.large_string(),
        pa.string_view(),
        pa.dictionary(pa.int32(), pa.string()),
        pa.dictionary(pa.int8(), pa.large_string()),
    ],
)
def test_every_kind_of_string_column_is_read(kind: pa.DataType) -> None:
    data = parquet({"text": pa.array(["a", None, "", "  ", "a"]).cast(kind)})
    expected = ["a", "<missing_text>", "<empty_text>", "<empty_text>", "a"]
    assert texts(data, "a.parquet") == expected


def test_line_is_the_number_of_the_row_across_row_groups() -> None:
    written = [f"row {n}" for n in range(10_000)]
    data = parquet({"text": written}, row_group_size=700)
    assert brief(rows(data, "a.parquet")) == list(enumerate(written, 1))


@pytest.mark.parametrize("compression", ["none", "snappy", "gzip", "zstd", "lz4", "brotli"])
def test_every_codec_is_read(compression: str) -> None:
    data = parquet({"text": ["a", "b"]}, compression=compression)
    assert texts(data, "a.parquet") == ["a", "b"]


def test_a_value_over_the_limit_is_an_error_row() -> None:
    long = "x" * 101
    data = parquet({"text": ["a", long, "b", "c"], "id": ["1", "2", "3", long]})
    result = rows(data, "a.parquet", max_row_bytes=100, id_column="id")
    assert brief(result) == [(1, "a"), (2, "<row_too_long>"), (3, "b"), (4, "<row_too_long>")]
    assert [row["id"] for row in result] == ["1", "2", "3", None]


def test_large_values_come_in_batches_of_about_a_megabyte() -> None:
    data = parquet({"text": [chr(97 + n % 26) * 300_000 for n in range(200)]})
    sizes = [
        batch.column("text").nbytes
        for batch in readers.read(source(data, "a.parquet"), Corpus(file="f"), max_row_bytes=2**20)
    ]
    assert max(sizes) < 2 * 2**20
    assert len(texts(data, "a.parquet")) == 200


def test_bytes_that_are_not_utf_8_spoil_only_their_own_row() -> None:
    raw = pa.array([b"a", b"\xff\xfe", b"b"], pa.binary())
    broken = pa.StringArray.from_buffers(3, *raw.buffers()[1:])
    data = parquet({"text": broken, "id": broken})
    result = rows(data, "a.parquet", id_column="id")
    assert brief(result) == [(1, "a"), (2, "<bad_encoding>"), (3, "b")]
    assert [row["id"] for row in result] == ["a", "\ufffd\ufffd", "b"]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, None], ["1", None]),
        ([True, False], ["true", "false"]),
        (["a", "b"], ["a", "b"]),
        ([b"a", b"\xff"], ["a", "0xff"]),
        ([{"a": 1}, None], ['{"a": 1}', None]),
        ([[1, 2], []], ["[1, 2]", "[]"]),
        ([dt.date(2024, 2, 29), None], ["2024-02-29", None]),
        ([None, None], [None, None]),
    ],
)
def test_ids_of_any_type_become_text(values: list[Any], expected: list[str | None]) -> None:
    data = parquet({"text": ["x", "y"], "id": values})
    result = rows(data, "a.parquet", id_column="id")
    assert [row["id"] for row in result] == expected


FAR = dt.datetime(9999, 12, 31)  # noqa: DTZ001 - INT96 has no zone
EARLY = dt.datetime(1000, 1, 1)  # noqa: DTZ001
LEAP = dt.datetime(2024, 2, 29, 1, 2, 3, 4)  # noqa: DTZ001


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([FAR, EARLY], ["9999-12-31 00:00:00.000000", "1000-01-01 00:00:00.000000"]),
        ([LEAP, None], ["2024-02-29 01:02:03.000004000", None]),
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_int96_keeps_its_years(times: list[Any], expected: list[Any], nested: bool) -> None:  # noqa: FBT001
    ids: Any = pa.array(times, pa.timestamp("us"))
    if nested:
        ids = pa.array([[each] for each in times], pa.list_(pa.timestamp("us")))
        expected = [json.dumps([each]) for each in expected]
    data = parquet({"text": ["x", "y"], "id": ids}, use_deprecated_int96_timestamps=True)
    result = rows(data, "a.parquet", id_column="id")
    assert [row["id"] for row in result] == expected


def test_int96_beyond_the_range_of_microseconds_is_refused() -> None:
    days = (5_000_000, 2_000_000_000)  # Julian, as little endian in the last four of twelve bytes
    data = parquet(
        {"text": ["x"], "id": pa.array([dt.datetime(5000, 1, 1)], pa.timestamp("us"))},  # noqa: DTZ001
        use_deprecated_int96_timestamps=True,
        use_dictionary=False,
        compression="none",
        write_statistics=False,
    )
    known = 3_547_273  # Julian, of the year 5000
    assert data.count(known.to_bytes(4, "little")) == 1
    near, far = (
        data.replace(known.to_bytes(4, "little"), day.to_bytes(4, "little")) for day in days
    )
    assert rows(near, "a.parquet", id_column="id")[0]["id"].startswith("8977-")
    with pytest.raises(CorpusFailure, match=r"column 'id' has times .* beyond"):
        rows(far, "a.parquet", id_column="id")


def test_ids_without_a_text_form_are_refused_before_the_first_row() -> None:
    kind = pa.struct([pa.field("a", pa.list_(pa.month_day_nano_interval()))])
    assert arrow_values.type_without_text(kind) == pa.month_day_nano_interval()


def test_a_nested_id_over_the_limit_is_an_error_row() -> None:
    data = parquet({"text": ["a", "b"], "id": [list(range(1000)), [1]]})
    result = rows(data, "a.parquet", max_row_bytes=100, id_column="id")
    assert [(row["id"], row["error_code"]) for row in result] == [
        (None, "row_too_long"),
        ("[1]", None),
    ]


def test_categorical_numbers_are_labels_like_plain_numbers() -> None:
    kind = pa.dictionary(pa.int8(), pa.int64())
    assert arrow_values.is_label(kind)
    assert arrow_values.labels(pa.array([7, None, 7]).dictionary_encode().cast(kind)) == [
        "7",
        None,
        "7",
    ]


def test_the_only_column_of_strings_is_the_text() -> None:
    assert texts(parquet({"stars": [5], "review": ["x"]}), "a.parquet") == ["x"]


def test_a_column_with_dots_in_its_name_is_found() -> None:
    data = parquet({"a.b": ["yes"], "a": [{"b": "no"}]})
    assert texts(data, "a.parquet", text_column="a.b") == ["yes"]


@pytest.mark.parametrize(
    ("corpus", "reason"),
    [
        ({}, "columns found: 'a', 'b', 'n'"),
        ({"text_column": "c"}, "pass text_column"),
        ({"text_column": "a", "id_column": "c"}, "pass id_column"),
    ],
)
def test_a_missing_column_fails_and_lists_the_columns(corpus: dict[str, Any], reason: str) -> None:
    with pytest.raises(CorpusFailure, match=reason) as caught:
        rows(parquet({"a": ["x"], "b": ["y"], "n": [1]}), "a.parquet", **corpus)
    assert caught.value.code == "column_missing"


@pytest.mark.parametrize("values", [[1], [b"x"], [["x"]], [None]])
def test_a_text_column_of_another_type_fails(values: list[Any]) -> None:
    with pytest.raises(CorpusFailure, match="must hold strings") as caught:
        rows(parquet({"text": values}), "a.parquet")
    assert caught.value.code == "column_wrong_type"


def test_a_file_without_rows_is_empty() -> None:
    with pytest.raises(CorpusFailure) as caught:
        rows(parquet({"text": pa.array([], pa.string())}), "a.parquet")
    assert caught.value.code == "corpus_empty"


WHOLE = parquet({"text": [f"row {n}" for n in range(5000)]}, compression="none")


@pytest.mark.parametrize(
    "data",
    [b"", b"text\nx\n", b"PAR1", WHOLE[:-100], WHOLE[:4] + b"\xff" * 500 + WHOLE[504:]],
    ids=["empty", "csv", "magic", "cut", "overwritten"],
)
def test_a_file_that_is_not_parquet_is_unreadable(data: bytes) -> None:
    with pytest.raises(CorpusFailure, match="not a whole Parquet file") as caught:
        rows(data, "a.parquet")
    assert caught.value.code == "corpus_unreadable"


def test_a_storage_fault_is_not_reported_as_an_unreadable_corpus() -> None:
    flaky = Source(name="a.parquet", fingerprint=lambda: "", open=lambda: Flaky(WHOLE))
    with pytest.raises(TimeoutError, match="storage"):
        list(readers.read(flaky, Corpus(file="f"), max_row_bytes=1000))
