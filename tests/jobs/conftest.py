"""Fixtures of tests that need a store and a ledger."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from jobs import objects
from jobs.ledger import chunk_folds
from jobs.objects import ObjectStore
from jobs.tables import Removal
from tests.jobs.ledger.building import Ledger


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return objects.connect((tmp_path / "objects").as_uri())


@pytest.fixture
def small_folds(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two chunks a fold; nothing is left to be folded by the next test."""
    monkeypatch.setattr(chunk_folds, "CHUNKS", 2)
    yield
    with ledger.sessions.begin() as session:
        session.execute(sa.delete(Removal))
