"""Phrases that must not come back, in pages, docstrings, comments and messages."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PHRASES = {
    r"so (?:many|much)": "n rows, this many, the count",
    r"one in so": "every nth",
    r"to be had": "available, free",
    r"of old(?! \w)": "earlier, old",
    r"anew": "again",
    r"(?:tells?|told|telling) of": "report, describe",
    r"comes? to have": "get, have",
    r"(?:what is )?said of": "name the thing",
    r"what is said": "name the thing",
    r"whoever": "the client, the caller, anyone who",
    r"nobody": "no one, no process, name them",
    r"what (?:becomes?|became|came|comes) of": "the result, how it ends",
    r"(?:makes?|made) of it": "turn into, convert",
    r"(?:is|are) to be": "must be, will be",
    r"at the door": "before it is accepted",
    r"of them that": "name them",
    r"some (?:hundred|thousand|dozen)": "about a hundred, a few hundred",
    r"says? (?:numbers|logits|scores|labels|tokens|a number)": "output",
    r"if need be": "if necessary",
    r"in vain": "useless, wasted",
    r"to and fro": "back and forth",
    r"hangs? on(?! to)": "depends on",
    r"(?:would|were) they": "plain word order",
}
"""What must not be written, and what stands in its place."""

EXEMPT = {
    Path(__file__),  # the list itself
    ROOT / "api" / "stack" / "postgres.py",  # nobody is the name of a Unix account there
}

FILES = sorted(
    path
    for room in ("api", "benchmarks", "deploy", "docs", "jobs", "tests", "workers")
    for path in (ROOT / room).rglob("*")
    if path.suffix in {".md", ".py"} and path not in EXEMPT
) + sorted(ROOT.glob("*.md"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_phrase_does_not_come_back(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    prose = python_prose(text) if path.suffix == ".py" else [markdown_prose(text)]
    found = [hit for each in prose for hit in phrases(each)]
    assert found == []


def test_a_phrase_is_found_in_comments_docstrings_and_messages() -> None:
    code = '"""Read anew."""\nanew = 1  # nobody\nraise ValueError(f"so many rows: {anew}")\n'
    assert [hit for each in python_prose(code) for hit in phrases(each)] == [
        "anew: again",
        "so many: n rows, this many, the count",
        "nobody: no one, no process, name them",
    ]


def test_code_on_a_page_is_no_prose() -> None:
    page = "Run `anew` or\n```console\n$ anew\n```\nand read it\nanew."
    assert phrases(markdown_prose(page)) == ["anew: again"]


def phrases(text: str) -> list[str]:
    """Each phrase of the list that the text has, with what to write in its place."""
    flat = re.sub(r"\s+", " ", text)
    return [
        f"{hit[0]}: {instead}"
        for phrase, instead in PHRASES.items()
        for hit in re.finditer(rf"\b(?:{phrase})\b", flat, re.IGNORECASE)
    ]


def markdown_prose(text: str) -> str:
    """A page without its code."""
    return _without_code(re.sub(r"```.*?```", " ", text, flags=re.DOTALL))


def python_prose(text: str) -> Iterator[str]:
    """Every string of several words, then the comments."""
    nodes = ast.walk(ast.parse(text))
    strings = (node.value for node in nodes if isinstance(node, ast.Constant))
    yield from (_without_code(each) for each in strings if isinstance(each, str) and " " in each)
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    comments = (token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT)
    yield _without_code(" ".join(comments))


def _without_code(text: str) -> str:
    return re.sub(r"``[^`]+``|`[^`]+`", " ", text)
