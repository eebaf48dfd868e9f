"""A corpus that any machine has: the documentation strings of the installed Python packages."""

from __future__ import annotations

import ast
import inspect
import itertools
import json
import random
import sysconfig
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

LONG_ENOUGH = 40
"""Characters; shorter documentation strings say little."""

SEED = 7


TOPICS = {
    "neural networks and training": ("torch", "transformers", "accelerate", "peft"),
    "arrays and statistics": ("numpy", "scipy", "sklearn", "pyarrow"),
    "web servers and network requests": (
        *("tornado", "starlette", "fastapi", "httpx", "httpcore", "uvicorn", "anyio"),
        *("requests", "urllib3"),
    ),
    "databases and SQL": ("sqlalchemy", "psycopg", "psycopg_pool", "alembic", "redis", "valkey"),
    "task queues and messages": ("celery", "kombu", "billiard", "amqp", "flower", "vine"),
    "symbolic mathematics": ("sympy", "mpmath"),
    "graphs and their algorithms": ("networkx",),
    "terminals and command lines": ("rich", "click", "typer", "prompt_toolkit", "pygments"),
}
"""What the documentation of some packages is about: labels that come for free."""


def write(path: Path, *, rows: int | None) -> int:
    """Write ``rows`` of them (all, if ``None``) as JSONL with ``id`` and ``text``; their number.

    Which ones, and in which order, is drawn with a fixed seed, so that the same packages give the
    same corpus.
    """
    chosen = itertools.islice(_drawn(), rows)
    return _write(path, ({"id": name, "text": text} for name, text in chosen))


def write_labelled(path: Path, *, rows: int, behind: int) -> int:
    """Write up to ``rows`` others, drawn after the first ``behind``, labelled by package topic.

    Topics are balanced as far as the packages allow. Returns the number of rows.
    """
    return _write(path, _balanced(behind=behind, most=rows // len(TOPICS)))


def _drawn(wanted: Callable[[str], bool] = lambda _: True) -> Iterator[tuple[str, str]]:
    """Qualified names with their documentation, in the order of the draw.

    A module that is not wanted when its turn comes is passed over unread.
    """
    modules = sorted(_modules())
    random.Random(SEED).shuffle(modules)  # noqa: S311 - a sample, not a secret
    return _documented(modules, wanted=wanted)


def topic(name: str) -> str | None:
    """The topic of a string by its ``id``; ``None`` where its package has none."""
    package = name.partition(":")[0].partition(".")[0]
    return next((topic for topic, packages in TOPICS.items() if package in packages), None)


def _balanced(*, behind: int, most: int) -> Iterator[dict[str, str]]:
    counts = dict.fromkeys(TOPICS, 0)
    place = 0

    def wanted(module: str) -> bool:
        # Reading is what takes long, and some topics are rare: only what they lack is read.
        return place < behind or counts.get(topic(module) or "", most) < most

    for place, (name, text) in enumerate(_drawn(wanted)):
        label = topic(name)
        if place < behind or label is None or counts[label] == most:
            continue
        counts[label] += 1
        yield {"id": name, "text": text, "label": label}
        if sum(counts.values()) == most * len(TOPICS):
            return


def _write(path: Path, rows: Iterable[dict[str, str]]) -> int:
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
    return count


def _modules() -> Iterator[Path]:
    root = Path(sysconfig.get_path("purelib"))
    return (path for path in root.rglob("*.py") if "test" not in path.stem)


def _documented(modules: list[Path], *, wanted: Callable[[str], bool]) -> Iterator[tuple[str, str]]:
    """Qualified names with their documentation, each text once."""
    root = Path(sysconfig.get_path("purelib"))
    seen: set[int] = set()
    for path in modules:
        module = ".".join(path.relative_to(root).with_suffix("").parts)
        for name, text in _docstrings(path) if wanted(module) else ():
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
