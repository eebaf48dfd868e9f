"""What pydantic found wrong, in words: the field's path, what must be there, what was given."""

from __future__ import annotations

import types
import typing
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from jobs import kinds

SHOWN = 5
"""Problems named in one message."""

GIVEN = 60
"""Characters of the given value that are repeated."""

_PLACES = ("body", "query", "header", "cookie")


def explain(problems: Sequence[Any]) -> tuple[str, str | None]:
    """One message for all problems, and the path of the first field."""
    lines = [_line(problem) for problem in problems[:SHOWN]]
    if len(problems) > SHOWN:
        lines.append(f"and {len(problems) - SHOWN} more")
    return "; ".join(lines), _path(problems[0]) or None


def _line(problem: Any) -> str:
    path, sentence = _path(problem), _sentence(problem)
    if not path and problem["type"] == "value_error":  # fields that do not go together
        return sentence
    return f"{path or 'the request body'}: {sentence}"


def _sentence(problem: Any) -> str:
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
    rule = (
        str(problem["msg"]).replace("should", "must").removeprefix("Input ").removeprefix("String ")
    )
    return f"{rule[:1].lower()}{rule[1:]}, not {_shown(problem['input'])}"


def _no_such_field(problem: Any) -> str:
    siblings = _siblings(problem)
    return f"no such field; there are {', '.join(siblings)}" if siblings else "no such field"


def _unknown_kind(problem: Any) -> str:
    if not isinstance(problem["input"], dict):
        return "must be a JSON object"
    rule = str(problem["msg"]).removeprefix("kind ")
    return f"{rule}, not {_shown(problem['input'].get('kind'))}"


def _shown(given: object) -> str:
    text = str(given)
    return repr(text if len(text) <= GIVEN else f"{text[:GIVEN]}…")


def _path(problem: Any) -> str:
    match problem["type"]:
        case "json_invalid":
            return ""
        case "unknown_kind" if isinstance(problem["input"], dict):
            return "kind"
    return ".".join(_names(problem))


def _names(problem: Any) -> list[str]:
    """The path without the place of the request and the kind of spec that it stands in.

    Of a field in a spec pydantic's path begins with the kind, which the client did not write there.
    """
    names = _located(problem)
    return names[1:] if _kind(names) else names


def _located(problem: Any) -> list[str]:
    place, *names = problem["loc"] or ("",)
    return [str(name) for name in (names if place in _PLACES else problem["loc"])]


def _kind(names: Sequence[str]) -> str | None:
    return names[0] if names and names[0] in kinds.KINDS else None


def _siblings(problem: Any) -> list[str]:
    """The fields that stand beside the one of this problem; none where that is not a spec's."""
    kind, path = _kind(_located(problem)), _names(problem)
    model: type[BaseModel] | None = kinds.KINDS[kind] if kind else None
    for name in path[:-1]:
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
