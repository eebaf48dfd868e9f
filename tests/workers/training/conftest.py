"""One fork server for all tests of this room."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.workers.training.fork_server import ForkServer


@pytest.fixture(scope="session")
def fork_server() -> Iterator[ForkServer]:
    """A process that forks training processes.

    One thread each: bits depend on the number of threads, and a launcher sets another one.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        server = ForkServer()
        yield server
        server.close()
