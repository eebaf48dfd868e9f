"""A fixture that makes installations; a test says only in what its own differs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.installation import Installation
from tests.support.servers import Databases, Server

NewInstallation = Callable[..., Installation]
"""Takes the model of its jobs, a folder or what makes one there, and settings."""


@pytest.fixture(scope="session")
def new_installation(
    tmp_path_factory: pytest.TempPathFactory, fresh_database: Databases, valkey: Server
) -> NewInstallation:
    """Make an installation with a database and a folder of its own."""

    def make(model: Path | Callable[[Path], Path], **settings: Any) -> Installation:
        valkey.start()  # an earlier test may have stopped it
        home = tmp_path_factory.mktemp("installation")
        return Installation(
            database_url=fresh_database(),
            redis_url=valkey.url,
            home=home,
            model=model if isinstance(model, Path) else model(home / "model"),
            **settings,
        )

    return make
