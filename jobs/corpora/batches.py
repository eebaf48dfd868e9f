"""Builders of batches of ``schemas.CORPUS_SCHEMA`` and ``schemas.LABELLED_SCHEMA``."""

from __future__ import annotations

import pyarrow as pa

from jobs.corpora.schemas import CORPUS_SCHEMA, LABELLED_SCHEMA
from jobs.row_codes import RowCode

MAX_ROWS = 4096
MAX_BYTES = 2**20
MESSAGE_LENGTH = 200


class BatchBuilder:
    """Collects the rows of one batch, in order. A row is either a text or an error."""

    schema = CORPUS_SCHEMA

    def __init__(self) -> None:
        self._lines: list[int] = []
        self._ids: list[str | None] = []
        self._texts: list[str | None] = []
        self._errors: dict[int, tuple[RowCode, str]] = {}

    def __len__(self) -> int:
        return len(self._lines)

    def add(self, line: int, text: str, row_id: str | None = None) -> None:
        """Add a row; a text without any visible character makes it an error row."""
        if not text or text.isspace():
            message = "the text is empty or only white space"
            self.add_error(line, RowCode.EMPTY_TEXT, message, row_id)
            return
        self._lines.append(line)
        self._ids.append(row_id)
        self._texts.append(text)

    def add_error(self, line: int, code: RowCode, message: str, row_id: str | None = None) -> None:
        self._errors[len(self._lines)] = (code, clipped(message))
        self._lines.append(line)
        self._ids.append(row_id)
        self._texts.append(None)

    def add_too_long(self, line: int, *, max_row_bytes: int, row_id: str | None = None) -> None:
        """Add the error row of a row over the limit."""
        self.add_error(line, RowCode.ROW_TOO_LONG, too_long_message(max_row_bytes), row_id)

    def build(self) -> pa.RecordBatch:
        """The rows as Arrow. A text that is not Unicode makes an error row; an id is repaired."""
        return pa.RecordBatch.from_arrays(self._columns(), schema=self.schema)

    def _columns(self) -> list[pa.Array]:
        texts = self._text_array()
        codes, messages = self._error_arrays()
        return [pa.array(self._lines, pa.int64()), self._id_array(), texts, codes, messages]

    def _text_array(self) -> pa.Array:
        try:  # encoding is the check: to check every text first would double the cost
            return pa.array(self._texts, pa.string())
        except UnicodeEncodeError:
            for index, text in enumerate(self._texts):
                if text is not None and not encodable(text):
                    self._make_error(index, RowCode.BAD_ENCODING, _UNDECODABLE)
            return pa.array(self._texts, pa.string())

    def _make_error(self, index: int, code: RowCode, message: str) -> None:
        self._texts[index] = None
        self._errors[index] = (code, message)

    def _id_array(self) -> pa.Array:
        try:
            return pa.array(self._ids, pa.string())
        except UnicodeEncodeError:
            ids = [None if value is None else replaced(value) for value in self._ids]
            return pa.array(ids, pa.string())

    def _error_arrays(self) -> tuple[pa.Array, pa.Array]:
        if not self._errors:
            return pa.nulls(len(self), pa.string()), pa.nulls(len(self), pa.string())
        errors = [self._errors.get(index, (None, None)) for index in range(len(self))]
        return (
            pa.array([code for code, _ in errors], pa.string()),
            pa.array([message for _, message in errors], pa.string()),
        )


class LabelledBatchBuilder(BatchBuilder):
    """Collects rows with a target beside each text. A wrong target makes its row an error row."""

    schema = LABELLED_SCHEMA

    def __init__(self) -> None:
        super().__init__()
        self._targets: dict[int, str] = {}

    def add_pair(self, line: int, text: str, target: str, row_id: str | None = None) -> None:
        self._targets[len(self)] = target
        self.add(line, text, row_id)

    def _columns(self) -> list[pa.Array]:
        for index, target in self._targets.items():
            if not encodable(target):
                self._make_error(index, RowCode.BAD_ENCODING, _UNDECODABLE_TARGET)
        columns = super()._columns()
        for index in self._errors:
            self._targets.pop(index, None)
        targets = map(self._targets.get, range(len(self)))
        return [*columns, pa.array(targets, pa.string())]


_UNDECODABLE_TARGET = "the target has bytes that are invalid in its encoding, or a lone surrogate"
_UNDECODABLE = "the text has bytes that are invalid in its encoding, or a lone surrogate"


def too_long_message(max_row_bytes: int) -> str:
    return f"a row must be at most {max_row_bytes:,} bytes (setting max_row_bytes)"


def replaced(text: str) -> str:
    """The text with lone surrogates replaced, so that it can be stored."""
    return text.encode("utf-8", "replace").decode()


def clipped(message: str) -> str:
    """The message, cut to 200 characters and storable whatever it quotes."""
    message = replaced(message)
    return message if len(message) <= MESSAGE_LENGTH else message[: MESSAGE_LENGTH - 1] + "…"


def encodable(text: str) -> bool:
    """Whether it is valid Unicode, without a lone surrogate."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
