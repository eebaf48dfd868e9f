"""Every pattern that a spec or a route checks a text by is told in words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from api.server.app import create_app
from jobs import names
from jobs.settings import Settings


def _patterns(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        if isinstance(found := schema.get("pattern"), str):
            yield found
        for inner in schema.values():
            yield from _patterns(inner)
    elif isinstance(schema, list):
        for inner in schema:
            yield from _patterns(inner)


def test_every_pattern_has_words() -> None:
    found = set(_patterns(create_app(Settings()).openapi()))
    assert found
    assert found - names.IN_WORDS.keys() == set()
