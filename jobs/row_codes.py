"""The codes of rows that have no result."""

from __future__ import annotations

from enum import StrEnum


class RowCode(StrEnum):
    """Stable codes of error rows; part of the public contract, documented in docs/rows.md."""

    BAD_JSON = "bad_json"
    BAD_ENCODING = "bad_encoding"
    BAD_CSV = "bad_csv"
    NOT_AN_OBJECT = "not_an_object"
    MISSING_TEXT = "missing_text"
    WRONG_TYPE = "wrong_type"
    EMPTY_TEXT = "empty_text"
    MISSING_TARGET = "missing_target"
    ROW_TOO_LONG = "row_too_long"
    NO_TOKENS = "no_tokens"
    TOO_MANY_TOKENS = "too_many_tokens"
    BAD_CHAT = "bad_chat"
    BAD_SETTINGS = "bad_settings"
    FILE_REFUSED = "file_refused"
    FILE_UNREADABLE = "file_unreadable"
    PIPELINE_FAILED = "pipeline_failed"
    NOT_FINITE = "not_finite"
    OUT_OF_MEMORY = "out_of_memory"
    ROW_FAILED = "row_failed"
    ROW_CRASHED_WORKER = "row_crashed_worker"
