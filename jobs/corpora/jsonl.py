"""JSONL: a row is a line with an object that has the text column, or a bare JSON string.

Blank lines are skipped. The columns are chosen from the first 1,000 rows, which are read twice.
"""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow as pa

from jobs.corpora import columns, documents, fast_path, lines, text_stream, values
from jobs.corpora.batches import BatchBuilder
from jobs.corpora.sources import Source
from jobs.corpora.targets import Target, TargetKind, batch_builder
from jobs.errors import CorpusFailure
from jobs.kinds import Corpus, LabelledCorpus
from jobs.row_codes import RowCode

HEAD_ROWS = 1000
_MAX_KEYS = 1000  # kept of the first rows, each of which may have keys of its own
_MAX_KEY_CHARACTERS = 1000
_raw_decode = json.JSONDecoder().raw_decode
_TYPE_NAMES = {list: "an array", int: "a number", float: "a number", bool: "true or false"}


@dataclass(frozen=True)
class _Broken:
    code: RowCode
    reason: str


def read(
    source: Source, corpus: Corpus, *, max_row_bytes: int, targets: TargetKind | None = None
) -> Iterator[pa.RecordBatch]:
    """Every line that is not blank."""
    with text_stream.open_text(source, corpus) as stream:
        blocks = lines.numbered_blocks(stream, max_row_bytes=max_row_bytes)
        chosen = _choose(blocks, source.name, corpus, targets)
    with text_stream.open_text(source, corpus) as stream:
        for number, block in lines.numbered_blocks(stream, max_row_bytes=max_row_bytes):
            if isinstance(block, lines.LongLine):
                rows = batch_builder(targets)
                rows.add_too_long(number, max_row_bytes=max_row_bytes)
                yield rows.build()
            else:
                yield from _batches(number, block, chosen, corpus.id_column, targets)


def _batches(
    number: int,
    block: bytes,
    chosen: columns.ChosenColumns,
    id_column: str | None,
    targets: TargetKind | None,
) -> Iterator[pa.RecordBatch]:
    if targets is None:
        whole = fast_path.objects(block, number, text=chosen.text, row_id=id_column)
        if whole is not None:
            yield from fast_path.pages(whole)
            return
    for page in lines.split(number, block):
        rows = batch_builder(targets)
        _add_lines(rows, page, chosen, id_column)
        if rows:
            yield rows.build()


def _add_lines(
    rows: BatchBuilder, page: lines.Page, chosen: columns.ChosenColumns, id_column: str | None
) -> None:
    column, target = chosen
    for line, raw in enumerate(page.lines or (), page.first_line):
        if not raw or raw.isspace():
            continue
        value = _parsed(raw)
        if type(value) is dict:
            try:
                row_id = None if id_column is None else values.id_text(value.get(id_column))
            except RecursionError as error:
                rows.add_error(line, RowCode.BAD_JSON, f"line {line}: the id: {error}")
                continue
            text = value.get(column)
            if target is not None and target.kind is TargetKind.MESSAGES:
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


def _add_bare(rows: BatchBuilder, line: int, text: str, target: Target | None) -> None:
    if target is None:
        rows.add(line, text)
    else:
        target.add_absent(rows, line, text)


def _parsed(raw: bytes) -> object:
    try:
        return _loads(raw.decode())
    except UnicodeDecodeError as error:
        reason = f"byte {error.start + 1} of the line is invalid in the corpus's encoding"
        return _Broken(RowCode.BAD_ENCODING, reason)
    except json.JSONDecodeError as error:
        return _Broken(RowCode.BAD_JSON, f"{error.msg} at column {error.colno}")
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits; 100,000 brackets
        return _Broken(RowCode.BAD_JSON, str(error))


def _loads(text: str) -> object:
    with contextlib.suppress(ValueError):  # without white space around it, twice as fast
        value, end = _raw_decode(text)
        if end == len(text):
            return value
    return json.loads(text)


def _fail_text(
    rows: BatchBuilder, line: int, column: str, value: dict[str, object], row_id: str | None
) -> None:
    name = repr(column[:100])
    text = value.get(column)
    if column not in value:
        rows.add_error(line, RowCode.MISSING_TEXT, f"the row has no {name}", row_id)
    elif text is None:
        rows.add_error(line, RowCode.MISSING_TEXT, f"{name} is null", row_id)
    else:
        message = f"{name} must be a string, not {_TYPE_NAMES.get(type(text), 'an object')}"
        rows.add_error(line, RowCode.WRONG_TYPE, message, row_id)


def _fail_row(rows: BatchBuilder, line: int, value: object) -> None:
    if isinstance(value, _Broken):
        rows.add_error(line, value.code, f"line {line}: {value.reason}")
        return
    name = "null" if value is None else _TYPE_NAMES[type(value)]
    rows.add_error(line, RowCode.NOT_AN_OBJECT, f"a row must be an object or a string, not {name}")


@dataclass
class _Head:
    """The columns of the first rows."""

    rows: int = 0
    strings: int = 0
    objects: int = 0
    keys: dict[str, None] = field(default_factory=dict)  # in the order of their first appearance
    text_keys: set[str] = field(default_factory=set)  # with a string in some row
    other_keys: set[str] = field(default_factory=set)  # with another value in some row
    usual: frozenset[str] = frozenset(columns.USUAL_TEXT_COLUMNS)  # always kept

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
                    (self.text_keys if isinstance(content, str) else self.other_keys).add(key)

    def _has_room(self, key: str) -> bool:
        usual = key.lower() in self.usual
        return usual or (len(self.keys) < _MAX_KEYS and len(key) <= _MAX_KEY_CHARACTERS)


def _choose(
    blocks: Iterator[tuple[int, bytes | lines.LongLine]],
    name: str,
    corpus: Corpus,
    targets: TargetKind | None,
) -> columns.ChosenColumns:
    """The columns, chosen from the first rows; the id column must be among them."""
    given = columns.given_target(corpus) if targets else None
    wanted = columns.USUAL_TARGET_COLUMNS[targets] if targets else ()
    head = _Head(usual=frozenset(columns.USUAL_TEXT_COLUMNS + wanted))
    detector = documents.DocumentDetector()
    for raw in itertools.islice(_rows(blocks), HEAD_ROWS):
        if isinstance(raw, lines.LongLine):
            detector.add_long(raw.begin)
            continue
        value = _parsed(raw)
        head.add(value, (corpus.text_column, corpus.id_column, given))
        is_json = not isinstance(value, _Broken)
        detector.add(raw, good=isinstance(value, dict | str), parsed=is_json)
    _check_is_jsonl(name, detector, full=head.rows == HEAD_ROWS)
    if not head.objects:
        return _without_objects(head, name, corpus, targets)
    if corpus.id_column is not None:
        columns.require(corpus.id_column, head.keys, param="id_column")
    strings = [key for key in head.keys if key in head.text_keys - head.other_keys]
    return columns.choose(list(head.keys), corpus, strings=strings, targets=targets)


def _without_objects(
    head: _Head, name: str, corpus: Corpus, targets: TargetKind | None
) -> columns.ChosenColumns:
    """The columns of objects that may come later, if the first rows are bare strings or broken."""
    if isinstance(corpus, LabelledCorpus) and corpus.messages_column is not None:
        return columns.choose([corpus.messages_column], corpus, strings=(), targets=targets)
    given = columns.given_target(corpus)
    needed = targets is not None and (targets is not TargetKind.COMPLETION or given is not None)
    if head.strings and needed:
        raise columns.missing(
            f"none of the first rows of {name} is an object, so none has a {targets}: "
            f'a row must be like {{"text": "...", "{given or "label"}": "..."}}'
        )
    text = corpus.text_column or columns.USUAL_TEXT_COLUMNS[0]
    if targets is None or not needed:
        return columns.ChosenColumns(text, None)
    return columns.ChosenColumns(
        text, Target(given or columns.USUAL_TARGET_COLUMNS[targets][0], targets)
    )


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


def _check_is_jsonl(name: str, detector: documents.DocumentDetector, *, full: bool) -> None:
    """Refuse many rows without any JSON, and a JSON document over several lines."""
    first = detector.begins.split(b"\n")[0]
    has_no_json = not detector.good and (full or first == b"{" or first.startswith(b"["))
    if has_no_json or detector.is_document:
        reason = "none of its first rows is an object or a string"
        if detector.good:
            reason = "its first rows are parts of one JSON document"
        raise CorpusFailure(
            f"{name} is not JSONL: {reason}; each line must be one row, without a comma after it "
            "(`jq -c '.[]'` converts a JSON array, `jq -c .` objects over several lines)"
        )
