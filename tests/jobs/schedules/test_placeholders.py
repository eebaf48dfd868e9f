"""Placeholders in the texts of a spec: which words are, how they are filled, which are refused."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from jobs.schedules import placeholders
from jobs.schedules.placeholders import Values

VALUES = Values(
    schedule="nightly",
    fire_time=datetime(2026, 10, 25, 0, tzinfo=UTC),
    previous_fire_time=datetime(2026, 10, 24, 0, tzinfo=UTC),
    last_success=datetime(2026, 10, 23, 0, tzinfo=UTC),
    zone=ZoneInfo("Europe/Berlin"),
)


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("{fire_time:%Y-%m-%d %H:%M}", "2026-10-25 02:00"),
        ("{fire_time}", "2026-10-25T02:00:00+0200"),
        ("{previous_fire_time:%d}..{last_success:%d}", "24..23"),
        ("{schedule}-{fire_time:%j%%}", "nightly-298%"),
        ("This text is about {}.", "This text is about {}."),
        ('Answer as {"label": {"name": "x"}}', 'Answer as {"label": {"name": "x"}}'),
        ("{{fire_time}} and {{text}}", "{fire_time} and {text}"),
        ("{0} {} { fire_time }", "{0} {} { fire_time }"),
    ],
)
def test_a_text_is_filled(text: str, filled: str) -> None:
    spec = {"name": text, "list": [text], "inner": {"rows": 3}}
    assert list(placeholders.problems(spec)) == []
    assert placeholders.filled(spec, VALUES) == {
        "name": filled,
        "list": [filled],
        "inner": {"rows": 3},
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{text}", "there is no placeholder '{text}'"),
        ("{text}", "write {{text}} for the text itself"),
        ("{now:%Y}", "there are {fire_time}, {previous_fire_time}, {last_success}, {schedule}"),
        ("{fire_time:%c}", "the format '%c' has '%c': there are %Y"),
        ("{fire_time:%}", "the format '%' has '%'"),
        ("{fire_time:}", "the format behind the colon is empty"),
        ("{schedule:x}", "`{schedule}` has no format"),
    ],
)
def test_what_cannot_be_filled_is_refused(text: str, words: str) -> None:
    ((path, problem),) = placeholders.problems({"corpus": {"uri": f"s3://b/{text}"}})
    assert path == "corpus.uri"
    assert words in problem


def test_the_names_of_placeholders_that_a_spec_has() -> None:
    spec = {"a": ["{fire_time:%Y}", "{{last_success}}"], "b": {"c": "{schedule}"}}
    assert placeholders.used(spec) == {"fire_time", "schedule"}
