"""What makes a job's answers doubtful though no row failed, in words and numbers.

A tokenizer that knows none of the words, texts cut after their beginning, and labels whose scores
are the same but for rounding: each has an answer for every row, and none of them says so.
"""

from __future__ import annotations

from dataclasses import dataclass

UNKNOWN_TOKENS = 0.05
TRUNCATED_ROWS = 0.10
NEAR_TIES = 0.05
"""Shares from which on a job carries a warning."""


@dataclass(frozen=True)
class Quality:
    """Counts over the rows that the model answered; a row that is done again counts then."""

    rows: int = 0
    rows_truncated: int = 0  # longer than what the model read of them
    rows_near_tie: int = 0  # whose labels rounding could have changed: measured alone
    tokens: int = 0  # that the model read
    tokens_unknown: int = 0  # of those, what its tokenizer has for whatever it does not know


@dataclass(frozen=True)
class QualityWarning:
    """Something that a user should look into before trusting the results."""

    code: str
    message: str


def warnings(found: Quality, *, kind: str) -> list[QualityWarning]:
    """The warnings of a job of this kind, in a fixed order."""
    said = []
    if _reaches(found.tokens_unknown, found.tokens, UNKNOWN_TOKENS):
        said.append(
            QualityWarning(
                "many_unknown_tokens",
                f"{_share(found.tokens_unknown, found.tokens)} tokens that the model read are "
                "unknown to its tokenizer, which reads them all as the same: choose a model that "
                "was trained on the language of these texts",
            )
        )
    if _reaches(found.rows_truncated, found.rows, TRUNCATED_ROWS):
        strides = " read them in windows (long_texts stride), or" * (kind in {"classify", "embed"})
        said.append(
            QualityWarning(
                "many_truncated_rows",
                f"{_share(found.rows_truncated, found.rows)} rows are longer than what the model "
                f"reads of them, and the rest was left out:{strides} raise max_tokens if it was "
                "lowered, or choose a model that reads more",
            )
        )
    if _reaches(found.rows_near_tie, found.rows, NEAR_TIES):
        said.append(
            QualityWarning(
                "many_near_ties",
                f"{_share(found.rows_near_tie, found.rows)} rows have labels whose scores differ "
                "by no more than rounding, so that their order says little: choose labels that "
                "differ more, dtype float32 if it was less, or another model",
            )
        )
    return said


def _reaches(count: int, of: int, share: float) -> bool:
    return count > 0 and count >= share * of


def _share(count: int, of: int) -> str:
    return f"{count / of:.1%} ({count:,} of {of:,}) of the"
