"""Receipts: on which message a worker was acting when it died, for the next worker of its machine.

A receipt is a file that its worker holds a lock on. It is written before the worker acts on a
message and emptied afterwards. It outlives the process, not the machine's folder for temporary
files. Writing one takes some ten microseconds.
"""

from __future__ import annotations

import fcntl
import json
import os
import uuid
from pathlib import Path

import structlog

from jobs.ledger.refused_messages import Death

log = structlog.get_logger()


class Receipts:
    """The receipt of this process, and those that dead ones left behind."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._folder.mkdir(mode=0o700, exist_ok=True)
        self.left_behind = [death for path in self._folder.iterdir() for death in _collect(path)]
        """What workers were acting on that are dead; they are told once."""
        self._file = self._create()

    def write(self, death: Death) -> None:
        """Note what would be to blame if this process died now."""
        self.clear()
        os.pwrite(self._file, json.dumps(vars(death)).encode(), 0)

    def clear(self) -> None:
        """The message was acted on, and this process is alive."""
        os.ftruncate(self._file, 0)

    def _create(self) -> int:
        """Under a name that ``_collect`` passes over until it is locked."""
        name = uuid.uuid4().hex
        draft = self._folder / f".{name}"
        file = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        fcntl.flock(file, fcntl.LOCK_EX)
        draft.rename(self._folder / name)
        return file


def _collect(path: Path) -> list[Death]:
    """What a receipt says whose process is dead; it is removed."""
    if path.name.startswith("."):
        return []
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            text = file.read()
            path.unlink(missing_ok=True)
        return [Death(**json.loads(text))] if text else []
    except BlockingIOError:
        return []
    except (OSError, ValueError, TypeError) as error:
        log.warning("a receipt cannot be read", path=str(path), error=str(error))
        return []
