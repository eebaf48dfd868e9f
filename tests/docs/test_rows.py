from __future__ import annotations

from pathlib import Path

import pytest

from jobs.formats import CORPUS_ENDINGS
from jobs.kinds import CorpusFormat
from jobs.row_codes import RowCode

PAGE = (Path(__file__).parents[2] / "docs" / "rows.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("code", RowCode)
def test_the_page_on_rows_explains_every_code(code: RowCode) -> None:
    assert f"\n| `{code}` | " in PAGE


@pytest.mark.parametrize("kind", CorpusFormat)
def test_the_page_on_rows_explains_every_format(kind: CorpusFormat) -> None:
    assert f"\n| `{kind}` | " in PAGE


@pytest.mark.parametrize("ending", CORPUS_ENDINGS)
def test_the_page_on_rows_names_every_ending(ending: str) -> None:
    assert f"`{ending}`" in PAGE
