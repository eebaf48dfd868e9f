"""What pydantic found wrong, in words: the field's path, what must be there, what was given."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from jobs import kinds, names

SHOWN = 5
"""Problems named in one message."""

GIVEN = 60
"""Characters of the given value that are repeated."""

MEMBER_PLACE = 2
"""Of the kind in the path of a member of a group: ``jobs.train.finetune.corpus``."""

_PLACES = ("body", "query", "header", "cookie")

_RULES = {
    "bool": "must be true or false",
    "date": "must be a day, such as 2026-11-30",
    "dict": "must be an object with named fields",
    "float": "must be a number",
    "datetime": "must be a time, such as 2026-11-30 or 2026-11-30T06:00:00Z",
    "int": "must be a whole number",
    "int_parsing_size": "must be a whole number of fewer digits",
    "list": "must be an array",
    "model": "must be an object with named fields",
    "string_type": "must be a text",
    "string_unicode": "must be text in Unicode, without halves of surrogate pairs",
    "timezone": "must have a time zone, such as Z or +02:00",
    "tuple": "must be an array",
}
"""What must be given, by pydantic's code of the error, or by how a group of codes begins."""


def explain(problems: Sequence[Any], *, prefix: str = "") -> tuple[str, str | None]:
    """One message for all problems, and the path of the first field.

    ``prefix``: the path of what the problems are in.
    """
    lines = [_line(problem, prefix) for problem in problems[:SHOWN]]
    if len(problems) > SHOWN:
        lines.append(f"and {len(problems) - SHOWN} more")
    return "; ".join(lines), _joined(prefix, path(problems[0])) or None


def _joined(*paths: str) -> str:
    return ".".join(filter(None, paths))


def _line(problem: Any, prefix: str) -> str:
    where, said = _joined(prefix, path(problem)), sentence(problem)
    if not where and problem["type"] == "value_error":  # fields that do not go together
        return said
    return f"{where or 'the request body'}: {said}"


def sentence(problem: Any) -> str:
    """What must be given in place of what was given."""
    match problem["type"]:
        case "extra_forbidden":
            return _no_such_field(problem)
        case "missing":
            return "must be given"
        case "json_invalid":
            return f"must be JSON ({problem.get('ctx', {}).get('error', 'it cannot be read')})"
        case "value_error":  # a validator of ours: its message is complete
            return str(problem["msg"]).removeprefix("Value error, ")
        case "unknown_kind":
            return _unknown_kind(problem)
    return f"{_rule(problem)}, not {_shown(problem['input'])}"


def _rule(problem: Any) -> str:
    code = str(problem["type"])
    if code == "string_pattern_mismatch" and (words := names.IN_WORDS.get(_pattern(problem))):
        return f"must be {words}"
    known = _RULES.get(code) or _RULES.get(code.partition("_")[0])
    if known is not None:
        return known
    message = str(problem["msg"]).replace("should", "must")
    rule = message.removeprefix("Input ").removeprefix("String ")
    return f"{rule[:1].lower()}{rule[1:]}"


def _pattern(problem: Any) -> str:
    return str(problem.get("ctx", {}).get("pattern", ""))


def _no_such_field(problem: Any) -> str:
    siblings = _siblings(problem)
    return f"no such field; there are {', '.join(siblings)}" if siblings else "no such field"


def _unknown_kind(problem: Any) -> str:
    if not isinstance(problem["input"], dict):
        return "must be a JSON object"
    rule = str(problem["msg"]).removeprefix("kind ")
    return f"{rule}, not {_shown(problem['input'].get('kind'))}"


def _shown(given: object) -> str:
    if given is None or isinstance(given, bool):
        return json.dumps(given)
    text = str(given)
    return repr(text if len(text) <= GIVEN else f"{text[:GIVEN]}…")


def path(problem: Any) -> str:
    """The path of the field, joined by dots; empty: it is the whole."""
    match problem["type"]:
        case "json_invalid":
            return ""
        case "unknown_kind" if isinstance(problem["input"], dict):
            return ".".join([*_names(problem), "kind"])
    return ".".join(_names(problem))


def _names(problem: Any) -> list[str]:
    """The path without the place of the request and the kind of spec that it stands in.

    Of a field in a spec pydantic's path has the kind, which the client did not write there.
    """
    located = _located(problem)
    place = _spec_place(located)
    return [*located[:place], *located[place + 1 :]] if _kind(located) else located


def _spec_place(located: Sequence[str]) -> int:
    """Where in a path the kind of a spec stands: at its beginning, or behind a member's name."""
    return MEMBER_PLACE if located and located[0] == "jobs" else 0


def _located(problem: Any) -> list[str]:
    place, *rest = problem["loc"] or ("",)
    return [str(name) for name in (rest if place in _PLACES else problem["loc"])]


def _kind(located: Sequence[str]) -> str | None:
    place = _spec_place(located)
    return located[place] if len(located) > place and located[place] in kinds.KINDS else None


def _siblings(problem: Any) -> list[str]:
    """The fields that stand beside the one of this problem; none where that is not a spec's."""
    located, place = _located(problem), _names(problem)
    kind, place = _kind(located), place[_spec_place(located) :]
    model: type[BaseModel] | None = kinds.KINDS[kind] if kind else None
    for name in place[:-1]:
        field = model.model_fields.get(name) if model else None
        model = _model(field.annotation) if field else None
    return sorted(model.model_fields) if model else []


def _model(annotation: Any) -> type[BaseModel] | None:
    """The model in an annotation such as ``Output | None``."""
    found = (
        typing.get_args(annotation)
        if typing.get_origin(annotation) in (typing.Union, types.UnionType)
        else (annotation,)
    )
    models = [one for one in found if isinstance(one, type) and issubclass(one, BaseModel)]
    return models[0] if models else None
