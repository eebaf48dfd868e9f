"""Training processes that start at once: forked from one that has the libraries loaded already.

Importing torch and transformers takes most of a short run. The nursery imports them once; each
child is a real process of its own, with its own environment, which can be killed. What a launcher
would set is set here; the launchers themselves have tests of their own.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LAZY = (
    "peft",
    "torch.utils.tensorboard",
    "torch.distributed",
    "transformers.models.bert.modeling_bert",
    "transformers.models.gpt2.modeling_gpt2",
    "transformers.models.t5.modeling_t5",
)
"""What the program imports late."""


class Nursery:
    """The process that forks."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.workers.training.nursery"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def start(self, run: Path, *, log: Path, environment: dict[str, str]) -> Child:
        asked = {"run": str(run), "log": str(log), "environment": environment}
        return Child(self, pid=self.ask(asked))

    def ask(self, what: dict[str, Any]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


@dataclass
class Child:
    """A training process."""

    nursery: Nursery
    pid: int
    status: int | None = None

    def poll(self) -> int | None:
        """The exit status, negative for a signal; ``None`` while it runs."""
        if self.status is None:
            self.status = self.nursery.ask({"poll": self.pid})
        return self.status

    def wait(self, *, seconds: float = 240) -> int:
        end = time.monotonic() + seconds
        while (status := self.poll()) is None:
            if time.monotonic() > end:
                self.kill()
                raise AssertionError("the training process did not end")
            time.sleep(0.01)
        return status

    def terminate(self) -> None:
        os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
            self.wait()


def _serve() -> None:
    import importlib  # noqa: PLC0415

    from workers.training import train  # noqa: PLC0415

    for name in LAZY:
        importlib.import_module(name)
    for line in sys.stdin:
        asked = json.loads(line)
        answer = _poll(asked["poll"]) if "poll" in asked else _fork(asked, train)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _poll(pid: int) -> int | None:
    found, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


def _fork(asked: dict[str, Any], script: Any) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        log = os.open(asked["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ.update(asked["environment"])
        script.main(Path(asked["run"]))
    finally:  # it ends itself; should it not, this copy of the nursery must not go on
        os._exit(1)


if __name__ == "__main__":
    _serve()
