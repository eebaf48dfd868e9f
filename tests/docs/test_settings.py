from __future__ import annotations

from pathlib import Path

import pytest

from jobs.settings import Settings

PAGE = (Path(__file__).parents[2] / "docs" / "settings.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", Settings.model_fields)
def test_a_setting_is_on_the_page_with_its_meaning(name: str) -> None:
    meaning = Settings.model_fields[name].description
    assert meaning
    rows = [line for line in PAGE.splitlines() if f"`NIGHTSHIFT_{name.upper()}`" in line]
    assert len(rows) == 1
    assert rows[0].endswith(f"| {meaning} |")
