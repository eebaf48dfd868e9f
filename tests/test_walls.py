"""SQL stands in the rooms that own it: statements and reads of the ledger's tables nowhere else."""

from __future__ import annotations

import ast
import builtins
import graphlib
import tomllib
from collections.abc import Callable, Container, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SQL_ROOMS = ("jobs/ledger", "jobs/lookups", "jobs/queries", "jobs/tables", "jobs/migrations")
STATEMENTS = {"select", "insert", "update", "delete", "text", "exists"}
SESSION_CALLS = {
    *("add", "add_all", "delete", "execute", "get", "get_one", "merge", "query", "refresh"),
    *("scalar", "scalars", "stream"),
}
"""What a `Session` does to rows. Committing, closing and the like may stand anywhere."""

EXCEPTIONS = {"jobs/database/__init__.py": {"text"}}  # the lock under which one process migrates


def sql_in(source: str) -> Iterator[tuple[int, str]]:
    """The line and the name of each statement of SQLAlchemy and each call on a session."""
    tree = ast.parse(source)
    modules, statements = _imported(tree)
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id=owner), attr=name) if (
                owner in modules and name in STATEMENTS
            ) or (owner in {"session", "s"} and name in SESSION_CALLS):
                yield node.lineno, name
            case ast.Name(id=name) if name in statements:
                yield node.lineno, name


def _imported(tree: ast.AST) -> tuple[set[str], set[str]]:
    """Names of SQLAlchemy's modules, and of its statements, in a file."""
    modules, statements = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {a.asname or a.name for a in node.names if a.name.startswith("sqlalchemy")}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sqlalchemy"):
            statements |= {a.asname or a.name for a in node.names if a.name in STATEMENTS}
            modules |= {a.asname or a.name for a in node.names if a.name.islower()} - statements
    return modules, statements


def test_sql_stands_only_in_its_rooms() -> None:
    found = [
        f"{path}:{line}: {name}"
        for folder in ("api", "deploy", "jobs", "workers")
        for path in (file.relative_to(ROOT).as_posix() for file in (ROOT / folder).rglob("*.py"))
        if not path.startswith(SQL_ROOMS)
        for line, name in sql_in((ROOT / path).read_text())
        if name not in EXCEPTIONS.get(path, set())
    ]
    assert not found


@pytest.mark.parametrize(
    "source",
    [
        "import sqlalchemy as sa\nsa.select(1)",
        "import sqlalchemy\nsqlalchemy.delete(Job)",
        "from sqlalchemy import update as change\nchange(Job)",
        "from sqlalchemy.dialects.postgresql import insert\ninsert(Job)",
        "from sqlalchemy.dialects import postgresql\npostgresql.insert(Job)",
        "with sessions.begin() as session:\n    session.get_one(Job, 1)",
        "database.patiently(sessions, lambda session: session.scalar(query), seconds=1)",
    ],
)
def test_the_check_sees_sql(source: str) -> None:
    assert list(sql_in(source))


def test_the_check_sees_no_sql_in_the_like_of_it() -> None:
    assert not list(sql_in("import pyarrow as pa\nsession = {}\ntable.select(1)\nset.update()"))


def test_the_contract_on_torch_names_every_other_module_of_workers() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (named,) = (
        set(contract["source_modules"])
        for contract in contracts["contracts"]
        if contract["name"].startswith("torch only in the rooms of")
    )
    modules = {
        f"workers.{path.stem}"
        for path in (ROOT / "workers").iterdir()
        if path.suffix == ".py" or (path / "__init__.py").is_file()
    }
    rooms = {"workers.architectures", "workers.inference", "workers.training"}
    assert named == modules - rooms - {"workers.__init__"}


def _module(module: str) -> str:
    return module


def _room(module: str) -> str:
    """A module or package right under ``api``, ``jobs`` or ``workers``.

    ``__main__`` is no part of its room: nothing imports it.
    """
    return module if module.endswith(".__main__") else ".".join(module.split(".")[:2])


@pytest.mark.parametrize("place", [_module, _room])
def test_nothing_imports_itself_in_a_circle(place: Callable[[str], str]) -> None:
    """Imports inside of functions count."""
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for folder in ("api", "jobs", "workers")
        for path in (ROOT / folder).rglob("*.py")
    }
    imports = {place(module): set[str]() for module in modules}
    for module, path in modules.items():
        imported = {place(name) for name in _imports(path, modules) if name in modules}
        imports[place(module)] |= imported - {place(module)}
    graphlib.TopologicalSorter(imports).prepare()  # raises CycleError, which names the circle


def _imports(path: Path, modules: Container[str]) -> Iterator[str]:
    """What a file imports: of ``from a import b`` the module ``a.b``, or else ``a``."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for name in (f"{node.module}.{alias.name}" for alias in node.names):
                yield name if name in modules else node.module


def test_every_exception_is_in_the_tree_of_errors() -> None:
    """A class of ours has a base in ``jobs.errors``; a built-in one may stand beside it.

    ``Terminated`` is an interrupt, which ``except Exception`` must not catch.
    """
    ours = {"NightshiftError", "ControlFlow"}
    lonely: dict[str, str] = {}
    for path in (
        path for folder in ("api", "jobs", "workers") for path in (ROOT / folder).rglob("*.py")
    ):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                bases = {base.id for base in node.bases if isinstance(base, ast.Name)}
                if any(_is_exception(base) for base in bases) and not bases & ours:
                    lonely[node.name] = path.relative_to(ROOT).as_posix()
    assert lonely == dict.fromkeys(sorted(ours), "jobs/errors.py") | dict.fromkeys(
        ("ObjectMissing", "StorageRefused"), "jobs/errors.py"
    ) | {"Terminated": "api/cli/signals.py"}


def _is_exception(name: str) -> bool:
    found = getattr(builtins, name, None)
    return isinstance(found, type) and issubclass(found, BaseException)
