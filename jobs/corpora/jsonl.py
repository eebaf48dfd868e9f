"""JSONL: a row is a line with an object that has the text column, or a bare JSON string.

Blank lines are no rows. The columns are chosen on the first 1,000 rows, which are read twice.
"""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow as pa

from jobs.corpora import columns, lines, opening
from jobs.corpora.batches import Rows, rendered
from jobs.corpora.sources import Source
from jobs.errors import CorpusFailure
from jobs.rows import RowCode
from jobs.specs import Corpus

HEAD_ROWS = 1000
_KEPT_KEYS = 1000  # of a head in which every row has keys of its own
_KEPT_LENGTH = 1000
_raw_decode = json.JSONDecoder().raw_decode
_KINDS = {list: "an array", int: "a number", float: "a number", bool: "true or false"}


@dataclass(frozen=True)
class _Broken:
    code: RowCode
    reason: str


def read(source: Source, corpus: Corpus, *, max_row_bytes: int) -> Iterator[pa.RecordBatch]:
    """Every line that is not blank."""
    with opening.text(source, corpus) as stream:
        column = _choose(lines.pages(stream, max_row_bytes=max_row_bytes), source.name, corpus)
    with opening.text(source, corpus) as stream:
        for page in lines.pages(stream, max_row_bytes=max_row_bytes):
            rows = Rows()
            if page.lines is None:
                rows.too_long(page.first_line, max_row_bytes=max_row_bytes)
            else:
                _add_lines(rows, page, column, corpus.id_column)
            if rows:
                yield rows.batch()


def _add_lines(rows: Rows, page: lines.Page, column: str, id_column: str | None) -> None:
    for line, raw in enumerate(page.lines or (), page.first_line):
        if not raw or raw.isspace():
            continue
        value = _parsed(raw)
        if type(value) is dict:
            row_id = None if id_column is None else rendered(value.get(id_column))
            text = value.get(column)
            if type(text) is str:
                rows.add(line, text, row_id)
            else:
                _fail_text(rows, line, column, value, row_id)
        elif type(value) is str:
            rows.add(line, value)
        else:
            _fail_row(rows, line, value)


def _parsed(raw: bytes) -> object:
    try:
        return _loads(raw.decode())
    except UnicodeDecodeError as error:
        reason = f"byte {error.start + 1} of the line is not valid in the corpus's encoding"
        return _Broken(RowCode.BAD_ENCODING, reason)
    except json.JSONDecodeError as error:
        return _Broken(RowCode.BAD_JSON, f"{error.msg} at column {error.colno}")
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits; 100,000 brackets
        return _Broken(RowCode.BAD_JSON, str(error))


def _loads(text: str) -> object:
    with contextlib.suppress(ValueError):  # half the time of json.loads where nothing is around it
        value, end = _raw_decode(text)
        if end == len(text):
            return value
    return json.loads(text)


def _fail_text(
    rows: Rows, line: int, column: str, value: dict[str, object], row_id: str | None
) -> None:
    name = repr(column[:100])
    text = value.get(column)
    if column not in value:
        rows.fail(line, RowCode.MISSING_TEXT, f"the row has no {name}", row_id)
    elif text is None:
        rows.fail(line, RowCode.MISSING_TEXT, f"{name} is null", row_id)
    else:
        message = f"{name} must be a string, not {_KINDS.get(type(text), 'an object')}"
        rows.fail(line, RowCode.WRONG_TYPE, message, row_id)


def _fail_row(rows: Rows, line: int, value: object) -> None:
    if isinstance(value, _Broken):
        rows.fail(line, value.code, f"line {line}: {value.reason}")
        return
    kind = "null" if value is None else _KINDS[type(value)]
    rows.fail(line, RowCode.NOT_AN_OBJECT, f"a row must be an object or a string, not {kind}")


@dataclass
class _Head:
    """What the first rows have told about the columns."""

    rows: int = 0
    strings: int = 0
    objects: int = 0
    keys: dict[str, None] = field(default_factory=dict)  # in the order of their first appearance
    of_text: set[str] = field(default_factory=set)
    of_others: set[str] = field(default_factory=set)

    def add(self, value: object, wanted: tuple[str | None, ...]) -> None:
        self.rows += 1
        self.strings += isinstance(value, str)
        if not isinstance(value, dict):
            return
        self.objects += 1
        for key, content in value.items():
            if key in self.keys or key in wanted or self._has_room(key):
                self.keys[key] = None
                if content is not None:
                    (self.of_text if isinstance(content, str) else self.of_others).add(key)

    def _has_room(self, key: str) -> bool:
        usual = key.lower() in columns.USUAL
        return usual or (len(self.keys) < _KEPT_KEYS and len(key) <= _KEPT_LENGTH)


def _choose(pages: Iterator[lines.Page], name: str, corpus: Corpus) -> str:
    """The text column, after a look at the first rows; that of the ids must be there as well."""
    head = _Head()
    first = b""
    for raw in itertools.islice(_rows(pages), HEAD_ROWS):
        first = first if head.rows else raw[:_KEPT_LENGTH].strip()
        head.add(_parsed(raw), (corpus.text_column, corpus.id_column))
    if not head.objects and not head.strings:
        _check_is_jsonl(name, first, full=head.rows == HEAD_ROWS)
    if not head.objects:
        return corpus.text_column or columns.USUAL[0]
    if corpus.id_column is not None:
        columns.require(corpus.id_column, head.keys, param="id_column")
    only_text = [key for key in head.keys if key in head.of_text - head.of_others]
    return columns.choose_text(list(head.keys), corpus, strings=only_text)


def _rows(pages: Iterator[lines.Page]) -> Iterator[bytes]:
    """Rows that can tell something; a line over the limit cannot."""
    for page in pages:
        yield from (raw for raw in page.lines or () if raw and not raw.isspace())


def _check_is_jsonl(name: str, first: bytes, *, full: bool) -> None:
    """Many rows and not one of JSON, or a JSON document over many lines, is another format."""
    if full or first == b"{" or first.startswith(b"["):
        raise CorpusFailure(
            f"{name} is not JSONL: none of its first rows is an object or a string; each line "
            "must be one row (a JSON array becomes that with `jq -c '.[]'`)"
        )
