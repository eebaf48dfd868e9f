"""The entry of the processes: what it hands to Celery's own programs."""

from __future__ import annotations

from pathlib import Path

import pytest

from workers import processes
from workers.app import app


def test_flower_is_started_with_a_config_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []
    monkeypatch.setattr(app, "start", started.extend)
    processes.flower(["--port=5555"])
    (config,) = (each.removeprefix("--conf=") for each in started if each.startswith("--conf="))
    assert Path(config).is_file()
    assert started[-1] == "--port=5555"
