"""``pytest --unit``: the tests that need neither a server nor torch, for `make unit`.

A test file whose imports lead to torch is not even imported: torch alone takes longer to load
than most of these tests to run. Of the other files, tests that use the fixture of a server or are
marked ``slow``, ``alone`` or ``long`` are left out. Every other test is a unit test, unmarked.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = frozenset({"torch", "transformers", "accelerate", "peft"})
SERVERS = frozenset({"postgres", "valkey", "fresh_database", "s3"})
EXCLUDED_MARKS = ("slow", "alone", "long")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--unit", action="store_true", help="only tests without servers and torch")


def pytest_configure(config: pytest.Config) -> None:
    if config.option.unit:
        sys.meta_path.insert(0, NoTorch())


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out files, and folders by their ``conftest.py``, that lead to torch."""
    if not config.option.unit:
        return None
    is_folder = collection_path.is_dir()
    path = collection_path / "conftest.py" if is_folder else collection_path
    if path.suffix == ".py" and path.is_file() and leads_to_torch(path):
        return True
    return None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.option.unit:
        return
    left_out = [item for item in items if not is_unit(item)]
    items[:] = [item for item in items if is_unit(item)]
    config.hook.pytest_deselected(items=left_out)


def is_unit(item: pytest.Item) -> bool:
    if any(item.get_closest_marker(name) for name in EXCLUDED_MARKS):
        return False
    if not isinstance(item, pytest.Function):
        return True
    parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
    return not any(server in parameters for server in SERVERS) and SERVERS.isdisjoint(
        item.fixturenames
    )


class NoTorch:
    """Fails the unit test that imports torch inside a function, where no file's imports show it."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        del path, target
        if name in HEAVY:
            raise AssertionError(f"a unit test must not import {name}: mark the test as slow")
        return None


def leads_to_torch(path: Path) -> bool:
    """Whether importing this file imports torch or what needs it."""
    seen: set[Path] = set()
    waiting = [path]
    while waiting:
        imports = imported_modules(waiting.pop())
        if not HEAVY.isdisjoint(imports):
            return True
        new = {file for name in imports if (file := source(name))} - seen
        seen |= new
        waiting += new
    return False


@cache
def imported_modules(path: Path) -> frozenset[str]:
    """Modules that are imported when this one is, their packages with them."""
    return frozenset(
        parent
        for node in _statements(ast.parse(path.read_bytes()).body)
        for name in _names(node)
        for parent in _with_packages(name)
    )


@cache
def source(name: str) -> Path | None:
    """The file of a module of ours."""
    place = ROOT.joinpath(*name.split("."))
    files = (place / "__init__.py", place.with_suffix(".py"))
    return next((file for file in files if file.is_file()), None)


def _statements(body: Sequence[ast.stmt]) -> Iterator[ast.Import | ast.ImportFrom]:
    """Import statements that run with the module: those in functions do not."""
    for node in body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If | ast.Try | ast.With):
            yield from _statements(node.body)


def _names(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif node.module is not None:
        yield node.module
        yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _with_packages(name: str) -> Iterator[str]:
    parts = name.split(".")
    return (".".join(parts[:length]) for length in range(1, len(parts) + 1))
