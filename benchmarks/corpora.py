"""Texts for benchmarks: news, and texts of every length from the same words."""

from __future__ import annotations

import csv
import random
from collections.abc import Sequence
from pathlib import Path


def news(corpus: Path, *, rows: int) -> tuple[list[str], list[str]]:
    """Texts and labels of random rows of a CSV file with columns ``text`` and ``label``."""
    with corpus.open(newline="") as file:
        labelled = [(row["text"], row["label"]) for row in csv.DictReader(file)]
    chosen = random.Random(0).sample(labelled, k=min(rows, len(labelled)))
    return [text for text, _ in chosen], [label for _, label in chosen]


def mixed(texts: Sequence[str], *, rows: int, shortest: int = 3, longest: int = 400) -> list[str]:
    """Texts from the words of the given ones, their lengths uniform on a logarithmic scale.

    English of this kind has about five tokens in four words: 5 to 512 tokens.
    """
    chance = random.Random(0)
    words = " ".join(texts).split()
    made = []
    for _ in range(rows):
        size = round(shortest * (longest / shortest) ** chance.random())
        begin = chance.randrange(max(1, len(words) - size))
        made.append(" ".join(words[begin : begin + size]))
    return made
