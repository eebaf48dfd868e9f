from __future__ import annotations

from typing import Any

import pytest

from jobs.errors import CorpusFailure
from tests.jobs.corpora.small_corpora import brief, rows


def test_a_row_is_a_line_and_blank_lines_are_skipped() -> None:
    data = "one\r\n\n  \ntwo\u2028still two\x0b\x0c\x85\n three".encode()
    expected = [(1, "one"), (4, "two\u2028still two\x0b\x0c\x85"), (5, " three")]
    assert brief(rows(data, "a.txt")) == expected


def test_a_line_of_exactly_the_limit_is_read_and_one_byte_more_is_too_long() -> None:
    data = b"x" * 100 + b"\n" + b"y" * 101 + b"\n" + b"z" * 100
    result = brief(rows(data, "a.txt", max_row_bytes=100))
    assert result == [(1, "x" * 100), (2, "<row_too_long>"), (3, "z" * 100)]


@pytest.mark.parametrize("corpus", [{"text_column": "text"}, {"id_column": "id"}])
def test_plain_text_has_no_columns(corpus: dict[str, Any]) -> None:
    with pytest.raises(CorpusFailure, match="no columns") as caught:
        rows(b"x\n", "a.txt", **corpus)
    assert caught.value.code == "column_missing"
