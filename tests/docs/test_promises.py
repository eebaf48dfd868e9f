from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "promises.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py::\w+)`", PAGE)))


def test_all_thirteen_promises_are_there_in_order() -> None:
    assert re.findall(r"^## (P\d+) ", PAGE, re.MULTILINE) == [f"P{n}" for n in range(1, 14)]


@pytest.mark.parametrize("name", NAMED)
def test_a_test_that_the_page_names_exists(name: str) -> None:
    path, _, function = name.partition("::")
    assert function in functions(ROOT / path)


def test_a_promise_names_a_test_or_says_that_it_is_not_covered() -> None:
    promises = re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]
    assert all("::test_" in promise or "Not covered:" in promise for promise in promises)


def functions(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in tree.body if isinstance(node, kinds)}
