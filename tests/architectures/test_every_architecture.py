"""Promise P6 for every architecture: answers are the library's for the row alone, in any batch."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.architectures import table
from tests.support import tiny_architectures
from tests.support.tiny_architectures import AUTOS

SAMPLE = [
    ("classify", "bert"),
    ("classify", "big_bird"),
    ("classify", "gpt2"),
    ("embed", "fnet"),
    ("embed", "mpnet"),
    ("generate", "llama"),
    ("generate", "mamba"),
    ("text2text", "bart"),
    ("text2text", "t5"),
]


@pytest.mark.parametrize(("kind", "model_type"), SAMPLE)
def test_some_architectures_answer_as_for_each_row_alone(
    tmp_path: Path, kind: str, model_type: str
) -> None:
    found = tiny_architectures.tried(kind, model_type, tmp_path / "model")
    assert found.outcome == "right", found


@pytest.mark.long
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("kind", AUTOS)
def test_no_architecture_answers_wrongly(kind: str) -> None:
    found = list(table.outcomes([kind]))
    assert [each for each in found if each.outcome == "wrong"] == []
    assert any(each.outcome == "right" for each in found)


@pytest.mark.parametrize("kind", AUTOS)
def test_the_page_has_every_architecture_once_and_no_wrong_answer(kind: str) -> None:
    text = table.PAGE.read_text(encoding="utf-8").split(f"## {kind}\n")[1].split("\n## ")[0]
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| `")]
    assert [row[0].strip("| `") for row in rows] == tiny_architectures.architectures(kind)
    assert {row[1] for row in rows} <= {"right", "refused", "not built"}
