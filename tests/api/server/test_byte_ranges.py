"""Which bytes a request asks for, as RFC 9110 has it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.server import byte_ranges
from api.server.byte_ranges import ByteRange
from jobs.errors import RangeUnsatisfiable

WHOLE = None


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-0", ByteRange(0, 1)),
        ("bytes=3-5", ByteRange(3, 6)),
        ("bytes=3-", ByteRange(3, 10)),
        ("bytes=3-999", ByteRange(3, 10)),
        ("bytes=-4", ByteRange(6, 10)),
        ("bytes=-999", ByteRange(0, 10)),
        ("Bytes= 3 - 5", ByteRange(3, 6)),
        ("bytes=5-3", WHOLE),
        ("bytes=-", WHOLE),
        ("bytes=0-1,3-4", WHOLE),
        ("rows=0-1", WHOLE),
        ("bytes=a-b", WHOLE),
        ("bytes=1", WHOLE),
        ("bytes=" + "9" * 30 + "-", WHOLE),
        ("", WHOLE),
    ],
)
def test_a_range_of_ten_bytes(header: str, expected: ByteRange | None) -> None:
    assert byte_ranges.requested({"range": header}, size=10, etag='"e"') == expected


@pytest.mark.parametrize("header", ["bytes=10-", "bytes=10-12", "bytes=-0"])
def test_a_range_behind_the_end_cannot_be_satisfied(header: str) -> None:
    with pytest.raises(RangeUnsatisfiable, match="there are 10 bytes"):
        byte_ranges.requested({"range": header}, size=10, etag=None)


def test_of_an_empty_object_no_range_can_be_satisfied() -> None:
    with pytest.raises(RangeUnsatisfiable):
        byte_ranges.requested({"range": "bytes=0-"}, size=0, etag=None)


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ('"e"', ByteRange(1, 10)),
        ('W/"e"', WHOLE),
        ('"other"', WHOLE),
        ("Mon, 30 Nov 2026 00:00:00 GMT", WHOLE),
    ],
)
def test_a_range_is_given_only_of_the_object_that_is_meant(
    condition: str, expected: ByteRange | None
) -> None:
    headers = {"range": "bytes=1-", "if-range": condition}
    assert byte_ranges.requested(headers, size=10, etag='"e"') == expected


@given(st.text(max_size=20) | st.from_regex(r"bytes=\d{0,20}-\d{0,20}", fullmatch=True))
def test_any_header_is_a_range_within_the_object_or_none(header: str) -> None:
    try:
        found = byte_ranges.requested({"range": header}, size=100, etag=None)
    except RangeUnsatisfiable:
        return
    assert found is None or 0 <= found.start < found.end <= 100
