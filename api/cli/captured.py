"""Specs that a command makes for a schedule: ``schedules create NAME ... -- classify ...``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

_taken: ContextVar[list[dict[str, Any]] | None] = ContextVar("taken", default=None)


@contextmanager
def specs() -> Iterator[list[dict[str, Any]]]:
    """Inside this block commands add their specs to the list in place of submitting them."""
    found: list[dict[str, Any]] = []
    before = _taken.set(found)
    try:
        yield found
    finally:
        _taken.reset(before)


def take(spec: Mapping[str, Any]) -> bool:
    """Whether the spec was taken; else the command submits it."""
    found = _taken.get()
    if found is None:
        return False
    found.append(dict(spec))
    return True
