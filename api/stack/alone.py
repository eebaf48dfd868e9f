"""The embedded Postgres without the rest of the stack, for a restore into a state folder."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from api.stack import lock, logs, ports, postgres, up
from api.stack.failure import StackFailure
from api.stack.service import Child
from jobs.errors import Conflict

SECONDS = 120.0
"""For so long it may start."""


@contextmanager
def postgres_of(home: Path) -> Iterator[tuple[str, str]]:
    """Run it inside this block; the URLs of its database and of the folder of objects.

    Raises ``Conflict`` if a stack runs on the state folder, ``StackFailure`` if it does not start.
    """
    home = up.prepared(home)
    with lock.hold(home) as ours:
        if not ours:
            raise Conflict(
                f"a stack runs on {home}: stop it with `nightshift down`", code="stack_runs"
            )
        service, url = postgres.service(home, port=ports.choose(), log=logs.path(home, "postgres"))
        child = Child(service)
        try:
            _wait(child)
            postgres.ensure_database(url)
            yield url, up.objects_of(home)
        finally:
            child.stop()


def _wait(child: Child) -> None:
    while not child.is_ready():
        if child.ended is not None or child.age > SECONDS:
            tail = logs.tail(child.service.log)
            raise StackFailure(f"Postgres does not start; the end of its log:\n{tail}")
        time.sleep(0.1)
