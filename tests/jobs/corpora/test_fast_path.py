"""The fast path gives the same rows as reading row by row, whatever the block."""

from __future__ import annotations

import json
from collections.abc import Iterator
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.corpora import fast_path, lines
from jobs.errors import CorpusFailure
from tests.jobs.corpora.small_corpora import rows

thorough = settings(max_examples=1_000)

TEXTS = [
    '"a text"',
    r'"\u4e2d \ud83d\ude00 \n"',
    '"中文"',
    r'"half \ud83d"',
    '""',
    r'" \t\u3000"',
    "null",
    "7",
    '["x"]',
    '{"a": 1}',
]
IDS = ['"one"', '"2020-01-01"', "7", "-0", "0", "7.0", "1e3", "null", "true", "[1]", str(10**30)]
OTHERS = [
    '{"x": [{}, [], "}", "{"]}',
    "Inf",
    "-Inf",
    "-NaN",
    "NaN",
    "-Infinity",
    "Infinity",
    '"Inf, and so on"',
    "0x1",
    "01",
    "1e5",
    "1e999",
    "[" * 2_000 + "]" * 2_000,
    "1" * 5_000,
    "tru",
    '"\\x"',
    '"tab\t"',
]
BROKEN = ['"a bare string"', "7", "[1]", "{", "}", '{"text": "a"} {"text": "b"}', '{"text": "a",}']
ENDS = ["\n", "\r\n", "\n\n", " \n", "}\n", "\n{", ",\n"]


@st.composite
def objects(draw: st.DrawFn) -> str:
    fields = [("text", draw(st.sampled_from(TEXTS)))]
    if draw(st.booleans()):
        fields.append(("id", draw(st.sampled_from(IDS))))
    if draw(st.integers(0, 3)) == 0:
        fields.append((draw(st.sampled_from(["text", "id", "n", "\ufeff"])), '"again"'))
    if draw(st.integers(0, 3)) == 0:
        fields.append(("other", draw(st.sampled_from(OTHERS))))
    content = ", ".join(f'"{key}": {value}' for key, value in draw(st.permutations(fields)))
    return "{" + content + "}"


mostly_good = st.one_of(
    st.just('{"text": "good"}'), st.just('{"text": "good", "id": "i"}'), objects(), objects()
)
json_lines = st.lists(
    st.tuples(
        mostly_good | st.sampled_from(BROKEN),
        st.sampled_from(["\n"] * 12 + ENDS),
    ),
    max_size=6,
).map(lambda pairs: "".join(line + end for line, end in pairs).encode())

FIELDS = ["a text", "", " ", "7", "中", '"quoted, so"', '"a ""word"" of it"', '""', '"two\nlines"']
ODD = ['a"b', '"open', 'a""b', '"x"y', '" "" "', '""""', '","', '"\r"', "\r", "\0", '"', "\ufeff"]
csv_lines = st.lists(
    st.tuples(
        st.lists(st.sampled_from(FIELDS * 4 + ODD), min_size=1, max_size=3)
        | st.lists(st.sampled_from(FIELDS), min_size=2, max_size=2),
        st.sampled_from(["\n"] * 12 + ["\r\n"] * 4 + ["\n\n", "\r", "\r\r\n"]),
    ),
    max_size=8,
).map(lambda pairs: "".join(",".join(fields) + end for fields, end in pairs).encode())
bad_bytes = st.sampled_from([b""] * 20 + [b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf"])


def outcome(data: bytes, name: str, **corpus: object) -> object:
    try:
        return rows(data, name, **corpus)  # type: ignore[arg-type]
    except CorpusFailure as failure:
        return failure.code, failure.message


def by_rows(data: bytes, name: str, **corpus: object) -> object:
    """The same without the fast path."""
    with (
        mock.patch.object(fast_path, "objects", return_value=None),
        mock.patch.object(fast_path, "records", return_value=None),
    ):
        return outcome(data, name, **corpus)


@pytest.fixture(autouse=True, scope="module")
def small_blocks() -> Iterator[None]:
    with mock.patch.object(lines, "BLOCK", 64), mock.patch.object(fast_path, "MIN_BLOCK", 0):
        yield


@pytest.mark.slow
@thorough
@given(json_lines, bad_bytes, st.integers(0, 200), st.sampled_from([None, "id"]))
def test_the_fast_path_reads_json_like_row_by_row(
    data: bytes, bad: bytes, at: int, id_column: str | None
) -> None:
    data = b'{"text": "first", "id": null}\n' + data[:at] + bad + data[at:]
    result = outcome(data, "a.jsonl", text_column="text", id_column=id_column)
    assert result == by_rows(data, "a.jsonl", text_column="text", id_column=id_column)


@pytest.mark.parametrize("name", [r"\ud83d", r"\u4e2d"])
@pytest.mark.parametrize("by_default", [True, False])
def test_unusual_column_names(name: str, *, by_default: bool) -> None:
    data = f'{{"{name}": "good"}}\n{{"{name}": "too"}}\n'.encode()
    given_ = {} if by_default else {"text_column": json.loads(f'"{name}"')}
    result = outcome(data, "a.jsonl", **given_)
    assert result == by_rows(data, "a.jsonl", **given_)
    assert isinstance(result, list)
    assert [row["text"] for row in result] == ["good", "too"]


def test_one_column_can_be_text_and_id() -> None:
    data = b'{"text": "a"}\n{"text": "b"}\n'
    for kind, corpus in (("jsonl", data), ("csv", b"text\nx\na\nb\n" + b"long text\n" * 20)):
        given_ = {"text_column": "text", "id_column": "text"}
        result = outcome(corpus, f"a.{kind}", **given_)
        assert result == by_rows(corpus, f"a.{kind}", **given_)


@pytest.mark.slow
@thorough
@given(
    csv_lines,
    bad_bytes,
    st.integers(0, 60),
    st.sampled_from(["text", "text,id", "id,text", "text,text"]),
    st.sampled_from([40, 2**20]),
    st.sampled_from(["csv", "tsv"]),
)
def test_the_fast_path_reads_csv_like_row_by_row(
    data: bytes, bad: bytes, at: int, header: str, limit: int, kind: str
) -> None:
    first = ",".join(["first"] * header.count("text") + ["1"] * header.count("id"))
    data = f"{header}\n{first}\n".encode() + data[:at] + bad + data[at:] + b"last,1\n"
    if kind == "tsv":
        data = data.replace(b",", b"\t")
    given_: dict[str, object] = {"text_column": "text", "max_row_bytes": limit}
    if "id" in header:
        given_["id_column"] = "id"
    assert outcome(data, f"a.{kind}", **given_) == by_rows(data, f"a.{kind}", **given_)


@pytest.mark.parametrize(
    "block",
    [
        '{"text": "a"}\n{"text": "b"}\n',
        '{"text": "a"}\n{"text": "b"}',
        '{"text": "a"}\r\n{"text": "b"}\r\n',
        '{"text": "a", "id": 1}\n{"id": 2, "text": "b"}\n',
        '{"text": "a", "id": "1"}\n{"text": "b", "n": {"x": [1.5, null, "}"]}, "id": "2"}\n',
        '{"text": "a", "n": 1e5}\n{"id": null, "text": "b"}\n',
        '{"text": "a", "n": "' + "long " * 1_000 + '"}\n{"text": "b"}\n',
    ],
)
def test_ordinary_json_is_clean(block: str) -> None:
    result = fast_path.objects(block.encode(), 7, text="text", row_id="id")
    assert result is not None
    assert result["line"].to_pylist() == [7, 8]
    assert result["text"].to_pylist() == ["a", "b"]
    ids = [json.loads(line).get("id") for line in block.splitlines()]
    assert result["id"].to_pylist() == [None if each is None else str(each) for each in ids]


@pytest.mark.parametrize(
    "block",
    [
        b'{"text": "a"}\n\n{"text": "b"}\n',
        b'{"text": "a"}\n {"text": "b"}\n',
        b'{"text": "a"}\r\n{"text": "b"}\n',
        b'{"text": "a"} {"text": "b"}\n',
        b'{"text": "a"} {"text": "b", "n":\n{}}\n',
        b'{"text": "a", "n":\n{}} {"text": "b"}\n',
        b'{"text": "a", "n": "\xff"}\n{"text": "b"}\n',
        b'{"text": "a", "\xff": 1}\n{"text": "b"}\n',
        b'{"text": "a"}\n"b"\n',
        b'{"text": "a", "id": 1}\n{"text": "b", "id": "2"}\n',
        b'{"text": "a"}\n{"text": " "}\n',
        b'{"text": "a"}\n{"n": 1}\n',
        b"\n",
    ],
)
def test_json_that_is_not_clean(block: bytes) -> None:
    assert fast_path.objects(block, 1, text="text", row_id="id") is None


@pytest.mark.parametrize(
    "block",
    [
        b"a,1\n\nb,2\n",
        b"a,1\n\r\nb,2\n",
        b"\na,1\n",
        b"a,1\rb,2\n",
        b"a,1\r\r\nb,2\n",
        b"a\n",
        b"a,1,x\n",
        b",1\n",
        b"\xff,1\n",
        b'"a"b,1\n',
        b'a"b",1\n',
        b'"a" ,1\n',
        b'"a\n',
        b"",
    ],
)
def test_csv_that_is_not_clean(block: bytes) -> None:
    assert (
        fast_path.records(block, 1, delimiter=",", max_row_bytes=99, width=2, text=0, row_id=None)
        is None
    )


@pytest.mark.parametrize(
    ("block", "begins", "rest"),
    [
        ("a,1\nb,2\n", [7, 8], ""),
        ("a,1\r\nb,2\r\n", [7, 8], ""),
        ('"a",1\n"b",2\n', [7, 8], ""),
        ('"a",""\n"b","said ""so"""\n', [7, 8], ""),
        ('"a",1\n"b","two\nlines"\n', [7, 8], ""),
        ('"a","two\nlines"\n"b",1\n', [7, 9], ""),
        ('"a",1\nb,2\n"not all', [7, 8], '"not all'),
        ('a,1\nb,2\n"two\nlines, and', [7, 8], '"two\nlines, and'),
        ("a,1\nb,2\nc,", [7, 8], "c,"),
    ],
)
def test_ordinary_csv_is_clean(block: str, begins: list[int], rest: str) -> None:
    result = fast_path.records(
        block.encode(), 7, delimiter=",", max_row_bytes=2**20, width=2, text=0, row_id=None
    )
    assert result is not None
    assert result.batch["line"].to_pylist() == begins
    assert result.batch["text"].to_pylist() == ["a", "b"]
    assert result.rest.decode() == rest
    assert result.lines == block.removesuffix(rest).count("\n")
