"""Durations and times as they are written."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from api.cli import times

NOW = datetime(2026, 11, 30, 6, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("1.5", 1.5),
        ("90s", 90),
        ("30m", 1_800),
        ("2h", 7_200),
        ("1d12h", 129_600),
        ("1.5h", 5_400),
        ("2026-11-30T06:30Z", 1_800),
        ("2026-11-30T08:30+02:00", 1_800),
    ],
)
def test_a_deadline_is_a_duration_or_a_time_to_come(text: str, seconds: float) -> None:
    assert times.seconds(text, now=NOW) == seconds


@pytest.mark.parametrize("text", ["0", "-5", "2026-11-29", "2026-11-30T05:59:59Z"])
def test_a_deadline_lies_ahead(text: str) -> None:
    with pytest.raises(ValueError, match="must lie ahead"):
        times.seconds(text, now=NOW)


@pytest.mark.parametrize("text", ["", "soon", "2 hours", "1e999", "nan", "2026-13-01", "h"])
def test_anything_else_is_refused_with_examples(text: str) -> None:
    with pytest.raises(ValueError, match="must be a duration such as 90s, 30m"):
        times.seconds(text, now=NOW)
    with pytest.raises(ValueError, match="must be a time such as 2026-11-30"):
        times.since(text, now=NOW)


def test_since_is_a_time_or_how_long_ago() -> None:
    assert times.since("2h", now=NOW) == NOW - timedelta(hours=2)
    assert times.since("2026-11-29T00:00Z", now=NOW) == datetime(2026, 11, 29, tzinfo=UTC)
