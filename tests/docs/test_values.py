from __future__ import annotations

import re
from pathlib import Path

import pytest

from jobs.corpora.arrow_values import KINDS
from jobs.corpora.conversion_examples import ARROW, CSV, JSON, Conversion

PAGE = (Path(__file__).parents[2] / "docs" / "values.md").read_text(encoding="utf-8")
TABLES = dict(zip(("JSON", "CSV", "Arrow"), (JSON, CSV, ARROW), strict=True))


def lines(table: str) -> list[str]:
    """The lines of a table on the page, without its head."""
    found = re.search(rf"<!-- made from code: \w+ of {table} -->\n(.*?)\n<!--", PAGE, re.DOTALL)
    assert found is not None
    return found[1].splitlines()[2:]


@pytest.mark.parametrize("table", TABLES)
def test_the_page_shows_what_each_value_becomes(table: str) -> None:
    for line, value in zip(lines(table), TABLES[table], strict=True):
        assert all(shown in line for shown in map(escaped, texts(value)))


def texts(value: Conversion) -> list[str]:
    several = [value.labels] if isinstance(value.labels, str) else value.labels
    return [each for each in (value.given, value.id, value.text, value.label, *several) if each]


def escaped(text: str) -> str:
    return text.replace("|", "\\|")


def test_every_kind_of_type_is_on_the_page() -> None:
    assert len(lines("Arrow")) > len(KINDS)
