"""Placeholders in the texts of a spec: ``{fire_time:%Y-%m-%d}`` and the like.

A word in braces is a placeholder, in every text of the spec: ``fire_time``, ``previous_fire_time``
and ``last_success``, each with a format of ``strftime`` behind a colon, and ``schedule``, the name.
Doubled braces around a word stand for the word in braces. All other braces are text, as the ``{}``
of a hypothesis or the JSON in a prompt. Times are in the zone of the schedule; a time that there is
none of yet is when the schedule was created.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

TIMES = ("fire_time", "previous_fire_time", "last_success")
NAME = "schedule"
ISO = "%Y-%m-%dT%H:%M:%S%z"
DIRECTIVES = "YmdHMSjVGuyz"

_WORD = re.compile(
    r"\{(?P<literal>\{[A-Za-z_]\w*(?::[^{}]*)?\})\}|\{(?P<name>[A-Za-z_]\w*)(?::(?P<format>[^{}]*))?\}"
)
_DIRECTIVE = re.compile(r"%(.?)", re.DOTALL)


@dataclass(frozen=True)
class Values:
    """What stands for the placeholders of one fire."""

    schedule: str
    fire_time: datetime
    previous_fire_time: datetime
    last_success: datetime
    zone: ZoneInfo


def problems(spec: object) -> Iterator[tuple[str, str]]:
    """The path of each text with a placeholder that cannot be filled, and what must be there."""
    for path, text in _texts(spec, ()):
        for found in _WORD.finditer(text):
            problem = None if found["literal"] else _problem(found)
            if problem is not None:
                yield path, problem


def used(spec: object) -> set[str]:
    """The names of the placeholders that a spec has."""
    found = (hit["name"] for _, text in _texts(spec, ()) for hit in _WORD.finditer(text))
    return {name for name in found if name}


def filled(spec: Mapping[str, Any], values: Values) -> dict[str, Any]:
    """The spec with every placeholder replaced; the original stays as it is."""
    return {name: _mapped(value, lambda text: fill(text, values)) for name, value in spec.items()}


def fill(text: str, values: Values) -> str:
    """One text with its placeholders replaced."""
    return _WORD.sub(lambda found: _value(found, values), text)


def _problem(found: re.Match[str]) -> str | None:
    name, format_ = found["name"], found["format"]
    if name == NAME:
        return "`{schedule}` has no format: write it without a colon" if format_ else None
    if name not in TIMES:
        known = ", ".join(f"{{{each}}}" for each in (*TIMES, NAME))
        return (
            f"there is no placeholder {found[0][:60]!r}: there are {known}; "
            f"write {{{{{name[:40]}}}}} for the text itself"
        )
    return None if format_ is None else _format_problem(format_)


def _format_problem(given: str) -> str | None:
    for directive in _DIRECTIVE.finditer(given):
        if directive[1] not in (*DIRECTIVES, "%"):
            known = ", ".join(f"%{letter}" for letter in (*DIRECTIVES, "%"))
            return f"the format {given[:60]!r} has {directive[0]!r}: there are {known}"
    return None if given else "the format behind the colon is empty: write one, such as %Y-%m-%d"


def _value(found: re.Match[str], values: Values) -> str:
    if found["literal"]:
        return found["literal"]
    if found["name"] == NAME:
        return values.schedule
    moment: datetime = getattr(values, found["name"])
    return moment.astimezone(values.zone).strftime(found["format"] or ISO)


def _texts(value: object, path: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield ".".join(path), value
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _texts(inner, (*path, str(name)))
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from _texts(inner, (*path, str(index)))


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {name: _mapped(inner, change) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_mapped(inner, change) for inner in value]
    return value
