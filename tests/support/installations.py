"""A fixture that makes installations; a test says only in what its own differs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.installation import Installation
from tests.support.servers import Databases, Server

NewInstallation = Callable[..., Installation]
"""Its arguments are settings, and ``model``: the model of its jobs."""


@pytest.fixture(scope="session")
def new_installation(
    tmp_path_factory: pytest.TempPathFactory, fresh_database: Databases, valkey: Server
) -> NewInstallation:
    """Make an installation with a database and a folder of its own, and a tiny classifier."""

    def make(*, model: Path | None = None, **settings: Any) -> Installation:
        valkey.start()  # an earlier test may have stopped it
        home = tmp_path_factory.mktemp("installation")
        return Installation(
            database_url=fresh_database(),
            redis_url=valkey.url,
            home=home,
            model=model or _classifier(home / "model"),
            **settings,
        )

    return make


def _classifier(folder: Path) -> Path:
    from tests.support.tiny_models import tiny_classifier  # noqa: PLC0415 - it imports torch

    return tiny_classifier(folder)
