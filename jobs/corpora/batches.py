"""Rows gathered into one batch of ``rows.CORPUS_SCHEMA``, or of ``rows.LABELLED_SCHEMA``."""

from __future__ import annotations

import pyarrow as pa

from jobs.results.schemas import CORPUS_SCHEMA, LABELLED_SCHEMA, RowCode

MAX_ROWS = 4096
MAX_BYTES = 2**20
MESSAGE_LENGTH = 200


class Rows:
    """The rows of one batch, in order. A row is either a text or an error."""

    schema = CORPUS_SCHEMA

    def __init__(self) -> None:
        self._lines: list[int] = []
        self._ids: list[str | None] = []
        self._texts: list[str | None] = []
        self._errors: dict[int, tuple[RowCode, str]] = {}

    def __len__(self) -> int:
        return len(self._lines)

    def add(self, line: int, text: str, row_id: str | None = None) -> None:
        """A row with its text; one without any visible character is an error row."""
        if not text or text.isspace():
            self.fail(line, RowCode.EMPTY_TEXT, "the text is empty or only white space", row_id)
            return
        self._lines.append(line)
        self._ids.append(row_id)
        self._texts.append(text)

    def fail(self, line: int, code: RowCode, message: str, row_id: str | None = None) -> None:
        """An error row."""
        self._errors[len(self._lines)] = (code, clipped(message))
        self._lines.append(line)
        self._ids.append(row_id)
        self._texts.append(None)

    def too_long(self, line: int, *, max_row_bytes: int, row_id: str | None = None) -> None:
        """An error row for a row that was let go."""
        self.fail(line, RowCode.ROW_TOO_LONG, too_long_message(max_row_bytes), row_id)

    def batch(self) -> pa.RecordBatch:
        """The rows as Arrow; texts and ids that are no Unicode are sorted out here."""
        return pa.RecordBatch.from_arrays(self._columns(), schema=self.schema)

    def _columns(self) -> list[pa.Array]:
        texts = self._text_array()
        codes, messages = self._error_arrays()
        return [pa.array(self._lines, pa.int64()), self._id_array(), texts, codes, messages]

    def _text_array(self) -> pa.Array:
        try:  # encoding is the check: looking at every text first would cost as much again
            return pa.array(self._texts, pa.string())
        except UnicodeEncodeError:
            for index, text in enumerate(self._texts):
                if text is not None and not encodable(text):
                    self._spoil(index, RowCode.BAD_ENCODING, _UNDECODABLE)
            return pa.array(self._texts, pa.string())

    def _spoil(self, index: int, code: RowCode, message: str) -> None:
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
        found = [self._errors.get(index, (None, None)) for index in range(len(self))]
        return (
            pa.array([code for code, _ in found], pa.string()),
            pa.array([message for _, message in found], pa.string()),
        )


class LabelledRows(Rows):
    """Rows with something beside each text. What is wrong with that is an error of its row."""

    schema = LABELLED_SCHEMA

    def __init__(self) -> None:
        super().__init__()
        self._targets: dict[int, str] = {}

    def add_pair(self, line: int, text: str, target: str, row_id: str | None = None) -> None:
        """A row with its text and its target."""
        self._targets[len(self)] = target
        self.add(line, text, row_id)

    def _columns(self) -> list[pa.Array]:
        for index, target in self._targets.items():
            if not encodable(target):
                self._spoil(index, RowCode.BAD_ENCODING, _UNDECODABLE_TARGET)
        columns = super()._columns()
        for index in self._errors:
            self._targets.pop(index, None)
        targets = map(self._targets.get, range(len(self)))
        return [*columns, pa.array(targets, pa.string())]


_UNDECODABLE_TARGET = (
    "what stands beside the text holds bytes that its encoding does not know, or half a surrogate"
)
_UNDECODABLE = "the text holds bytes that its encoding does not know, or half a surrogate pair"


def too_long_message(max_row_bytes: int) -> str:
    """What an over-long row says."""
    return f"a row must be at most {max_row_bytes:,} bytes (setting max_row_bytes)"


def replaced(text: str) -> str:
    """The text with half surrogate pairs replaced, so that it can be stored."""
    return text.encode("utf-8", "replace").decode()


def clipped(message: str) -> str:
    """A message of at most 200 characters, storable whatever it quotes."""
    message = replaced(message)
    return message if len(message) <= MESSAGE_LENGTH else message[: MESSAGE_LENGTH - 1] + "…"


def encodable(text: str) -> bool:
    """Whether it is Unicode as it stands, without half a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
