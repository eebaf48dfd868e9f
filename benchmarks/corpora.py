"""Texts for benchmarks: news as it comes, and the same words cut to lengths of every size."""

from __future__ import annotations

import csv
import random
from collections.abc import Sequence
from pathlib import Path


def news(corpus: Path, *, rows: int) -> tuple[list[str], list[str]]:
    """Texts and labels of so many rows of a CSV file with columns ``text`` and ``label``, drawn."""
    with corpus.open(newline="") as file:
        found = [(row["text"], row["label"]) for row in csv.DictReader(file)]
    chosen = random.Random(0).sample(found, k=min(rows, len(found)))
    return [text for text, _ in chosen], [label for _, label in chosen]


def mixed(texts: Sequence[str], *, rows: int, shortest: int = 3, longest: int = 400) -> list[str]:
    """So many texts of the given ones' words, their numbers of words even on a logarithmic scale.

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
