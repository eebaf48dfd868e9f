"""The nursery, one for all tests of this room."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.workers.training.nursery import Nursery


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """A process that forks training processes.

    One thread each: bits depend on their number, and a launcher gives its processes another.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        made = Nursery()
        yield made
        made.close()
