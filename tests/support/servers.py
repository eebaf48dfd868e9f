"""The real servers that tests use: an embedded Postgres and Valkey, which tests may kill.

Fixtures (session): ``postgres``, ``valkey``, ``fresh_database``. The servers are restarted on the
same port with the same data, so URLs stay good. Start and kill them from the main thread.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import psycopg
import pytest

from api.stack import ports
from api.stack import postgres as postgres_server
from api.stack import valkey as valkey_server
from api.stack.service import Child, Service
from jobs import database
from tests.support.waiting import wait_until

TEMPLATE = "template_nightshift"

Databases = Callable[[], str]
"""Each call makes a new, migrated, empty database and returns its URL."""


class Server:
    """One server that can be killed and started again at the same URL."""

    def __init__(self, service: Service, url: str) -> None:
        self.url = url
        self._service = service
        self._child: Child | None = None

    @property
    def pid(self) -> int:
        """The main process; it changes with every start."""
        assert self._child is not None, "the server must be running"
        return self._child.pid

    def start(self, *, seconds: float = 120) -> None:
        """Start it and wait until it answers; on one that runs, only wait."""
        wait_until(self._started, seconds=seconds)

    def kill(self) -> None:
        """SIGKILL to the main process, as a crash would; return when it is gone."""
        os.kill(self.pid, signal.SIGKILL)
        assert self._child is not None
        self._child.kill()
        self._child = None

    def stop(self) -> None:
        """End it cleanly; one that does not run stays so."""
        if self._child is not None:
            self._child.stop()
            self._child = None

    def _started(self) -> bool:
        # A new Postgres refuses to start while a backend of the killed one lives on.
        if self._child is None or self._child.ended is not None:
            self._child = Child(self._service)
        return self._child.is_ready()


@pytest.fixture(scope="session")
def server_home() -> Iterator[Path]:
    """A state folder that other users can reach: those of pytest are closed to them."""
    home = Path(tempfile.mkdtemp(prefix="nightshift-test-"))
    home.chmod(0o711)
    yield home
    shutil.rmtree(home)


@pytest.fixture(scope="session")
def postgres(server_home: Path) -> Iterator[Server]:
    """A running Postgres; ``url`` names its database ``nightshift``, which is empty."""
    log = server_home / "postgres.log"
    server = Server(*postgres_server.service(server_home, port=ports.choose(), log=log))
    server.start()
    postgres_server.ensure_database(server.url)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def valkey(server_home: Path) -> Iterator[Server]:
    """A running Valkey."""
    log = server_home / "valkey.log"
    server = Server(*valkey_server.service(server_home, port=ports.choose(), log=log))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def fresh_database(postgres: Server) -> Databases:
    """Make new databases, each a copy of one that was migrated once."""
    sequence = count(1)
    server = postgres.url.rpartition("/")[0]

    def create() -> str:
        number = next(sequence)
        if number == 1:
            _create(postgres.url, TEMPLATE, template="template1")
            database.migrate(f"{server}/{TEMPLATE}")
        name = f"test_{number}"
        _create(postgres.url, name, template=TEMPLATE)
        return f"{server}/{name}"

    return create


def _create(url: str, name: str, *, template: str) -> None:
    with psycopg.connect(postgres_server.maintenance(url), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}".encode())
