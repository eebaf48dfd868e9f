from __future__ import annotations

from typing import Any

import pytest

from jobs.errors import CorpusFailure
from tests.jobs.corpora.small_corpora import brief, rows, texts

LIMIT = 200


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (b"x,1\n", "x"),
        (b"x,1\r\n", "x"),
        (b'"a, b",1\n', "a, b"),
        (b'"say ""hi""",1\n', 'say "hi"'),
        (b'5" disk,1\n', '5" disk'),
        (b"a\0b,1\n", "a\0b"),
        (b'"a\0b",1\n', "a\0b"),
        (" 中文 ,1\n".encode(), " 中文 "),
        (b"x,\xff\n", "x"),
        (b"x\n", "<bad_csv>"),
        (b"x,1,2\n", "<bad_csv>"),
        (b'"a "b" c",1\n', "<bad_csv>"),
        (b'"a" ,1\n', "<bad_csv>"),
        (b"a\rb,1\n", "<bad_csv>"),
        (b",1\n", "<empty_text>"),
        (b"  ,1\n", "<empty_text>"),
        (b"\xff,1\n", "<bad_encoding>"),
        (b"x" * LIMIT + b",1\n", "<row_too_long>"),
        (b'"' + b"x" * LIMIT + b'",1\n', "<row_too_long>"),
    ],
)
def test_a_record_becomes_its_row_and_spares_its_neighbours(record: bytes, expected: str) -> None:
    data = b"text,n\nbefore,1\n\n" + record + b"after,2\n"
    result = rows(data, "a.csv", max_row_bytes=LIMIT)
    assert brief(result) == [(2, "before"), (4, expected), (5, "after")]


def test_line_is_where_a_record_begins() -> None:
    data = b'text,n\n"a\nb\n\nc",1\nx,2\n"d\r\ne",3\ny,4'
    expected = [(2, "a\nb\n\nc"), (6, "x"), (7, "d\r\ne"), (9, "y")]
    assert brief(rows(data, "a.csv")) == expected


def test_tsv_is_delimited_by_tabs() -> None:
    result = rows(b'id\ttext\n1\ta, b\n2\t"c\td"\n', "a.tsv", id_column="id")
    assert [(row["id"], row["text"]) for row in result] == [("1", "a, b"), ("2", "c\td")]


def test_a_header_may_have_a_bom_spaces_and_quotes() -> None:
    assert texts(b'\xef\xbb\xbf id , "text"\n1,x\n'.replace(b', "', b',"'), "a.csv") == ["x"]
    assert texts(b"\xef\xbb\xbftext\nx\n", "a.csv", text_column="text") == ["x"]


def test_blank_lines_are_skipped() -> None:
    assert brief(rows(b"\n\ntext\n\nx\n\r\n\ny\n", "a.csv")) == [(5, "x"), (8, "y")]


def test_undecodable_bytes_in_an_id_are_replaced() -> None:
    assert rows(b"id,text\na\xff,x\n", "a.csv", id_column="id")[0]["id"] == "a?"


@pytest.mark.parametrize(
    ("header", "corpus", "reason"),
    [
        (b"a,b", {}, "columns found: 'a', 'b'"),
        (b"text,b", {"text_column": "c"}, "pass text_column"),
        (b"text,b", {"id_column": "c"}, "pass id_column"),
        (b"review;stars", {}, "columns found: 'review;stars'"),
    ],
)
def test_a_missing_column_fails_and_lists_the_columns(
    header: bytes, corpus: dict[str, Any], reason: str
) -> None:
    with pytest.raises(CorpusFailure, match=reason) as caught:
        rows(header + b"\nx,y\n", "a.csv", **corpus)
    assert caught.value.code == "column_missing"


def test_the_only_column_beside_the_id_is_the_text() -> None:
    assert texts(b"review\nx\n", "a.csv") == ["x"]
    assert texts(b"key,review\n1,x\n", "a.csv", id_column="key") == ["x"]


def test_of_two_columns_with_the_same_name_the_first_is_read() -> None:
    assert texts(b"text,text\nfirst,second\n", "a.csv") == ["first"]


def test_a_broken_header_is_unreadable() -> None:
    for header in (b'"text\n', b'"te"xt",n\nx,1\n', b"x" * 3 * LIMIT + b"\nx\n"):
        with pytest.raises(CorpusFailure, match="header") as caught:
            rows(header, "a.csv", max_row_bytes=LIMIT)
        assert caught.value.code == "corpus_unreadable"


def test_wrong_quoting_costs_one_row() -> None:
    data = b'text,n\n"never closed,1\nx,2\ny,3\n"quoted, too",4\nz,5\n'
    expected = [(2, "<bad_csv>"), (3, "x"), (4, "y"), (5, "quoted, too"), (6, "z")]
    assert brief(rows(data, "a.csv")) == expected


def test_a_quote_never_closed_costs_one_row_at_the_end_of_the_file() -> None:
    data = b'text,n\nx,1\n"never closed,2\ny,3\nz,4'
    result = rows(data, "a.csv")
    assert brief(result) == [(2, "x"), (3, "<bad_csv>"), (4, "y"), (5, "z")]
    assert "never closed" in result[1]["error_message"]


def test_a_quote_never_closed_costs_one_row_in_a_file_over_every_limit() -> None:
    plain = b"".join(b"row %d,1\n" % n for n in range(2000))
    result = brief(rows(b'text,n\n"stray,0\n' + plain, "a.csv", max_row_bytes=LIMIT))
    assert result[0] == (2, "<bad_csv>")
    assert result[1:] == [(n + 3, f"row {n}") for n in range(2000)]


def test_a_row_of_many_lines_over_the_limit_is_one_error_row() -> None:
    long = b'"' + b"a line, of a long text\n" * 20 + b'",1\n'
    result = rows(b"text,n\nx,1\n" + long + b"y,2\n", "a.csv", max_row_bytes=LIMIT)
    assert brief(result) == [(2, "x"), (3, "<row_too_long>"), (24, "y")]


@pytest.mark.parametrize(
    "record",
    [
        b'"' + b"x" * LIMIT * 2 + b'\nmore\nand more",1\n',
        b'"more\n' + b"x" * LIMIT * 2 + b'\nand more",1\n',
        b'"more\nand more\n' + b"x" * LIMIT * 2 + b'",1\n',
        b'"' + b"x" * LIMIT * 2 + b"\n" + b"y" * LIMIT * 2 + b'\n",1\n',
    ],
)
def test_a_line_over_the_limit_takes_its_whole_record_with_it(record: bytes) -> None:
    data = b"text,n\nx,1\n" + record + b"y,2\n"
    result = brief(rows(data, "a.csv", max_row_bytes=LIMIT))
    assert result == [(2, "x"), (3, "<row_too_long>"), (3 + record.count(b"\n"), "y")]


def test_a_bad_row_before_a_line_over_the_limit_is_its_own_row() -> None:
    data = b'text,n\n"x"y,1\n' + b"z" * LIMIT * 2 + b"\nafter,2\n"
    result = brief(rows(data, "a.csv", max_row_bytes=LIMIT))
    assert result == [(2, "<bad_csv>"), (3, "<row_too_long>"), (4, "after")]


def test_a_line_over_the_limit_with_a_quote_that_is_never_closed_costs_only_itself() -> None:
    plain = b"".join(b"row %d,1\n" % n for n in range(2000))
    data = b'text,n\n"' + b"z" * LIMIT * 2 + b"\n" + plain
    result = brief(rows(data, "a.csv", max_row_bytes=LIMIT))
    assert result[0] == (2, "<row_too_long>")
    assert result[1:] == [(n + 3, f"row {n}") for n in range(2000)]


@pytest.mark.alone
def test_quotes_that_force_rereading_are_read_in_linear_time() -> None:
    data = b"text,n\n" + b'x","""\n' * 200_000  # each line opens a quote, and keeps one open
    assert len(rows(data, "a.csv", max_row_bytes=10_000)) > 100_000


def test_batches_are_about_a_megabyte_at_most() -> None:
    record = b'"' + b"x" * 300_000 + b'"\n'
    assert len(rows(b"text\n" + record * 10, "a.csv")) == 10
