"""A ledger on a database of its own for each file of tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.jobs.ledger.building import Ledger
from tests.support.servers import Databases


@pytest.fixture(scope="module")
def ledger(fresh_database: Databases) -> Iterator[Ledger]:
    ledger = Ledger(fresh_database())
    yield ledger
    ledger.engine.dispose()
