"""The example's own installation: an embedded stack in a folder, and commands as a user gives them.

What is left of an earlier example in that folder is removed first; what is no example's is not.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from api.cli import console, signals, up
from api.cli.failures import Failure
from api.client import Client

MARK = "example.json"
"""In a folder of the example: it may be removed."""

SERVERS = ("DATABASE_URL", "REDIS_URL", "OBJECT_STORE_URL")

LEASE_SECONDS = 10
"""A third of the default: the nights are short, and so is the time until a dead host is noticed."""

WIDTH = 100


class Installation:
    """A stack that runs, with its settings."""

    def __init__(self, folder: Path, stack: Any, variables: dict[str, str]) -> None:
        self.folder = folder
        self._home = folder / "stack"
        self._stack = stack
        self._variables = variables
        info = stack.info(self._home)
        self.database_url: str = info.database_url
        self.client = Client(info.api_url, info.key)

    @property
    def logs(self) -> Path:
        """Where every process writes."""
        return self._home / "logs"

    @property
    def pids(self) -> dict[str, int]:
        """The process of each service."""
        return {each.name: each.pid for each in self._stack.info(self._home).services}

    def kill(self, services: Collection[str]) -> dict[str, int]:
        """SIGKILL to the processes of these services; what was killed."""
        killed = {name: pid for name, pid in self.pids.items() if name in services}
        for pid in killed.values():
            os.kill(pid, signal.SIGKILL)
        return killed

    def run(self, *arguments: str, accepted: Collection[int] = (0,)) -> int:
        """Run a command and show it with its output; its exit code."""
        done = self._run(arguments)
        sys.stdout.write(done.stdout)
        sys.stdout.flush()
        sys.stderr.write(done.stderr)
        if done.returncode not in accepted:
            raise Failure(f"`nightshift {arguments[0]}` failed with exit code {done.returncode}")
        return done.returncode

    def ask(self, *arguments: str) -> Any:
        """Run a command and show it; its JSON, which is not shown."""
        done = self._run((*arguments, "--json"))
        if done.returncode:
            sys.stderr.write(done.stderr)
            raise Failure(f"`nightshift {arguments[0]}` failed with exit code {done.returncode}")
        return json.loads(done.stdout)

    def _run(self, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
        console.line(f"\n{written(arguments)}")
        sys.stdout.flush()
        return subprocess.run(
            [sys.executable, "-m", "api.cli", *arguments],
            env=self._variables | {"NIGHTSHIFT_HOME": str(self._home)},
            capture_output=True,
            text=True,
            check=False,
        )


@contextmanager
def running(folder: Path, *, allow: Path, keep: bool) -> Iterator[Installation]:
    """A new stack in this folder, which ends with the block; ``keep``: unless that went well.

    Jobs may read what arrives, and the folder ``allow``.
    """
    stack = up.stack()
    home, incoming = folder / "stack", folder / "incoming"
    empty(folder, stack)
    incoming.mkdir()
    variables = _variables(folder)
    try:
        found = stack.background(home, allow=[incoming, allow], variables=variables)
        console.line(f"the stack runs: API {found.api_url}, logs {home / 'logs'}")
        yield Installation(folder, stack, variables)
    except KeyboardInterrupt as stopped:
        stack.stop(home, now=True)
        words = f"stopped, and all its processes have ended; the logs are in {home / 'logs'}"
        raise Failure(words, code=signals.code(stopped)) from None
    except BaseException:
        stack.stop(home, now=True)
        raise
    if not keep:
        stack.stop(home)


def empty(folder: Path, stack: Any) -> None:
    """Make the folder, without what an earlier example left there. Raises ``Failure``."""
    if folder.exists() and any(folder.iterdir()):
        if not (folder / MARK).is_file():
            raise Failure(f"{folder} is not empty and not of an earlier run: name another folder")
        stack.remove(folder / "stack")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARK).write_text('{"made by": "nightshift nightly"}\n', encoding="utf-8")


def _variables(folder: Path) -> dict[str, str]:
    """The environment of the stack: no setting and no server of another installation."""
    others = {
        name: value
        for name, value in os.environ.items()
        if name not in SERVERS and not name.startswith("NIGHTSHIFT_")
    }
    return others | {
        "NIGHTSHIFT_SQL_SOURCES": str(folder / "sources.json"),
        "NIGHTSHIFT_WEBHOOK_NETWORKS": '["127.0.0.1/32"]',
        "NIGHTSHIFT_LEASE_SECONDS": str(LEASE_SECONDS),
    }


def written(arguments: Sequence[str]) -> str:
    """A command as a person writes it, on as many lines as it needs."""
    lines = ["$ nightshift"]
    for words in _kept_together(arguments):
        if lines[-1].strip() and len(lines[-1]) + len(words) > WIDTH:
            lines[-1] += " \\"
            lines.append("     ")
        lines[-1] += f" {words}"
    return "\n".join(lines)


def _kept_together(arguments: Sequence[str]) -> list[str]:
    """Each option with its value, and every other argument alone."""
    found: list[str] = []
    for word in map(shlex.quote, arguments):
        is_value = not word.startswith("-") and found and found[-1].startswith("-")
        if is_value and " " not in found[-1]:
            found[-1] += f" {word}"
        else:
            found.append(word)
    return found
