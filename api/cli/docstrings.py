"""A corpus that any machine has: the documentation strings of the installed Python packages."""

from __future__ import annotations

import ast
import inspect
import json
import random
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

LONG_ENOUGH = 40
"""Characters; shorter documentation strings say little."""

SEED = 7


def write(path: Path, *, rows: int | None) -> int:
    """Write ``rows`` of them (all, if ``None``) as JSONL with ``id`` and ``text``; their number.

    Which ones, and in which order, is drawn with a fixed seed, so that the same packages give the
    same corpus.
    """
    modules = sorted(_modules())
    random.Random(SEED).shuffle(modules)  # noqa: S311 - a sample, not a secret
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for name, text in _documented(modules):
            file.write(json.dumps({"id": name, "text": text}, ensure_ascii=False) + "\n")
            count += 1
            if count == rows:
                break
    return count


def _modules() -> Iterator[Path]:
    root = Path(sysconfig.get_path("purelib"))
    return (path for path in root.rglob("*.py") if "test" not in path.stem)


def _documented(modules: list[Path]) -> Iterator[tuple[str, str]]:
    """Qualified names with their documentation, each text once."""
    root = Path(sysconfig.get_path("purelib"))
    seen: set[int] = set()
    for path in modules:
        module = ".".join(path.relative_to(root).with_suffix("").parts)
        for name, text in _docstrings(path):
            if len(text) >= LONG_ENOUGH and hash(text) not in seen:
                seen.add(hash(text))
                yield f"{module}:{name}", text


def _docstrings(path: Path) -> Iterator[tuple[str, str]]:
    try:
        with warnings.catch_warnings(action="ignore"):
            tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):  # templates and files for other versions of Python
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            text = ast.get_docstring(node)
            if text:
                yield node.name, inspect.cleandoc(text)
