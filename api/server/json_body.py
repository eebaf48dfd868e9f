"""JSON bodies, checked in one place before any model reads them.

What is refused here could not be stored, could not be read by another JSON reader, or would cost
more to validate than to send: nesting beyond ``MAX_DEPTH``, NUL and lone surrogates in a text,
numbers that JSON or 64 bits do not have.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator

from jobs.errors import BadRequest

MAX_DEPTH = 64
"""Arrays and objects within each other."""

SMALLEST, LARGEST = -(2**63), 2**64 - 1
"""Whole numbers: a signed column, and a seed of 64 bits."""

_TOKENS = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?|[\[{]|[\]}]', re.DOTALL)
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")

_TOO_LARGE = f"a whole number that is not between {SMALLEST} and {LARGEST}"

Path = tuple[str | int, ...]


def check(body: bytes) -> None:
    """Raise ``BadRequest`` for a body that must not be read further.

    A body that is no JSON passes: who reads it says what is wrong with it.
    """
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _bad(f"the request body must be UTF-8, and byte {error.start} is not") from error
    if depth(text) > MAX_DEPTH:
        raise _bad(f"the request body must nest at most {MAX_DEPTH} arrays and objects")
    try:
        read = json.loads(text)
    except json.JSONDecodeError:
        return
    except ValueError as error:  # Python refuses to read a whole number of more than 4,300 digits
        raise _bad(f"the request body holds {_TOO_LARGE}") from error
    for path, problem in _problems(read):
        raise _bad(f"{_name(path)}: {problem}", param=_name(path))


def depth(text: str) -> int:
    """How deep arrays and objects nest in a JSON text, up to ``MAX_DEPTH`` + 1."""
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return 0
    deepest = now = 0
    for token in _TOKENS.finditer(text):
        match token[0][0]:
            case "[" | "{":
                now += 1
                deepest = max(deepest, now)
            case "]" | "}":
                now -= 1
        if deepest > MAX_DEPTH:
            break
    return deepest


def _problems(read: object) -> Iterator[tuple[Path, str]]:
    left: list[tuple[Path, object]] = [((), read)]
    while left:
        path, value = left.pop()
        if isinstance(value, dict):
            if _UNSTORABLE.search("".join(value)):
                yield path, "the names of its fields must hold no NUL and no lone surrogate"
            left += (((*path, name), each) for name, each in value.items())
        elif isinstance(value, list):
            left += (((*path, index), each) for index, each in enumerate(value))
        elif problem := _problem(value):
            yield path, problem


def _problem(value: object) -> str | None:
    match value:
        case str() if _UNSTORABLE.search(value):
            return "must hold no NUL and no lone surrogate"
        case float() if not math.isfinite(value):
            return "must be a number that JSON has and 64 bits hold"
        case int() if not SMALLEST <= value <= LARGEST:
            return f"must not be {_TOO_LARGE}"
    return None


def _name(path: Path) -> str:
    return ".".join(str(step) for step in path) or "the request body"


def _bad(message: str, *, param: str | None = None) -> BadRequest:
    return BadRequest(message, param=param, code="bad_spec")
