"""The nursery, one for all tests of this room."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.training.nursery import Nursery


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """A process that forks training processes."""
    made = Nursery()
    yield made
    made.close()
