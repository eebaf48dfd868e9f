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

from jobs.corpora import columns, documents, fast_path, lines, text_stream, values
from jobs.corpora.batches import Rows
from jobs.corpora.sources import Source
from jobs.corpora.targets import Target, Targets, no_rows
from jobs.errors import CorpusFailure
from jobs.kinds import Corpus, LabelledCorpus
from jobs.results.schemas import RowCode

HEAD_ROWS = 1000
_KEPT_KEYS = 1000  # of a head in which every row has keys of its own
_KEPT_LENGTH = 1000
_raw_decode = json.JSONDecoder().raw_decode
_KINDS = {list: "an array", int: "a number", float: "a number", bool: "true or false"}


@dataclass(frozen=True)
class _Broken:
    code: RowCode
    reason: str


def read(
    source: Source, corpus: Corpus, *, max_row_bytes: int, targets: Targets | None = None
) -> Iterator[pa.RecordBatch]:
    """Every line that is not blank."""
    with text_stream.text(source, corpus) as stream:
        blocks = lines.numbered(stream, max_row_bytes=max_row_bytes)
        chosen = _choose(blocks, source.name, corpus, targets)
    with text_stream.text(source, corpus) as stream:
        for number, block in lines.numbered(stream, max_row_bytes=max_row_bytes):
            if isinstance(block, lines.LongLine):
                rows = no_rows(targets)
                rows.too_long(number, max_row_bytes=max_row_bytes)
                yield rows.batch()
            else:
                yield from _batches(number, block, chosen, corpus.id_column, targets)


def _batches(
    number: int,
    block: bytes,
    chosen: columns.Chosen,
    id_column: str | None,
    targets: Targets | None,
) -> Iterator[pa.RecordBatch]:
    if targets is None:
        whole = fast_path.objects(block, number, text=chosen.text, row_id=id_column)
        if whole is not None:
            yield from fast_path.pages(whole)
            return
    for page in lines.split(number, block):
        rows = no_rows(targets)
        _add_lines(rows, page, chosen, id_column)
        if rows:
            yield rows.batch()


def _add_lines(rows: Rows, page: lines.Page, chosen: columns.Chosen, id_column: str | None) -> None:
    column, target = chosen
    for line, raw in enumerate(page.lines or (), page.first_line):
        if not raw or raw.isspace():
            continue
        value = _parsed(raw)
        if type(value) is dict:
            try:
                row_id = None if id_column is None else values.id_text(value.get(id_column))
            except RecursionError as error:
                rows.fail(line, RowCode.BAD_JSON, f"line {line}: the id: {error}")
                continue
            text = value.get(column)
            if target is not None and target.kind is Targets.MESSAGES:
                target.add_from(rows, line, "", value, row_id)
            elif type(text) is not str:
                _fail_text(rows, line, column, value, row_id)
            elif target is None:
                rows.add(line, text, row_id)
            else:
                target.add_from(rows, line, text, value, row_id)
        elif type(value) is str:
            _add_bare(rows, line, value, target)
        else:
            _fail_row(rows, line, value)


def _add_bare(rows: Rows, line: int, text: str, target: Target | None) -> None:
    if target is None:
        rows.add(line, text)
    else:
        target.add_absent(rows, line, text)


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
    usual: frozenset[str] = frozenset(columns.USUAL)  # kept however many keys there are

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
        usual = key.lower() in self.usual
        return usual or (len(self.keys) < _KEPT_KEYS and len(key) <= _KEPT_LENGTH)


def _choose(
    blocks: Iterator[tuple[int, bytes | lines.LongLine]],
    name: str,
    corpus: Corpus,
    targets: Targets | None,
) -> columns.Chosen:
    """The columns, after a look at the first rows; that of the ids must be there as well."""
    given = columns.given_target(corpus) if targets else None
    wanted = columns.USUAL_TARGETS[targets] if targets else ()
    head = _Head(usual=frozenset(columns.USUAL + wanted))
    shape = documents.Shape()
    for raw in itertools.islice(_rows(blocks), HEAD_ROWS):
        if isinstance(raw, lines.LongLine):
            shape.add_long(raw.begin)
            continue
        value = _parsed(raw)
        head.add(value, (corpus.text_column, corpus.id_column, given))
        shape.add(raw, good=isinstance(value, dict | str), parsed=not isinstance(value, _Broken))
    _check_is_jsonl(name, shape, full=head.rows == HEAD_ROWS)
    if not head.objects:
        return _without_objects(head, name, corpus, targets)
    if corpus.id_column is not None:
        columns.require(corpus.id_column, head.keys, param="id_column")
    only_text = [key for key in head.keys if key in head.of_text - head.of_others]
    return columns.choose(list(head.keys), corpus, strings=only_text, targets=targets)


def _without_objects(
    head: _Head, name: str, corpus: Corpus, targets: Targets | None
) -> columns.Chosen:
    """The columns for objects that may come later: the first rows are bare strings, or broken."""
    if isinstance(corpus, LabelledCorpus) and corpus.messages_column is not None:
        return columns.choose([corpus.messages_column], corpus, strings=(), targets=targets)
    given = columns.given_target(corpus)
    wanted = targets is not None and (targets is not Targets.COMPLETION or given is not None)
    if head.strings and wanted:
        raise columns.missing(
            f"none of the first rows of {name} is an object, so nothing says what the {targets} of "
            f'a row is: a row must be like {{"text": "...", "{given or "label"}": "..."}}'
        )
    text = corpus.text_column or columns.USUAL[0]
    if targets is None or not wanted:
        return columns.Chosen(text, None)
    return columns.Chosen(text, Target(given or columns.USUAL_TARGETS[targets][0], targets))


def _rows(
    blocks: Iterator[tuple[int, bytes | lines.LongLine]],
) -> Iterator[bytes | lines.LongLine]:
    """Rows that are not blank."""
    for number, block in blocks:
        if isinstance(block, lines.LongLine):
            yield block
            continue
        for page in lines.split(number, block):
            yield from (raw for raw in page.lines or () if raw and not raw.isspace())


def _check_is_jsonl(name: str, shape: documents.Shape, *, full: bool) -> None:
    """Many rows and not one of JSON, or a JSON document over many lines, is another format."""
    first = shape.begins.split(b"\n")[0]
    none = not shape.good and (full or first == b"{" or first.startswith(b"["))
    if none or shape.is_document:
        reason = "none of its first rows is an object or a string"
        if shape.good:
            reason = "its first rows are parts of one JSON document"
        raise CorpusFailure(
            f"{name} is not JSONL: {reason}; each line must be one row, without a comma behind it "
            "(a JSON array becomes that with `jq -c '.[]'`, objects over several lines with "
            "`jq -c .`)"
        )
