"""The files and functions that the pages on the architecture name exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGE = (DOCS / "architecture.md").read_text(encoding="utf-8")
GLOSSARY = (DOCS / "glossary.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
PICTURES = sorted((DOCS / "pictures").glob("*.svg"))
FUNCTION = re.compile(r"\b((?:api|jobs|workers)/[\w/]+\.py)::([\w.]+)")
PATH = re.compile(r"\b((?:api|jobs|workers|tests|docs|deploy|benchmarks)/[\w/]*(?:\.\w+)?)")

DRAWN = "\n".join(picture.read_text(encoding="utf-8") for picture in PICTURES)
FUNCTIONS = sorted(set(FUNCTION.findall(PAGE + GLOSSARY + CONTRIBUTING + DRAWN)))


@pytest.mark.parametrize(("path", "name"), FUNCTIONS, ids="::".join)
def test_a_function_that_is_named_exists(path: str, name: str) -> None:
    assert name in names(ROOT / path)


@pytest.mark.parametrize("path", sorted(set(PATH.findall(PAGE + GLOSSARY + CONTRIBUTING))))
def test_a_path_that_is_named_exists(path: str) -> None:
    assert (ROOT / path).exists()


@pytest.mark.parametrize("path", sorted(set(re.findall(r">([a-z]+/[\w/]+\.py)", DRAWN))))
def test_a_file_that_a_picture_names_exists(path: str) -> None:
    assert (ROOT / path).is_file()


@pytest.mark.parametrize("picture", PICTURES, ids=lambda picture: picture.name)
def test_every_picture_is_well_formed_and_shown(picture: Path) -> None:
    assert ET.parse(picture).getroot().tag.endswith("svg")
    assert f"(pictures/{picture.name})" in PAGE


@pytest.mark.parametrize("heading", re.findall(r"^## Walk: (.*)$", PAGE, re.MULTILINE))
def test_a_walk_names_functions_in_more_than_one_file(heading: str) -> None:
    walk = PAGE.partition(f"## Walk: {heading}")[2].partition("\n## ")[0]
    assert len({path for path, _ in FUNCTION.findall(walk)}) > 5


def test_a_word_of_the_glossary_names_where_its_rule_is_kept() -> None:
    words = [line for line in GLOSSARY.splitlines() if line.startswith("| **")]
    assert len(words) > 50
    assert [line for line in words if not re.search(r"`[\w/]+(\.py|/)`|\]\(", line)] == []


def test_the_words_of_the_glossary_are_in_the_order_of_the_alphabet() -> None:
    words = re.findall(r"^\| \*\*(.*?)\*\*", GLOSSARY, re.MULTILINE)
    assert words == sorted(words, key=str.lower)


def names(path: Path) -> set[str]:
    """The functions, classes and methods of a module."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    body = [node for node in ast.parse(path.read_text("utf-8")).body if isinstance(node, kinds)]
    return {node.name for node in body} | {
        f"{node.name}.{each.name}"
        for node in body
        if isinstance(node, ast.ClassDef)
        for each in node.body
        if isinstance(each, kinds)
    }
