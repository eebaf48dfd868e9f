"""The demo's corpora: documentation strings of the packages that are installed here."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from api.cli import docstring_corpus
from api.cli.docstring_corpus import TOPICS

CORPUS_ROWS = 50
LABELLED_ROWS = 80


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.slow
def test_labelled_strings_are_of_each_topic_equally_many_and_none_is_in_the_corpus(
    tmp_path: Path,
) -> None:
    corpus, labelled = tmp_path / "corpus.jsonl", tmp_path / "labelled.jsonl"
    assert docstring_corpus.write(corpus, rows=CORPUS_ROWS) == CORPUS_ROWS
    rows = docstring_corpus.write_labelled(labelled, rows=LABELLED_ROWS, behind=CORPUS_ROWS)
    drawn, others = _rows(corpus), _rows(labelled)
    assert rows == len(others) == LABELLED_ROWS
    assert Counter(row["label"] for row in others) == dict.fromkeys(TOPICS, LABELLED_ROWS // 8)
    assert all(row["label"] == docstring_corpus.topic(row["id"]) for row in others)
    texts = [row["text"] for row in drawn + others]
    assert len(set(texts)) == len(texts)


@pytest.mark.slow
def test_the_same_packages_give_the_same_corpus(tmp_path: Path) -> None:
    once, again = tmp_path / "once.jsonl", tmp_path / "again.jsonl"
    docstring_corpus.write(once, rows=CORPUS_ROWS)
    docstring_corpus.write(again, rows=CORPUS_ROWS)
    assert once.read_bytes() == again.read_bytes()


def test_a_string_has_the_topic_of_its_package() -> None:
    assert docstring_corpus.topic("numpy.linalg:norm") == "arrays and statistics"
    assert docstring_corpus.topic("networkx:Graph") == "graphs and their algorithms"
    assert docstring_corpus.topic("numpydoc.core:norm") is None
