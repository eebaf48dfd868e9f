"""Recipes that are written in files: a spec as JSON, an Accelerate config as YAML or JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from api.cli import console
from api.cli.failures import Failure
from jobs.decisions import accelerate_entries


def spec(path: Path | None, *, kind: str) -> dict[str, Any]:
    """The spec in a file, to be overruled by options; empty without one. Raises ``Failure``."""
    found = {} if path is None else _mapping(path)
    if found.get("kind", kind) != kind:
        raise Failure(f"{path} holds a spec of kind {found['kind']!r}, and this makes a {kind!r}")
    return {**found, "kind": kind}


def whole(path: Path) -> dict[str, Any]:
    """The spec in a file, of any kind. Raises ``Failure``."""
    return _mapping(path)


def accelerate(path: Path | None) -> tuple[dict[str, Any] | None, str | None]:
    """The entries of an Accelerate config that a recipe can have, and its mixed precision.

    Says on stderr which entries it leaves out.
    """
    if path is None:
        return None, None
    found = _mapping(path)
    precision = found.pop("mixed_precision", None)
    taken, dropped = accelerate_entries.without_refused(found)
    if dropped:
        console.note(f"not taken from {path}: {', '.join(dropped)}")
    return taken, precision


def overlaid(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """``below`` with what ``above`` has instead, level by level; ``None`` above says nothing."""
    found = dict(below)
    for name, value in above.items():
        if isinstance(value, Mapping):
            under = found.get(name)
            found[name] = overlaid(under if isinstance(under, Mapping) else {}, value)
        elif value is not None:
            found[name] = value
    return found


def _mapping(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise Failure(f"there is no file {path}")
    try:
        text = path.read_text(encoding="utf-8")
        found = yaml.safe_load(text) if path.suffix in {".yaml", ".yml"} else json.loads(text)
    except (ValueError, yaml.YAMLError) as error:
        problem = " ".join(str(error).split())
        raise Failure(f"{path} must be JSON, or YAML if its name says so ({problem})") from error
    if not isinstance(found, dict):
        raise Failure(f"{path} must hold an object with named fields")
    return found
