"""Warnings about a job whose results are doubtful although no row failed.

A tokenizer that knows none of the words, texts that are truncated early, and labels whose scores
are equal within rounding: each gives a result for every row, and nothing in the result shows it.
"""

from __future__ import annotations

from dataclasses import dataclass

UNKNOWN_TOKENS = 0.05
TRUNCATED_ROWS = 0.10
NEAR_TIES = 0.05
"""From this share on a job has the warning."""


@dataclass(frozen=True)
class QualityCounts:
    """Counts over the rows with a result of the model; a retried row counts when it has one."""

    rows: int = 0
    rows_truncated: int = 0  # longer than the model's window
    rows_near_tie: int = 0  # rounding could have changed their label; measured row by row
    tokens: int = 0  # that the model read
    tokens_unknown: int = 0  # of those, the tokenizer's unknown token


@dataclass(frozen=True)
class QualityWarning:
    """Something to look into before trusting the results."""

    code: str
    message: str


def warnings(counts: QualityCounts, *, windows: bool) -> list[QualityWarning]:
    """The warnings of a job, in a fixed order.

    ``windows``: its kind can read a long text in several windows.
    """
    warnings = []
    if _reaches(counts.tokens_unknown, counts.tokens, UNKNOWN_TOKENS):
        warnings.append(
            QualityWarning(
                "many_unknown_tokens",
                f"{_share(counts.tokens_unknown, counts.tokens)} tokens that the model read are "
                "unknown to its tokenizer, which maps them all to one token: choose a model that "
                "was trained on the language of these texts",
            )
        )
    if _reaches(counts.rows_truncated, counts.rows, TRUNCATED_ROWS):
        strides = " read them in windows (long_texts stride), or" * windows
        warnings.append(
            QualityWarning(
                "many_truncated_rows",
                f"{_share(counts.rows_truncated, counts.rows)} rows are longer than the model's "
                f"window, and the rest of them was left out:{strides} raise max_tokens if it was "
                "lowered, or choose a model with a longer window",
            )
        )
    if _reaches(counts.rows_near_tie, counts.rows, NEAR_TIES):
        warnings.append(
            QualityWarning(
                "many_near_ties",
                f"{_share(counts.rows_near_tie, counts.rows)} rows have labels whose scores differ "
                "by no more than rounding, so that their order means little: choose labels that "
                "differ more, dtype float32 if it was less, or another model",
            )
        )
    return warnings


def _reaches(count: int, of: int, share: float) -> bool:
    return count > 0 and count >= share * of


def _share(count: int, of: int) -> str:
    return f"{count / of:.1%} ({count:,} of {of:,}) of the"
