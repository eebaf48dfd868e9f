"""What pydantic found wrong, in words: the field's path, what must be there, what was given."""

from __future__ import annotations

import types
import typing
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from jobs.specs import ClassifySpec as Spec

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
    path, sentence = _path(problem) or "the request body", _sentence(problem)
    return f"{path}: {sentence}"


def _sentence(problem: Any) -> str:
    match problem["type"]:
        case "extra_forbidden":
            return f"no such field; there are {', '.join(_siblings(_names(problem)))}"
        case "missing":
            return "must be given"
        case "json_invalid":
            return f"must be JSON ({problem.get('ctx', {}).get('error', 'it cannot be read')})"
        case "value_error":  # a validator of ours, which says it all
            return str(problem["msg"]).removeprefix("Value error, ")
    rule = (
        str(problem["msg"]).replace("should", "must").removeprefix("Input ").removeprefix("String ")
    )
    given = str(problem["input"])
    shown = given if len(given) <= GIVEN else f"{given[:GIVEN]}…"
    return f"{rule[:1].lower()}{rule[1:]}, not {shown!r}"


def _path(problem: Any) -> str:
    if problem["type"] == "json_invalid":
        return ""
    return ".".join(_names(problem))


def _names(problem: Any) -> list[str]:
    """The path without the place of the request that it stands in."""
    place, *names = problem["loc"] or ("",)
    return [str(name) for name in (names if place in _PLACES else problem["loc"])]


def _siblings(path: Sequence[str]) -> list[str]:
    """The fields of a spec that stand beside the last name of ``path``."""
    model: type[BaseModel] | None = Spec
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
