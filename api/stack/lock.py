"""One stack per state folder: an exclusive lock on ``HOME/lock``, which dies with its holder."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def hold(home: Path) -> Iterator[bool]:
    """Hold the lock inside this block; yields ``False`` when another process holds it."""
    with (home / "lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def is_held(home: Path) -> bool:
    """Whether a stack runs on this state folder."""
    if not (home / "lock").exists():
        return False
    with hold(home) as ours:
        return not ours
